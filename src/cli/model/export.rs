//! `grpo-tui model export`: a model with its adapter merged, as a folder for any server; or the adapter alone, as PEFT's files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::open;
use crate::checkpoint::{PeftAdapter, export_adapter, export_merged};
use crate::cli::{Failure, Outcome};
use crate::kernels::device::Engine;
use crate::model::Trainable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The base model: a folder, a Hugging Face name, `tiny`, or a run
    #[arg(long, value_name = "M")]
    model: String,
    /// Folder of the adapter: PEFT's, or a run's checkpoint
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write whole weights, the adapter added in, in the base's element type; without it the adapter alone, as PEFT's files
    #[arg(long)]
    merged: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let out = &arguments.out;
    if out.exists() {
        return Err(Failure::usage(format!("{} exists; name a folder that does not", out.display())));
    }
    let loaded = open(&arguments.model)?;
    if arguments.merged {
        let weights = loaded.merged_with(arguments.adapter.as_deref())?;
        export_merged(out, &loaded.source, &weights, weights.stored(&loaded.config)?)?;
    } else {
        let Some(adapter) = &arguments.adapter else {
            return Err(Failure::usage("without --merged there is only an adapter to write: name it with --adapter, or add --merged"));
        };
        let model = loaded.decoder(Some(adapter), &Engine::cpu())?;
        write_adapter(out, adapter, &arguments.model, &model)?;
    }
    eprintln!("wrote {}", out.display());
    Ok(ExitCode::SUCCESS)
}

fn write_adapter(out: &Path, adapter: &Path, base: &str, model: &crate::model::Decoder) -> Result<(), Failure> {
    let Trainable::Lora { rank, alpha } = PeftAdapter::read(adapter)?.trainable() else {
        return Err(Failure::failed(format!("{} is no low-rank adapter", adapter.display())));
    };
    Ok(export_adapter(out, model.parameters(), base, rank, alpha)?)
}
