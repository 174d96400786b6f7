//! `grpo-tui init`.

use super::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: Arguments) -> Outcome {
    Err(Failure::failed("init is not built yet"))
}
