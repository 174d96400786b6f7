//! Tests: gradients.
