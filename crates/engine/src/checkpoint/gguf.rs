//! Exports a model as GGUF for llama.cpp: weights, tokenizer and chat template. candle writes the
//! container; names, shapes and metadata follow llama.cpp's `convert_hf_to_gguf.py`.

use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;

use super::CheckpointError;
use crate::config::choices;
use crate::files::{Access, Sync, replace_file_with};
use crate::hub::{Architecture, ModelConfig, ModelSource, ModelTensor, RopeScaling, Scope};
use crate::model::Weights;
use crate::text::{QWEN2_WORDS, TextError, Tokenizer, tokenizer_json};

choices! {
    /// Storage of matrices, as llama.cpp's converter names it; norms and biases are always f32.
    GgufType {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
        /// 8 bits, and a scale per 32 elements of a row.
        Q8_0 = "q8_0",
    }
}

impl GgufType {
    fn dtype(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
        }
    }

    /// `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }
}

/// Writes `weights` and the tokenizer of `source`. Adapters are merged in f32 and rounded once, to
/// `stored_as`. Holds all tensors in memory.
///
/// # Errors
/// [`CheckpointError::Foreign`] for what GGUF or llama.cpp does not support; unreadable weights.
pub fn export_gguf(
    path: &Path,
    source: &ModelSource,
    weights: &Weights,
    stored_as: GgufType,
) -> Result<(), CheckpointError> {
    let (config, weights) = (source.config()?, weights.unrounded());
    let refused = |problem| CheckpointError::foreign(source.label("config.json"), problem);
    let Some(family) = family(config.architecture) else {
        let problem = format!(
            "a {} model is not written as GGUF; write its Hugging Face folder with `model export`, and convert that with llama.cpp's convert_hf_to_gguf.py",
            config.architecture.title()
        );
        return Err(refused(problem));
    };
    if let RopeScaling::Yarn {
        factor,
        original_positions,
        ..
    } = config.rope_scaling
        && config.rope_scaling != RopeScaling::yarn(factor, original_positions)
    {
        let problem = "only YaRN's default `beta_fast`, `beta_slow`, `truncate` and `attention_factor` are written as GGUF; write the Hugging Face folder with `model export --merged`".to_owned();
        return Err(refused(problem));
    }
    if let Some(window) = &config.options.window {
        let problem = format!(
            "GGUF's `llama` has no sliding window (`sliding_window` = {}), so llama.cpp would attend to more tokens; write the Hugging Face folder with `model export --merged`",
            window.tokens
        );
        return Err(refused(problem));
    }
    let metadata = [
        described(source, &config, family, stored_as),
        vocabulary(source, &config)?,
    ]
    .concat();
    let mut tensors = Vec::new();
    for tensor in config.tensors() {
        let numbers = weights.get(&tensor.name, &tensor.shape, DType::F32, &Device::Cpu)?;
        let dtype = match (tensor.shape.as_slice(), stored_as.dtype()) {
            ([_], _) => GgmlDType::F32,
            // A row must consist of whole blocks.
            ([.., width], dtype) if width % dtype.block_size() != 0 => GgmlDType::F16,
            (_, dtype) => dtype,
        };
        tensors.push((
            tensor.gguf_name(),
            QTensor::quantize(&turned(&config, &tensor, numbers)?, dtype)?,
        ));
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

type Metadata = Vec<(String, Value)>;

/// `general.architecture` of a family, if supported.
fn family(architecture: Architecture) -> Option<&'static str> {
    match architecture {
        Architecture::Qwen3 => Some("qwen3"),
        Architecture::Qwen2 => Some("qwen2"),
        // As in llama.cpp's converter.
        Architecture::Llama | Architecture::Mistral => Some("llama"),
        _ => None,
    }
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
            (
                format!("{family}.rope.scaling.type"),
                Value::String("linear".to_owned()),
            ),
            (
                format!("{family}.rope.scaling.factor"),
                Value::F32(factor as f32),
            ),
        ],
        RopeScaling::Yarn {
            factor,
            original_positions,
            ..
        } => vec![
            (
                format!("{family}.rope.scaling.type"),
                Value::String("yarn".to_owned()),
            ),
            (
                format!("{family}.rope.scaling.factor"),
                Value::F32(factor as f32),
            ),
            (
                format!("{family}.rope.scaling.original_context_length"),
                Value::U32(original_positions as u32),
            ),
        ],
        // Families with the last one are not exported.
        RopeScaling::Unscaled | RopeScaling::Llama3 { .. } | RopeScaling::Proportional { .. } => {
            Vec::new()
        }
    };
    of_file
        .into_iter()
        .chain(counts)
        .chain(constants)
        .chain(scaling)
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

/// Llama 3's pre-tokenizer.
pub(super) const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Pre-tokenizer of Mistral's Tekken.
pub(super) const TEKKEN_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's names of pre-tokenizers, by the pattern in `tokenizer.json`.
const WORDS: [(&str, &str); 3] = [
    (QWEN2_WORDS, "qwen2"),
    (LLAMA3_WORDS, "llama-bpe"),
    (TEKKEN_WORDS, "tekken"),
];

fn cut_of(tokenizer: &Json) -> Option<&'static str> {
    let cut = &tokenizer["pre_tokenizer"];
    let steps: Vec<&Json> = cut["pretokenizers"]
        .as_array()
        .map_or_else(|| vec![cut], |steps| steps.iter().collect());
    let (bytes, before) = steps.split_last()?;
    let is_plain = bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] != true;
    let cuts_words = bytes["use_regex"] != false;
    match before {
        _ if !is_plain => None,
        [] if cuts_words => Some("gpt-2"),
        [digits]
            if cuts_words && digits["type"] == "Digits" && digits["individual_digits"] == true =>
        {
            Some("smollm")
        }
        [split] if !cuts_words && split["type"] == "Split" && split["behavior"] == "Isolated" => {
            WORDS
                .iter()
                .find(|(pattern, _)| split["pattern"]["Regex"] == *pattern)
                .map(|(_, name)| *name)
        }
        _ => None,
    }
}

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;

/// Key of a separate template for prompts with tools.
pub(super) const TOOL_TEMPLATE: &str = "tokenizer.chat_template.tool_use";

/// Tokens, merges, stop tokens and chat templates.
fn vocabulary(source: &ModelSource, config: &ModelConfig) -> Result<Metadata, CheckpointError> {
    let label = source.label("tokenizer.json");
    let remedy =
        "export with --merged, and convert the folder with llama.cpp's own convert_hf_to_gguf.py";
    let refused =
        |problem: String| CheckpointError::foreign(&label, format!("{problem}; {remedy}"));
    let file = tokenizer_json(source).map_err(|error| match error {
        TextError::Hub(error) => error.into(),
        error => refused(error.to_string()),
    })?;
    let tokenizer: Json =
        serde_json::from_slice(&file).map_err(|error| refused(error.to_string()))?;
    let vocab = tokenizer["model"]["vocab"].as_object();
    let merges = tokenizer["model"]["merges"].as_array();
    let (Some(vocab), Some(merges)) = (vocab, merges) else {
        return Err(refused(
            "only byte-level BPE tokenizers can be written".to_owned(),
        ));
    };
    let cut = cut_of(&tokenizer).ok_or_else(|| {
        refused(format!(
            "llama.cpp cuts text in no way that equals its `pre_tokenizer`: {}",
            tokenizer["pre_tokenizer"]
        ))
    })?;
    let added = tokenizer["added_tokens"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    // Embedding rows without a token need a name too.
    let mut tokens: Vec<(String, i32)> = (0..config.vocab_size)
        .map(|id| (format!("[PAD{id}]"), UNUSED))
        .collect();
    let known = vocab.iter().map(|(token, id)| (token.as_str(), id, NORMAL));
    let special = added.iter().map(|token| {
        let kind = if token["special"] == true {
            CONTROL
        } else {
            USER_DEFINED
        };
        (
            token["content"].as_str().unwrap_or_default(),
            &token["id"],
            kind,
        )
    });
    for (token, id, kind) in known.chain(special) {
        let row = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
        *row.ok_or_else(|| {
            refused(format!(
                "token {token:?} has id {id}, but config.json says `vocab_size` = {}",
                config.vocab_size
            ))
        })? = (token.to_owned(), kind);
    }
    let merge = |merge: &Json| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
        (Some(merge), _) => Some(merge.to_owned()),
        (_, Some([first, second])) => Some(format!("{} {}", first.as_str()?, second.as_str()?)),
        _ => None,
    };
    let merges: Option<Vec<Value>> = merges
        .iter()
        .map(|pair| merge(pair).map(Value::String))
        .collect();
    let merges = merges
        .filter(|merges| !merges.is_empty())
        .ok_or_else(|| refused("its `merges` are no list of pairs of tokens".to_owned()))?;
    let read = Tokenizer::load(source).map_err(|error| refused(error.to_string()))?;
    let (names, kinds): (Vec<Value>, Vec<Value>) = tokens
        .into_iter()
        .map(|(token, kind)| (Value::String(token), Value::I32(kind)))
        .unzip();
    let mut metadata = vec![
        ("model", Value::String("gpt2".to_owned())),
        ("pre", Value::String(cut.to_owned())),
        ("tokens", Value::Array(names)),
        ("token_type", Value::Array(kinds)),
        ("merges", Value::Array(merges)),
        // The chat template contains the beginning of a prompt.
        ("add_bos_token", Value::Bool(false)),
    ];
    let template = read.chat_template();
    let named =
        |name: &str| template.and_then(|template| read.token_id(template.special_token(name)?));
    // `eos_token` first, since templates may write it. GGUF has three stop tokens.
    let mut stops: Vec<u32> = [named("eos_token"), read.turn_end_id()]
        .into_iter()
        .flatten()
        .chain(read.stop_ids().iter().copied())
        .collect();
    let mut seen = std::collections::HashSet::new();
    stops.retain(|id| seen.insert(*id));
    let stop_keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let ids = [
        ("bos_token_id", named("bos_token")),
        ("padding_token_id", named("pad_token")),
    ]
    .into_iter()
    .chain(stop_keys.into_iter().zip(stops.into_iter().map(Some)));
    metadata.extend(ids.filter_map(|(key, id)| Some((key, Value::U32(id?)))));
    let mut metadata: Metadata = metadata
        .into_iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
    metadata.extend(template.map(|template| {
        (
            "tokenizer.chat_template".to_owned(),
            Value::String(template.exported_source().into_owned()),
        )
    }));
    if let Some(text) = template.and_then(|template| template.tool_use_source()) {
        let name = "tool_use".to_owned();
        metadata.extend([
            (
                "tokenizer.chat_templates".to_owned(),
                Value::Array(vec![Value::String(name)]),
            ),
            (TOOL_TEMPLATE.to_owned(), Value::String(text.to_owned())),
        ]);
    }
    Ok(metadata)
}
