//! Tests: run_directory.
