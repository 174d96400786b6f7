//! Parses `config.json`: a model's shape, or why it is not supported.

use serde_json::{Map, Value, json};

use super::HubError;

mod fp8;
mod gemma3;
mod gemma4;
mod gpt_oss;
mod mistral;
mod options;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod rope;

pub use fp8::{Fp8Scales, Quantization};
pub use options::{
    Activation, ClampedGate, DecoderOptions, ExpertTensors, Experts, GatedDelta, GlobalHeads,
    KeysValues, LayerHeads, Mixer, Scope, SharedLayers, SlidingWindow,
};
pub use rope::RopeScaling;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Grouped-query attention with RMS-normalised queries and keys, rotary positions, SwiGLU.
    Qwen3,
    Qwen3Moe,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values, no head norms.
    Qwen2,
    /// Llama and similar (SmolLM2): no biases or head norms; Llama 3's scaled rotary positions.
    Llama,
    /// Mistral 7B, Nemo, Small: Llama with an explicit head dimension, in its first version a
    /// sliding window.
    Mistral,
    /// Gemma 3, text: five sliding-window layers per global one, norms around each block.
    Gemma3,
    /// Gemma 4, text: wider heads in global layers, value norms; small models have per-layer inputs
    /// and layers that share keys and values.
    Gemma4,
    /// Qwen3.5, text: three gated delta rule layers per layer of gated attention.
    Qwen35,
    /// Qwen3.5 with mixture-of-experts layers and a shared expert.
    Qwen35Moe,
    /// gpt-oss: attention with sinks, every second layer with a sliding window, mixture of experts
    /// with biases.
    GptOss,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    Absent,
    QueryKeyValue,
    All,
}

/// A decoder's shape and layer constants.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Rows of the embedding and the head; token ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of a dense feed-forward block.
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Divides the query heads.
    pub num_key_value_heads: usize,
    /// Even; need not be `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    pub attention_bias: AttentionBias,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Longest supported sequence in tokens.
    pub max_position_embeddings: usize,
    pub options: DecoderOptions,
}

impl ModelConfig {
    /// Parses a Hugging Face `config.json`; `path_label` names it in messages. Understands all
    /// spellings of rotary settings: `rope_theta` with `rope_scaling` (kind in `rope_type` or
    /// `type`), and `rope_parameters` of transformers 5.
    ///
    /// # Errors
    /// [`HubError::Config`] for a missing or impossible value, [`HubError::Unsupported`] for what
    /// the engine does not compute.
    pub fn parse(json_text: &str, path_label: &str) -> Result<Self, HubError> {
        let value: Value = serde_json::from_str(json_text).map_err(|error| HubError::Config {
            path: path_label.to_owned(),
            problem: format!("not valid JSON ({error}); fetch the model again"),
        })?;
        let Value::Object(keys) = value else {
            return Err(HubError::Config {
                path: path_label.to_owned(),
                problem: "not a JSON object; fetch the model again".to_owned(),
            });
        };
        Reader {
            keys,
            path: path_label,
        }
        .model()
    }

    /// The `config.json` for transformers and [`ModelConfig::parse`], with the ids that end a
    /// completion.
    pub fn to_json(&self, torch_dtype: &str, eos_token_ids: &[u32]) -> String {
        let (architecture, model_type) = self.architecture.names();
        let eos = match eos_token_ids {
            [one] => json!(one),
            several => json!(several),
        };
        let mut config = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": self.options.activation.name(),
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.to_json(),
            "attention_bias": self.attention_bias == AttentionBias::All,
            "use_sliding_window": false,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "eos_token_id": eos,
            "torch_dtype": torch_dtype,
        });
        if let Value::Object(keys) = &mut config {
            match self.architecture {
                // Its biases are part of the architecture.
                Architecture::Qwen2 => drop(keys.remove("attention_bias")),
                Architecture::Mistral => {
                    keys.remove("use_sliding_window");
                    let window = self.options.window.as_ref().map(|window| window.tokens);
                    keys.insert("sliding_window".to_owned(), json!(window));
                }
                Architecture::Gemma3 => {
                    keys.retain(|key, _| key != "hidden_act" && key != "use_sliding_window");
                    keys.extend(gemma3::keys(self));
                }
                Architecture::Gemma4 => gemma4::write_keys(self, keys),
                Architecture::Qwen35 => qwen3_5::write_keys(self, keys),
                Architecture::Qwen35Moe => qwen3_5_moe::write_keys(self, keys),
                Architecture::GptOss => gpt_oss::write_keys(self, keys),
                Architecture::Qwen3Moe => qwen3_moe::write_keys(self, keys),
                Architecture::Qwen3 | Architecture::Llama => {}
            }
        }
        format!("{config:#}\n")
    }
}

/// Limits several times those of any published decoder: memory is reserved by them before a weight
/// is read.
const MAX_COUNTS: [(&str, usize); 26] = [
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 18),
    ("intermediate_size", 1 << 20),
    ("num_hidden_layers", 1 << 10),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 12),
    ("max_position_embeddings", 1 << 24),
    ("linear_num_key_heads", 1 << 12),
    ("linear_num_value_heads", 1 << 12),
    ("linear_key_head_dim", 1 << 12),
    ("linear_value_head_dim", 1 << 12),
    ("linear_conv_kernel_dim", 1 << 6),
    ("num_experts", 1 << 12),
    ("num_local_experts", 1 << 12),
    ("num_experts_per_tok", 1 << 12),
    ("shared_expert_intermediate_size", 1 << 20),
    ("sliding_window", 1 << 24),
    ("moe_intermediate_size", 1 << 20),
    ("decoder_sparse_step", 1 << 10),
    ("top_k_experts", 1 << 12),
    ("global_head_dim", 1 << 12),
    ("num_global_key_value_heads", 1 << 12),
    ("num_kv_shared_layers", 1 << 10),
    ("hidden_size_per_layer_input", 1 << 12),
    ("vocab_size_per_layer_input", 1 << 24),
];
/// Rotary angles, `max_position_embeddings * head_dim`: 1 GiB in f32, twice a million positions
/// of 128.
const MAX_ANGLES: usize = 1 << 28;

struct Reader<'a> {
    keys: Map<String, Value>,
    path: &'a str,
}

impl Reader<'_> {
    fn model(mut self) -> Result<ModelConfig, HubError> {
        let architecture = self.architecture()?;
        self.keys = text_keys(architecture, self.keys);
        self.refuse_what_is_not_computed(architecture)?;
        let (rope_theta, rope_scaling) = match architecture {
            Architecture::Gemma3 | Architecture::Gemma4 => self.layer_rope("full_attention")?,
            _ => (self.rope_theta()?, self.rope_scaling()?),
        };
        let hidden_size = self.count("hidden_size")?;
        let num_attention_heads = self.count("num_attention_heads")?;
        let config = ModelConfig {
            architecture,
            vocab_size: self.count("vocab_size")?,
            hidden_size,
            intermediate_size: self.count("intermediate_size")?,
            num_hidden_layers: self.count("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: self.count_or("num_key_value_heads", num_attention_heads)?,
            head_dim: self.head_dim(hidden_size, num_attention_heads)?,
            rms_norm_eps: self.positive("rms_norm_eps", self.keys.get("rms_norm_eps"), 1e-6)?,
            rope_theta,
            rope_scaling,
            attention_bias: self.attention_bias(architecture)?,
            tie_word_embeddings: self.flag("tie_word_embeddings")?,
            max_position_embeddings: self
                .count_or("max_position_embeddings", default_positions(architecture))?,
            options: self.options(architecture)?,
        };
        if !num_attention_heads.is_multiple_of(config.num_key_value_heads) {
            let problem = format!(
                "`num_attention_heads` = {num_attention_heads} is not a multiple of `num_key_value_heads` = {}",
                config.num_key_value_heads
            );
            return Err(self.problem(problem));
        }
        let widest = config
            .head_dimension(Scope::Everything)
            .max(config.head_dim);
        if config.max_position_embeddings * widest > MAX_ANGLES {
            return Err(self.problem(format!(
                "`max_position_embeddings` = {} times a head's width of {} is more than {MAX_ANGLES} angles; lower `max_position_embeddings` to what you need",
                config.max_position_embeddings, widest
            )));
        }
        Ok(config)
    }

    fn architecture(&self) -> Result<Architecture, HubError> {
        let model_type = self.keys.get("model_type").and_then(Value::as_str);
        let named = self
            .keys
            .get("architectures")
            .and_then(|list| list.get(0))
            .and_then(Value::as_str);
        match (named, model_type) {
            (Some("Qwen3ForCausalLM"), _) | (None, Some("qwen3")) => Ok(Architecture::Qwen3),
            (Some("Qwen3MoeForCausalLM"), _) | (None, Some("qwen3_moe")) => Ok(Architecture::Qwen3Moe),
            (Some("Qwen2ForCausalLM"), _) | (None, Some("qwen2")) => Ok(Architecture::Qwen2),
            (Some("LlamaForCausalLM"), _) | (None, Some("llama")) => Ok(Architecture::Llama),
            (Some("MistralForCausalLM" | "Mistral3ForConditionalGeneration"), _) | (None, Some("mistral" | "mistral3")) => {
                self.mistral()
            }
            (Some("Gemma3ForCausalLM" | "Gemma3ForConditionalGeneration"), _)
            | (None, Some("gemma3_text" | "gemma3")) => Ok(Architecture::Gemma3),
            (Some("Gemma4ForCausalLM" | "Gemma4ForConditionalGeneration"), _)
            | (None, Some("gemma4_text" | "gemma4")) => Ok(Architecture::Gemma4),
            (Some("Qwen3_5ForCausalLM" | "Qwen3_5ForConditionalGeneration"), _)
            | (None, Some("qwen3_5_text" | "qwen3_5")) => Ok(Architecture::Qwen35),
            (Some("Qwen3_5MoeForCausalLM" | "Qwen3_5MoeForConditionalGeneration"), _)
            | (None, Some("qwen3_5_moe_text" | "qwen3_5_moe")) => Ok(Architecture::Qwen35Moe),
            (Some("GptOssForCausalLM"), _) | (None, Some("gpt_oss")) => Ok(Architecture::GptOss),
            (None, None) => Err(self.problem(
                "`architectures` and `model_type` are missing; is this the config.json of a model?".to_owned(),
            )),
            (named, model_type) => Err(HubError::Unsupported {
                path: self.path.to_owned(),
                feature: format!("the architecture `{}`", named.or(model_type).unwrap_or_default()),
                remedy: "use a model whose `architectures` is Qwen3ForCausalLM, Qwen3MoeForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM, MistralForCausalLM, Gemma3ForCausalLM, Gemma4ForCausalLM, Qwen3_5ForCausalLM, Qwen3_5MoeForCausalLM or GptOssForCausalLM".to_owned(),
            }),
        }
    }

    /// A Mistral, unless the file's text part is another model.
    fn mistral(&self) -> Result<Architecture, HubError> {
        let text = self
            .keys
            .get("text_config")
            .and_then(|text| text.get("model_type"))
            .and_then(Value::as_str);
        match text {
            None | Some("mistral") => Ok(Architecture::Mistral),
            Some(other) => Err(self.unsupported(
                &format!("the text model `{other}` (`text_config.model_type`)"),
                "use a model whose text part is `mistral`, such as Mistral Small 3.2",
            )),
        }
    }

    fn options(&self, architecture: Architecture) -> Result<DecoderOptions, HubError> {
        let options = match architecture {
            Architecture::Qwen3 => DecoderOptions::QWEN3,
            Architecture::Qwen3Moe => self.qwen3_moe_options()?,
            Architecture::Qwen2 | Architecture::Llama => DecoderOptions::PLAIN,
            Architecture::Mistral => self.mistral_options()?,
            Architecture::Gemma3 => self.gemma3_options()?,
            Architecture::Gemma4 => self.gemma4_options()?,
            Architecture::Qwen35 => self.qwen3_5_options()?,
            Architecture::Qwen35Moe => self.qwen3_5_moe_options()?,
            Architecture::GptOss => self.gpt_oss_options()?,
        };
        let name = self
            .keys
            .get("hidden_act")
            .and_then(Value::as_str)
            .unwrap_or(options.activation.name());
        match Activation::from_name(name) {
            Some(activation) => Ok(DecoderOptions {
                activation,
                ..options
            }),
            None => Err(self.unsupported(
                &format!("the activation `{name}` (`hidden_act`)"),
                "only silu and gelu_pytorch_tanh are supported",
            )),
        }
    }

    fn refuse_what_is_not_computed(&self, architecture: Architecture) -> Result<(), HubError> {
        if self.flag("mlp_bias")? {
            return Err(self.unsupported(
                "`mlp_bias` = true",
                "use a model without biases in its feed-forward block",
            ));
        }
        let direction = self
            .keys
            .get("use_bidirectional_attention")
            .unwrap_or(&Value::Null);
        if !matches!(direction, Value::Null | Value::Bool(false)) {
            let feature = format!("`use_bidirectional_attention` = {direction}");
            return Err(self.unsupported(&feature, "use a model that generates text"));
        }
        let soft_caps: &[&str] = match architecture {
            Architecture::Gemma4 => &["attn_logit_softcapping"],
            _ => &["attn_logit_softcapping", "final_logit_softcapping"],
        };
        if let Some(key) = soft_caps.iter().find(|key| self.given(key).is_some()) {
            let feature = format!("`{key}` = {}", self.keys[*key]);
            return Err(
                self.unsupported(&feature, "use a model without soft caps, such as Gemma 3")
            );
        }
        let sliding = |value: &Value| {
            value
                .as_array()
                .is_some_and(|layers| layers.iter().any(|layer| layer != "full_attention"))
        };
        let is_sliding =
            self.flag("use_sliding_window")? || self.keys.get("layer_types").is_some_and(sliding);
        let reads_layer_types = [
            Architecture::Gemma3,
            Architecture::Gemma4,
            Architecture::Qwen35,
            Architecture::Qwen35Moe,
            Architecture::GptOss,
        ];
        if is_sliding && !reads_layer_types.contains(&architecture) {
            return Err(self.unsupported(
                "a sliding attention window in use",
                "use a model whose layers all have full attention, or Mistral, Gemma 3, Gemma 4 or gpt-oss",
            ));
        }
        match Quantization::parse(&self.keys, self.path)? {
            Some(Quantization::Mxfp4) if architecture != Architecture::GptOss => Err(self
                .unsupported(
                    "MXFP4 outside gpt-oss",
                    "use the original weights in float32, float16 or bfloat16",
                )),
            _ => Ok(()),
        }
    }

    fn unsupported(&self, feature: &str, remedy: &str) -> HubError {
        let (path, feature, remedy) = (self.path.to_owned(), feature.to_owned(), remedy.to_owned());
        HubError::Unsupported {
            path,
            feature,
            remedy,
        }
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize, HubError> {
        if self.given("head_dim").is_none() && !hidden_size.is_multiple_of(heads) {
            return Err(self.problem(format!(
                "`head_dim` is missing and `hidden_size` = {hidden_size} is not a multiple of `num_attention_heads` = {heads}"
            )));
        }
        let head_dim = self.count_or("head_dim", hidden_size / heads)?;
        match head_dim % 2 {
            0 => Ok(head_dim),
            _ => Err(self.problem(format!(
                "the width of a head is {head_dim}; rotary positions need an even one: check `head_dim`"
            ))),
        }
    }

    fn attention_bias(&self, architecture: Architecture) -> Result<AttentionBias, HubError> {
        match architecture {
            Architecture::Qwen2 => Ok(AttentionBias::QueryKeyValue),
            _ => Ok(if self.flag("attention_bias")? {
                AttentionBias::All
            } else {
                AttentionBias::Absent
            }),
        }
    }

    fn count(&self, key: &str) -> Result<usize, HubError> {
        match self.keys.get(key) {
            None => Err(self.problem(format!("`{key}` is missing; fetch the model again"))),
            Some(value) => match (
                value.as_u64(),
                MAX_COUNTS.iter().find(|(name, _)| *name == key),
            ) {
                (Some(number), Some((_, most))) if number > *most as u64 => Err(self.problem(
                    format!("`{key}` = {number}, the limit is {most}; fetch the model again"),
                )),
                (Some(number), _) if number > 0 => Ok(number as usize),
                _ => Err(self.problem(format!(
                    "`{key}` = {value}, expected a whole number above 0"
                ))),
            },
        }
    }

    fn count_or(&self, key: &str, default: usize) -> Result<usize, HubError> {
        self.given(key).map_or(Ok(default), |_| self.count(key))
    }

    /// A key's value other than null.
    fn given(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// What each layer's type in `layer_types` means; `None` in older files.
    fn by_layer_type<T: Copy>(&self, known: [(&str, T); 2]) -> Result<Option<Vec<T>>, HubError> {
        let Some(types) = self.given("layer_types") else {
            return Ok(None);
        };
        let meaning = |layer_type: &Value| {
            let found = known
                .iter()
                .find(|(name, _)| layer_type.as_str() == Some(name));
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                self.unsupported(
                    &format!("the layer type {layer_type}"),
                    &format!("only `{}` and `{}` are supported", known[0].0, known[1].0),
                )
            })
        };
        let types = types.as_array().map_or(&[][..], Vec::as_slice).iter();
        let found = types.map(meaning).collect::<Result<Vec<_>, _>>()?;
        let layers = self.count("num_hidden_layers")?;
        if found.len() == layers {
            return Ok(Some(found));
        }
        Err(self.problem(format!(
            "`layer_types` has {} entries for {layers} layers",
            found.len()
        )))
    }

    fn positive(&self, key: &str, value: Option<&Value>, default: f64) -> Result<f64, HubError> {
        match value {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 => Ok(number),
                _ => Err(self.problem(format!("`{key}` = {value}, expected a number above 0"))),
            },
        }
    }

    fn flag(&self, key: &str) -> Result<bool, HubError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.problem(format!("`{key}` = {value}, expected true or false"))),
        }
    }

    fn problem(&self, problem: String) -> HubError {
        HubError::Config {
            path: self.path.to_owned(),
            problem,
        }
    }
}

fn text_keys(architecture: Architecture, mut keys: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(text)) = keys.remove("text_config") {
        let shared = ["quantization_config", "tie_word_embeddings"]
            .map(|key| (key.to_owned(), keys.remove(key)));
        keys = text;
        keys.extend(
            shared
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
    }
    match architecture {
        Architecture::Mistral => add_missing(&mut keys, &mistral::DEFAULTS),
        Architecture::Gemma3 => gemma3::add_defaults(&mut keys),
        Architecture::Gemma4 => gemma4::add_defaults(&mut keys),
        Architecture::Qwen35 => add_missing(&mut keys, &qwen3_5::DEFAULTS),
        Architecture::Qwen35Moe => qwen3_5_moe::add_defaults(&mut keys),
        Architecture::GptOss => gpt_oss::add_defaults(&mut keys),
        Architecture::Qwen3Moe => qwen3_moe::add_defaults(&mut keys),
        Architecture::Qwen3 | Architecture::Qwen2 | Architecture::Llama => {}
    }
    keys
}

fn add_missing(keys: &mut Map<String, Value>, defaults: &[(&str, usize)]) {
    for (key, default) in defaults {
        keys.entry(*key).or_insert((*default).into());
    }
}

/// The `config.json` of a copy, which has the text part's weights, dequantized to bf16; `None` if
/// unchanged.
pub(super) fn copied_config(json: &str) -> Option<String> {
    let Value::Object(mut keys) = serde_json::from_str(json).ok()? else {
        return None;
    };
    let is_quantized = Quantization::parse(&keys, "").ok()?.is_some();
    if keys.contains_key("text_config") {
        keys = text_part(keys)?;
    } else if !is_quantized {
        return None;
    }
    if is_quantized {
        keys.remove("quantization_config");
        let stored = keys
            .iter_mut()
            .filter(|(key, _)| ["torch_dtype", "dtype"].contains(&key.as_str()));
        stored.for_each(|(_, dtype)| *dtype = json!("bfloat16"));
    }
    Some(format!("{:#}\n", Value::Object(keys)))
}

/// The text part of a vision model, as a model's keys.
fn text_part(outer: Map<String, Value>) -> Option<Map<String, Value>> {
    let stored = ["torch_dtype", "dtype"]
        .into_iter()
        .find_map(|key| outer.get(key).cloned());
    let architecture = Reader {
        keys: outer.clone(),
        path: "",
    }
    .architecture()
    .ok()?;
    let mut keys = text_keys(architecture, outer);
    if matches!(architecture, Architecture::Gemma3 | Architecture::Gemma4) {
        let activation = keys.remove("hidden_act");
        keys.extend(activation.map(|activation| ("hidden_activation".to_owned(), activation)));
    }
    keys.extend(stored.map(|stored| ("torch_dtype".to_owned(), stored)));
    let (named, model_type) = architecture.names();
    keys.insert("architectures".to_owned(), json!([named]));
    keys.insert("model_type".to_owned(), model_type.into());
    Some(keys)
}

/// Transformers' default of `max_position_embeddings`.
fn default_positions(architecture: Architecture) -> usize {
    match architecture {
        Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Qwen2 => 32_768,
        Architecture::Qwen35 | Architecture::Qwen35Moe => 32_768,
        Architecture::Llama => 2_048,
        Architecture::Mistral
        | Architecture::Gemma3
        | Architecture::Gemma4
        | Architecture::GptOss => 131_072,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
