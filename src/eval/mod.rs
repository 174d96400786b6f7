//! Held-out passes.
