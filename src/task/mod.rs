//! A task: what correct means.
