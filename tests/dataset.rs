//! Tests: dataset.
