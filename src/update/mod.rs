//! One optimizer step.
