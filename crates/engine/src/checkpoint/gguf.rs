//! Exports a model as GGUF for llama.cpp: weights, tokenizer and chat template. candle writes the
//! container; names, shapes and metadata follow llama.cpp's `convert_hf_to_gguf.py`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use super::gguf_tokenizer::{Metadata, vocabulary};
use super::{CheckpointError, ExportedAdapter};
use crate::config::choices;
use crate::files::{Access, Sync, replace_file_with};
use crate::hub::{
    Activation, Architecture, AttentionBias, Kind, ModelConfig, ModelSource, ModelTensor, Role,
    RopeScaling, Scope,
};
use crate::kernels::k_quants;
use crate::model::{Weights, peft_name};
use crate::text::TemplateOptions;

choices! {
    /// Storage of matrices, as llama.cpp's converter names it; norms and biases are always f32.
    GgufType {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
        /// 8 bits, and a scale per 32 elements of a row.
        Q8_0 = "q8_0",
        /// 6.6 bits, in blocks of 256.
        Q6K = "q6_k",
        /// 5.5 bits, and Q6K for the embedding and half of `attn_v` and `ffn_down`.
        Q5KM = "q5_k_m",
        /// 4.5 bits, and Q6K as in Q5KM.
        Q4KM = "q4_k_m",
    }
}

impl GgufType {
    fn dtype(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5KM => GgmlDType::Q5K,
            Self::Q4KM => GgmlDType::Q4K,
        }
    }

    /// A tensor's type, as llama.cpp's `llama_tensor_get_type` chooses it.
    fn dtype_of(self, tensor: &ModelTensor, config: &ModelConfig) -> GgmlDType {
        let width = match tensor.shape.as_slice() {
            [.., width] if tensor.shape.len() > 1 => *width,
            _ => return GgmlDType::F32,
        };
        let is_mixture = matches!(self, Self::Q4KM | Self::Q5KM);
        let is_head = match tensor.spec.role {
            Role::Head => true,
            Role::Embedding => config.tie_word_embeddings,
            _ => false,
        };
        let (is_values, is_down) = (tensor.is_values(), tensor.spec.role == Role::Down);
        let has_more_bits = tensor.layer.is_some_and(|layer| {
            let (layers, eighth) = (config.num_hidden_layers, config.num_hidden_layers / 8);
            layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
        });
        let dtype = match self.dtype() {
            _ if is_mixture && (is_head || (is_values || is_down) && has_more_bits) => {
                GgmlDType::Q6K
            }
            // llama.cpp's 70B: eight heads share these values.
            GgmlDType::Q4K
                if is_values
                    && config.num_hidden_layers == 80
                    && config.architecture != Architecture::Qwen3 =>
            {
                GgmlDType::Q5K
            }
            dtype => dtype,
        };
        let of_smaller_blocks = match dtype {
            GgmlDType::Q4K => GgmlDType::Q5_0,
            GgmlDType::Q5K => GgmlDType::Q5_1,
            GgmlDType::Q6K => GgmlDType::Q8_0,
            dtype => dtype,
        };
        // A row must consist of whole blocks.
        [dtype, of_smaller_blocks]
            .into_iter()
            .find(|dtype| width.is_multiple_of(dtype.block_size()))
            .unwrap_or(GgmlDType::F16)
    }

    /// `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }
}

/// What rounding leaves of an adapter: sums over the matrices that it changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rounding {
    /// Squares of what the adapter changes.
    change: f64,
    /// Products of that with what is changed after rounding.
    kept: f64,
}

impl Rounding {
    /// Share of the adapter's change that rounding keeps: about 1 where its errors have nothing to
    /// do with the change, 0 where the rounded matrices are those of the base.
    pub fn kept(self) -> f64 {
        self.kept / self.change
    }

    fn add(&mut self, base: &Tensor, merged: &Tensor, rounded: &Tensor) -> candle_core::Result<()> {
        let change = (merged - base)?;
        let sum = |product: Tensor| product.sum_all()?.to_scalar::<f32>();
        self.change += f64::from(sum(change.sqr()?)?);
        self.kept += f64::from(sum((change * (rounded - base)?)?)?);
        Ok(())
    }
}

/// Writes `weights` and the tokenizer of `source`, whose template renders as with `options`.
/// Adapters are merged in f32 and rounded once, to `stored_as`. Holds all tensors in memory.
/// Returns what types with blocks leave of a merged adapter.
///
/// # Errors
/// [`CheckpointError::Foreign`] for what GGUF or llama.cpp does not support; unreadable weights.
pub fn export_gguf(
    path: &Path,
    source: &ModelSource,
    weights: &Weights,
    stored_as: GgufType,
    options: &TemplateOptions,
) -> Result<Option<Rounding>, CheckpointError> {
    let (config, weights) = (source.config()?, weights.unrounded());
    let (base, mut rounding) = (weights.merged_base(), Rounding::default());
    let refused = |problem: String| {
        let remedy = "write the Hugging Face folder with `model export --merged`";
        CheckpointError::foreign(source.label("config.json"), format!("{problem}; {remedy}"))
    };
    let family = supported_family(source, &config)?;
    if let RopeScaling::Yarn {
        factor,
        original_positions,
        ..
    } = config.rope_scaling
        && config.rope_scaling != RopeScaling::yarn(factor, original_positions)
    {
        let problem = "only YaRN's default `beta_fast`, `beta_slow`, `truncate` and `attention_factor` are written as GGUF".to_owned();
        return Err(refused(problem));
    }
    let is_gemma = config.architecture == Architecture::Gemma3;
    if is_gemma {
        check_gemma(&config).map_err(refused)?;
    } else if let Some(window) = &config.options.window {
        let problem = format!(
            "GGUF's `llama` has no sliding window (`sliding_window` = {}), so llama.cpp would attend to more tokens",
            window.tokens
        );
        return Err(refused(problem));
    }
    let metadata = [
        described(source, &config, family, stored_as),
        vocabulary(source, &config, options)?,
    ]
    .concat();
    let mut tensors = Vec::new();
    for tensor in config.tensors() {
        let read = |weights: &Weights| {
            let numbers = weights.get(&tensor.name, &tensor.shape, DType::F32, &Device::Cpu)?;
            Ok::<_, CheckpointError>(turned(&config, &tensor, numbers)?)
        };
        let numbers = read(&weights)?;
        // llama.cpp adds nothing to norm weights.
        let numbers = match tensor.spec.kind {
            Kind::Norm => numbers.affine(1.0, config.options.norm_offset)?,
            _ => numbers,
        };
        let dtype = stored_as.dtype_of(&tensor, &config);
        let quantized = quantized(&numbers, dtype)?;
        let Some(quantized) = quantized else {
            let problem = format!(
                "tensor `{}` has a number that is not finite, which {} cannot hold; export another checkpoint",
                tensor.name,
                stored_as.name()
            );
            return Err(CheckpointError::foreign(&source.name, problem));
        };
        if let Some(base) = base.filter(|_| dtype.block_size() > 1) {
            rounding.add(&read(base)?, &numbers, &quantized.dequantize(&Device::Cpu)?)?;
        }
        tensors.push((tensor.gguf_name(), quantized));
    }
    if matches!(config.rope_scaling, RopeScaling::Llama3 { .. }) {
        let unscaled = ModelConfig {
            rope_scaling: RopeScaling::Unscaled,
            ..config.clone()
        };
        let plain = unscaled.rope_frequencies(Scope::Everything);
        let divisors: Vec<f32> = plain
            .iter()
            .zip(config.rope_frequencies(Scope::Everything))
            .map(|(plain, scaled)| (plain / scaled) as f32)
            .collect();
        let divisors = Tensor::new(divisors, &Device::Cpu)?;
        tensors.push((
            "rope_freqs.weight".to_owned(),
            QTensor::quantize(&divisors, GgmlDType::F32)?,
        ));
    }
    write_gguf(path, &metadata, &tensors)?;
    Ok(Some(rounding).filter(|rounding| rounding.change > 0.0))
}

/// Writes an adapter for `llama.cpp --lora`, in f32, as its `convert_lora_to_gguf.py` does.
///
/// # Errors
/// As [`export_gguf`].
pub fn export_gguf_adapter(
    path: &Path,
    source: &ModelSource,
    adapter: &ExportedAdapter,
) -> Result<(), CheckpointError> {
    let config = source.config()?;
    let family = supported_family(source, &config)?;
    let text = |text: &str| Value::String(text.to_owned());
    let metadata = [
        ("general.architecture", text(family)),
        ("general.type", text("adapter")),
        ("general.file_type", Value::U32(GgufType::F32.file_type())),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(adapter.alpha as f32)),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let named: HashMap<String, Tensor> = adapter.parameters.named()?.into_iter().collect();
    let mut tensors = Vec::new();
    for tensor in config.tensors() {
        for (which, end) in [("A", "lora_a"), ("B", "lora_b")] {
            let name = peft_name(tensor.layer.unwrap_or(0), tensor.spec.module(), which);
            let Some(numbers) = named.get(&name) else {
                continue;
            };
            // candle would quantize the whole storage of a view.
            let numbers = match which {
                "B" => turned(&config, &tensor, numbers.clone())?,
                _ => numbers.clone(),
            }
            .force_contiguous()?;
            let name = format!("{}.{end}", tensor.gguf_name());
            tensors.push((name, QTensor::quantize(&numbers, GgmlDType::F32)?));
        }
    }
    write_gguf(path, &metadata, &tensors)
}

/// `None` if a number is not finite, for types with scales.
fn quantized(numbers: &Tensor, dtype: GgmlDType) -> Result<Option<QTensor>, CheckpointError> {
    if dtype.block_size() == 1 {
        return Ok(Some(QTensor::quantize(numbers, dtype)?));
    }
    let flat = numbers.flatten_all()?.to_vec1::<f32>()?;
    if !flat.iter().all(|number| number.is_finite()) {
        return Ok(None);
    }
    Ok(Some(match k_quants::quantize(&flat, dtype) {
        Some(blocks) => {
            let storage = QStorage::from_data(blocks.into(), &Device::Cpu, dtype)?;
            QTensor::new(storage, numbers.shape())?
        }
        None => QTensor::quantize(numbers, dtype)?,
    }))
}

fn write_gguf(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[(String, QTensor)],
) -> Result<(), CheckpointError> {
    let metadata: Vec<(&str, &Value)> = metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let failed = |source| CheckpointError::Write {
        path: path.to_owned(),
        source,
    };
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(failed)?;
    let written = replace_file_with(path, Access::Private, Sync::Disk, |file| {
        let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
        write(&mut file, &metadata, &tensors).map_err(std::io::Error::other)?;
        std::io::Write::flush(&mut file)
    });
    written.map_err(failed)
}

/// `general.architecture`.
fn supported_family(
    source: &ModelSource,
    config: &ModelConfig,
) -> Result<&'static str, CheckpointError> {
    let family = match config.architecture {
        Architecture::Qwen3 => Ok("qwen3"),
        Architecture::Qwen2 => Ok("qwen2"),
        Architecture::Gemma3 => Ok("gemma3"),
        // As in llama.cpp's converter.
        Architecture::Llama | Architecture::Mistral => Ok("llama"),
        other => Err(format!(
            "a {} model is not written as GGUF; write its Hugging Face folder with `model export`, and convert that with llama.cpp's convert_hf_to_gguf.py",
            other.title()
        )),
    };
    family
        .and_then(|family| match missing_in(family, config) {
            Some(option) => Err(format!(
                "llama.cpp's `{family}` has no {option}; write the Hugging Face folder with `model export --merged`"
            )),
            None => Ok(family),
        })
        .map_err(|problem| CheckpointError::foreign(source.label("config.json"), problem))
}

/// What the model has and llama.cpp's architecture of this name has not (llama.cpp's `src/models`).
fn missing_in(family: &str, config: &ModelConfig) -> Option<String> {
    let (is_llama, is_gemma) = (family == "llama", family == "gemma3");
    let activation = match is_gemma {
        true => Activation::GeluTanh,
        false => Activation::Silu,
    };
    let own = config.options.activation;
    if config.attention_bias == AttentionBias::All && !is_llama {
        return Some("attention biases (`attention_bias` = true)".to_owned());
    }
    if own != activation {
        return Some(format!("`hidden_act` = {}", own.name()));
    }
    let scaling = match config.rope_scaling {
        RopeScaling::Llama3 { .. } if !is_llama => "llama3",
        // Its window layers would be scaled, too.
        RopeScaling::Yarn { .. } if is_gemma => "yarn",
        _ => return None,
    };
    Some(format!("`rope_type` = {scaling}"))
}

/// One in so many layers is global, as llama.cpp has it; `None` if every layer is.
fn window_pattern(config: &ModelConfig) -> Result<Option<usize>, String> {
    let Some(window) = &config.options.window else {
        return Ok(None);
    };
    let is_global = |scope: &Scope| *scope == Scope::Everything;
    let period = window.scopes.iter().position(is_global);
    let period = period.map_or(window.scopes.len() + 1, |first| first + 1);
    let mut layers = window.scopes.iter().enumerate();
    match layers.all(|(layer, scope)| is_global(scope) == (layer + 1).is_multiple_of(period)) {
        true => Ok(Some(period)),
        false => Err(
            "llama.cpp has one global layer in every so many, these `layer_types` have not"
                .to_owned(),
        ),
    }
}

/// What llama.cpp's `gemma3` computes from the shape alone.
fn check_gemma(config: &ModelConfig) -> Result<(), String> {
    window_pattern(config)?;
    // Only the 27B has 62 layers.
    let scalar = match config.num_hidden_layers {
        62 => config.hidden_size / config.num_attention_heads,
        _ => config.head_dim,
    };
    let own = config.options.query_scalar.unwrap_or(scalar as f64);
    if own == scalar as f64 {
        return Ok(());
    }
    Err(format!(
        "llama.cpp divides scores by the root of {scalar}, not of `query_pre_attn_scalar` = {own}"
    ))
}

/// Architecture and shape.
fn described(
    source: &ModelSource,
    config: &ModelConfig,
    family: &str,
    stored_as: GgufType,
) -> Metadata {
    let name = source.name.rsplit('/').next().unwrap_or_default();
    let of_file = [
        ("general.architecture", Value::String(family.to_owned())),
        ("general.type", Value::String("model".to_owned())),
        ("general.name", Value::String(name.to_owned())),
        ("general.file_type", Value::U32(stored_as.file_type())),
        ("general.quantization_version", Value::U32(2)),
    ];
    let counts = [
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ];
    let constants = [
        ("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
        ("rope.freq_base", config.rope_theta),
    ];
    let of_file = of_file.map(|(key, value)| (key.to_owned(), value));
    let counts = counts.map(|(key, count)| (format!("{family}.{key}"), Value::U32(count as u32)));
    let constants =
        constants.map(|(key, number)| (format!("{family}.{key}"), Value::F32(number as f32)));
    let scaling = match config.rope_scaling {
        RopeScaling::Linear { factor } => vec![
            ("type", Value::String("linear".to_owned())),
            ("factor", Value::F32(factor as f32)),
        ],
        RopeScaling::Yarn {
            factor,
            original_positions,
            ..
        } => vec![
            ("type", Value::String("yarn".to_owned())),
            ("factor", Value::F32(factor as f32)),
            (
                "original_context_length",
                Value::U32(original_positions as u32),
            ),
        ],
        // Families with the last one are not exported.
        RopeScaling::Unscaled | RopeScaling::Llama3 { .. } | RopeScaling::Proportional { .. } => {
            Vec::new()
        }
    };
    let scaling = scaling.into_iter();
    let scaling = scaling.map(|(key, value)| (format!("{family}.rope.scaling.{key}"), value));
    let window = config.options.window.as_ref();
    let period = window_pattern(config).ok().flatten();
    let window = window.zip(period).map(|(window, period)| {
        let keys = [
            ("attention.sliding_window", Value::U32(window.tokens as u32)),
            (
                "attention.sliding_window_pattern",
                Value::U32(period as u32),
            ),
            ("rope.freq_base_swa", Value::F32(window.rope_theta as f32)),
        ];
        keys.map(|(key, value)| (format!("{family}.{key}"), value))
    });
    of_file
        .into_iter()
        .chain(counts)
        .chain(constants)
        .chain(scaling)
        .chain(window.into_iter().flatten())
        .collect()
}

/// Permutes rows of queries and keys for Llama: llama.cpp rotates adjacent pairs, the checkpoint
/// the two halves of a head.
fn turned(
    config: &ModelConfig,
    tensor: &ModelTensor,
    numbers: Tensor,
) -> candle_core::Result<Tensor> {
    let is_llama = [Architecture::Llama, Architecture::Mistral].contains(&config.architecture);
    if !is_llama || !tensor.is_query_or_key() {
        return Ok(numbers);
    }
    let heads = numbers.dim(0)? / config.head_dim;
    let rest = numbers.elem_count() / numbers.dim(0)?;
    let halves = numbers.reshape((heads, 2, config.head_dim / 2, rest))?;
    halves
        .transpose(1, 2)?
        .contiguous()?
        .reshape(numbers.shape())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(kind: &str, shape: [usize; 5]) -> ModelConfig {
        let [hidden, inner, layers, heads, head] = shape;
        let json = serde_json::json!({
            "model_type": kind, "vocab_size": 512, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": 1, "head_dim": head, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
            "max_position_embeddings": 256, "tie_word_embeddings": layers != 80, "sliding_window": 128, "query_pre_attn_scalar": 256,
        });
        ModelConfig::parse(&json.to_string(), kind).unwrap()
    }

    fn types(config: &ModelConfig, stored_as: GgufType, end: &str) -> Vec<GgmlDType> {
        let is_named = |tensor: &ModelTensor| {
            let name = tensor.gguf_name().replace(".weight", "");
            name == end || name.ends_with(&format!(".{end}"))
        };
        let tensors = config.tensors().into_iter();
        tensors
            .filter(is_named)
            .map(|tensor| stored_as.dtype_of(&tensor, config))
            .collect()
    }

    /// As in the published gemma-3-270m-q4_k_m.gguf.
    /// Rounding to the base's own lattice undoes a small change; finer types keep it.
    #[test]
    fn what_rounding_leaves_of_an_adapter_is_measured() {
        let numbers: Vec<f32> = (0..512).map(|place| (place as f32 * 0.7).sin()).collect();
        let numbers = Tensor::from_vec(numbers, (2, 256), &Device::Cpu).unwrap();
        let rounded = |numbers: &Tensor, dtype| {
            let rounded = quantized(numbers, dtype).unwrap().unwrap();
            rounded.dequantize(&Device::Cpu).unwrap()
        };
        let base = rounded(&numbers, GgmlDType::Q4_0);
        let change: Vec<f32> = (0..512).map(|place| (place as f32 * 1.3).cos()).collect();
        let change = Tensor::from_vec(change, (2, 256), &Device::Cpu).unwrap();
        for (dtype, size, kept) in [
            (GgmlDType::Q4_0, 1e-5, -0.1..0.1),
            (GgmlDType::Q8_0, 0.05, 0.9..1.1),
        ] {
            let merged = (&base + change.affine(size, 0.0).unwrap()).unwrap();
            let mut rounding = Rounding::default();
            let after = rounded(&merged, dtype);
            rounding.add(&base, &merged, &after).unwrap();
            assert!(kept.contains(&rounding.kept()), "{dtype:?}: {rounding:?}");
        }
    }

    #[test]
    fn a_mixture_has_the_types_that_llama_cpp_chooses() {
        let gemma = config("gemma3_text", [640, 2048, 18, 4, 256]);
        let more = [0, 1, 4, 7, 10, 13, 15, 16, 17];
        let mixed = |many, few| -> Vec<GgmlDType> {
            let of = |layer| if more.contains(&layer) { many } else { few };
            (0..18).map(of).collect()
        };
        let cases = [
            ("token_embd", vec![GgmlDType::Q8_0]),
            ("attn_q", vec![GgmlDType::Q5_0; 18]),
            ("attn_output", vec![GgmlDType::Q4K; 18]),
            ("attn_v", mixed(GgmlDType::Q8_0, GgmlDType::Q5_0)),
            ("ffn_down", mixed(GgmlDType::Q6K, GgmlDType::Q4K)),
            ("ffn_norm", vec![GgmlDType::F32; 18]),
        ];
        for (end, expected) in cases {
            assert_eq!(types(&gemma, GgufType::Q4KM, end), expected, "{end}");
        }
    }

    #[test]
    fn options_that_llama_cpp_lacks_are_named() {
        let shape = [64, 128, 2, 4, 16];
        let of = |kind, change: fn(&mut ModelConfig)| {
            let mut config = config(kind, shape);
            change(&mut config);
            config
        };
        let biased: fn(&mut ModelConfig) = |config| config.attention_bias = AttentionBias::All;
        let tanh: fn(&mut ModelConfig) = |config| config.options.activation = Activation::GeluTanh;
        let silu: fn(&mut ModelConfig) = |config| config.options.activation = Activation::Silu;
        let long: fn(&mut ModelConfig) = |config| {
            config.rope_scaling = RopeScaling::Llama3 {
                factor: 8.0,
                low_frequency_factor: 1.0,
                high_frequency_factor: 4.0,
                original_positions: 128,
            }
        };
        let yarn: fn(&mut ModelConfig) = |config| config.rope_scaling = RopeScaling::yarn(4.0, 128);
        for (kind, family, change, expected) in [
            ("qwen3", "qwen3", biased, "attention biases"),
            ("gemma3_text", "gemma3", biased, "attention biases"),
            ("llama", "llama", biased, ""),
            ("qwen3", "qwen3", tanh, "`hidden_act` = gelu_pytorch_tanh"),
            ("llama", "llama", tanh, "`hidden_act` = gelu_pytorch_tanh"),
            ("gemma3_text", "gemma3", silu, "`hidden_act` = silu"),
            ("gemma3_text", "gemma3", tanh, ""),
            ("qwen2", "qwen2", long, "`rope_type` = llama3"),
            ("llama", "llama", long, ""),
            ("gemma3_text", "gemma3", yarn, "`rope_type` = yarn"),
            ("qwen3", "qwen3", yarn, ""),
        ] {
            let missing = missing_in(family, &of(kind, change)).unwrap_or_default();
            assert!(missing.starts_with(expected), "{kind}: {missing}");
            assert_eq!(missing.is_empty(), expected.is_empty(), "{kind}: {missing}");
        }
    }

    #[test]
    fn other_mixtures_and_shapes_have_their_own_types() {
        let llama = config("llama", [576, 1536, 8, 9, 64]);
        let large = config("llama", [512, 1024, 80, 4, 128]);
        let narrow = config("llama", [48, 64, 2, 3, 16]);
        use GgmlDType::{F16, Q4K, Q5_1, Q5K, Q6K, Q8_0};
        let cases = [
            (&llama, GgufType::Q5KM, "attn_q", Q5_1),
            (&llama, GgufType::Q5KM, "blk.2.ffn_down", Q5K),
            (&llama, GgufType::Q5KM, "blk.0.ffn_down", Q6K),
            (&llama, GgufType::Q6K, "attn_q", Q8_0),
            (&llama, GgufType::Q6K, "blk.2.ffn_down", Q6K),
            (&llama, GgufType::Q8_0, "token_embd", Q8_0),
            (&large, GgufType::Q4KM, "blk.10.attn_v", Q5K),
            (&large, GgufType::Q4KM, "blk.12.attn_v", Q6K),
            (&large, GgufType::Q4KM, "token_embd", Q4K),
            (&large, GgufType::Q4KM, "output", Q6K),
            (&narrow, GgufType::Q4KM, "attn_q", F16),
            (&narrow, GgufType::Q4KM, "blk.1.ffn_down", Q8_0),
        ];
        for (config, stored_as, end, expected) in cases {
            let found = types(config, stored_as, end);
            assert_eq!(found[0], expected, "{} {end}", stored_as.name());
        }
    }
}
