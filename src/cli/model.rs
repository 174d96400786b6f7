//! `grpo-tui model`: pretrain, inspect and export models.

#[cfg(feature = "parity")]
mod check; // another implementation's opinion
mod export; // adapters merged, or as PEFT's files
mod import; // llama.cpp's file as a folder
mod inspect; // what a model is, without computing
mod log_probs; // what a model thinks of given tokens
mod memory_estimates; // memory by what is done with a model
mod pull; // from the Hugging Face Hub into the cache

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;

use super::device::DeviceArguments;
use super::output::eprint_line;
use super::{Failure, Outcome};
use crate::checkpoint::OpenModel;
use crate::hub::{
    Architecture, AttentionBias, DecoderOptions, ModelConfig, RopeScaling, find_model,
};
use crate::kernels::device::Engine;
use crate::rollout::ThreadPool;
use crate::run::RunFolders;
use crate::score::Task;
use crate::train::{PretrainProgress, PretrainSettings, pretrain};

#[derive(Debug, clap::Args)]
#[cfg_attr(
    not(feature = "parity"),
    command(after_help = "`model check` needs a build with the feature `parity`.")
)]
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
    /// Compare log-probs with candle-transformers
    #[cfg(feature = "parity")]
    Check(check::Arguments),
    /// Print log-probs of given tokens
    LogProbs(log_probs::Arguments),
    /// Import a GGUF file as a model folder
    Import(import::Arguments),
    /// Export a merged model, or an adapter as PEFT files
    Export(export::Arguments),
    /// Pretrain a small model on a task's generator
    Pretrain(Box<Pretrain>),
}

/// The defaults make the embedded model `tiny`.
#[derive(Debug, clap::Args)]
struct Pretrain {
    /// Task whose generator provides the examples
    task: String,
    /// Folder to create
    #[arg(long)]
    out: PathBuf,
    /// Optimizer updates
    #[arg(long, default_value_t = 2200)]
    updates: u64,
    /// Examples per update
    #[arg(long, default_value_t = 64)]
    examples: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Hidden size
    #[arg(long, default_value_t = 160)]
    hidden: usize,
    /// MLP size
    #[arg(long, default_value_t = 480)]
    intermediate: usize,
    /// Decoder layers
    #[arg(long, default_value_t = 3)]
    layers: usize,
    /// Query heads
    #[arg(long, default_value_t = 6)]
    heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 2)]
    key_value_heads: usize,
    /// Head size
    #[arg(long, default_value_t = 32)]
    head_dim: usize,
    /// Vocabulary size
    #[arg(long, default_value_t = 1024)]
    vocabulary: usize,
    /// Model to start from, with its shape and tokenizer, instead of fresh weights; `tiny` or one made by `pretrain`
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["seed", "hidden", "intermediate", "layers", "heads", "key_value_heads", "head_dim", "vocabulary"])]
    from: Option<String>,
    /// Shape of the fresh weights from a `config.json`, of any supported architecture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "hidden", "intermediate", "layers", "heads", "key_value_heads", "head_dim", "vocabulary"])]
    config: Option<PathBuf>,
    /// Write the weights in bf16
    #[arg(long)]
    bf16: bool,
    /// Tokens per micro-batch; changes memory and speed
    #[arg(long, default_value_t = 1280)]
    tokens_per_micro_batch: usize,
    /// CPU threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Arguments of both `check` and `log-probs`.
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
        #[cfg(feature = "parity")]
        Command::Check(arguments) => check::run(&arguments),
        Command::LogProbs(arguments) => log_probs::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Pretrain(arguments) => run_pretrain(&arguments),
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

fn run_pretrain(arguments: &Pretrain) -> Outcome {
    if arguments.out.exists() {
        return Err(Failure::usage(format!(
            "{} exists: choose a new folder",
            arguments.out.display()
        )));
    }
    let task = Task::resolve(&arguments.task)?;
    let of_arguments = ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: arguments.vocabulary,
        hidden_size: arguments.hidden,
        intermediate_size: arguments.intermediate,
        num_hidden_layers: arguments.layers,
        num_attention_heads: arguments.heads,
        num_key_value_heads: arguments.key_value_heads,
        head_dim: arguments.head_dim,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::Unscaled,
        attention_bias: AttentionBias::Absent,
        tie_word_embeddings: true,
        max_position_embeddings: 1024,
        options: DecoderOptions::QWEN3,
    };
    let config = match &arguments.config {
        Some(file) => {
            let label = file.display().to_string();
            let text = crate::files::read_text(file).map_err(|error| {
                Failure::usage(format!(
                    "--config {label}: {error}; name a model's config.json"
                ))
            })?;
            ModelConfig::parse(&text, &label)?
        }
        None => of_arguments,
    };
    let settings = PretrainSettings {
        config,
        from: arguments.from.as_deref().map(find_model).transpose()?,
        in_bf16: arguments.bf16,
        updates: arguments.updates,
        examples: arguments.examples,
        tokenizer_examples: 4000,
        learning_rate: arguments.learning_rate,
        seed: arguments.seed,
        tokens_per_micro_batch: arguments.tokens_per_micro_batch,
    };
    let engine = arguments.device.engine()?;
    let threads = ThreadPool::for_engine(&engine, arguments.threads)?;
    let start = Instant::now();
    let every = if std::io::stderr().is_terminal() {
        10
    } else {
        100
    };
    let mut recent = None;
    pretrain(
        &task,
        &settings,
        &arguments.out,
        &engine,
        &threads,
        |progress| {
            let PretrainProgress {
                update,
                loss,
                tokens,
            } = progress;
            let smooth = recent.map_or(loss, |old: f64| 0.95 * old + 0.05 * loss);
            recent = Some(smooth);
            if update % every == 0 || update == settings.updates {
                let seconds = start.elapsed().as_secs_f64();
                let left = seconds / update as f64 * (settings.updates - update) as f64;
                let line = format!(
                    "update {update}/{}  loss {smooth:.4}  {:.0} tokens/s  {left:.0} s left",
                    settings.updates,
                    tokens as f64 / seconds
                );
                eprint_line(&line);
            }
        },
    )?;
    eprintln!("wrote {}", arguments.out.display());
    Ok(ExitCode::SUCCESS)
}
