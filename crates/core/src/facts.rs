//! What records say: closed sets of words, as files, screens and reports write them. A record with another word is
//! damaged to this program: a new word needs a new version of what holds it.

use serde::{Deserialize, Serialize};

use crate::config::choices;

choices! {
    #[derive(Default, PartialOrd, Ord)]
    Tier {
        /// Not of the answer's form: no JSON, no query, nothing.
        #[default]
        Unparsable = "unparsable",
        /// The right form, but not accepted.
        Invalid = "invalid",
        Valid = "valid",
    }
}

choices! {
    TierOutcome {
        Unparsable = "unparsable",
        Invalid = "invalid",
        Valid = "valid",
        NotScored = "not scored",
    }
}

impl From<Tier> for TierOutcome {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Unparsable => Self::Unparsable,
            Tier::Invalid => Self::Invalid,
            Tier::Valid => Self::Valid,
        }
    }
}

choices! {
    /// Which weights an eval of a run measured.
    #[derive(Default, PartialOrd, Ord)]
    Target {
        Base = "base",
        #[default]
        Trained = "trained",
    }
}

choices! {
    #[derive(Default)]
    StopReason {
        #[default]
        Stop = "stop",
        /// `max_completion_tokens` reached.
        Length = "length",
        /// The think block was open at its limit.
        Thinking = "thinking",
        /// The grammar of its constraint became too complex, or no token could follow.
        Constraint = "constraint",
        /// Not sampled freely: a group's expected or constrained answer, without log-probs.
        Guided = "guided",
    }
}

impl TierOutcome {
    pub fn new(tier: Tier, is_error: bool) -> Self {
        if is_error {
            Self::NotScored
        } else {
            tier.into()
        }
    }
}

impl StopReason {
    pub fn is_truncated(self) -> bool {
        matches!(self, Self::Length | Self::Thinking)
    }
}

choices! {
    #[derive(Default)]
    PhaseKind {
        #[default]
        Load = "load",
        Rollout = "rollout",
        Update = "update",
        Eval = "eval",
        Checkpoint = "checkpoint",
        Paused = "paused",
    }
}

choices! {
    #[derive(Default, PartialOrd, Ord)]
    AlertLevel {
        Info = "info",
        #[default]
        Warning = "warning",
        Error = "error",
    }
}

choices! {
    /// How a policy is lost, as the alert of it is named.
    #[derive(Default)]
    Ruin {
        #[default]
        Collapsed = "collapsed",
        Diverged = "diverged",
    }
}

choices! {
    /// What a request to a worker asks for.
    #[derive(Default)]
    VerbName {
        #[default]
        Status = "status",
        Pause = "pause",
        Resume = "resume",
        Checkpoint = "checkpoint",
        Eval = "eval",
        Sample = "sample",
        Stop = "stop",
        Annotate = "annotate",
        Set = "set",
    }
}

choices! {
    #[derive(Default)]
    SaveReason {
        Start = "start",
        #[default]
        Interval = "interval",
        Eval = "eval",
        Asked = "asked",
        Interrupted = "interrupted",
        Recovered = "recovered",
        End = "end",
        /// A resumed run has it without its event.
        Found = "found",
    }
}

choices! {
    PartName {
        Tier = "tier",
        Graded = "graded",
        /// What a scorer gave in place of the tier's value.
        Score = "score",
        Fields = "fields",
        Exact = "exact",
        Tolerant = "tolerant",
        Chain = "chain",
        Grounded = "grounded",
        Length = "length",
    }
}

impl PartName {
    /// Those that `[[reward]]` asks for.
    pub const ASKED: [Self; 6] = [
        Self::Fields,
        Self::Exact,
        Self::Tolerant,
        Self::Chain,
        Self::Grounded,
        Self::Length,
    ];
}

choices! {
    #[derive(Default)]
    Job {
        /// The task's score.
        #[default]
        Train = "train",
        /// Expected answers.
        Sft = "sft",
    }
}

choices! {
    #[derive(Default)]
    Status {
        /// No worker has started yet.
        #[default]
        Created = "created",
        Waiting = "waiting",
        Starting = "starting",
        Running = "running",
        /// Between two steps, or where its disk is full.
        Paused = "paused",
        Stopping = "stopping",
        Finished = "finished",
        Failed = "failed",
        /// Stopped early, or its worker died; can be resumed.
        Interrupted = "interrupted",
    }
}

impl Status {
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Interrupted)
    }

    pub fn is_stopped(self, cause: Option<&Cause>) -> bool {
        self == Self::Interrupted && cause.is_some_and(|cause| cause.requested)
    }
}

/// Why a run ended or waits; written as the keys `cause` and `requested` of what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// A sentence.
    #[serde(rename = "cause")]
    pub sentence: String,
    /// A request or a signal asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
}

impl Cause {
    pub fn requested(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            requested: true,
        }
    }
}

impl<S: Into<String>> From<S> for Cause {
    fn from(sentence: S) -> Self {
        Self {
            sentence: sentence.into(),
            requested: false,
        }
    }
}

impl std::ops::Deref for Cause {
    type Target = str;

    fn deref(&self) -> &str {
        &self.sentence
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&self.sentence)
    }
}
