//! `config.json` of Qwen3.5 with mixture of experts.

use serde_json::{Map, Value, json};

use super::options::{DecoderOptions, ExpertTensors, Experts};
use super::{HubError, ModelConfig, Reader, add_missing, qwen3_5};

const DEFAULTS: [(&str, usize); 5] = [
    ("num_key_value_heads", 2),
    ("num_experts", 256),
    ("num_experts_per_tok", 8),
    ("moe_intermediate_size", 512),
    ("shared_expert_intermediate_size", 512),
];

/// Adds defaults. No layer is dense, so the dense width is unused.
pub(super) fn add_defaults(keys: &mut Map<String, Value>) {
    add_missing(keys, &DEFAULTS);
    let shared = keys["shared_expert_intermediate_size"].clone();
    keys.entry("intermediate_size").or_insert(shared);
    add_missing(keys, &qwen3_5::DEFAULTS);
}

impl Reader<'_> {
    pub(super) fn qwen3_5_moe_options(&self) -> Result<DecoderOptions, HubError> {
        let (count, active) = self.expert_counts("num_experts", "num_experts_per_tok")?;
        let experts = Experts {
            count,
            active,
            intermediate_size: self.count("moe_intermediate_size")?,
            is_renormalised: true,
            layers: vec![true; self.count("num_hidden_layers")?],
            tensors: ExpertTensors::Fused,
            is_mxfp4: false,
            clamped: None,
            shared_size: Some(self.count("shared_expert_intermediate_size")?),
            is_beside_dense: false,
        };
        Ok(DecoderOptions {
            experts: Some(experts),
            ..self.qwen3_5_options()?
        })
    }
}

pub(super) fn write_keys(config: &ModelConfig, keys: &mut Map<String, Value>) {
    qwen3_5::write_keys(config, keys);
    keys.remove("intermediate_size");
    let Some(experts) = &config.options.experts else {
        return;
    };
    let own = [
        ("num_experts", json!(experts.count)),
        ("num_experts_per_tok", json!(experts.active)),
        ("moe_intermediate_size", json!(experts.intermediate_size)),
        (
            "shared_expert_intermediate_size",
            json!(experts.shared_size),
        ),
    ];
    keys.extend(own.map(|(key, value)| (key.to_owned(), value)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{heads, reread};
    use super::*;
    use crate::hub::config::copied_config;

    /// Compares with transformers' `Qwen3_5MoeTextConfig`.
    #[test]
    fn keys_are_read_and_written() {
        let keys = r#""vocab_size":100,"hidden_size":64,"num_hidden_layers":4"#;
        let read = |changes: &str| {
            reread(&format!(
                r#"{{"model_type":"qwen3_5_moe_text",{keys}{changes}}}"#
            ))
        };
        let config = read("");
        let experts = config.experts(3).unwrap();
        assert_eq!(
            (experts.count, experts.active, experts.intermediate_size),
            (256, 8, 512)
        );
        assert_eq!(
            (experts.shared_size, experts.is_renormalised),
            (Some(512), true)
        );
        assert_eq!(heads(&config), [16, 2, 256]);
        assert_eq!(config.attention_layers(), 1);
        let own = read(
            r#","num_experts":4,"num_experts_per_tok":2,"shared_expert_intermediate_size":24"#,
        );
        assert_eq!(own.experts(0).unwrap().shared_size, Some(24));
        let nested = format!(
            r#"{{"architectures":["Qwen3_5MoeForConditionalGeneration"],"text_config":{{{keys}}},"vision_config":{{}}}}"#
        );
        let text = copied_config(&nested).unwrap();
        assert!(text.contains("Qwen3_5MoeForCausalLM"));
        assert_eq!(
            [nested, text].map(|text| ModelConfig::parse(&text, "x").unwrap()),
            [config.clone(), config]
        );
    }
}
