//! Completion and row to score.
