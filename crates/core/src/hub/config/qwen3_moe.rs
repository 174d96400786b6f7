//! `config.json` of Qwen3 with mixture of experts.

use serde_json::{Map, Value, json};

use super::options::{DecoderOptions, ExpertTensors, Experts};
use super::{HubError, ModelConfig, Reader, add_missing};

const DEFAULTS: [(&str, usize); 6] = [
    ("num_key_value_heads", 4),
    ("num_experts", 128),
    ("num_experts_per_tok", 8),
    ("moe_intermediate_size", 768),
    ("decoder_sparse_step", 1),
    ("intermediate_size", 6144),
];

/// Adds defaults. transformers 5 writes `num_experts` as `num_local_experts`.
pub(super) fn add_defaults(keys: &mut Map<String, Value>) {
    if let Some(count) = keys.remove("num_local_experts") {
        keys.insert("num_experts".to_owned(), count);
    }
    add_missing(keys, &DEFAULTS);
}

impl Reader<'_> {
    pub(super) fn qwen3_moe_options(&self) -> Result<DecoderOptions, HubError> {
        let (count, active) = self.expert_counts("num_experts", "num_experts_per_tok")?;
        let (interval, dense) = (self.count("decoder_sparse_step")?, self.dense_layers()?);
        let has_experts =
            |layer: usize| (layer + 1).is_multiple_of(interval) && !dense.contains(&layer);
        let experts = Experts {
            count,
            active,
            intermediate_size: self.count("moe_intermediate_size")?,
            is_renormalised: self.flag("norm_topk_prob")?,
            layers: (0..self.count("num_hidden_layers")?)
                .map(has_experts)
                .collect(),
            tensors: ExpertTensors::Separate,
            is_mxfp4: false,
            clamped: None,
            shared_size: None,
            is_beside_dense: false,
        };
        Ok(DecoderOptions {
            experts: Some(experts),
            ..DecoderOptions::QWEN3
        })
    }

    pub(super) fn expert_counts(
        &self,
        key: &str,
        active_key: &str,
    ) -> Result<(usize, usize), HubError> {
        let (count, active) = (self.count(key)?, self.count(active_key)?);
        if active > count {
            return Err(self.problem(format!(
                "`{active_key}` = {active} is more than `{key}` = {count}"
            )));
        }
        Ok((count, active))
    }

    fn dense_layers(&self) -> Result<Vec<usize>, HubError> {
        let layers = self.count("num_hidden_layers")?;
        let Some(value) = self.given("mlp_only_layers") else {
            return Ok(Vec::new());
        };
        let index = |value: &Value| {
            value
                .as_u64()
                .map(|layer| layer as usize)
                .filter(|layer| *layer < layers)
        };
        value
            .as_array()
            .and_then(|list| list.iter().map(index).collect())
            .ok_or_else(|| {
                self.problem(format!(
                    "`mlp_only_layers` = {value}, expected a list of layers from 0 to {}",
                    layers - 1
                ))
            })
    }
}

pub(super) fn write_keys(config: &ModelConfig, keys: &mut Map<String, Value>) {
    let Some(experts) = &config.options.experts else {
        return;
    };
    let dense: Vec<usize> = (0..config.num_hidden_layers)
        .filter(|&layer| config.experts(layer).is_none())
        .collect();
    let own = [
        ("num_experts", json!(experts.count)),
        ("num_experts_per_tok", json!(experts.active)),
        ("moe_intermediate_size", json!(experts.intermediate_size)),
        ("norm_topk_prob", json!(experts.is_renormalised)),
        ("decoder_sparse_step", json!(1)),
        ("mlp_only_layers", json!(dense)),
    ];
    keys.extend(own.map(|(key, value)| (key.to_owned(), value)));
}
