//! Compares our log-probs with candle-transformers', an independent implementation.

use candle_core::{DType, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{llama, qwen2, qwen3};

use crate::checkpoint::{OpenModel, StartError};
use crate::hub::{Architecture, AttentionBias, ModelConfig, RopeScaling};
use crate::kernels::device::Engine;
use crate::kernels::log_probs::token_log_probs;
use crate::model::{Adapters, ModelError};
use crate::update::{log_probs, pack};

/// Log-prob differences over a text, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogProbAgreement {
    /// All tokens but the first.
    pub tokens: usize,
    pub max_difference: f64,
    pub mean_difference: f64,
    /// Maximum explained by rounding.
    pub max_allowed: f64,
    /// Mean explained by rounding.
    pub mean_allowed: f64,
}

impl LogProbAgreement {
    /// Whether rounding explains the differences; false for NaN.
    pub fn holds(&self) -> bool {
        self.max_difference <= self.max_allowed && self.mean_difference <= self.mean_allowed
    }
}

/// Compares log-probs of `token_ids` (at least two, within the model's context). `None` if
/// candle-transformers does not support the model: biases in a Llama, Llama heads that are not
/// `hidden_size / num_attention_heads` wide, linearly scaled rotary positions, Gemma 3's layer
/// types and query scale. One model is in memory at a time.
///
/// # Errors
/// [`StartError`] for weights that do not fit the configuration.
pub fn parity_with_candle(
    model: &OpenModel,
    token_ids: &[u32],
    engine: &Engine,
) -> Result<Option<LogProbAgreement>, StartError> {
    if !is_computed_there(&model.config) {
        return Ok(None);
    }
    let ours = our_log_probs(model, token_ids, engine)?;
    let theirs = their_log_probs(
        &model.config,
        their_weights(model, engine)?,
        token_ids,
        engine,
    )
    .map_err(ModelError::from)?;
    let differences: Vec<f64> = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| f64::from((a - b).abs()))
        .collect();
    // `max` would ignore NaN.
    let max_difference =
        differences.iter().fold(
            0.0,
            |max, &difference| if difference <= max { max } else { difference },
        );
    // bf16 logits are rounded to 1/256 of their size, up to an eighth for a large model.
    let (max_allowed, mean_allowed) = if engine.dtype == DType::F32 {
        (1e-3, 1e-4)
    } else {
        (1.0, 0.1)
    };
    let mean_difference = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    Ok(Some(LogProbAgreement {
        tokens: differences.len(),
        max_difference,
        mean_difference,
        max_allowed,
        mean_allowed,
    }))
}

fn our_log_probs(
    model: &OpenModel,
    token_ids: &[u32],
    engine: &Engine,
) -> Result<Vec<f32>, StartError> {
    let decoder = model.decoder(None, engine)?;
    let (first, rest) = token_ids.split_at(1.min(token_ids.len()));
    let mut found = Vec::with_capacity(rest.len());
    for micro_batch in pack([(first, vec![rest])], usize::MAX) {
        let probs =
            log_probs(&decoder, &micro_batch, Adapters::On, 1.0).map_err(ModelError::from)?;
        found.extend(probs.into_iter().flatten().map(|token| token.log_prob));
    }
    Ok(found)
}

/// candle reads plain files; we merge adapters.
fn their_weights(model: &OpenModel, engine: &Engine) -> Result<VarBuilder<'static>, StartError> {
    let Engine { device, dtype } = engine;
    if model.is_plain()
        && let Some(folder) = model.source.folder()
    {
        let files: Vec<_> = model
            .source
            .weight_files()?
            .into_iter()
            .map(|file| folder.join(file))
            .collect();
        // SAFETY: as in `Weights::open`: nobody may shorten the files meanwhile.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, *dtype, device) };
        return Ok(weights.map_err(ModelError::from)?);
    }
    let tensors = model.merged()?.stored(&model.config)?;
    Ok(VarBuilder::from_tensors(
        tensors.into_iter().collect(),
        *dtype,
        device,
    ))
}

/// Token by token through its cache, as it only returns the last token's logits.
fn their_log_probs(
    config: &ModelConfig,
    weights: VarBuilder<'_>,
    token_ids: &[u32],
    engine: &Engine,
) -> candle_core::Result<Vec<f32>> {
    let mut forward = their_model(config, weights, engine)?;
    let mut found = Vec::with_capacity(token_ids.len());
    for (position, pair) in token_ids.windows(2).enumerate() {
        let token = Tensor::new(&[[pair[0]]], &engine.device)?;
        let logits = forward(&token, position)?
            .reshape((1, config.vocab_size))?
            .to_dtype(DType::F32)?;
        let logits = logits.to_device(&candle_core::Device::Cpu)?;
        found.extend(
            token_log_probs(&logits, &pair[1..], 1.0)?
                .into_iter()
                .map(|token| token.log_prob),
        );
    }
    Ok(found)
}

/// One token [1, 1] and its position -> logits [1, .., vocabulary].
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// Configuration of either Qwen family, whose types share most fields; then the others.
macro_rules! qwen_config {
    ($family:ident, $config:expr, $($field:ident: $value:expr),+) => {
        $family::Config {
            vocab_size: $config.vocab_size,
            hidden_size: $config.hidden_size,
            intermediate_size: $config.intermediate_size,
            num_hidden_layers: $config.num_hidden_layers,
            num_attention_heads: $config.num_attention_heads,
            num_key_value_heads: $config.num_key_value_heads,
            max_position_embeddings: $config.max_position_embeddings,
            max_window_layers: $config.num_hidden_layers,
            tie_word_embeddings: $config.tie_word_embeddings,
            rope_theta: $config.rope_theta,
            rms_norm_eps: $config.rms_norm_eps,
            use_sliding_window: false,
            hidden_act: Activation::Silu,
            $($field: $value),+
        }
    };
}

fn their_model(
    config: &ModelConfig,
    weights: VarBuilder<'_>,
    engine: &Engine,
) -> candle_core::Result<Forward> {
    Ok(match config.architecture {
        Architecture::Qwen3 => {
            let theirs = qwen_config!(qwen3, config, head_dim: config.head_dim, attention_bias: false, sliding_window: None);
            let mut model = qwen3::ModelForCausalLM::new(&theirs, weights)?;
            Box::new(move |token, position| model.forward(token, position))
        }
        Architecture::Qwen2 => {
            let theirs =
                qwen_config!(qwen2, config, sliding_window: config.max_position_embeddings);
            let mut model = qwen2::ModelForCausalLM::new(&theirs, weights)?;
            Box::new(move |token, position| model.forward(token, position))
        }
        Architecture::Llama | Architecture::Mistral => {
            let theirs = llama_config(config);
            let mut cache = llama::Cache::new(true, engine.dtype, &theirs, &engine.device)?;
            let model = llama::Llama::load(weights, &theirs)?;
            Box::new(move |token, position| model.forward(token, position, &mut cache))
        }
        other => candle_core::bail!("{} is not compared", other.title()),
    })
}

fn is_computed_there(config: &ModelConfig) -> bool {
    let is_unbiased = config.attention_bias == AttentionBias::Absent;
    let heads_fill_the_width = config.head_dim * config.num_attention_heads == config.hidden_size;
    let is_stretched_otherwise = matches!(
        config.rope_scaling,
        RopeScaling::Linear { .. } | RopeScaling::Yarn { .. }
    );
    match config.architecture {
        _ if is_stretched_otherwise => false,
        Architecture::Qwen3 => is_unbiased,
        Architecture::Qwen2 => heads_fill_the_width,
        Architecture::Llama | Architecture::Mistral => {
            is_unbiased && heads_fill_the_width && config.options.window.is_none()
        }
        _ => false,
    }
}

fn llama_config(config: &ModelConfig) -> llama::Config {
    let rope_scaling = match config.rope_scaling {
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_positions,
        } => Some(llama::Llama3RopeConfig {
            factor: factor as f32,
            low_freq_factor: low_frequency_factor as f32,
            high_freq_factor: high_frequency_factor as f32,
            original_max_position_embeddings: original_positions,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
        _ => None,
    };
    llama::Config {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        vocab_size: config.vocab_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: config.max_position_embeddings,
        tie_word_embeddings: config.tie_word_embeddings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_explains_little_and_never_a_nan() {
        let check = |max_difference, mean_difference, expected| {
            let found = LogProbAgreement {
                tokens: 9,
                max_difference,
                mean_difference,
                max_allowed: 1e-3,
                mean_allowed: 1e-4,
            };
            assert_eq!(found.holds(), expected, "{found:?}");
        };
        check(1e-3, 1e-4, true);
        check(0.0, 0.0, true);
        check(1.1e-3, 1e-5, false);
        check(5e-4, 2e-4, false);
        check(f64::NAN, 0.0, false);
        check(0.0, f64::NAN, false);
    }
}
