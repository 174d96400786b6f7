//! Gemma 4's `config.json`, text-only or multimodal.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::gemma3::layer_types;
use super::options::{
    Activation, DecoderOptions, ExpertTensors, Experts, GlobalHeads, Scope, SharedLayers,
    SlidingWindow,
};
use super::{HubError, ModelConfig, Reader, RopeScaling, add_missing};

const DEFAULTS: [(&str, usize); 10] = [
    ("vocab_size", 262_144),
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("num_hidden_layers", 30),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 4),
    ("head_dim", 256),
    ("max_position_embeddings", 131_072),
    ("sliding_window", 512),
    ("hidden_size_per_layer_input", 256),
];
const DEFAULT_GLOBAL_DIMENSION: usize = 512;
const DEFAULT_PATTERN: usize = 6;

pub(super) fn add_defaults(keys: &mut Map<String, Value>) {
    add_missing(keys, &DEFAULTS);
    let vocabulary = keys["vocab_size"].clone();
    keys.entry("vocab_size_per_layer_input")
        .or_insert(vocabulary);
    keys.entry("tie_word_embeddings").or_insert(true.into());
    // Only older families have it.
    keys.remove("rope_scaling");
    let activation = keys
        .remove("hidden_activation")
        .unwrap_or_else(|| "gelu_pytorch_tanh".into());
    keys.insert("hidden_act".to_owned(), activation);
    if keys.get("rope_parameters").is_none_or(Value::is_null) {
        let default = json!({
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
            "full_attention": { "rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6 },
        });
        keys.insert("rope_parameters".to_owned(), default);
    }
    // Only image tokens attend to later ones.
    if keys
        .get("use_bidirectional_attention")
        .is_some_and(|value| value == "vision")
    {
        keys.remove("use_bidirectional_attention");
    }
}

impl Reader<'_> {
    pub(super) fn gemma4_options(&self) -> Result<DecoderOptions, HubError> {
        let mut scopes = self.scopes(DEFAULT_PATTERN)?;
        // As in transformers, whatever the file says.
        scopes
            .iter_mut()
            .last()
            .into_iter()
            .for_each(|last| *last = Scope::Everything);
        let (rope_theta, rope_scaling) = self.layer_rope("sliding_attention")?;
        let scalings = [rope_scaling, self.layer_rope("full_attention")?.1];
        if !scalings
            .iter()
            .all(|it| matches!(it, RopeScaling::Unscaled | RopeScaling::Proportional { .. }))
        {
            return Err(self.unsupported(
                &format!("`rope_parameters` = {}", self.keys["rope_parameters"]),
                "in Gemma 4 only `default` and `proportional` are supported",
            ));
        }
        let window = if scopes.contains(&Scope::Window) {
            let (tokens, scopes) = (self.count("sliding_window")?, scopes.clone());
            Some(SlidingWindow {
                tokens,
                scopes,
                rope_theta,
                rope_scaling,
            })
        } else {
            None
        };
        let cap = self.given("final_logit_softcapping");
        Ok(DecoderOptions {
            has_head_norms: true,
            has_value_norms: true,
            has_output_norms: true,
            has_layer_factors: true,
            activation: Activation::GeluTanh,
            embedding_scale: (self.count("hidden_size")? as f64).sqrt(),
            query_scalar: Some(1.0),
            window,
            global_heads: Some(self.global_heads(&scopes)?),
            shared_layers: self.shared_layers(&scopes)?,
            layer_input: self.layer_input()?,
            experts: self.beside_dense()?,
            logit_cap: cap
                .map(|value| self.positive("final_logit_softcapping", Some(value), 1.0))
                .transpose()?,
            ..DecoderOptions::PLAIN
        })
    }

    /// Handles published files, and those of transformers 5.24, which list the global layers.
    fn global_heads(&self, scopes: &[Scope]) -> Result<GlobalHeads, HubError> {
        let values_are_keys = self.flag("attention_k_eq_v")?;
        let own = self.count("num_key_value_heads")?;
        let heads = GlobalHeads {
            key_value: if values_are_keys {
                self.count_or("num_global_key_value_heads", own)?
            } else {
                own
            },
            dimension: self.count_or("global_head_dim", DEFAULT_GLOBAL_DIMENSION)?,
            values_are_keys,
        };
        let Some(by_layer) = self.keys.get("per_layer_config").and_then(Value::as_object) else {
            return self.checked(heads);
        };
        let everywhere = Value::Object(Map::new());
        // Layer numbers are padded to one width: "02" of 12 layers, "005" of 102.
        let numbered: BTreeMap<usize, &Value> = by_layer
            .iter()
            .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
            .filter(|(layer, _)| *layer < scopes.len())
            .collect();
        let of = |layer: usize| numbered.get(&layer).copied().unwrap_or(&everywhere);
        let count = |value: &Value, key: &str| {
            value
                .get(key)
                .and_then(Value::as_u64)
                .map(|count| count as usize)
        };
        let global = scopes
            .iter()
            .position(|scope| *scope == Scope::Everything)
            .map_or(&everywhere, of);
        let is_regular = scopes.iter().enumerate().all(|(layer, scope)| match scope {
            Scope::Everything => of(layer) == global,
            Scope::Window => of(layer) == &everywhere,
        });
        let known = ["head_dim", "num_key_value_heads"];
        if !is_regular
            || numbered.len() < by_layer.len()
            || global
                .as_object()
                .is_some_and(|keys| keys.keys().any(|key| !known.contains(&key.as_str())))
        {
            return Err(self.unsupported(
                &format!("`per_layer_config` = {}", self.keys["per_layer_config"]),
                "only `head_dim` and `num_key_value_heads` of all layers with `full_attention` are supported",
            ));
        }
        self.checked(GlobalHeads {
            key_value: count(global, "num_key_value_heads").unwrap_or(own),
            dimension: count(global, "head_dim").unwrap_or(self.count("head_dim")?),
            ..heads
        })
    }

    fn checked(&self, heads: GlobalHeads) -> Result<GlobalHeads, HubError> {
        let queries = self.count("num_attention_heads")?;
        match heads {
            GlobalHeads { key_value: 1.., dimension: 2..=4096, .. }
                if queries.is_multiple_of(heads.key_value) && heads.dimension.is_multiple_of(2) =>
            {
                Ok(heads)
            }
            GlobalHeads { key_value, dimension, .. } => Err(self.problem(format!(
                "{key_value} key and value heads of {dimension} numbers in layers with `full_attention`: they must divide \
                 `num_attention_heads` = {queries} and have an even width of at most 4096"
            ))),
        }
    }

    fn shared_layers(&self, scopes: &[Scope]) -> Result<Option<SharedLayers>, HubError> {
        let key = "num_kv_shared_layers";
        if self.given(key).is_none_or(|value| *value == 0) {
            return Ok(None);
        }
        let count = self.count(key)?;
        let first = scopes.len().saturating_sub(count);
        if let Some(layer) =
            (first..scopes.len()).find(|&layer| !scopes[..first].contains(&scopes[layer]))
        {
            return Err(self.problem(format!(
                "`{key}` = {count} of {} layers: none of those before has the keys and values that layer {layer} reads",
                scopes.len()
            )));
        }
        Ok(Some(SharedLayers {
            first,
            is_wide: self.flag("use_double_wide_mlp")?,
        }))
    }

    fn beside_dense(&self) -> Result<Option<Experts>, HubError> {
        if !self.flag("enable_moe_block")? {
            return Ok(None);
        }
        let (count, active) = self.expert_counts("num_experts", "top_k_experts")?;
        Ok(Some(Experts {
            count,
            active,
            intermediate_size: self.count("moe_intermediate_size")?,
            is_renormalised: true,
            layers: vec![true; self.count("num_hidden_layers")?],
            tensors: ExpertTensors::Fused,
            is_mxfp4: false,
            clamped: None,
            shared_size: None,
            is_beside_dense: true,
        }))
    }

    fn layer_input(&self) -> Result<Option<usize>, HubError> {
        let (key, table) = ("hidden_size_per_layer_input", "vocab_size_per_layer_input");
        if self.given(key).is_none_or(|value| *value == 0) {
            return Ok(None);
        }
        let (vocabulary, own) = (self.count("vocab_size")?, self.count(table)?);
        if vocabulary == own {
            return self.count(key).map(Some);
        }
        Err(self.unsupported(
            &format!("`{table}` = {own} beside `vocab_size` = {vocabulary}"),
            "use a model in which they are equal",
        ))
    }
}

pub(super) fn write_keys(config: &ModelConfig, keys: &mut Map<String, Value>) {
    let options = &config.options;
    for key in [
        "hidden_act",
        "use_sliding_window",
        "rope_theta",
        "rope_scaling",
    ] {
        keys.remove(key);
    }
    let rope = |scope| match config.rope(scope) {
        (theta, RopeScaling::Proportional { share, factor }) => {
            let mut keys = json!({ "rope_type": "proportional", "rope_theta": theta, "partial_rotary_factor": share });
            // transformers reads it with an unknown-key warning.
            if factor != 1.0 {
                keys["factor"] = factor.into();
            }
            keys
        }
        (theta, _) => json!({ "rope_type": "default", "rope_theta": theta }),
    };
    let global = options.global_heads.unwrap_or(GlobalHeads {
        key_value: config.num_key_value_heads,
        dimension: config.head_dim,
        values_are_keys: false,
    });
    let shared = options
        .shared_layers
        .map_or(0, |shared| config.num_hidden_layers - shared.first);
    let own = [
        ("hidden_activation", json!(options.activation.name())),
        ("layer_types", json!(layer_types(config))),
        (
            "sliding_window",
            json!(options.window.as_ref().map_or(512, |window| window.tokens)),
        ),
        (
            "rope_parameters",
            json!({ "full_attention": rope(Scope::Everything), "sliding_attention": rope(Scope::Window) }),
        ),
        ("global_head_dim", json!(global.dimension)),
        (
            "num_global_key_value_heads",
            json!(global.values_are_keys.then_some(global.key_value)),
        ),
        ("attention_k_eq_v", json!(global.values_are_keys)),
        ("num_kv_shared_layers", json!(shared)),
        (
            "use_double_wide_mlp",
            json!(options.shared_layers.is_some_and(|shared| shared.is_wide)),
        ),
        (
            "hidden_size_per_layer_input",
            json!(options.layer_input.unwrap_or(0)),
        ),
        ("vocab_size_per_layer_input", json!(config.vocab_size)),
        ("final_logit_softcapping", json!(options.logit_cap)),
        ("enable_moe_block", json!(options.experts.is_some())),
        (
            "num_experts",
            json!(options.experts.as_ref().map(|experts| experts.count)),
        ),
        (
            "top_k_experts",
            json!(options.experts.as_ref().map(|experts| experts.active)),
        ),
        (
            "moe_intermediate_size",
            json!(
                options
                    .experts
                    .as_ref()
                    .map(|experts| experts.intermediate_size)
            ),
        ),
    ];
    keys.extend(own.map(|(key, value)| (key.to_owned(), value)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{check_refused, reread};
    use super::*;
    use crate::hub::KeysValues;

    const PLAIN: &str =
        r#""model_type":"gemma4_text","vocab_size":100,"hidden_size":64,"num_hidden_layers":12"#;

    /// Compares with transformers' `Gemma4TextConfig`.
    #[test]
    fn keys_are_read_and_written() {
        let read = |changes: &str| reread(&format!("{{{PLAIN}{changes}}}"));
        let config = read("");
        assert_eq!(
            [4, 5, 11].map(|layer| config.heads(layer).dimension),
            [256, 512, 512]
        );
        assert_eq!(
            (
                config.heads(5).key_value,
                config.options.layer_input,
                config.options.logit_cap
            ),
            (4, Some(256), None)
        );
        assert_eq!(
            config.rope_scaling,
            RopeScaling::Proportional {
                share: 0.25,
                factor: 1.0
            }
        );
        assert_eq!(
            (config.rope_theta, config.rope(Scope::Window).0),
            (1e6, 1e4)
        );
        let frequencies = config.rope_frequencies(Scope::Everything);
        assert_eq!(
            (
                frequencies.len(),
                frequencies
                    .iter()
                    .filter(|frequency| **frequency > 0.0)
                    .count()
            ),
            (256, 64)
        );
        assert_eq!(config.gpu_problem(), None);
        let wide = read(r#","global_head_dim":514"#).gpu_problem().unwrap();
        assert!(
            wide.starts_with("heads of 514 numbers: a GPU computes at most 512; "),
            "{wide}"
        );

        let shared = read(
            r#","num_kv_shared_layers":5,"use_double_wide_mlp":true,"final_logit_softcapping":30"#,
        );
        let sources = [5, 6, 7, 11].map(|layer| shared.keys_values(layer));
        let (window, everything) = (KeysValues::OfLayer(6), KeysValues::OfLayer(5));
        assert_eq!(
            sources,
            [KeysValues::Own, KeysValues::Own, window, everything]
        );
        assert_eq!(
            (
                [6, 7].map(|layer| shared.inner_size(layer)),
                shared.options.logit_cap
            ),
            ([9216, 18_432], Some(30.0))
        );

        let equal = read(
            r#","attention_k_eq_v":true,"num_global_key_value_heads":2,"global_head_dim":48,"hidden_size_per_layer_input":0,
            "use_bidirectional_attention":"vision""#,
        );
        assert_eq!(
            [0, 5].map(|layer| equal.keys_values(layer)),
            [KeysValues::Own, KeysValues::AreKeys]
        );
        assert_eq!(
            (
                equal.heads(5).key_value,
                equal.heads(5).dimension,
                equal.options.layer_input
            ),
            (2, 48, None)
        );
        // As `Gemma4TextConfig.save_pretrained` of transformers 5.24 writes it, and with bare numbers.
        for [first, second] in [["05", "11"], ["5", "11"]] {
            let listed = format!(
                r#","attention_k_eq_v":true,"global_head_dim":null,"num_global_key_value_heads":null,"hidden_size_per_layer_input":0,
                "per_layer_config":{{"{first}":{{"head_dim":48,"num_key_value_heads":2}},"{second}":{{"num_key_value_heads":2,"head_dim":48}}}}"#,
            );
            assert_eq!(read(&listed), equal);
        }
        let same = read(r#","global_head_dim":null,"per_layer_config":{}"#);
        assert_eq!(same.heads(5).dimension, 256);
        let many = read(
            r#","num_hidden_layers":102,"per_layer_config":{"005":{"head_dim":48},"011":{"head_dim":48},"017":{"head_dim":48},"023":{"head_dim":48},"029":{"head_dim":48},"035":{"head_dim":48},"041":{"head_dim":48},"047":{"head_dim":48},"053":{"head_dim":48},"059":{"head_dim":48},"065":{"head_dim":48},"071":{"head_dim":48},"077":{"head_dim":48},"083":{"head_dim":48},"089":{"head_dim":48},"095":{"head_dim":48},"101":{"head_dim":48}}"#,
        );
        assert_eq!([4, 101].map(|layer| many.heads(layer).dimension), [256, 48]);
        let sparse = read(
            r#","enable_moe_block":true,"num_experts":8,"top_k_experts":3,"moe_intermediate_size":16"#,
        );
        let experts = sparse.experts(11).unwrap();
        assert_eq!(
            (experts.count, experts.active, experts.intermediate_size),
            (8, 3, 16)
        );
        assert_eq!(sparse.inner_size(11), 9216);
        check_refused(REFUSED, |keys| format!("{{{PLAIN},{keys}}}"));
    }

    const REFUSED: &str = r#"
"enable_moe_block":true -> `num_experts` is missing
"enable_moe_block":true,"num_experts":4,"top_k_experts":5 -> `top_k_experts` = 5 is more than `num_experts` = 4
"per_layer_config":{"5":{"head_dim":48}} -> `per_layer_config` = {"5":{"head_dim":48}} is not supported
"per_layer_config":{"05":{"head_dim":48},"11":{"head_dim":48},"12":{"head_dim":48}} -> `per_layer_config` = {"05"
"per_layer_config":{"full_attention":{"head_dim":48}} -> `per_layer_config` = {"full_attention"
"num_kv_shared_layers":12 -> `num_kv_shared_layers` = 12 of 12 layers: none of those before has the keys
"num_kv_shared_layers":8 -> layer 5 reads
"vocab_size_per_layer_input":7 -> `vocab_size_per_layer_input` = 7 beside `vocab_size` = 100
"final_logit_softcapping":-1 -> `final_logit_softcapping` = -1, expected a number above 0
"attn_logit_softcapping":50 -> `attn_logit_softcapping` = 50
"use_bidirectional_attention":"all" -> `use_bidirectional_attention` = "all"
"global_head_dim":7 -> 4 key and value heads of 7 numbers
"rope_parameters":{"full_attention":{"rope_type":"yarn","factor":2,"rope_theta":1e6}} -> in Gemma 4 only `default` and `proportional`
"rope_parameters":{"full_attention":{"rope_type":"proportional","partial_rotary_factor":2}} -> `partial_rotary_factor` = 2
"#;
}
