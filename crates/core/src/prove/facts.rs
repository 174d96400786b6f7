//! What was measured, before anything is concluded.

use super::Reference;
use super::replies::Likeness;
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
    /// By setting; the reason if the server answers none.
    pub(super) settings: Vec<(Setting, Result<SettingFacts, String>)>,
    /// Whether a schema that no model would follow by itself was followed.
    pub(super) schema: Result<SchemaFact, String>,
    pub(super) batch: Result<BatchFacts, String>,
    pub(super) stream: Result<StreamFacts, String>,
    /// Calls of the run in the server's parsed answers; `None` for tasks without calls.
    pub(super) calls: Option<Result<CallFacts, String>>,
    /// Answers that are in the server's reasoning alone.
    pub(super) in_think: usize,
    /// As the request is sent, then with the run's `chat_template_kwargs`, if they were not and answers differ.
    pub(super) thinking: ThinkFacts,
    pub(super) thinking_with_kwargs: Option<ThinkFacts>,
    pub(super) has_thinking_switch: bool,
    /// What the server calls the model; asked for where it may be rounded.
    pub(super) model_names: Vec<String>,
}

/// Chat answers with and without thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ThinkFacts {
    pub(super) compared: usize,
    /// With thoughts where the run's answer has none.
    pub(super) more: usize,
    /// Other answers, without thoughts where the run's has some.
    pub(super) less: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// As a client asks.
    Chat,
    /// Token ids in, the sampled text out.
    Raw,
    Schema,
}

impl Setting {
    pub(super) const ALL: [Self; 3] = [Self::Chat, Self::Raw, Self::Schema];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Raw => "completions, token ids in",
            Self::Schema => "chat with response_format",
        }
    }
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
    /// Mean |server - run|, mean of server - run, and largest |server - run|; nats/token.
    pub(super) mean: f64,
    pub(super) bias: f64,
    pub(super) max: f64,
    /// Correlation of the server's log-probs with the run's.
    pub(super) correlation: f64,
    /// The reason if the base's log-probs were not computed.
    pub(super) base: Result<BaseDistance, String>,
    /// Median of |server - run|, and the share of tokens that the server finds likelier than the run.
    pub(super) median: f64,
    pub(super) likelier: f64,
    /// Mean |server - run with the adapter doubled|, if computed.
    pub(super) twice: Option<f64>,
    /// The step of the run's other checkpoint whose log-probs are nearest, and their mean |difference|.
    pub(super) other_step: Option<(u64, f64)>,
    /// Least-squares slope of server - base on run - base, and the share of the difference that is left.
    pub(super) slope: Option<(f64, f64)>,
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
    pub(super) longer: usize,
    pub(super) shorter: usize,
    /// Others that leave the run's answer where the largest difference of a log-prob explains it.
    pub(super) noisy: usize,
    pub(super) example: String,
    /// Why some prompts have no answer; empty if all have.
    pub(super) reason: String,
}

impl SettingFacts {
    pub(super) fn count(&mut self, likeness: Likeness) {
        self.result.same += usize::from(likeness.is_alike());
        self.result.comparable += usize::from(likeness != Likeness::Unknown);
        self.longer += usize::from(likeness == Likeness::Longer);
        self.shorter += usize::from(likeness == Likeness::Shorter);
    }

    pub(super) fn others(&self) -> usize {
        self.result.comparable - self.result.same
    }
}

/// The same prompts alone, and many at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct BatchFacts {
    pub(super) prompts: usize,
    /// As the run's in one batch and not in the other.
    pub(super) changed: usize,
    /// Not as the run's in both, and not the same.
    pub(super) unlike: usize,
    pub(super) at_once: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StreamFacts {
    pub(super) prompts: usize,
    pub(super) differ: usize,
    pub(super) broken: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CallFacts {
    /// Valid answers of the run with calls, to which the server's answer is the same text where it is not parsed, or
    /// whose text is not known.
    pub(super) compared: usize,
    /// Of those, without `tool_calls`, and with other ones.
    pub(super) missing: usize,
    pub(super) wrong: usize,
    /// Of both, those whose sampled text is not known.
    pub(super) untold: usize,
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
            settings: Vec::new(),
            schema: Err(not_asked.clone()),
            batch: Err(not_asked.clone()),
            stream: Err(not_asked),
            calls: None,
            in_think: 0,
            thinking: ThinkFacts::default(),
            thinking_with_kwargs: None,
            has_thinking_switch: reference
                .prompts
                .iter()
                .any(|prompt| prompt.other_ids.is_some()),
            model_names: Vec::new(),
        }
    }

    /// Whether log-probs are beyond the limit, or explain other answers.
    pub(super) fn may_be_rounded(&self) -> bool {
        let is_noisy = |facts: &SettingFacts| facts.noisy > 0;
        let mut settings = self.settings.iter();
        self.log_probs
            .as_ref()
            .is_ok_and(|found| found.mean > self.max_nats)
            || settings.any(|(_, facts)| facts.as_ref().is_ok_and(is_noisy))
    }

    /// Answers are not asked for.
    pub(super) fn leave_answers(&mut self, reference: &Reference<'_>, why: &str) {
        self.batch = Err(why.to_owned());
        self.stream = Err(why.to_owned());
        self.schema = Err(why.to_owned());
        self.calls = reference.has_calls.then(|| Err(why.to_owned()));
        let left = |setting| (setting, Err(why.to_owned()));
        self.settings = Setting::ALL.map(left).into();
    }

    /// Whether the server renders prompts otherwise than the run, as far as it tells.
    pub(super) fn has_other_prompts(&self) -> bool {
        self.ids.as_ref().is_ok_and(|ids| ids.fault.is_some())
    }

    pub(super) fn into_settings(self) -> Vec<SettingResult> {
        let results = self.settings.into_iter();
        results
            .filter_map(|(_, facts)| facts.ok())
            .map(|facts| facts.result)
            .collect()
    }
}
