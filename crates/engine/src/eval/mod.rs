//! Evals: samples and scores completions of held-out prompts, one record each.

mod guard; // tokenized guard prompts

use crate::confidence::{AnswerConfidence, set_agreement};
use crate::constraint::{ConstraintError, TaskConstraints};
use crate::environment::ToolChain;
use crate::leaf_confidence::{GivenAnswer, answer_confidence};
use crate::model::without_breaks;
use crate::policy::{
    Conversation, ConverseSettings, Conversed, EVAL_STEP, EvalWatch, Policy, PolicyVersion, Prompt,
    Question, Turn,
};
use crate::rollout::{Request, StopReason};
use crate::run::{EvalRecord, EvalTurn};
use crate::score::Scorer;
use crate::update::ReadingModel;

pub use guard::{GuardPrompt, prepare_guard};

#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Scorer(#[from] crate::score::ScorerErrors),
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// Requests for `samples` completions per prompt, ids in order.
pub fn requests(prompts: &[Prompt], step: u32, samples: usize) -> Vec<Request> {
    let request = |(prompt_number, prompt): (u32, &Prompt)| {
        Request::new(prompt.token_ids.clone(), prompt_number, step, samples)
    };
    (0..).zip(prompts).map(request).collect()
}

/// Questions for each prompt's greedy completion.
pub fn greedy_questions(prompts: &[Prompt]) -> Vec<Question<'_>> {
    let greedy = |(prompt, request)| Question {
        prompt,
        request: Request {
            greedy: true,
            ..request
        },
    };
    prompts
        .iter()
        .zip(requests(prompts, EVAL_STEP, 1))
        .map(greedy)
        .collect()
}

/// What an eval asks of each prompt.
#[derive(Clone, Copy, Debug)]
pub struct EvalRequest<'a> {
    pub samples: usize,
    /// Completions are sampled under them.
    pub constraints: Option<&'a TaskConstraints>,
    /// Values get their confidence under them.
    pub confidence: Option<&'a TaskConstraints>,
}

/// Samples and scores completions of each prompt of one task, reporting to `watch`; records are in
/// prompt order.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate(
    policy: &Policy,
    prompts: &[Prompt],
    asked: EvalRequest<'_>,
    settings: &ConverseSettings<'_>,
    watch: &mut EvalWatch<'_>,
) -> Result<Vec<EvalRecord>, EvalError> {
    let mut questions = Vec::with_capacity(prompts.len());
    let requests = requests(prompts, EVAL_STEP, asked.samples);
    for (prompt, mut request) in prompts.iter().zip(requests) {
        if let Some(constraints) = asked.constraints {
            request.constraint = Some(constraints.for_row(&prompt.row, &prompt.text)?);
        }
        questions.push(Question { prompt, request });
    }
    let Conversed {
        conversations,
        rollout_seconds,
        ..
    } = policy.converse(&questions, settings, Some(watch))?;
    let scorer = settings.tasks[0].scorer;
    let confidences = asked
        .confidence
        .map(|constraints| {
            confidences(
                policy,
                settings.version,
                prompts,
                constraints,
                &conversations,
            )
        })
        .transpose()?;
    let mut records = records(prompts, conversations, scorer, rollout_seconds)?;
    for (record, confidence) in records.iter_mut().zip(confidences.into_iter().flatten()) {
        record.confidence = Some(Box::new(confidence));
    }
    Ok(records)
}

/// The confidence of each value of all conversations, of one turn each, in order. `constraints`: of
/// the task, whether answers were sampled under them or not.
///
/// # Errors
/// [`EvalError`].
pub fn confidences(
    policy: &Policy,
    version: PolicyVersion,
    prompts: &[Prompt],
    constraints: &TaskConstraints,
    conversations: &[Vec<Conversation>],
) -> Result<Vec<AnswerConfidence>, EvalError> {
    let (model, adapters) = policy.model_of(version);
    let reading = ReadingModel {
        model,
        adapters,
        own: None,
    };
    let mut compiled = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        compiled.push(constraints.for_row(&prompt.row, &prompt.text)?);
    }
    let given = prompts.iter().zip(&compiled).zip(conversations);
    let given = given.flat_map(|((prompt, constraint), samples)| {
        samples.iter().map(|conversation| GivenAnswer {
            prompt: &prompt.token_ids,
            completion: conversation
                .turns
                .first()
                .map_or(&[], |turn| &turn.completion.token_ids),
            vocabulary: constraint.vocabulary(),
            constraint: Some(constraint),
        })
    });
    let given: Vec<GivenAnswer<'_>> = given.collect();
    let read = |answer: &GivenAnswer<'_>| without_breaks(answer_confidence(reading, answer));
    let mut found = policy.threads.map(&given, read)?;
    judge_confidences(&mut found, conversations);
    Ok(found)
}

/// Completes the confidences of all conversations, in order: which values are right and stated, and
/// agreement.
pub fn judge_confidences(found: &mut [AnswerConfidence], conversations: &[Vec<Conversation>]) {
    let mut rest = found.iter_mut();
    for samples in conversations {
        let mut judged = Vec::with_capacity(samples.len());
        for (conversation, confidence) in samples.iter().zip(rest.by_ref()) {
            let Some(turn) = conversation.turns.first() else {
                judged.push(("", confidence));
                continue;
            };
            confidence.judge(&turn.text, &turn.score);
            judged.push((turn.text.as_str(), confidence));
        }
        set_agreement(&mut judged);
    }
}

/// Records of conversations, in prompt order. `seconds`: of all together.
///
/// # Errors
/// [`EvalError::Scorer`] if too many have no score, and [`EvalError::Json`].
pub fn records(
    prompts: &[Prompt],
    conversations: Vec<Vec<Conversation>>,
    scorer: &Scorer,
    seconds: f64,
) -> Result<Vec<EvalRecord>, EvalError> {
    let all = || conversations.iter().flatten();
    scorer.check_errors(
        all()
            .flat_map(|conversation| &conversation.turns)
            .map(|turn| &turn.score),
    )?;
    let seconds = seconds / all().count().max(1) as f64;
    let mut records = Vec::with_capacity(prompts.len());
    for (prompt, conversations) in prompts.iter().zip(conversations) {
        for (sample, conversation) in conversations.into_iter().enumerate() {
            records.push(EvalRecord {
                sample,
                seconds,
                ..record(prompt, conversation)?
            });
        }
    }
    Ok(records)
}

/// The chain without tokens, which eval records lack.
fn chain(turn: &Turn) -> Option<Box<ToolChain>> {
    Some(Box::new(turn.tools.as_ref()?.chain().without_ids()))
}

fn call_seconds(turn: &Turn) -> Vec<f64> {
    turn.tools
        .as_ref()
        .map_or_else(Vec::new, |tools| tools.call_seconds.clone())
}

/// Record of a conversation, with the outcome of its deciding answer.
///
/// # Errors
/// [`EvalError::Json`].
pub fn record(prompt: &Prompt, conversation: Conversation) -> Result<EvalRecord, EvalError> {
    let (row, mut turns) = (&prompt.row, conversation.turns);
    for Turn {
        completion, score, ..
    } in &mut turns
    {
        if completion.stop == StopReason::Constraint {
            score.name_failed_constraint(completion.token_ids.len());
        }
    }
    let tokens = Turn::sampled_tokens;
    let recorded = |turn: &Turn| EvalTurn {
        completion: turn.text.clone(),
        tokens: Some(tokens(turn)),
        chain: chain(turn),
        call_seconds: call_seconds(turn),
        ..EvalTurn::default()
    };
    let mut record = EvalRecord {
        prompt_id: row.id.clone(),
        tags: row.tags.clone(),
        tokens: Some(turns.iter().map(tokens).sum()),
        truncated: turns.iter().any(|turn| turn.completion.stop.is_truncated()),
        unanswered: row.turn_count() - turns.len(),
        chain: turns
            .first()
            .filter(|_| row.turn_count() == 1)
            .and_then(chain),
        call_seconds: turns
            .first()
            .filter(|_| row.turn_count() == 1)
            .map(call_seconds)
            .unwrap_or_default(),
        turns: if row.turn_count() > 1 {
            turns.iter().map(recorded).collect()
        } else {
            Vec::new()
        },
        ..EvalRecord::default()
    };
    let (scores, texts): (Vec<_>, Vec<_>) = turns
        .into_iter()
        .map(|turn| (turn.score, turn.text))
        .unzip();
    record.completion = texts.into_iter().next().unwrap_or_default();
    record.judge(&scores)?;
    Ok(record)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::PromptRow;
    use crate::rollout::Completion;
    use crate::score::{FailureClass, Score};

    /// A valid answer stays valid.
    #[test]
    fn a_failed_constraint_is_the_failure_of_its_row() {
        for (tier, failure) in [
            ("unparsable", Some(FailureClass::Constraint)),
            ("valid", None),
        ] {
            let prompt = Prompt {
                row: PromptRow {
                    id: "p".to_owned(),
                    messages: Vec::new(),
                    expected: None,
                    tags: Vec::new(),
                    fields: Default::default(),
                    line: 1,
                },
                task: 0,
                text: String::new(),
                token_ids: vec![9],
                most_tokens: 1,
                most_completions: 1,
            };
            let score: Score = serde_json::from_value(json!({
                "reward": 0.0, "tier": tier, "tolerant": false, "warnings": [], "errors": [],
                "fields": null, "exact": null, "failure": null, "parts": {},
            }))
            .unwrap();
            let completion = Completion::new(vec![1; 3], vec![-1.0; 3], StopReason::Constraint);
            let turns = vec![Turn::new(completion, "{".to_owned(), score)];
            let record = record(&prompt, Conversation { turns }).unwrap();
            assert_eq!(record.failure(), failure);
            let reason = record.score["errors"][0]["message"].as_str();
            let expected = "the constraint failed after 3 tokens: simplify the schema or pattern";
            assert_eq!(reason, failure.map(|_| expected));
            assert_eq!(record.tier.name(), tier);
        }
    }
}
