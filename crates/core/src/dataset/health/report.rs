//! The result of a check of prompt sets: all counts, and the first findings of each kind.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::task::PromptSet;

/// Findings that are kept of each kind and set; the rest is only counted.
const MAX_LISTED: usize = 20;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Training or the final result would be wrong.
    Error,
    /// Worth a look.
    Warning,
}

/// The kind of a finding.
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
    /// A prompt that is in another set as well.
    Leak,
    /// `expected` is not what the task calls valid.
    ExpectedInvalid,
    /// The prompt leaves no room for an answer.
    TooLong,
    /// Possible secrets.
    Secret,
    /// A prompt that is in its set twice.
    Duplicate,
    /// A prompt nearly like one of another set.
    NearLeak,
    /// A prompt nearly like another of its set.
    NearDuplicate,
    /// More rows than are compared.
    NotCompared,
}

impl FindingKind {
    /// In lists.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadLine => "bad line",
            Self::EmptySet => "empty set",
            Self::DuplicateId => "duplicate id",
            Self::NoUserTurn => "no user turn",
            Self::Leak => "data leak",
            Self::ExpectedInvalid => "expected answer",
            Self::TooLong => "too long",
            Self::Secret => "secret",
            Self::Duplicate => "duplicate",
            Self::NearLeak => "near leak",
            Self::NearDuplicate => "near duplicate",
            Self::NotCompared => "not compared",
        }
    }

    /// How much it matters.
    pub fn level(self) -> Level {
        match self {
            Self::Duplicate | Self::NearLeak | Self::NearDuplicate | Self::NotCompared => {
                Level::Warning
            }
            _ => Level::Error,
        }
    }
}

/// One finding of a dataset check.
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

/// All findings of one kind; of invalid answers, of one failure class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub kind: FindingKind,
    /// The failure class of invalid answers, such as `enum`; empty otherwise.
    pub class: &'static str,
    pub level: Level,
    pub count: usize,
    /// The first finding, in words.
    pub example: String,
    /// Set and line of every finding that has a line.
    #[serde(skip)]
    pub rows: Vec<(PromptSet, u32)>,
}

/// The findings and counts of one set.
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

/// The position of a finding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// As shown to the user.
    pub(super) file: &'a str,
    pub(super) set: Option<PromptSet>,
    /// From 1; `None` where the whole file is meant.
    pub(super) line: Option<usize>,
}

/// The result of a dataset check.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// The sets in the order train, eval, test.
    pub sets: Vec<SetHealth>,
    /// How many there are of each kind.
    pub counts: BTreeMap<FindingKind, usize>,
    /// The first of each kind and set.
    pub findings: Vec<Finding>,
    /// In the order of their first finding.
    pub groups: Vec<Group>,
    #[serde(skip)]
    listed: BTreeMap<(FindingKind, String), usize>,
}

impl Health {
    /// How many findings have this level.
    pub fn count(&self, level: Level) -> usize {
        self.counts
            .iter()
            .filter(|(kind, _)| kind.level() == level)
            .map(|(_, count)| count)
            .sum()
    }

    /// Counts a finding, and keeps it if it is among the first of its kind; the message is only made then.
    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        place: Place<'_>,
        message: impl FnOnce() -> String,
    ) {
        self.add_to_class(kind, "", place, message);
    }

    /// [`Self::add`] for one class of the kind.
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
