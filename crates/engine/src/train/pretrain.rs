//! Pretrains a small model and its tokenizer on a task's generator, as for embedded models.

use std::path::{Path, PathBuf};

use candle_core::{DType, Error};

use super::error::TrainError;
use crate::checkpoint::write_model;
use crate::config::Schedule;
use crate::dataset::generator::Generator;
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::{Decoder, ModelError, Trainable, Weights};
use crate::policy::written_conversation;
use crate::rollout::ThreadPool;
use crate::score::Task;
use crate::text::{
    CHAT_TEMPLATE, TOOL_CHAT_TEMPLATE, Tokenizer, TokenizerFiles, conversation, train_tokenizer,
};
use crate::update::{
    Example, Optimizer, OptimizerSettings, StepOutcome, SupervisedSettings, supervised_gradient,
};

#[derive(Clone, Debug)]
pub struct PretrainSettings {
    /// `vocab_size` also applies to the tokenizer.
    pub config: ModelConfig,
    /// Start model, instead of a new one; determines shape and tokenizer.
    pub from: Option<ModelSource>,
    /// Half the size.
    pub in_bf16: bool,
    pub updates: u64,
    /// Examples per update.
    pub examples: usize,
    pub tokenizer_examples: u64,
    /// Peak, after warm-up over a fiftieth of the updates and before a cosine decay.
    pub learning_rate: f64,
    /// Seed of the initial weights.
    pub seed: u64,
    pub tokens_per_micro_batch: usize,
}

/// Reported after every update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainProgress {
    pub update: u64,
    /// Mean loss, nats per completion token.
    pub loss: f64,
    /// Tokens forwarded so far, including prompts.
    pub tokens: u64,
}

/// Pretrains a model and writes it to `folder` as Hugging Face files.
///
/// # Errors
/// [`TrainError`] if the task has no generator, the folder cannot be written, or a gradient is not
/// finite.
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
    let (config, weights) = match &settings.from {
        Some(source) => (
            source.config().map_err(ModelError::from)?,
            Weights::open(source)?,
        ),
        None => {
            let config = ModelConfig {
                vocab_size: tokenizer.vocab_size(),
                ..settings.config.clone()
            };
            let weights = Weights::fresh(&config, settings.seed);
            (config, weights)
        }
    };
    let model = Decoder::new(
        &config,
        &weights,
        Trainable::Full,
        settings.seed,
        engine.dtype,
        &engine.device,
    )?;
    let mut optimizer = Optimizer::new(
        optimizer_settings(settings),
        model.parameters(),
        &engine.device,
    )?;
    let mut tokens = 0;
    for update in 0..settings.updates {
        let numbers: Vec<u64> = (0..settings.examples as u64)
            .map(|offset| update * settings.examples as u64 + offset)
            .collect();
        let examples = numbers
            .iter()
            .map(|&number| {
                example(
                    (task, &generator),
                    &tokenizer,
                    config.max_position_embeddings,
                    number,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        tokens += examples
            .iter()
            .map(|example| example.tokens() as u64)
            .sum::<u64>();
        let completion_tokens = examples.iter().map(Example::loss_tokens).sum();
        let tokens_per_micro_batch = settings.tokens_per_micro_batch;
        let supervised = SupervisedSettings {
            loss_tokens: completion_tokens,
            tokens_per_micro_batch,
            recompute: false,
        };
        let (gradients, loss) = supervised_gradient(&model, &examples, supervised, threads)?;
        if optimizer.apply(model.parameters(), &gradients)? == StepOutcome::NotFinite {
            return Err(TrainError::NotFinite {
                step: update + 1,
                what: "the gradient".to_owned(),
            });
        }
        on_progress(PretrainProgress {
            update: update + 1,
            loss,
            tokens,
        });
    }
    let dtype = if settings.in_bf16 {
        DType::BF16
    } else {
        DType::F32
    };
    write_model(folder, &model, dtype, &files, tokenizer.stop_ids())?;
    Ok(folder.to_owned())
}

/// A conversation of the task with the model's completions. With tools each line of the completion
/// is a separate one, and the tools answer in between.
fn example(
    (task, generator): (&Task, &Generator),
    tokenizer: &Tokenizer,
    most_tokens: usize,
    number: u64,
) -> Result<Example, TrainError> {
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
        return Err(Error::msg(what).into());
    }
    Ok(example)
}

fn tokenizer_files(
    task: &Task,
    generator: &Generator,
    settings: &PretrainSettings,
) -> Result<TokenizerFiles, TrainError> {
    let has_functions = task.calls_functions() || task.toolset().is_some();
    let template = if has_functions {
        TOOL_CHAT_TEMPLATE
    } else {
        CHAT_TEMPLATE
    };
    if let Some(source) = &settings.from {
        return Ok(TokenizerFiles::for_source(source, template)?);
    }
    let mut texts = Vec::new();
    for number in 0..settings.tokenizer_examples {
        let (row, completion) = generator.pretrain_example(number)?;
        let turns = conversation(task.system.as_deref(), &row.messages);
        texts.extend(turns.into_iter().map(|message| message.content));
        texts.push(completion);
    }
    Ok(train_tokenizer(
        texts.into_iter(),
        settings.config.vocab_size,
        template,
    )?)
}

fn optimizer_settings(settings: &PretrainSettings) -> OptimizerSettings {
    OptimizerSettings {
        learning_rate: settings.learning_rate,
        warmup_steps: settings.updates / 50,
        schedule: Schedule::Cosine,
        total_steps: settings.updates,
        ..OptimizerSettings::PLAIN
    }
}
