//! `runs promote`: a checkpoint's weights in a new folder, written atomically, with their provenance.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, output, print_json};
use crate::run::{RunError, RunFolders, RunReference, promote};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Checkpoint: RUN@best (also RUN alone), RUN@last or RUN@STEP
    run: String,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print what was written as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let out = &arguments.out;
    let (run, step) = places.find_checkpoint(&RunReference::parse(&arguments.run))?;
    let document = promote(&run, step, out).map_err(|error| match error {
        RunError::Taken { .. } => Failure::usage(error.to_string()),
        error => error.into(),
    })?;
    if arguments.json {
        return print_json(document);
    }
    output::eprint_line(&format!(
        "wrote {}: the checkpoint of step {step} of {}; provenance.json records its origin",
        out.display(),
        run.id()
    ));
    Ok(ExitCode::SUCCESS)
}
