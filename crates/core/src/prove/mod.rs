//! A server compared with a run: ids of prompts, log-probs of the run's answers, texts, one enforced schema; and the
//! cause of what differs.

mod asker; // requests
mod decide; // facts -> checks and causes
mod facts; // what was measured
mod ids; // what the server makes of a prompt
mod log_probs; // its log-probs of the run's answers
mod replies; // its answers
mod settings; // answers, as asked for and with a schema

use std::sync::atomic::Ordering;

use serde_json::{Map, Value};

use crate::api_client::{ApiError, Endpoint, ProbePath};
use crate::dataset::PromptRow;
use crate::run::{EvalRecord, ProveRecord, now_ms};
use crate::score::Scorer;
use crate::text::Tokenizer;

pub use asker::Asker;

/// A prompt as the run has it.
#[derive(Debug)]
pub struct ProvePrompt {
    pub row: PromptRow,
    /// The request, as an eval of the endpoint sends it.
    pub body: Map<String, Value>,
    pub token_ids: Vec<u32>,
    /// `response_format` of its schema.
    pub response_format: Option<Value>,
    /// `None` if the run has none.
    pub answer: Option<RunAnswer>,
}

/// The run's greedy answer.
#[derive(Debug)]
pub struct RunAnswer {
    pub record: EvalRecord,
    pub token_ids: Vec<u32>,
    /// Nats; empty without weights.
    pub log_probs: Vec<f32>,
    /// How much likelier each token is than the likeliest other one, nats; empty without weights.
    pub margins: Vec<f32>,
}

/// Other weights that a server may have by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWeights {
    Base,
    AdapterTwice,
    /// The run's checkpoint of another step.
    Step(u64),
}

/// The run's side of the comparison.
#[derive(Debug)]
pub struct Reference<'a> {
    pub endpoint: &'a Endpoint,
    pub prompts: &'a [ProvePrompt],
    pub tokenizer: &'a Tokenizer,
    /// Reads OpenAI's messages.
    pub scorer: &'a Scorer,
    /// Variables with which the template renders as in the run.
    pub kwargs: Map<String, Value>,
    /// Whether it is an adapter's run.
    pub has_adapter: bool,
    /// Steps of the run's other checkpoints, the nearest first.
    pub other_steps: Vec<u64>,
    /// Why answers cannot be compared; empty if they can.
    pub why_no_answers: String,
    /// Limit of the mean |difference| of log-probs, nats/token.
    pub max_nats: f64,
    pub at_once: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nothing could be compared.
    #[error("{0}")]
    Unreachable(String),
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why answers are not asked for: they would be those of the base.
const UNTRAINED: &str = "not asked: the server has the weights of before training";

/// Compares. `other_weights`: log-probs of all answers under other weights, by prompt; asked for if those of the run
/// differ from the server's.
///
/// # Errors
/// [`ProveError::Unreachable`] if the server answers nothing.
pub fn prove(
    reference: &Reference<'_>,
    asker: &Asker<'_>,
    other_weights: impl Fn(OtherWeights) -> Result<Vec<Vec<f32>>, String>,
) -> Result<ProveRecord, ProveError> {
    let mut facts = facts::Facts::new(reference);
    if let Some(first) = reference.prompts.first() {
        asker
            .one("first answer", ProbePath::Chat, first.body.clone().into())
            .map_err(ProveError::Unreachable)?;
    }
    ids::measure(reference, asker, &mut facts);
    facts.log_probs = log_probs::measured(reference, asker, &facts, &other_weights);
    let has_base = |found: &facts::LogProbFacts| found.is_base() == Some(true);
    if facts.log_probs.as_ref().is_ok_and(has_base) {
        let not_asked = || UNTRAINED.to_owned();
        (facts.chat, facts.format) = (Err(not_asked()), Err(not_asked()));
        facts.schema = Err(not_asked());
    } else {
        settings::measure(reference, asker, &mut facts)?;
    }
    let (checks, findings) = decide::decide(&facts);
    Ok(ProveRecord {
        time_ms: now_ms(),
        base_url: reference.endpoint.base_url.clone(),
        model: reference.endpoint.model.clone(),
        prompts: reference.prompts.len(),
        max_nats: reference.max_nats,
        checks,
        findings,
        log_prob_difference: facts.log_probs.as_ref().ok().map(|found| found.mean),
        settings: [facts.chat, facts.format]
            .into_iter()
            .filter_map(|found| Some(found.ok()?.result))
            .collect(),
        requests: asker.requests.load(Ordering::Relaxed),
        ..ProveRecord::default()
    })
}
