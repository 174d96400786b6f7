//! `pretrain`: a small model and its tokenizer, from fresh weights or from another model, on a task's generator.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::DType;
use grpo_tui_core::config::Schedule;
use grpo_tui_core::hub::{
    Architecture, AttentionBias, DecoderOptions, ModelConfig, ModelSource, RopeScaling, find_model,
};
use grpo_tui_core::score::Task;
use grpo_tui_core::text::{
    CHAT_TEMPLATE, TOOL_CHAT_TEMPLATE, Tokenizer, TokenizerFiles, conversation, train_tokenizer,
};
use grpo_tui_engine::checkpoint::write_model;
use grpo_tui_engine::kernels::device::Engine;
use grpo_tui_engine::model::{Decoder, Trainable, Weights};
use grpo_tui_engine::policy::written_conversation;
use grpo_tui_engine::rollout::ThreadPool;
use grpo_tui_engine::update::{
    Example, Optimizer, OptimizerSettings, StepOutcome, SupervisedSettings, supervised_gradient,
};

use crate::Fault;
use crate::generator::Generator;

/// Examples that a fresh tokenizer is trained on.
const TOKENIZER_EXAMPLES: u64 = 4000;

/// The defaults make the embedded model `tiny`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the task, with a generator.toml
    task: PathBuf,
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
    /// Compute on this GPU instead of the CPU
    #[arg(long, value_name = "N")]
    gpu: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    if arguments.out.exists() {
        return Err(format!("{} exists: choose a new folder", arguments.out.display()).into());
    }
    let task = Task::load(&arguments.task)?;
    let generator = Generator::load(&arguments.task)?;
    let from = arguments.from.as_deref().map(find_model).transpose()?;
    let mut config = arguments.config()?;
    let files = tokenizer_files(&task, &generator, from.as_ref(), config.vocab_size)?;
    let tokenizer = Tokenizer::from_files(&files)?;
    let weights = match &from {
        Some(source) => {
            config = source.config()?;
            Weights::open(source)?
        }
        None => {
            config.vocab_size = tokenizer.vocab_size();
            Weights::fresh(&config, arguments.seed)
        }
    };
    let engine = arguments
        .gpu
        .map_or_else(|| Ok(Engine::cpu()), Engine::gpu)?;
    let threads = ThreadPool::for_engine(&engine, arguments.threads)?;
    let model = Decoder::new(
        &config,
        &weights,
        Trainable::Full,
        arguments.seed,
        engine.dtype,
        &engine.device,
    )?;
    let settings = OptimizerSettings {
        learning_rate: arguments.learning_rate,
        warmup_steps: arguments.updates / 50,
        schedule: Schedule::Cosine,
        total_steps: arguments.updates,
        ..OptimizerSettings::PLAIN
    };
    let mut optimizer = Optimizer::new(settings, model.parameters(), &engine.device)?;
    let start = Instant::now();
    let (mut tokens, mut smooth) = (0, None);
    for update in 0..arguments.updates {
        let first = update * arguments.examples as u64;
        let examples = (first..first + arguments.examples as u64)
            .map(|number| {
                example(
                    &task,
                    &generator,
                    &tokenizer,
                    config.max_position_embeddings,
                    number,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        tokens += examples.iter().map(Example::tokens).sum::<usize>();
        let supervised = SupervisedSettings {
            loss_tokens: examples.iter().map(Example::loss_tokens).sum(),
            tokens_per_micro_batch: arguments.tokens_per_micro_batch,
            recompute: false,
        };
        let (gradients, loss) = supervised_gradient(&model, &examples, supervised, &threads)?;
        if optimizer.apply(model.parameters(), &gradients)? == StepOutcome::NotFinite {
            return Err(format!("update {}: the gradient is not finite", update + 1).into());
        }
        let loss = smooth.map_or(loss, |old: f64| 0.95 * old + 0.05 * loss);
        smooth = Some(loss);
        if (update + 1) % 100 == 0 || update + 1 == arguments.updates {
            let speed = tokens as f64 / start.elapsed().as_secs_f64();
            eprintln!(
                "update {}  loss {loss:.4} nats/token  {speed:.0} tok/s",
                update + 1
            );
        }
    }
    let dtype = if arguments.bf16 {
        DType::BF16
    } else {
        DType::F32
    };
    write_model(&arguments.out, &model, dtype, &files, tokenizer.stop_ids())?;
    eprintln!("wrote {}", arguments.out.display());
    Ok(())
}

impl Arguments {
    /// The shape of fresh weights.
    fn config(&self) -> Result<ModelConfig, Fault> {
        if let Some(file) = &self.config {
            let label = file.display().to_string();
            return Ok(ModelConfig::parse(&std::fs::read_to_string(file)?, &label)?);
        }
        Ok(ModelConfig {
            architecture: Architecture::Qwen3,
            vocab_size: self.vocabulary,
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.key_value_heads,
            head_dim: self.head_dim,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Unscaled,
            attention_bias: AttentionBias::Absent,
            tie_word_embeddings: true,
            max_position_embeddings: 1024,
            options: DecoderOptions::QWEN3,
        })
    }
}

/// A conversation of the task, and what the model writes in it. Of a task with tools each line of the completion is one
/// of its own: the tools answer before the next.
fn example(
    task: &Task,
    generator: &Generator,
    tokenizer: &Tokenizer,
    most_tokens: usize,
    number: u64,
) -> Result<Example, Fault> {
    let (row, text) = generator.pretrain_example(number)?;
    let completions = if task.toolset().is_some() {
        text.lines().collect()
    } else {
        vec![text.as_str()]
    };
    let (prompt, mut written) = written_conversation(task, tokenizer, &row, &completions)?;
    let later = written.split_off(1.min(written.len()));
    let completion = written
        .pop()
        .map(|(_, token_ids)| token_ids)
        .unwrap_or_default();
    let example = Example {
        prompt,
        completion,
        later,
    };
    if example.tokens() > most_tokens {
        let what = format!(
            "the conversation about {} has {} tokens, and the model has {most_tokens} positions: shorten the generator's templates, or start from a model with more",
            row.id,
            example.tokens()
        );
        return Err(what.into());
    }
    Ok(example)
}

fn tokenizer_files(
    task: &Task,
    generator: &Generator,
    from: Option<&ModelSource>,
    vocab_size: usize,
) -> Result<TokenizerFiles, Fault> {
    let has_functions = task.calls_functions() || task.toolset().is_some();
    let template = if has_functions {
        TOOL_CHAT_TEMPLATE
    } else {
        CHAT_TEMPLATE
    };
    if let Some(source) = from {
        return Ok(TokenizerFiles::for_source(source, template)?);
    }
    let mut texts = Vec::new();
    for number in 0..TOKENIZER_EXAMPLES {
        let (row, completion) = generator.pretrain_example(number)?;
        let turns = conversation(task.system.as_deref(), &row.messages);
        texts.extend(turns.into_iter().map(|message| message.content));
        texts.push(completion);
    }
    Ok(train_tokenizer(texts.into_iter(), vocab_size, template)?)
}
