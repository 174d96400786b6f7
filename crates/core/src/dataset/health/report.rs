//! Result of a dataset check: all counts, and the first findings of each kind.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::choices;
use crate::task::PromptSet;

/// Findings listed per kind and set; others are only counted.
const MAX_LISTED: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Training or the final result would be wrong.
    Error,
    /// Should be checked.
    Warning,
}

choices! {
    #[derive(PartialOrd, Ord)]
    FindingKind {
        /// Not a prompt row.
        BadLine = "bad_line",
        EmptySet = "empty_set",
        /// An id that an earlier row has.
        DuplicateId = "duplicate_id",
        NoUserTurn = "no_user_turn",
        /// A prompt also in another set.
        Leak = "leak",
        /// The same prompt with another expected answer.
        Conflict = "conflict",
        /// `expected` is not valid by the task's definition.
        ExpectedInvalid = "expected_invalid",
        /// The prompt leaves no room for an answer.
        TooLong = "too_long",
        Secret = "secret",
        /// A prompt twice in its set.
        Duplicate = "duplicate",
        /// A prompt nearly like one of another set.
        NearLeak = "near_leak",
        /// A prompt nearly like another of its set.
        NearDuplicate = "near_duplicate",
        /// More rows than are compared.
        NotCompared = "not_compared",
    }
}

impl FindingKind {
    pub fn title(self) -> String {
        match self {
            Self::Leak => "data leak".to_owned(),
            Self::ExpectedInvalid => "expected answer".to_owned(),
            _ => self.name().replace('_', " "),
        }
    }

    pub fn level(self) -> Level {
        match self {
            Self::Duplicate | Self::NearLeak | Self::NearDuplicate | Self::NotCompared => {
                Level::Warning
            }
            _ => Level::Error,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    pub level: Level,
    pub file: String,
    /// 1-based; `None`: the whole file.
    pub line: Option<usize>,
    pub message: String,
}

/// All findings of one kind; for invalid answers, of one failure class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub kind: FindingKind,
    /// Failure class of invalid answers, such as `enum`; else empty.
    pub class: &'static str,
    pub level: Level,
    pub count: usize,
    pub example: String,
    #[serde(skip)]
    pub rows: Vec<(PromptSet, u32)>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetHealth {
    /// `train`, `eval` or `test`.
    pub set: PromptSet,
    pub file: String,
    pub rows: usize,
    pub tags: BTreeMap<String, usize>,
    /// Min, mean and max prompt length in tokens, with a tokenizer.
    pub prompt_tokens: Option<(usize, f64, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) set: Option<PromptSet>,
    /// 1-based; `None`: the whole file.
    pub(super) line: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    pub sets: Vec<SetHealth>,
    pub counts: BTreeMap<FindingKind, usize>,
    /// The first of each kind and set.
    pub findings: Vec<Finding>,
    /// Groups in order of their first finding.
    pub groups: Vec<Group>,
    #[serde(skip)]
    listed: BTreeMap<(FindingKind, String), usize>,
}

impl Health {
    pub fn count(&self, level: Level) -> usize {
        self.counts
            .iter()
            .filter(|(kind, _)| kind.level() == level)
            .map(|(_, count)| count)
            .sum()
    }

    /// Counts a finding, and keeps the first of each kind; only then is the message made.
    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        place: Place<'_>,
        message: impl FnOnce() -> String,
    ) {
        self.add_to_class(kind, "", place, message);
    }

    pub(super) fn add_to_class(
        &mut self,
        kind: FindingKind,
        class: &'static str,
        Place { file, set, line }: Place<'_>,
        message: impl FnOnce() -> String,
    ) {
        *self.counts.entry(kind).or_default() += 1;
        let listed = self.listed.entry((kind, file.to_owned())).or_default();
        let known = self
            .groups
            .iter_mut()
            .find(|group| group.kind == kind && group.class == class);
        let is_listed = *listed < MAX_LISTED;
        let message = if is_listed || known.is_none() {
            message()
        } else {
            String::new()
        };
        let row = set.zip(line.and_then(|line| u32::try_from(line).ok()));
        match known {
            Some(group) => {
                group.count += 1;
                group.rows.extend(row);
            }
            None => {
                let (level, example) = (kind.level(), message.clone());
                self.groups.push(Group {
                    kind,
                    class,
                    level,
                    count: 1,
                    example,
                    rows: row.into_iter().collect(),
                });
            }
        }
        if is_listed {
            *listed += 1;
            self.findings.push(Finding {
                kind,
                level: kind.level(),
                file: file.to_owned(),
                line,
                message,
            });
        }
    }
}
