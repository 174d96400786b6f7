//! The part of the log that the live screen shows.

use crate::report::Level;
use crate::widgets::pattern_filter::PatternFilter;

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
