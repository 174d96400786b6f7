//! `grpo-tui train`.

use super::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: Arguments) -> Outcome {
    Err(Failure::failed("train is not built yet"))
}
