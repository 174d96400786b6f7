//! Guided groups: if no completion of a group has the full reward, the last is replaced by an
//! answer with a higher reward than the others, so that a policy without success has a gradient.
//! The answer is the row's `expected`, or sampled under the task's grammar. With tools it is the
//! row's demonstration, or calls that search found to lead to the expected state, or a conversation
//! whose first completions are sampled under the grammar of a call: their structure is enforced,
//! their values are the model's.
//!
//! Its log-probs are the free policy's and its ratio is 1, so its tokens have the weight of sampled
//! ones. LUFFY (arXiv 2504.14945) instead divides by the other policy's probability, which is 1 for
//! an expected answer and starves tokens that the policy does not yet write.

use super::error::TrainError;
use super::groups::Group;
use super::trainer::Trainer;
use crate::environment::ChainEnd;
use crate::policy::{
    Conversation, ConverseSettings, PolicyVersion, Prompt, Question, ScoredRow, Turn,
    answer_to_learn, demonstrate,
};
use crate::prompts::demonstrated_turns;
use crate::rollout::{Completion, StopReason};

/// Guides single-turn groups without the full reward. `questions`: of the groups.
///
/// # Errors
/// Those of sampling and scoring.
pub(super) fn guide(
    trainer: &Trainer,
    groups: &mut [Group],
    questions: &[Question<'_>],
) -> Result<(), TrainError> {
    let mut failed = Vec::new();
    for (index, (group, question)) in groups.iter().zip(questions).enumerate() {
        if question.prompt.row.turn_count() == 1 && !group.has_success() {
            failed.push(index);
        }
    }
    let asked: Vec<Question<'_>> = failed
        .iter()
        .map(|index| questions[*index].clone())
        .collect();
    for GuidingAnswer { question, answer } in
        guiding_answers(trainer, PolicyVersion::Trained, &asked)?
    {
        let group = &mut groups[failed[question]];
        group.guide(answer, &trainer.advantage_rule(group.prompt));
    }
    Ok(())
}

/// A scored answer.
pub(super) struct GuidingAnswer {
    /// Index of its question.
    pub(super) question: usize,
    pub(super) answer: Turn,
}

/// Guiding answers, where there is one. `version`: samples for rows without an expected answer.
///
/// # Errors
/// Those of sampling and scoring.
pub(super) fn guiding_answers(
    trainer: &Trainer,
    version: PolicyVersion,
    questions: &[Question<'_>],
) -> Result<Vec<GuidingAnswer>, TrainError> {
    if trainer.guides.is_empty() {
        return Ok(Vec::new());
    }
    let (mut indices, mut completions) = (Vec::new(), Vec::new());
    let (mut sampled, mut requests, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut begun = Vec::new();
    search(trainer, questions);
    for (index, question) in questions.iter().enumerate() {
        let task = trainer.task_of(question.prompt).task();
        if task.agent().is_some() {
            // Its requests are its program's.
            continue;
        }
        if task.toolset().is_some() {
            match demonstrated(trainer, question.prompt)? {
                Some(answer) => answers.push(GuidingAnswer {
                    question: index,
                    answer,
                }),
                None => begun.push(index),
            }
        } else if let Some(completion) = expected_completion(trainer, question.prompt)? {
            indices.push(index);
            completions.push(vec![completion]);
        } else if let Some(request) = trainer.guides[question.prompt.task].request(question) {
            sampled.push(index);
            requests.push(request);
        }
    }
    if !requests.is_empty() {
        let ended = trainer
            .policy
            .rollout(version, &requests, &trainer.sampling()?)?
            .completions;
        for (index, completion) in sampled.into_iter().zip(ended.into_iter().flatten()) {
            if completion.stop == StopReason::Stop {
                indices.push(index);
                completions.push(vec![guiding(completion.token_ids)]);
            }
        }
    }
    answers.extend(with_calls(trainer, version, questions, begun)?);
    let row = |index: &usize| {
        let prompt = questions[*index].prompt;
        ScoredRow {
            scorer: &trainer.task_of(prompt).scorer,
            row: &prompt.row,
        }
    };
    let scored = trainer.policy.score(completions, indices.iter().map(row))?;
    let scored = indices.into_iter().zip(scored.into_iter().flatten());
    answers.extend(scored.map(|(question, answer)| GuidingAnswer { question, answer }));
    Ok(answers)
}

/// Searches calls for rows without a demonstration.
fn search(trainer: &Trainer, questions: &[Question<'_>]) {
    for (index, (guide, task)) in trainer.guides.iter().zip(&trainer.tasks).enumerate() {
        let prompts = questions.iter().map(|question| question.prompt);
        let prompts: Vec<&Prompt> = prompts.filter(|prompt| prompt.task == index).collect();
        guide.search(task.task(), &task.scorer, &prompts);
    }
}

/// Conversations about these questions that begin with calls under the grammar, where an answer
/// ends them.
///
/// # Errors
/// Those of sampling, tools and scoring.
fn with_calls(
    trainer: &Trainer,
    version: PolicyVersion,
    questions: &[Question<'_>],
    without: Vec<usize>,
) -> Result<Vec<GuidingAnswer>, TrainError> {
    let (mut indices, mut asked) = (Vec::new(), Vec::new());
    for index in without {
        let prompt = questions[index].prompt;
        if let Some(request) = trainer.guides[prompt.task].request(&questions[index]) {
            indices.push(index);
            asked.push(Question { prompt, request });
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let (tasks, sampling) = (trainer.scored_tasks(), trainer.sampling()?);
    let settings = ConverseSettings::new(&tasks, version, &sampling);
    let conversed = trainer.policy.converse(&asked, &settings, None)?;
    let held = conversed.conversations.into_iter().flatten();
    let guiding = |(question, held): (usize, Conversation)| {
        let mut answer = held.turns.into_iter().next()?;
        let tools = answer
            .tools
            .as_mut()
            .filter(|tools| tools.end == ChainEnd::Answer)?;
        for step in &mut tools.steps {
            step.completion = guiding(std::mem::take(&mut step.completion.token_ids));
        }
        answer.completion = guiding(answer.completion.token_ids);
        Some(GuidingAnswer { question, answer })
    };
    Ok(indices.into_iter().zip(held).filter_map(guiding).collect())
}

/// The conversation of the row's demonstration, or of the calls found for it; `None` where it has
/// none, or it is too long.
///
/// # Errors
/// Those of the task's tools, and of the chat template.
pub(super) fn demonstrated(trainer: &Trainer, prompt: &Prompt) -> Result<Option<Turn>, TrainError> {
    let (tasks, tokenizer) = (trainer.scored_tasks(), &trainer.policy.tokenizer);
    let most = trainer.task_of(prompt).part.max_completion_tokens;
    let turns = match trainer.guides.get(prompt.task) {
        Some(guide) => guide.turns(prompt),
        None => demonstrated_turns(&prompt.row),
    };
    Ok(demonstrate(
        tokenizer,
        &tasks[prompt.task],
        prompt,
        turns,
        most,
    )?)
}

/// The row's expected answer with the end of turn; `None` if missing or too long.
fn expected_completion(
    trainer: &Trainer,
    prompt: &Prompt,
) -> Result<Option<Completion>, TrainError> {
    let task = trainer.task_of(prompt);
    let tokenizer = &trainer.policy.tokenizer;
    let answer = answer_to_learn(task.task(), &task.scorer, tokenizer, &prompt.row)?;
    let Some(answer) = answer else {
        return Ok(None);
    };
    let token_ids = tokenizer.answer_ids(&answer)?;
    let fits = token_ids.len() <= task.part.max_completion_tokens.min(prompt.most_tokens);
    Ok(fits.then(|| guiding(token_ids)))
}

fn guiding(token_ids: Vec<u32>) -> Completion {
    Completion::new(token_ids, Vec::new(), StopReason::Guided)
}
