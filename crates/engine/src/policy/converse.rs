//! Prompts are answered turn by turn: each later prompt contains the answers before it.

use std::time::Instant;

use candle_core::{Error, Result};

use super::kept_answers::OpenRequests;
use super::prompts::{Prompt, render};
use super::{Conversation, EvalWatch, LaterPrompt, Policy, PolicyVersion, ScoredRow, ScoredRows, Turn};
use crate::dataset::PromptRow;
use crate::rollout::{DecodeCounts, GpuFallback, Request, RolloutOutput, Sampling};
use crate::score::{Scorer, Task};

/// How a policy converses.
#[derive(Clone, Copy, Debug)]
pub struct ConverseSettings<'a> {
    /// By [`Prompt::task`].
    pub tasks: &'a [ScoredTask<'a>],
    pub version: PolicyVersion,
    pub sampling: &'a Sampling,
    /// Later turns are not asked.
    pub max_turns: usize,
}

impl<'a> ConverseSettings<'a> {
    /// Of whole conversations.
    pub fn new(tasks: &'a [ScoredTask<'a>], version: PolicyVersion, sampling: &'a Sampling) -> Self {
        Self { tasks, version, sampling, max_turns: usize::MAX }
    }
}

/// A task whose rows are answered, with its scorer.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTask<'a> {
    pub task: &'a Task,
    pub scorer: &'a Scorer,
    /// The limit of a later turn's prompt; a conversation that would pass it ends.
    pub max_prompt_tokens: usize,
}

/// A prompt, and how its first turn is sampled.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub prompt: &'a Prompt,
    pub request: Request,
}

/// Conversations, and what they took.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Conversed {
    /// By question, then by sample.
    pub conversations: Vec<Vec<Conversation>>,
    pub counts: DecodeCounts,
    pub gpu_fallbacks: Vec<GpuFallback>,
    /// In decoding.
    pub rollout_seconds: f64,
    /// In scoring and rendering.
    pub score_seconds: f64,
}

/// What is asked in one turn: answered by the conversations from `first_conversation` on of a question.
struct TurnRequest {
    question: usize,
    task: usize,
    first_conversation: usize,
    request: Request,
    row: PromptRow,
    /// `None` in the first turn.
    prompt: Option<LaterPrompt>,
}

impl TurnRequest {
    /// Against which an answer is scored.
    fn row<'a>(&'a self, settings: &ConverseSettings<'a>) -> ScoredRow<'a> {
        ScoredRow { scorer: settings.tasks[self.task].scorer, row: &self.row }
    }
}

/// Numbers of samples in the random numbers of a turn.
const SAMPLES_OF_TURN: u32 = 1 << 16;

impl Policy {
    /// Answers each question, and scores what it answers. `watch` learns of answers as they end.
    ///
    /// # Errors
    /// A failed tensor operation, cancelled work, and texts that the template or the tokenizer does not take.
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        mut watch: Option<&mut EvalWatch<'_>>,
    ) -> Result<Conversed> {
        let start = Instant::now();
        let empty = |question: &Question<'_>| vec![Conversation::default(); question.request.samples];
        let mut found = Conversed { conversations: questions.iter().map(empty).collect(), ..Conversed::default() };
        let mut open = first_turn(questions);
        while !open.is_empty() {
            let before = Instant::now();
            let generated = self.answer(&open, settings, watch.as_deref_mut())?;
            found.rollout_seconds += before.elapsed().as_secs_f64();
            found.counts += generated.counts;
            found.gpu_fallbacks.extend(generated.gpu_fallbacks);
            let scored = self.score(generated.completions, open.iter().map(|asked| asked.row(settings)))?;
            for (asked, turns) in open.iter().zip(scored) {
                let conversations = &mut found.conversations[asked.question][asked.first_conversation..];
                for (conversation, turn) in conversations.iter_mut().zip(turns) {
                    conversation.turns.push(Turn { prompt: asked.prompt.clone(), ..turn });
                }
            }
            open = self.next_turn(questions, &found.conversations, settings, &open)?;
        }
        for (question, conversations) in questions.iter().zip(&mut found.conversations) {
            let scorer = settings.tasks[question.prompt.task].scorer;
            for Conversation { turns } in conversations {
                scorer.join(&mut turns.iter_mut().map(|turn| &mut turn.score).collect::<Vec<_>>());
            }
        }
        found.score_seconds = start.elapsed().as_secs_f64() - found.rollout_seconds;
        Ok(found)
    }

    /// The completions of one turn: those that an earlier attempt has left, and the others sampled.
    fn answer(
        &self,
        open: &[TurnRequest],
        settings: &ConverseSettings<'_>,
        watch: Option<&mut EvalWatch<'_>>,
    ) -> Result<RolloutOutput> {
        let requests: Vec<Request> = open.iter().map(|asked| asked.request.clone()).collect();
        let rows: ScoredRows<'_> =
            open.iter().map(|asked| (asked.request.prompt.as_slice(), asked.row(settings))).collect();
        let Some(watch) = watch else {
            return self.rollout_while_scoring(settings.version, &requests, settings.sampling, &rows, None);
        };
        let open_requests = OpenRequests::new(self.model_of(settings.version).0, &requests, watch.kept());
        let known = open_requests.known().map(|(index, completions)| (completions.clone(), open[index].row(settings)));
        let (completions, known_rows): (Vec<_>, Vec<_>) = known.unzip();
        let scores = self.score(completions, known_rows)?;
        watch.begin(&open_requests.requests, open_requests.kept(), scores.iter().flatten().map(|turn| &turn.score));
        let generated = self.rollout_while_scoring(
            settings.version,
            &open_requests.requests,
            settings.sampling,
            &rows,
            Some(watch),
        )?;
        Ok(RolloutOutput { completions: open_requests.joined(generated.completions), ..generated })
    }

    /// What the conversations of `open` that continue are asked next.
    fn next_turn(
        &self,
        questions: &[Question<'_>],
        conversations: &[Vec<Conversation>],
        settings: &ConverseSettings<'_>,
        open: &[TurnRequest],
    ) -> Result<Vec<TurnRequest>> {
        let mut next = Vec::new();
        for asked in open {
            let Question { prompt, request } = &questions[asked.question];
            let ScoredTask { task, max_prompt_tokens, .. } = settings.tasks[prompt.task];
            let answered = conversations[asked.question].iter().enumerate();
            for (sample, Conversation { turns }) in answered.skip(asked.first_conversation).take(asked.request.samples)
            {
                let continues = turns.last().is_some_and(|turn| turn.score.goes_on(&task.score));
                if !continues || turns.len() >= settings.max_turns || prompt.row.turn_count() == turns.len() {
                    continue;
                }
                let answers: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
                let Some(row) = prompt.row.after(&answers) else { continue };
                let Prompt { row, text, token_ids, .. } = render(task, row, &self.tokenizer).map_err(Error::wrap)?;
                // Planned for, unless the template writes more around an answer than around none.
                if token_ids.len() > max_prompt_tokens {
                    continue;
                }
                let request = Request {
                    prompt: token_ids.clone(),
                    samples: 1,
                    first_sample: turns.len() as u32 * SAMPLES_OF_TURN + sample as u32,
                    ..request.clone()
                };
                let prompt = Some(LaterPrompt { id: row.id.clone(), text, token_ids });
                next.push(TurnRequest { first_conversation: sample, request, row, prompt, ..*asked });
            }
        }
        Ok(next)
    }
}

fn first_turn(questions: &[Question<'_>]) -> Vec<TurnRequest> {
    let ask = |(question, Question { prompt, request }): (usize, &Question<'_>)| TurnRequest {
        question,
        task: prompt.task,
        first_conversation: 0,
        request: request.clone(),
        row: prompt.row.clone(),
        prompt: None,
    };
    questions.iter().enumerate().map(ask).collect()
}
