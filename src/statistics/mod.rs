//! Honest statistics.
