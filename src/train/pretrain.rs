//! Pretraining a small model on a task's generator: its tokenizer, its weights, its habits. Made for the embedded
//! model; anyone can rerun it.

use std::path::{Path, PathBuf};

use super::TrainError;
use crate::checkpoint::write_model;
use crate::dataset::generator::Generator;
use crate::hub::ModelConfig;
use crate::kernels::device::Engine;
use crate::model::{Decoder, Trainable, Weights};
use crate::rollout::ThreadPool;
use crate::score::{thinking_of, turns_of};
use crate::task::Task;
use crate::text::{CHAT_TEMPLATE, Tokenizer, TokenizerFiles, conversation, train_tokenizer};
use crate::update::{Applied, Example, Optimizer, OptimizerSettings, supervised_gradient};

/// What is pretrained, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainSettings {
    /// The model's shape; `vocab_size` is also asked of the tokenizer.
    pub config: ModelConfig,
    pub updates: u64,
    /// Examples an update.
    pub examples: usize,
    /// Examples that the tokenizer is trained on.
    pub tokenizer_examples: u64,
    /// Highest learning rate; it warms up over a fiftieth of the updates and falls along a cosine.
    pub learning_rate: f64,
    /// Seed of the weights.
    pub seed: u64,
    pub tokens_per_micro_batch: usize,
}

/// Progress of a pretraining, reported after every update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainProgress {
    /// Updates done.
    pub update: u64,
    /// Mean loss of the update, nats a completion token.
    pub loss: f64,
    /// Tokens forwarded so far, prompts included.
    pub tokens: u64,
}

/// Makes a model and writes it to `folder` as Hugging Face files. `on_progress` hears of every update.
///
/// # Errors
/// [`TrainError`] when the task has no generator, the folder cannot be written, or a gradient is not finite.
pub fn pretrain(
    task: &Task,
    settings: &PretrainSettings,
    folder: &Path,
    engine: &Engine,
    threads: &ThreadPool,
    mut on_progress: impl FnMut(PretrainProgress),
) -> Result<PathBuf, TrainError> {
    let generator = Generator::load(task)?;
    let files = tokenizer_files(task, &generator, settings)?;
    let tokenizer = Tokenizer::from_files(&files)?;
    let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..settings.config.clone() };
    let weights = Weights::fresh(&config, settings.seed);
    let model = Decoder::new(&config, &weights, Trainable::Full, settings.seed, engine.dtype, &engine.device)?;
    let mut optimizer = Optimizer::new(optimizer_settings(settings), model.parameters(), &engine.device)?;
    let mut tokens = 0;
    for update in 0..settings.updates {
        let numbers: Vec<u64> =
            (0..settings.examples as u64).map(|offset| update * settings.examples as u64 + offset).collect();
        let examples = numbers
            .iter()
            .map(|&number| example(task, &generator, &tokenizer, number))
            .collect::<Result<Vec<_>, _>>()?;
        tokens += examples.iter().map(|example| (example.prompt.len() + example.completion.len()) as u64).sum::<u64>();
        let (gradients, loss) =
            supervised_gradient(&model, &examples, settings.tokens_per_micro_batch, false, threads)?;
        if optimizer.apply(model.parameters(), &gradients)? == Applied::NotFinite {
            return Err(TrainError::NotFinite { step: update + 1, what: "the gradient".to_owned() });
        }
        on_progress(PretrainProgress { update: update + 1, loss, tokens });
    }
    write_model(folder, &config, model.parameters(), &files, tokenizer.stop_ids())?;
    Ok(folder.to_owned())
}

/// A conversation as the task sends it, and the answer to imitate, ended by the turn's stop token.
fn example(task: &Task, generator: &Generator, tokenizer: &Tokenizer, number: u64) -> Result<Example, TrainError> {
    let (messages, completion) = generator.pretrain_example(number)?;
    let mut completion = tokenizer.encode(&completion)?;
    completion.extend(tokenizer.turn_end_id());
    Ok(Example { prompt: tokenizer.prompt_ids(&turns_of(task, tokenizer, &messages), thinking_of(task))?, completion })
}

fn tokenizer_files(
    task: &Task,
    generator: &Generator,
    settings: &PretrainSettings,
) -> Result<TokenizerFiles, TrainError> {
    let mut texts = Vec::new();
    for number in 0..settings.tokenizer_examples {
        let (messages, completion) = generator.pretrain_example(number)?;
        let turns = conversation(task.system.as_deref(), &messages, thinking_of(task), true);
        texts.extend(turns.into_iter().map(|message| message.content));
        texts.push(completion);
    }
    Ok(train_tokenizer(texts.into_iter(), settings.config.vocab_size, CHAT_TEMPLATE)?)
}

fn optimizer_settings(settings: &PretrainSettings) -> OptimizerSettings {
    OptimizerSettings {
        learning_rate: settings.learning_rate,
        warmup_steps: settings.updates / 50,
        cosine_steps: settings.updates,
        ..OptimizerSettings::PLAIN
    }
}
