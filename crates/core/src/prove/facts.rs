//! What was measured, before anything is concluded.

use super::Reference;
use crate::run::{ServingFault, SettingResult};

/// Shares of the distance from the run's log-probs within which other weights explain the server's.
pub(super) const EXPLAINED: f64 = 0.25;
/// Log-probs of two models that are this close are told apart by rounding alone.
const MIN_DISTANCE_NATS: f64 = 1e-4;

/// Everything that [`super::decide`] reads.
pub(super) struct Facts {
    /// Prompts rendered as the request is sent, then with the run's `chat_template_kwargs`; the reason if not told.
    pub(super) ids: Result<IdFacts, String>,
    pub(super) ids_with_kwargs: Option<IdFacts>,
    pub(super) kwargs: String,
    pub(super) log_probs: Result<LogProbFacts, String>,
    pub(super) has_adapter: bool,
    pub(super) max_nats: f64,
    /// As a client asks; the reason if the server answers none.
    pub(super) chat: Result<SettingFacts, String>,
    /// With `response_format`.
    pub(super) format: Result<SettingFacts, String>,
    /// Whether a schema that no model would follow by itself was followed.
    pub(super) schema: Result<SchemaFact, String>,
}

/// What `response_format` does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SchemaFact {
    Followed,
    /// Keys are in another order than the schema's.
    Reordered,
    Ignored,
}

/// Prompts of which the server told ids or counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct IdFacts {
    /// How the server told: `/tokenize`, `usage.prompt_tokens`.
    pub(super) channel: &'static str,
    pub(super) compared: usize,
    pub(super) differ: usize,
    /// The most frequent cause, and the first prompt that has it.
    pub(super) fault: Option<(ServingFault, String)>,
}

/// Mean |difference| from the log-probs of the model that training started from, nats/token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BaseDistance {
    pub(super) of_server: f64,
    pub(super) of_run: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogProbFacts {
    pub(super) channel: &'static str,
    pub(super) tokens: usize,
    pub(super) answers: usize,
    /// Mean and largest |server - run|; nats/token.
    pub(super) mean: f64,
    pub(super) max: f64,
    /// Correlation of the server's log-probs with the run's.
    pub(super) correlation: f64,
    /// The reason if the base's log-probs were not computed.
    pub(super) base: Result<BaseDistance, String>,
    /// Mean |server - run with the adapter doubled|, if computed.
    pub(super) twice: Option<f64>,
    /// The step of the run's other checkpoint whose log-probs are nearest, and their mean |difference|.
    pub(super) other_step: Option<(u64, f64)>,
}

impl LogProbFacts {
    /// Whether the server's weights are those that training started from; `None` where both are as near.
    pub(super) fn is_base(&self) -> Option<bool> {
        let base = self.base.as_ref().ok()?;
        let (near, far) = (base.of_server.min(self.mean), base.of_server.max(self.mean));
        let is_told = near <= EXPLAINED * far && base.of_run >= MIN_DISTANCE_NATS;
        is_told.then_some(base.of_server <= self.mean)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct SettingFacts {
    pub(super) result: SettingResult,
    /// Others that leave the run's answer where the largest difference of a log-prob explains it.
    pub(super) noisy: usize,
    pub(super) example: String,
    /// Why some prompts have no answer; empty if all have.
    pub(super) reason: String,
}

impl SettingFacts {
    pub(super) fn others(&self) -> usize {
        self.result.comparable - self.result.same
    }
}

impl Facts {
    pub(super) fn new(reference: &Reference<'_>) -> Self {
        let not_asked = "not asked".to_owned();
        Self {
            ids: Err(not_asked.clone()),
            ids_with_kwargs: None,
            kwargs: serde_json::Value::from(reference.kwargs.clone()).to_string(),
            log_probs: Err(not_asked.clone()),
            has_adapter: reference.has_adapter,
            max_nats: reference.max_nats,
            chat: Err(not_asked.clone()),
            format: Err(not_asked.clone()),
            schema: Err(not_asked),
        }
    }

    /// Whether the server renders prompts otherwise than the run, as far as it tells.
    pub(super) fn has_other_prompts(&self) -> bool {
        self.ids.as_ref().is_ok_and(|ids| ids.fault.is_some())
    }
}
