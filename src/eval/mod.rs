//! Evals and requested completions: prompts are prepared, completions sampled and scored, one record each.

#[cfg(feature = "parity")]
mod candle_parity; // the same log-probs by another implementation
mod guard; // what a model should not forget
mod kept_answers; // answers on disk, for the next attempt at an interrupted eval
mod prompts; // rows as the model reads them
mod sample; // one prompt's completions for a user
mod sample_server; // a model that stays loaded to be sampled from
mod turns; // conversations: later prompts from earlier answers
mod watch; // how far an eval is

use std::time::Instant;

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::dataset::PromptRow;
use crate::rollout::{Completion, Request, RolloutContext, Sampling, ScoredCompletion, StopReason};
use crate::run::{EvalRecord, EvalTurn};
use crate::score::Scorer;
use crate::task::Task;
use crate::text::TextError;

#[cfg(feature = "parity")]
pub use candle_parity::{LogProbAgreement, parity_with_candle};
pub use guard::{GuardPrompt, guard_exact, guard_log_probs, guard_requests, prepare_guard};
pub use kept_answers::{KeptAnswers, OpenRequests};
pub use prompts::{Lengths, Prompt, PromptError, prepare, prepare_rows};
pub use sample::{SampleError, SampleSource, resolve_task, sample_row, sampled, task_limit};
pub use sample_server::serve;
pub use turns::{LaterAnswer, later_turns};
pub use watch::EvalWatch;

#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Text(#[from] crate::text::TextError),
    #[error("{0}")]
    Scorer(#[from] crate::score::ScorerErrors),
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    #[error("{prompt_id}: the constraint failed after {tokens} tokens: simplify the schema or pattern")]
    Stuck { prompt_id: String, tokens: usize },
}

/// The step of an eval's random numbers; no training has it, so an eval never repeats a rollout.
const EVAL_STEP: u32 = u32::MAX;
/// The same for requested samples; a training begins with step 1.
pub const SAMPLE_STEP: u32 = 0;

/// Requests for `samples` completions of each prompt, numbered in order.
pub fn requests(prompts: &[Prompt], step: u32, samples: usize) -> Vec<Request> {
    let request =
        |(prompt_number, prompt): (u32, &Prompt)| Request::new(prompt.token_ids.clone(), prompt_number, step, samples);
    (0..).zip(prompts).map(request).collect()
}

/// Requests for the likeliest completion of each prompt.
pub fn greedy_requests(prompts: &[Prompt]) -> impl Iterator<Item = Request> {
    requests(prompts, EVAL_STEP, 1).into_iter().map(|request| Request { greedy: true, ..request })
}

/// Samples and scores `samples` completions of every prompt, as `watch` sees; records are in prompt order. `most_tokens`:
/// of a prompt.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate(
    (context, task, scorer): (RolloutContext<'_>, &Task, &Scorer),
    (prompts, constraints): (&[Prompt], Option<&TaskConstraints>),
    most_tokens: usize,
    sampling: &Sampling,
    samples: usize,
    watch: &mut EvalWatch<'_>,
) -> Result<Vec<EvalRecord>, EvalError> {
    let mut requests = requests(prompts, EVAL_STEP, samples);
    if let Some(constraints) = constraints {
        for (request, prompt) in requests.iter_mut().zip(prompts) {
            request.constraint = Some(constraints.for_row(&prompt.row, &prompt.text)?);
        }
    }
    let start = Instant::now();
    let completions = sample_open((context, scorer), &requests, prompts, sampling, watch)?;
    let asked = Asked { prompts, requests: &requests, most_tokens, seconds: start.elapsed().as_secs_f64() };
    records((context, task, scorer), asked, completions, |requests| {
        sample_open((context, scorer), requests, &[], sampling, watch)
    })
}

/// The completions of one turn: those that are kept, and the others sampled. `prompts`: of the first turn.
fn sample_open(
    (context, scorer): (RolloutContext<'_>, &Scorer),
    requests: &[Request],
    prompts: &[Prompt],
    sampling: &Sampling,
    watch: &mut EvalWatch<'_>,
) -> Result<Vec<Vec<Completion>>, EvalError> {
    let each: Vec<&[Request]> = requests.iter().map(std::slice::from_ref).collect();
    let open = OpenRequests::of(&each, watch.kept());
    watch.begin(&open.requests, open.kept(), &open.kept_scores(context, scorer, prompts)?);
    let rows = prompts.iter().map(|prompt| (prompt.token_ids.as_slice(), &prompt.row));
    let sampled = context.rollout_while_scoring(&open.requests, sampling, scorer, rows, Some(watch))?;
    Ok(open.joined(sampled.completions))
}

/// What the completions of an eval answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub prompts: &'a [Prompt],
    /// By prompt.
    pub requests: &'a [Request],
    /// Of a prompt of any turn.
    pub most_tokens: usize,
    /// That the completions took.
    pub seconds: f64,
}

/// Scores the completions of every prompt, and what `sample` gives for later turns; records are in prompt order, one for
/// a conversation.
///
/// # Errors
/// Those of `sample`, and [`EvalError`].
pub fn records<E: From<EvalError> + From<TextError> + From<candle_core::Error>>(
    (context, task, scorer): (RolloutContext<'_>, &Task, &Scorer),
    Asked { prompts, requests, most_tokens, mut seconds }: Asked<'_>,
    completions: Vec<Vec<Completion>>,
    mut sample: impl FnMut(&[Request]) -> Result<Vec<Vec<Completion>>, E>,
) -> Result<Vec<EvalRecord>, E> {
    for (prompt, completions) in prompts.iter().zip(&completions) {
        if let Some(stuck) = completions.iter().find(|completion| completion.stop == StopReason::Constraint) {
            let (prompt_id, tokens) = (prompt.row.id.clone(), stuck.token_ids.len());
            return Err(EvalError::Stuck { prompt_id, tokens }.into());
        }
    }
    let scored = context.score(scorer, completions, prompts.iter().map(|prompt| &prompt.row))?;
    let first: Vec<_> = prompts
        .iter()
        .zip(requests)
        .zip(&scored)
        .map(|((prompt, request), scored)| (prompt, request, &**scored))
        .collect();
    let later = later_turns((context, task, scorer), &first, most_tokens, |requests| {
        let start = Instant::now();
        let completions = sample(requests);
        seconds += start.elapsed().as_secs_f64();
        completions
    })?;
    let answers = || scored.iter().flatten().chain(later.iter().flatten().flatten().map(|answer| &answer.scored));
    scorer.check_errors(answers().map(|scored| &scored.score)).map_err(EvalError::from)?;
    let seconds = seconds / scored.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let mut records = Vec::new();
    for ((prompt, completions), later) in prompts.iter().zip(scored).zip(later) {
        let mut later: Vec<LaterAnswer> = later.into_iter().flatten().collect();
        for (sample, first) in completions.into_iter().enumerate() {
            let mut answers = vec![first];
            answers.extend(later.extract_if(.., |answer| answer.sample == sample).map(|answer| answer.scored));
            records.push(EvalRecord { seconds, ..record(&prompt.row, sample, answers, scorer)? });
        }
    }
    Ok(records)
}

/// The record of a conversation, with the outcome of the answer that decides it.
fn record(
    row: &PromptRow,
    sample: usize,
    mut answers: Vec<ScoredCompletion>,
    scorer: &Scorer,
) -> Result<EvalRecord, EvalError> {
    scorer.join(&mut answers.iter_mut().map(|answer| &mut answer.score).collect::<Vec<_>>());
    let tokens = |answer: &ScoredCompletion| answer.completion.token_ids.len();
    let turn = |answer: &ScoredCompletion| EvalTurn {
        completion: answer.text.clone(),
        tokens: Some(tokens(answer)),
        ..EvalTurn::default()
    };
    let mut record = EvalRecord {
        prompt_id: row.id.clone(),
        sample,
        tags: row.tags.clone(),
        tokens: Some(answers.iter().map(tokens).sum()),
        truncated: answers.iter().any(|answer| answer.completion.stop == StopReason::Length),
        unanswered: row.turn_count() - answers.len(),
        turns: if row.turn_count() > 1 { answers.iter().map(turn).collect() } else { Vec::new() },
        ..EvalRecord::default()
    };
    let (scores, texts): (Vec<_>, Vec<_>) = answers.into_iter().map(|answer| (answer.score, answer.text)).unzip();
    record.completion = texts.into_iter().next().unwrap_or_default();
    record.judge(&scores)?;
    Ok(record)
}
