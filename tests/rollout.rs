//! Tests: rollout.
