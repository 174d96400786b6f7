//! The training loops.
