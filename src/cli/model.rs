//! `grpo-tui model`: inspect and export models.

mod export; // adapters merged, or as PEFT's files
mod import; // llama.cpp's file as a folder
mod inspect; // what a model is, without computing
mod log_probs; // what a model thinks of given tokens
mod memory_estimates; // memory by what is done with a model
mod pull; // from the Hugging Face Hub into the cache

use clap::Subcommand;

use super::device::DeviceArguments;
use super::{Failure, Outcome};
use crate::checkpoint::OpenModel;
use crate::kernels::device::Engine;
use crate::run::RunFolders;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download a model from the Hugging Face Hub into the cache (HF_HOME, HF_TOKEN, HF_ENDPOINT)
    Pull(pull::Arguments),
    /// Show a model: architecture, parameters, tensors, memory
    Inspect(inspect::Arguments),
    /// Print log-probs of given tokens
    LogProbs(log_probs::Arguments),
    /// Import a GGUF file as a model folder
    Import(import::Arguments),
    /// Export for other programs: a merged model, an adapter as PEFT files, GGUF
    Export(export::Arguments),
}

/// Model and device of `log-probs`.
#[derive(Debug, clap::Args)]
struct ModelArguments {
    /// Model: a folder, a Hugging Face name, `tiny`, or a run
    model: String,
    #[command(flatten)]
    device: DeviceArguments,
    /// Compute in f32 on a GPU, too, instead of bf16: stricter, twice the memory
    #[arg(long = "f32")]
    in_f32: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::LogProbs(arguments) => log_probs::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
    }
}

fn open(name: &str) -> Result<OpenModel, Failure> {
    let run_folders = RunFolders::discover(None, &std::env::current_dir()?);
    Ok(OpenModel::find(name, &run_folders)?)
}

impl ModelArguments {
    fn engine(&self) -> Result<Engine, Failure> {
        let engine = self.device.engine()?;
        Ok(if self.in_f32 { engine.in_f32() } else { engine })
    }
}

fn check_vocabulary(token_ids: &[u32], vocabulary: usize) -> Result<(), Failure> {
    match token_ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => Err(Failure::usage(format!(
            "token {id} is outside the model's vocabulary; its ids are 0 to {}",
            vocabulary - 1
        ))),
        None => Ok(()),
    }
}
