//! `runs promote`: a checkpoint's weights in a new folder, written atomically, with their provenance.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, output, print_json};
use crate::report::{Report, model_card};
use crate::run::{RunError, RunFolders, RunReference, promote};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Checkpoint: RUN@best (also RUN alone), RUN@last or RUN@STEP
    run: String,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Price of an hour of one GPU, for the cost in the model card
    #[arg(long, value_name = "PRICE", value_parser = price)]
    gpu_price_per_hour: Option<f64>,
    /// Print what was written as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let out = &arguments.out;
    let (run, step) = places.find_checkpoint(&RunReference::parse(&arguments.run))?;
    let card = model_card(&Report::read(run.clone())?, step, arguments.gpu_price_per_hour);
    let document = promote(&run, step, &card.text, out).map_err(|error| match error {
        RunError::Taken { .. } => Failure::usage(error.to_string()),
        error => error.into(),
    })?;
    if arguments.json {
        return print_json(document);
    }
    output::eprint_line(&format!(
        "wrote {}: the checkpoint of step {step} of {}; README.md is its model card, provenance.json records its origin",
        out.display(),
        run.id()
    ));
    Ok(ExitCode::SUCCESS)
}

/// In any currency.
pub(in crate::cli) fn price(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price >= 0.0)
        .ok_or_else(|| "must be a number >= 0".to_owned())
}
