//! What records say: closed sets of words, as files, screens and reports write them. A record with another word is
//! damaged to this program: a new word needs a new version of what holds it.

use crate::config::choices;

choices! {
    /// How far a completion came.
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
    /// A tier, or that the scorer failed.
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
    /// Why a completion ended.
    #[derive(Default)]
    StopReason {
        /// A stop token.
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
    /// `is_error`: the scorer failed.
    pub fn new(tier: Tier, is_error: bool) -> Self {
        if is_error {
            Self::NotScored
        } else {
            tier.into()
        }
    }
}

impl StopReason {
    /// Whether a limit ended it.
    pub fn is_truncated(self) -> bool {
        matches!(self, Self::Length | Self::Thinking)
    }
}

choices! {
    /// What a worker does.
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
    /// How much an alert matters.
    #[derive(Default, PartialOrd, Ord)]
    AlertLevel {
        Info = "info",
        #[default]
        Warning = "warning",
        Error = "error",
    }
}

choices! {
    /// Why a checkpoint was saved.
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
    /// The parts of a reward that the program names itself.
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
