//! State of the live screen's panes: the data they have read, and the part they show.

use crate::facts::Tier;
use crate::report::Level;
use crate::run::EvalRecord;
use crate::run::events::EvalKey;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::pattern_filter::PatternFilter;

#[derive(Debug, Default)]
pub(super) struct ChangesReading {
    /// Compared with this step or the last before it; `None`: with the previous one.
    pub(super) since: Option<u64>,
    pub(super) cursor: Cursor,
    /// The compared evals with their changes, or why they cannot be read.
    pub(super) evals: Option<(EvalPair, Result<Vec<Change>, String>)>,
    pub(super) reading: Option<EvalPair>,
}

/// The earlier and the later eval, and the number of resumes: a resumed run may have redone them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EvalPair {
    pub(super) earlier: EvalKey,
    pub(super) later: EvalKey,
    pub(super) resumed: usize,
}

/// One completion of an eval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) prompt_id: String,
    pub(super) sample: usize,
    pub(super) before: Standing,
    pub(super) now: Standing,
}

/// From worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Unparsable,
    Invalid,
    Valid,
    /// Valid and equal to the expected answer.
    Exact,
}

impl Standing {
    pub(super) fn from_record(record: &EvalRecord) -> Self {
        match record.tier {
            Tier::Valid if record.exact == Some(true) => Self::Exact,
            Tier::Valid => Self::Valid,
            Tier::Invalid => Self::Invalid,
            Tier::Unparsable => Self::Unparsable,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unparsable => "unparsable",
            Self::Invalid => "invalid",
            Self::Valid => "valid",
            Self::Exact => "exact",
        }
    }
}

/// The visible part of the log.
#[derive(Debug, Default)]
pub(super) struct LogView {
    /// Lines below the pane.
    pub(super) back: usize,
    pub(super) least: MinLevel,
    pub(super) filter: PatternFilter,
}

/// The least level that is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum MinLevel {
    #[default]
    All,
    /// Evals, requests, notes, alerts, the end.
    Results,
    /// Warnings and errors.
    Warnings,
}

impl MinLevel {
    pub(super) fn next(self) -> Self {
        match self {
            Self::All => Self::Results,
            Self::Results => Self::Warnings,
            Self::Warnings => Self::All,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all levels",
            Self::Results => "info hidden",
            Self::Warnings => "warnings and errors",
        }
    }

    pub(super) fn includes(self, level: Level) -> bool {
        match self {
            Self::All => true,
            Self::Results => !matches!(level, Level::Step | Level::Info),
            Self::Warnings => matches!(level, Level::Warning | Level::Error),
        }
    }
}
