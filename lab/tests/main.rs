//! Tests of what makes the sample data, and of benchmarks as tasks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bfcl;
mod generator;
mod pretrain;
mod prompt_files;
#[path = "../../tests/own_home.rs"]
mod own_home;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use grpo_tui_core::sandbox::launch_if_asked;

fn sample(name: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    repository.join("sample-data").join(name)
}

/// Runs a command of the lab; returns what it failed on.
fn lab(words: &[&str]) -> Result<(), String> {
    let words = ["lab"].iter().chain(words).map(OsString::from);
    grpo_tui_lab::run(words).map_err(|error| error.to_string())
}
