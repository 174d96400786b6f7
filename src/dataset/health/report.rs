//! What a check of prompt sets found: counts of everything, the first findings of each kind.

use std::collections::BTreeMap;

use serde::Serialize;

/// Findings that are kept of each kind and set; the rest is only counted.
const MAX_LISTED: usize = 20;

/// Whether a set can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Training or the final result would be wrong.
    Error,
    /// Worth a look.
    Warning,
}

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// No prompt row.
    BadLine,
    /// A set without rows.
    EmptySet,
    /// An id that an earlier row has.
    DuplicateId,
    /// Nobody asks anything.
    NoUserTurn,
    /// A prompt that stands in another set as well.
    Leak,
    /// `expected` is not what the task calls valid.
    ExpectedInvalid,
    /// The prompt leaves no room for an answer.
    TooLong,
    /// What looks like a secret.
    Secret,
    /// A prompt that stands in its set twice.
    Duplicate,
    /// A prompt nearly like one of another set.
    NearLeak,
    /// A prompt nearly like another of its set.
    NearDuplicate,
    /// More rows than are compared.
    NotCompared,
}

impl FindingKind {
    /// How much it matters.
    pub fn level(self) -> Level {
        match self {
            Self::Duplicate | Self::NearLeak | Self::NearDuplicate | Self::NotCompared => Level::Warning,
            _ => Level::Error,
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// How much it matters.
    pub level: Level,
    /// The file as shown to the user.
    pub file: String,
    /// 1-based; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong, the value, and what to do.
    pub message: String,
}

/// One set, read to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetHealth {
    /// `train`, `eval` or `test`.
    pub set: &'static str,
    /// The file as shown to the user.
    pub file: String,
    /// Good rows.
    pub rows: usize,
    /// Rows by tag.
    pub tags: BTreeMap<String, usize>,
    /// Least, mean and greatest prompt length, where a tokenizer was given.
    pub prompt_tokens: Option<(usize, f64, usize)>,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// The sets in the order train, eval, test.
    pub sets: Vec<SetHealth>,
    /// How many there are of each kind.
    pub counts: BTreeMap<FindingKind, usize>,
    /// The first of each kind and set.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    listed: BTreeMap<(FindingKind, String), usize>,
}

impl Health {
    /// How many findings have this level.
    pub fn count(&self, level: Level) -> usize {
        self.counts.iter().filter(|(kind, _)| kind.level() == level).map(|(_, count)| count).sum()
    }

    /// Counts a finding, and keeps it if it is among the first of its kind; the message is only made then.
    pub(super) fn add(&mut self, kind: FindingKind, file: &str, line: Option<usize>, message: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        let listed = self.listed.entry((kind, file.to_owned())).or_default();
        if *listed < MAX_LISTED {
            *listed += 1;
            self.findings.push(Finding { kind, level: kind.level(), file: file.to_owned(), line, message: message() });
        }
    }
}
