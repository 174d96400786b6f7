//! gpt-oss's `config.json`.

use serde_json::{Map, Value, json};

use super::gemma3::layer_types;
use super::options::{ClampedGate, DecoderOptions, ExpertTensors, Experts, Scope, SlidingWindow};
use super::{HubError, ModelConfig, Quantization, Reader, add_missing};

const DEFAULTS: [(&str, usize); 7] = [
    ("num_attention_heads", 64),
    ("num_key_value_heads", 8),
    ("head_dim", 64),
    ("sliding_window", 128),
    ("num_local_experts", 128),
    ("num_experts_per_tok", 4),
    ("intermediate_size", 2880),
];
const DEFAULT_THETA: f64 = 150_000.0;
/// Every second layer is global.
const DEFAULT_PATTERN: usize = 2;
const DEFAULT_GATE: ClampedGate = ClampedGate {
    slope: 1.702,
    limit: 7.0,
};

pub(super) fn add_defaults(keys: &mut Map<String, Value>) {
    if let Some(count) = keys.remove("num_experts") {
        keys.insert("num_local_experts".to_owned(), count);
    }
    add_missing(keys, &DEFAULTS);
    keys.entry("attention_bias").or_insert(true.into());
    keys.entry("rms_norm_eps").or_insert(1e-5.into());
    if keys.get("rope_parameters").is_none_or(Value::is_null) {
        keys.entry("rope_theta").or_insert(DEFAULT_THETA.into());
        keys.entry("rope_scaling").or_insert_with(|| {
            json!({ "rope_type": "yarn", "factor": 32.0, "truncate": false, "original_max_position_embeddings": 4096 })
        });
    }
}

impl Reader<'_> {
    pub(super) fn gpt_oss_options(&self) -> Result<DecoderOptions, HubError> {
        let (count, active) = self.expert_counts("num_local_experts", "num_experts_per_tok")?;
        let bound = |key: &str, default| self.positive(key, self.keys.get(key), default);
        let experts = Experts {
            count,
            active,
            intermediate_size: self.count("intermediate_size")?,
            is_renormalised: true,
            layers: vec![true; self.count("num_hidden_layers")?],
            tensors: ExpertTensors::FusedTransposed,
            is_mxfp4: Quantization::parse(&self.keys, self.path)? == Some(Quantization::Mxfp4),
            clamped: Some(ClampedGate {
                slope: bound("swiglu_alpha", DEFAULT_GATE.slope)?,
                limit: bound("swiglu_limit", DEFAULT_GATE.limit)?,
            }),
            shared_size: None,
            is_beside_dense: false,
        };
        let scopes = self.scopes(DEFAULT_PATTERN)?;
        let window = if scopes.contains(&Scope::Window) {
            let (rope_theta, rope_scaling) = (self.rope_theta()?, self.rope_scaling()?);
            Some(SlidingWindow {
                tokens: self.count("sliding_window")?,
                scopes,
                rope_theta,
                rope_scaling,
            })
        } else {
            None
        };
        Ok(DecoderOptions {
            window,
            has_attention_sinks: true,
            experts: Some(experts),
            ..DecoderOptions::PLAIN
        })
    }
}

pub(super) fn write_keys(config: &ModelConfig, keys: &mut Map<String, Value>) {
    keys.remove("use_sliding_window");
    let Some(experts) = &config.options.experts else {
        return;
    };
    let gate = experts.clamped.unwrap_or(DEFAULT_GATE);
    let own = [
        ("layer_types", json!(layer_types(config))),
        (
            "sliding_window",
            json!(config.options.window.as_ref().map(|window| window.tokens)),
        ),
        ("num_local_experts", json!(experts.count)),
        ("num_experts_per_tok", json!(experts.active)),
        ("swiglu_alpha", json!(gate.slope)),
        ("swiglu_limit", json!(gate.limit)),
    ];
    keys.extend(own.map(|(key, value)| (key.to_owned(), value)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{check_refused, reread};
    use super::*;
    use crate::hub::RopeScaling;

    const PLAIN: &str =
        r#""model_type":"gpt_oss","vocab_size":100,"hidden_size":64,"num_hidden_layers":3"#;

    /// Compares with transformers' `GptOssConfig`.
    #[test]
    fn keys_are_read_and_written() {
        let read = |changes: &str| reread(&format!("{{{PLAIN}{changes}}}"));
        let config = read("");
        let (experts, window) = (
            config.experts(2).unwrap(),
            config.options.window.as_ref().unwrap(),
        );
        assert_eq!(
            (experts.count, experts.active, experts.intermediate_size),
            (128, 4, 2880)
        );
        assert_eq!(experts.clamped, Some(DEFAULT_GATE));
        assert_eq!((window.tokens, window.rope_theta), (128, 150_000.0));
        assert_eq!(
            [0, 1, 2].map(|layer| config.scope(layer)),
            [Scope::Window, Scope::Everything, Scope::Window]
        );
        assert!(matches!(
            config.rope_scaling,
            RopeScaling::Yarn {
                factor: 32.0,
                has_whole_bounds: false,
                original_positions: 4096,
                ..
            }
        ));
        assert_eq!(window.rope_scaling, config.rope_scaling);
        assert_eq!(config.gpu_problem(), None);

        let own = read(
            r#","num_experts":8,"experts_per_token":2,"num_experts_per_tok":2,"swiglu_limit":5,"attention_bias":false,"sliding_window":7,
            "layer_types":["full_attention","full_attention","full_attention"],"rope_parameters":{"rope_type":"default","rope_theta":1e4}"#,
        );
        let experts = own.experts(0).unwrap();
        assert_eq!(
            (experts.count, experts.clamped),
            (
                8,
                Some(ClampedGate {
                    slope: 1.702,
                    limit: 5.0
                })
            )
        );
        assert_eq!(
            (own.options.window, own.rope_scaling, own.rope_theta),
            (None, RopeScaling::Unscaled, 1e4)
        );
        check_refused(REFUSED, |keys| format!("{{{PLAIN},{keys}}}"));
    }

    const REFUSED: &str = r#"
"num_local_experts":2 -> `num_experts_per_tok` = 4 is more than `num_local_experts` = 2
"num_local_experts":5000 -> `num_local_experts` = 5000, the limit is 4096
"swiglu_limit":-1 -> `swiglu_limit` = -1, expected a number above 0
"sliding_window":null -> `sliding_window` = null, expected a whole number above 0
"layer_types":["full_attention"] -> `layer_types` has 1 entries for 3 layers
"#;
}
