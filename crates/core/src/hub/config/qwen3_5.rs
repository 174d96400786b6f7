//! Qwen3.5's `config.json`, text-only or multimodal.

use serde_json::{Map, Value, json};

use super::options::{DecoderOptions, GatedDelta, Mixer};
use super::{HubError, ModelConfig, Reader, RopeScaling};

pub(super) const DEFAULTS: [(&str, usize); 8] = [
    ("num_attention_heads", 16),
    ("num_key_value_heads", 4),
    ("head_dim", 256),
    ("linear_conv_kernel_dim", 4),
    ("linear_key_head_dim", 128),
    ("linear_value_head_dim", 128),
    ("linear_num_key_heads", 16),
    ("linear_num_value_heads", 32),
];
/// One in this many layers is attention.
const DEFAULT_INTERVAL: usize = 4;
const DEFAULT_ROTARY_SHARE: f64 = 0.25;

impl Reader<'_> {
    pub(super) fn qwen3_5_options(&self) -> Result<DecoderOptions, HubError> {
        if self
            .keys
            .get("hidden_act")
            .is_some_and(|activation| activation != "silu")
        {
            return Err(self.unsupported(
                &format!(
                    "the activation {} (`hidden_act`) of the gated delta rule",
                    self.keys["hidden_act"]
                ),
                "only silu is supported",
            ));
        }
        if matches!(self.rope_scaling()?, RopeScaling::Yarn { .. }) {
            return Err(self.unsupported(
                "YaRN on a part of a head",
                "set `rope_parameters.rope_type` to `default` to use the model at its original length",
            ));
        }
        let layers = self.delta_layers()?;
        let delta = GatedDelta {
            key_heads: self.count("linear_num_key_heads")?,
            value_heads: self.count("linear_num_value_heads")?,
            key_dimension: self.count("linear_key_head_dim")?,
            value_dimension: self.count("linear_value_head_dim")?,
            kernel: self.count("linear_conv_kernel_dim")?,
            layers,
        };
        if !delta.value_heads.is_multiple_of(delta.key_heads) {
            return Err(self.problem(format!(
                "`linear_num_value_heads` = {} is not a multiple of `linear_num_key_heads` = {}",
                delta.value_heads, delta.key_heads
            )));
        }
        Ok(DecoderOptions {
            has_head_norms: true,
            norm_offset: 1.0,
            has_attention_gate: true,
            rotary_dimension: Some(self.rotated()?),
            gated_delta: Some(delta),
            ..DecoderOptions::PLAIN
        })
    }

    fn rotated(&self) -> Result<usize, HubError> {
        let key = "partial_rotary_factor";
        let nested = self
            .rotary_parameters()
            .and_then(|(_, parameters)| parameters.get(key));
        let share = self.positive(
            key,
            nested.or_else(|| self.keys.get(key)),
            DEFAULT_ROTARY_SHARE,
        )?;
        let head = self.count("head_dim")?;
        match (head as f64 * share) as usize {
            rotated if rotated > 0 && rotated <= head && rotated.is_multiple_of(2) => Ok(rotated),
            rotated => Err(self.problem(format!(
                "`{key}` = {share} of a head's width of {head} is {rotated}; rotary positions need an even width above 0"
            ))),
        }
    }

    /// `layer_types`, or in older files the interval: by layer, whether it is the gated delta rule.
    fn delta_layers(&self) -> Result<Vec<bool>, HubError> {
        let known = [("full_attention", false), ("linear_attention", true)];
        if let Some(layers) = self.by_layer_type(known)? {
            return Ok(layers);
        }
        let interval = self.count_or("full_attention_interval", DEFAULT_INTERVAL)?;
        let is_delta = |layer: usize| !layer.is_multiple_of(interval);
        Ok((1..=self.count("num_hidden_layers")?)
            .map(is_delta)
            .collect())
    }
}

pub(super) fn write_keys(config: &ModelConfig, keys: &mut Map<String, Value>) {
    let options = &config.options;
    keys.remove("use_sliding_window");
    let mut rope = match keys.remove("rope_scaling") {
        Some(Value::Object(scaling)) => scaling,
        _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
    };
    rope.extend(
        keys.remove("rope_theta")
            .map(|theta| ("rope_theta".to_owned(), theta)),
    );
    let share = config.rotary_dimension() as f64 / config.head_dim as f64;
    rope.insert("partial_rotary_factor".to_owned(), json!(share));
    keys.insert("rope_parameters".to_owned(), Value::Object(rope));
    let layer_type = |layer| match config.mixer(layer) {
        Mixer::Attention(_) => "full_attention",
        Mixer::GatedDelta(_) => "linear_attention",
    };
    let layer_types: Vec<&str> = (0..config.num_hidden_layers).map(layer_type).collect();
    keys.insert("layer_types".to_owned(), json!(layer_types));
    if let Some(delta) = &options.gated_delta {
        let counts = [
            ("linear_conv_kernel_dim", delta.kernel),
            ("linear_key_head_dim", delta.key_dimension),
            ("linear_value_head_dim", delta.value_dimension),
            ("linear_num_key_heads", delta.key_heads),
            ("linear_num_value_heads", delta.value_heads),
        ];
        keys.extend(counts.map(|(key, count)| (key.to_owned(), json!(count))));
    }
}
