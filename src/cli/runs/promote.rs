//! `runs promote`: a checkpoint's weights in a new folder, written atomically, with their provenance.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, output, print_json};
use crate::report::{ExportForm, model_card};
use crate::run::{
    GPU_PRICE_RULE, RunError, RunFolders, RunReference, configured_gpu_price, is_price, promote,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Checkpoint: RUN@best (also RUN alone), RUN@last or RUN@STEP
    run: String,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Price of one GPU per hour, for the cost in the model card [default: gpu_price_per_hour of
    /// ~/.config/grpo-tui/config.toml]
    #[arg(long, value_name = "PRICE", value_parser = price)]
    gpu_price_per_hour: Option<f64>,
    /// Of an adapter trained beside a base in fp8 or nf4: answer the test set with the base as published too, which is what
    /// other programs serve, for the model card
    #[cfg(feature = "engine")]
    #[arg(long)]
    measure_published_base: bool,
    #[cfg(feature = "engine")]
    #[command(flatten)]
    device: crate::cli::device::DeviceArguments,
    /// Print what was written as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let out = &arguments.out;
    let price = gpu_price(arguments.gpu_price_per_hour)?;
    let (run, step) = run_folders.find_checkpoint(&RunReference::parse(&arguments.run))?;
    #[cfg(feature = "engine")]
    let published = arguments
        .measure_published_base
        .then(|| super::published_base::measure(&run, step, arguments.device, run_folders))
        .transpose()?;
    #[cfg(not(feature = "engine"))]
    let published = None;
    let form = ExportForm::of_checkpoint(&run)?;
    let card = model_card(
        &super::verified(run.clone())?,
        step,
        price,
        published.as_ref(),
        &form,
    );
    let document = promote(&run, step, &card.text, out).map_err(|error| match error {
        RunError::Taken { .. } => Failure::usage(error.to_string()),
        error => error.into(),
    })?;
    if let ExportForm::Adapter {
        base,
        has_template: false,
        ..
    } = &form
    {
        output::eprint_line(&format!(
            "note: no chat template is written: the base model {base} is not on this machine, or has none"
        ));
    }
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
        .filter(|price| is_price(*price))
        .ok_or_else(|| format!("must be {GPU_PRICE_RULE}"))
}

/// The price of `--gpu-price-per-hour`, else that of the user's `config.toml`.
pub(in crate::cli) fn gpu_price(given: Option<f64>) -> Result<Option<f64>, Failure> {
    Ok(given.map_or_else(configured_gpu_price, |price| Ok(Some(price)))?)
}
