//! What evals are measured and compared by.

use serde::{Serialize, Serializer};

use crate::config::choices;

choices! {
    Metric {
        Valid = "valid",
        Exact = "exact",
    }
}

/// What a row of the table of evals measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    Parse,
    Valid,
    Exact,
    /// Of the values that are not expected.
    AllInvented,
    Tolerant,
    MeanTokens,
    Truncated,
    /// The probability that so many independent calls are all valid.
    CallsInARow(u32),
    Turns,
    AnswersValid,
    /// The share of conversations that would be valid if answers were independent.
    Independent,
    CallsPerConversation,
    CallsRefused,
    /// Why conversations ended, the most frequent first.
    Ended,
    NotScored,
    /// At least one of so many samples passes.
    PassAt(usize, Metric),
    All(usize, Metric),
    /// The share of the model's calls that are valid.
    CallsValid,
    /// The share of conversations with at least k calls whose first k are valid.
    FirstCalls(usize),
    EndpointErrors,
    Cost,
    CostOfThousand,
    MedianLatency,
    LatencyP95,
    TokensPerSecond,
    LogProb,
    MillisecondsPerMask,
    MasksWaited,
    /// A rate of the rows with a tag, and how many of the first eval have it.
    Tag(Metric, String, usize),
    /// F1 of the values at a path, and how many are expected.
    Field(String, usize),
    /// Values at a path where none is expected.
    Invented(String),
}

impl std::fmt::Display for Measure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Parse => "parse",
            Self::Valid => "valid",
            Self::Exact => "exact match",
            Self::AllInvented => "invented",
            Self::Tolerant => "valid after unwrapping",
            Self::MeanTokens => "mean tokens",
            Self::Truncated => "truncated",
            Self::Turns => "turns",
            Self::AnswersValid => "answers valid",
            Self::Independent => "valid if independent",
            Self::CallsPerConversation => "calls per conversation",
            Self::CallsRefused => "calls refused",
            Self::Ended => "ended",
            Self::NotScored => "not scored",
            Self::CallsValid => "calls valid (p)",
            Self::EndpointErrors => "endpoint errors",
            Self::Cost => "cost",
            Self::CostOfThousand => "cost of 1,000 answers",
            Self::MedianLatency => "latency, median",
            Self::LatencyP95 => "latency, p95",
            Self::TokensPerSecond => "tok/s",
            Self::LogProb => "logprob, nats/token",
            Self::MillisecondsPerMask => "ms/mask",
            Self::MasksWaited => "masks waited for",
            Self::CallsInARow(k) => return write!(formatter, "P({k} calls valid)"),
            Self::PassAt(j, Metric::Valid) => return write!(formatter, "pass@{j}"),
            Self::PassAt(j, metric) => return write!(formatter, "pass@{j} {metric}"),
            Self::All(samples, metric) => return write!(formatter, "all {samples} {metric}"),
            Self::FirstCalls(k) => return write!(formatter, "first {k} calls valid"),
            Self::Invented(path) => return write!(formatter, "invented, {path}"),
            Self::Field(path, n) => return write!(formatter, "F1, {path} ({n})"),
            Self::Tag(metric, tag, n) => return write!(formatter, "{metric}, {tag} ({n})"),
        };
        formatter.write_str(name)
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
