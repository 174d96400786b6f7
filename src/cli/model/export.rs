//! `grpo-tui model export`: a model with its adapter merged, as a folder for any server; or the adapter alone, as
//! PEFT's files; or all of it as one file for llama.cpp.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::checkpoint::{
    GgufType, OpenModel, PeftAdapter, export_adapter, export_gguf, export_merged,
};
use crate::cli::{Failure, Outcome};
use crate::model::{Trainable, fresh_adapters};
use crate::run::RunFolders;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Base model: a folder, a Hugging Face name, `tiny`, or a run
    #[arg(long, value_name = "M")]
    model: String,
    /// Adapter folder (PEFT's, or a run's checkpoint) [default: the adapter of M]
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Folder to create; with --gguf, file
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Merge the adapter into full weights, in the base's dtypes; without it, write the adapter alone as PEFT files
    #[arg(long)]
    merged: bool,
    /// Write model, merged adapter, tokenizer and chat template as one GGUF file for llama.cpp, its matrices in this type
    #[arg(long, value_name = "TYPE", conflicts_with = "merged", value_parser = clap::builder::PossibleValuesParser::new(GgufType::NAMES))]
    gguf: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let out = &arguments.out;
    if out.exists() {
        let what = if arguments.gguf.is_some() {
            "file"
        } else {
            "folder"
        };
        return Err(Failure::usage(format!(
            "{} exists: choose a new {what}",
            out.display()
        )));
    }
    let places = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let loaded = OpenModel::find(&arguments.model, &places)?;
    if let Some(stored_as) = arguments.gguf.as_deref().and_then(GgufType::from_name) {
        export_gguf(
            out,
            &loaded.source,
            &loaded.merged_with(arguments.adapter.as_deref())?,
            stored_as,
        )?;
    } else if arguments.merged {
        export_merged(
            out,
            &loaded.source,
            loaded.stored_as(),
            &loaded.merged_with(arguments.adapter.as_deref())?,
        )?;
    } else {
        let named = arguments
            .adapter
            .as_deref()
            .map(PeftAdapter::read)
            .transpose()?;
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
        let Trainable::Lora {
            rank,
            alpha,
            has_experts,
        } = adapter.trainable()
        else {
            return Err(Failure::failed(format!(
                "{} has no low-rank adapter",
                arguments.model
            )));
        };
        let parameters = fresh_adapters(&loaded.config, rank, has_experts)?;
        adapter.apply(&parameters)?;
        export_adapter(out, &parameters, base, rank, alpha)?;
    }
    eprintln!("wrote {}", out.display());
    Ok(ExitCode::SUCCESS)
}
