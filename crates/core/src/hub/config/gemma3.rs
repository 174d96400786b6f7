//! Gemma 3's `config.json`, text-only or multimodal.

use serde_json::{Map, Value, json};

use super::options::{DecoderOptions, Scope, SlidingWindow};
use super::{HubError, ModelConfig, Reader, RopeScaling, add_missing};

/// Defaults of transformers' `Gemma3TextConfig`, which Google's files omit.
const DEFAULTS: [(&str, usize); 5] = [
    ("vocab_size", 262_208),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 4),
    ("head_dim", 256),
    ("max_position_embeddings", 131_072),
];
const DEFAULT_WINDOW: usize = 4096;
/// One in this many layers is global.
const DEFAULT_PATTERN: usize = 6;
const DEFAULT_QUERY_SCALAR: f64 = 256.0;
const GLOBAL_THETA: f64 = 1e6;
const LOCAL_THETA: f64 = 1e4;

pub(super) fn add_defaults(keys: &mut Map<String, Value>) {
    add_missing(keys, &DEFAULTS);
    keys.entry("tie_word_embeddings").or_insert(true.into());
    let activation = keys
        .remove("hidden_activation")
        .unwrap_or_else(|| "gelu_pytorch_tanh".into());
    keys.insert("hidden_act".to_owned(), activation);
}

impl Reader<'_> {
    pub(super) fn gemma3_options(&self) -> Result<DecoderOptions, HubError> {
        let scalar = self.positive(
            "query_pre_attn_scalar",
            self.keys.get("query_pre_attn_scalar"),
            DEFAULT_QUERY_SCALAR,
        )?;
        let scopes = self.scopes(DEFAULT_PATTERN)?;
        let window = if scopes.contains(&Scope::Window) {
            let (rope_theta, rope_scaling) = self.layer_rope("sliding_attention")?;
            if rope_scaling != RopeScaling::Unscaled {
                return Err(self.unsupported(
                    "scaled rotary positions of layers with a window",
                    "use a model without",
                ));
            }
            let tokens = self.count_or("sliding_window", DEFAULT_WINDOW)?;
            Some(SlidingWindow {
                tokens,
                scopes,
                rope_theta,
                rope_scaling,
            })
        } else {
            None
        };
        Ok(DecoderOptions::gemma3(
            self.count("hidden_size")?,
            scalar,
            window,
        ))
    }

    pub(super) fn layer_rope(&self, layer_type: &str) -> Result<(f64, RopeScaling), HubError> {
        let is_local = layer_type == "sliding_attention";
        let (theta_key, default) = if is_local {
            ("rope_local_base_freq", LOCAL_THETA)
        } else {
            ("rope_theta", GLOBAL_THETA)
        };
        let nested = self
            .keys
            .get("rope_parameters")
            .and_then(|parameters| parameters.get(layer_type));
        // For global layers `rope_scaling` overrides common keys.
        let added = self
            .keys
            .get("rope_scaling")
            .and_then(Value::as_object)
            .filter(|_| !is_local);
        let mut parameters = nested
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        parameters.extend(added.cloned().unwrap_or_default());
        let theta = parameters.get("rope_theta").cloned();
        let theta = theta.as_ref().or_else(|| self.keys.get(theta_key));
        let theta = self.positive(theta_key, theta, default)?;
        let scaling = match &Value::Object(parameters) {
            Value::Object(keys) if keys.is_empty() => RopeScaling::Unscaled,
            value
                if value
                    .get("rope_type")
                    .is_some_and(|kind| kind == "proportional") =>
            {
                self.proportional_scaling(value)?
            }
            value => self.scaling_of("rope_parameters", value)?,
        };
        Ok((theta, scaling))
    }

    /// `layer_types`, or in older files the pattern's length: each last layer is global.
    pub(super) fn scopes(&self, default_pattern: usize) -> Result<Vec<Scope>, HubError> {
        let known = [
            ("full_attention", Scope::Everything),
            ("sliding_attention", Scope::Window),
        ];
        if let Some(scopes) = self.by_layer_type(known)? {
            return Ok(scopes);
        }
        let pattern = self.count_or("sliding_window_pattern", default_pattern)?;
        let scope = |layer: usize| {
            if layer.is_multiple_of(pattern) {
                Scope::Everything
            } else {
                Scope::Window
            }
        };
        Ok((1..=self.count("num_hidden_layers")?).map(scope).collect())
    }
}

/// `layer_types` of a model with window layers.
pub(super) fn layer_types(config: &ModelConfig) -> Vec<&'static str> {
    let layer_type = |layer| match config.scope(layer) {
        Scope::Everything => "full_attention",
        Scope::Window => "sliding_attention",
    };
    (0..config.num_hidden_layers).map(layer_type).collect()
}

pub(super) fn keys(config: &ModelConfig) -> Map<String, Value> {
    let options = &config.options;
    let scalar = options.query_scalar.unwrap_or(config.head_dim as f64);
    let keys = json!({
        "hidden_activation": options.activation.name(),
        // transformers accepts only integers.
        "query_pre_attn_scalar": if scalar.fract() == 0.0 { json!(scalar as u64) } else { json!(scalar) },
        "sliding_window": options.window.as_ref().map(|window| window.tokens),
        "layer_types": layer_types(config),
        "rope_local_base_freq": options.window.as_ref().map_or(LOCAL_THETA, |window| window.rope_theta),
        "attn_logit_softcapping": null,
        "final_logit_softcapping": null,
    });
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}
