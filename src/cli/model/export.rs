//! `grpo-tui model export`: a model with its adapter merged, as a folder for any server; or the adapter alone, as
//! PEFT's files.

use std::path::PathBuf;
use std::process::ExitCode;

use super::open;
use crate::checkpoint::{PeftAdapter, export_adapter, export_merged};
use crate::cli::{Failure, Outcome};
use crate::model::{Trainable, fresh_adapters};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Base model: a folder, a Hugging Face name, `tiny`, or a run
    #[arg(long, value_name = "M")]
    model: String,
    /// Adapter folder (PEFT's, or a run's checkpoint) [default: the adapter of M]
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Merge the adapter into full weights, in the base's dtypes; without it, write the adapter alone as PEFT files
    #[arg(long)]
    merged: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let out = &arguments.out;
    if out.exists() {
        return Err(Failure::usage(format!("{} exists: choose a new folder", out.display())));
    }
    let loaded = open(&arguments.model)?;
    if arguments.merged {
        export_merged(out, &loaded.source, loaded.stored_as(), &loaded.merged_with(arguments.adapter.as_deref())?)?;
    } else {
        let named = arguments.adapter.as_deref().map(PeftAdapter::read).transpose()?;
        // A run with adapters, or an adapter's folder, has its own.
        let (adapter, base) = match (&named, loaded.adapter()) {
            (Some(named), _) => (named, arguments.model.as_str()),
            (None, Some(own)) => (own, own.base_name()?),
            (None, None) => {
                let text = format!(
                    "{} has no adapter: name one with --adapter, or add --merged for full weights",
                    arguments.model
                );
                return Err(Failure::usage(text));
            }
        };
        let Trainable::Lora { rank, alpha } = adapter.trainable() else {
            return Err(Failure::failed(format!("{} has no low-rank adapter", arguments.model)));
        };
        let parameters = fresh_adapters(&loaded.config, rank)?;
        adapter.apply(&parameters)?;
        export_adapter(out, &parameters, base, rank, alpha)?;
    }
    eprintln!("wrote {}", out.display());
    Ok(ExitCode::SUCCESS)
}
