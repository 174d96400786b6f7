//! A decoder's counts: its parameters, and the operations per token.

use crate::hub::{AttentionBias, Experts, GatedDelta, KeysValues, Mixer, ModelConfig, ModelSource};

/// Counts derived from `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// All weights.
    pub parameters: usize,
    /// Weights of the layers' matrices.
    pub layer_matrices: usize,
    /// Of these, all but the experts that a token does not use.
    pub active_matrices: usize,
    /// Weights of the head, used by tokens that are predicted from.
    pub head: usize,
    /// Numbers of a rank-1 adapter on all linear layers but experts, and beside those not on dense ones.
    pub lora_per_rank: usize,
    /// Of those on all experts, gate and up together.
    pub expert_lora_per_rank: usize,
    /// Per token, over all layers.
    pub key_values_per_token: usize,
    /// Of a sequence, over all layers: the states of the gated delta rule.
    pub state: usize,
    /// Numbers per token that a layer's backward reads, of the larger kind of layer; no matmul of the forward is repeated.
    pub layer_activations_per_token: usize,
    /// The part that follows from the rest without a matmul: a GPU keeps it for one layer at a time.
    pub derived_activations_per_token: usize,
    pub hidden: usize,
    pub layers: usize,
    pub vocabulary: usize,
    /// Query heads times their width, over all layers with attention: 4 operations per token and attended token.
    pub query_width: usize,
}

/// `None` if `config.json` cannot be read.
pub fn parameters(model: &ModelSource) -> Option<u64> {
    model
        .config()
        .ok()
        .map(|config| ModelShape::from_config(&config).parameters as u64)
}

impl ModelShape {
    pub fn from_config(config: &ModelConfig) -> Self {
        let (hidden, layers) = (config.hidden_size, config.num_hidden_layers);
        let attention_layers: Vec<usize> = (0..layers)
            .filter(|&layer| matches!(config.mixer(layer), Mixer::Attention(_)))
            .collect();
        let delta_layers = layers - attention_layers.len();
        let mixers: Vec<MixerShape> = (0..layers)
            .map(|layer| MixerShape::of_layer(config, layer))
            .collect();
        let feed_forward = FeedForwardShape::from_config(config);
        let sum = |of: fn(&(usize, usize)) -> usize| {
            mixers
                .iter()
                .flat_map(|mixer| &mixer.matrices)
                .map(of)
                .sum::<usize>()
        };
        let mixer_matrices = sum(|(outputs, inputs)| outputs * inputs);
        let input = config.options.layer_input.unwrap_or(0);
        let layer_matrices = mixer_matrices + feed_forward.matrices + layers * 2 * hidden * input;
        let table = config.vocab_size * hidden;
        let output_norms = if config.options.has_output_norms {
            2 * hidden
        } else {
            0
        };
        // Of the layers' inputs their norms, the table by token and the projection of embeddings.
        let inputs = if input > 0 {
            (config.vocab_size + hidden) * layers * input + input
        } else {
            0
        };
        let own = 2 * hidden + output_norms + if input > 0 { hidden } else { 0 };
        let factors = if config.options.has_layer_factors {
            layers
        } else {
            0
        };
        let vectors =
            layers * own + factors + mixers.iter().map(|mixer| mixer.vectors).sum::<usize>();
        let largest = |of: fn(&MixerShape) -> usize| mixers.iter().map(of).max().unwrap_or(0);
        Self {
            parameters: layer_matrices
                + vectors
                + inputs
                + hidden
                + table * if config.tie_word_embeddings { 1 } else { 2 },
            layer_matrices,
            active_matrices: mixer_matrices
                + feed_forward.active_matrices
                + layers * 2 * hidden * input,
            head: table,
            lora_per_rank: sum(|(outputs, inputs)| outputs + inputs) + feed_forward.lora_per_rank,
            expert_lora_per_rank: feed_forward.expert_lora_per_rank,
            key_values_per_token: (attention_layers.iter())
                .filter(|&&layer| !matches!(config.keys_values(layer), KeysValues::OfLayer(_)))
                .map(|&layer| 2 * config.heads(layer).width())
                .sum(),
            state: delta_layers
                * config
                    .options
                    .gated_delta
                    .as_ref()
                    .map_or(0, GatedDelta::state),
            // Input, two norms, the middle; the mixer's; the feed-forward block's; what norms of outputs read.
            layer_activations_per_token: 4 * hidden
                + output_norms
                + largest(|mixer| mixer.activations)
                + feed_forward.activations
                // What its own input is added to, the gate and the input, and what a norm reads.
                + if input > 0 { 2 * (hidden + input) } else { 0 },
            // Two norms, what is mixed, the product of gate and up.
            derived_activations_per_token: 2 * hidden
                + largest(|mixer| mixer.derived)
                + feed_forward.derived,
            hidden,
            layers,
            vocabulary: config.vocab_size,
            query_width: attention_layers
                .iter()
                .map(|&layer| config.query_width(layer))
                .sum(),
        }
    }

    /// All weights but the experts that a token does not use.
    pub fn active_parameters(&self) -> usize {
        self.parameters - self.layer_matrices + self.active_matrices
    }

    /// Operations of a forward of `rows` tokens that attend to `context` others on average, `predicted` of them through
    /// the head.
    pub fn forward_operations(&self, rows: f64, context: f64, predicted: f64) -> f64 {
        let attention = 4.0 * self.query_width as f64 * context;
        rows * (2.0 * self.active_matrices as f64 + attention) + predicted * 2.0 * self.head as f64
    }
}

/// Counts of all layers' feed-forward blocks, biases of experts included.
struct FeedForwardShape {
    matrices: usize,
    /// But for the experts that a token does not use.
    active_matrices: usize,
    lora_per_rank: usize,
    expert_lora_per_rank: usize,
    /// Per token, that a layer's backward reads: gate, up and their product, of a token's experts those and the logits of
    /// the router, of the expert that each uses also its output.
    activations: usize,
    /// Of these, the products of gate and up, but that of the expert that each uses.
    derived: usize,
}

impl FeedForwardShape {
    fn from_config(config: &ModelConfig) -> Self {
        let (hidden, inner, layers) = (
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
        );
        let Some(experts) = &config.options.experts else {
            let widths: Vec<usize> = (0..layers).map(|layer| config.inner_size(layer)).collect();
            let (all, widest) = (
                widths.iter().sum::<usize>(),
                widths.into_iter().max().unwrap_or(0),
            );
            let (matrices, lora_per_rank) = (3 * hidden * all, 3 * (layers * hidden + all));
            return Self {
                matrices,
                active_matrices: matrices,
                lora_per_rank,
                expert_lora_per_rank: 0,
                activations: 3 * widest,
                derived: widest,
            };
        };
        let Experts {
            count,
            active,
            intermediate_size: width,
            ..
        } = experts;
        let sparse = (0..layers)
            .filter(|&layer| config.experts(layer).is_some())
            .count();
        let beside = experts.is_beside_dense;
        let dense_layers = if beside { layers } else { layers - sparse };
        let dense = dense_layers * 3 * hidden * inner;
        // Of experts beside a dense block: four norms, and a factor for each.
        let norms = if beside { 4 * hidden + count } else { 0 };
        let (router_bias, biases) = if experts.has_biases() {
            (*count, 2 * width + hidden)
        } else {
            (0, 0)
        };
        let (shared, shared_lora, shared_activations) =
            experts.shared_size.map_or((0, 0, 0), |size| {
                (
                    (3 * size + 1) * hidden,
                    3 * (hidden + size) + hidden + 1,
                    3 * size + hidden,
                )
            });
        let router = count * hidden + router_bias;
        let of = |experts: usize| {
            dense + sparse * (router + norms + shared + experts * (3 * hidden * width + biases))
        };
        let dense_activations = if dense_layers > 0 { 3 * inner } else { 0 };
        // What router and experts read, and the outputs before their norms.
        let beside_activations = if beside {
            dense_activations + 4 * hidden
        } else {
            0
        };
        Self {
            matrices: of(*count),
            active_matrices: of(*active),
            lora_per_rank: sparse * shared_lora,
            expert_lora_per_rank: sparse * count * (2 * hidden + 3 * width),
            activations: dense_activations
                .max(count + 3 * active * width + shared_activations + beside_activations),
            derived: (dense_activations / 3).max(active * width),
        }
    }
}

/// Counts of one layer's mixer.
struct MixerShape {
    /// [outputs, inputs].
    matrices: Vec<(usize, usize)>,
    /// Other weights.
    vectors: usize,
    /// Per token, that its backward reads.
    activations: usize,
    /// Of these, what follows from the rest without a matmul.
    derived: usize,
}

impl MixerShape {
    fn of_layer(config: &ModelConfig, layer: usize) -> Self {
        match config.mixer(layer) {
            Mixer::Attention(_) => Self::attention(config, layer),
            Mixer::GatedDelta(delta) => Self::gated_delta(delta, config.hidden_size),
        }
    }

    fn attention(config: &ModelConfig, layer: usize) -> Self {
        let (hidden, query, heads) = (
            config.hidden_size,
            config.query_width(layer),
            config.heads(layer),
        );
        let inputs = config.attention_inputs(layer);
        let outputs = inputs.iter().map(|(_, outputs)| outputs).sum::<usize>();
        let biases = match config.attention_bias {
            AttentionBias::Absent => 0,
            AttentionBias::QueryKeyValue => outputs,
            AttentionBias::All => outputs + hidden,
        };
        let gated = if config.options.has_attention_gate {
            query
        } else {
            0
        };
        let norms = if inputs.len() > 1 { 2 } else { 1 };
        let prepared = query + 2 * heads.width();
        Self {
            matrices: inputs
                .iter()
                .map(|&(_, outputs)| (outputs, hidden))
                .chain([(hidden, query)])
                .collect(),
            vectors: biases
                + if config.options.has_head_norms {
                    norms * heads.dimension
                } else {
                    0
                }
                + if config.options.has_attention_sinks {
                    config.num_attention_heads
                } else {
                    0
                },
            // Queries, keys and values before and after rotation; attention's result; that with its gate.
            activations: outputs + prepared + query + gated,
            derived: prepared + gated,
        }
    }

    fn gated_delta(delta: &GatedDelta, hidden: usize) -> Self {
        let (convolved, values, heads) = (delta.convolved(), delta.values(), delta.value_heads);
        Self {
            matrices: vec![
                (convolved, hidden),
                (values, hidden),
                (heads, hidden),
                (heads, hidden),
                (hidden, values),
            ],
            vectors: convolved * delta.kernel + 2 * heads + delta.value_dimension,
            // The input's product; what is convolved; the rule's result, and that with its gate.
            activations: convolved + values + 2 * heads + convolved + 2 * values,
            derived: convolved + values,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Layers, TrainConfig};
    use crate::plan::DataShape;

    pub(in crate::plan) const DATA: DataShape = DataShape {
        train_rows: 200,
        mean_prompt_tokens: 120.0,
        longest_prompt_tokens: 250,
        turns: 1,
        eval_rows: 50,
        test_rows: 500,
        teacher_parameters: 0,
        mean_completion_tokens: 60.0,
        least_completion_tokens: 60.0,
        most_completion_tokens: 60.0,
    };

    /// The defaults, with these keys set.
    pub(in crate::plan) fn config(set: &[&str]) -> TrainConfig {
        Layers {
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            ..Layers::default()
        }
        .resolve()
        .unwrap()
        .config
    }

    pub(crate) fn qwen3_8b() -> ModelConfig {
        crate::hub::named_shape("qwen3-8b").unwrap()
    }

    /// Of the text part, as many as transformers' models of these shapes have, and the factors of layers.
    #[test]
    fn gemma4_has_the_published_counts() {
        let wide =
            r#""attention_k_eq_v":true,"hidden_size_per_layer_input":0,"sliding_window":1024"#;
        let window = r#""sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention""#;
        let e2b = format!(
            r#""hidden_size":1536,"intermediate_size":6144,"num_hidden_layers":35,"num_key_value_heads":1,"num_kv_shared_layers":20,
            "use_double_wide_mlp":true,"layer_types":[{}]"#,
            [window; 7].join(",")
        );
        let e4b = r#""hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":42,"num_key_value_heads":2,"num_kv_shared_layers":18"#;
        let sparse = format!(
            r#"{wide},"hidden_size":2816,"intermediate_size":2112,"num_attention_heads":16,"num_key_value_heads":8,"num_global_key_value_heads":2,
            "enable_moe_block":true,"num_experts":128,"top_k_experts":8,"moe_intermediate_size":704"#
        );
        let dense = format!(
            r#"{wide},"hidden_size":5376,"intermediate_size":21504,"num_hidden_layers":60,"num_attention_heads":32,"num_key_value_heads":16,
            "num_global_key_value_heads":4"#
        );
        // Of each token cached: two numbers for each of a layer's own keys.
        for (keys, parameters, cached) in [
            (e2b.as_str(), 4_628_569_379, 2 * (12 * 256 + 3 * 512)),
            (e4b, 7_463_013_418, 2 * 2 * (20 * 256 + 4 * 512)),
            (&sparse, 25_233_141_790, 2 * (25 * 8 * 256 + 5 * 2 * 512)),
            (&dense, 30_697_345_340, 2 * (50 * 16 * 256 + 10 * 4 * 512)),
        ] {
            let config =
                ModelConfig::parse(&format!(r#"{{"model_type":"gemma4_text",{keys}}}"#), "x")
                    .unwrap();
            let shape = ModelShape::from_config(&config);
            assert_eq!(
                (shape.parameters, shape.key_values_per_token),
                (parameters, cached),
                "{keys}"
            );
        }
    }

    #[test]
    fn other_families_have_their_published_counts() {
        let check = |name: &str, expected: f64| {
            let found =
                ModelShape::from_config(&crate::hub::named_shape(name).unwrap()).parameters as f64;
            assert!(
                (found / expected - 1.0).abs() < 5e-3,
                "{name}: {found}, expected {expected}"
            );
        };
        check("gemma3-270m", 268.1e6);
        check("gemma3-1b", 999.9e6);
        check("gemma3-4b", 3.88e9);
        check("gemma3-12b", 11.77e9);
        check("mistral-7b", 7.248e9);
        check("mistral-nemo-12b", 12.25e9);
        check("mistral-small-24b", 23.57e9);
        check("qwen3.5-9b", 8.95e9);
        check("qwen3.5-27b", 26.9e9);
        check("qwen3.5-35b-a3b", 34.66e9);
    }

    #[test]
    fn qwen3_30b_a3b_has_its_published_counts() {
        let json = r#"{"model_type":"qwen3_moe","vocab_size":151936,"hidden_size":2048,"num_hidden_layers":48,"num_attention_heads":32,"head_dim":128}"#;
        let model = ModelConfig::parse(json, "config.json").unwrap();
        let shape = ModelShape::from_config(&model);
        assert_eq!(
            (shape.parameters, shape.active_parameters()),
            (30_532_122_624, 3_353_032_704)
        );
        let adapters = |set: &[&str]| crate::plan::trainable_parameters(&model, &config(set));
        let of_experts = adapters(&["lora_experts=true"]) - adapters(&[]);
        assert_eq!(of_experts, 16 * 48 * 128 * (2048 + 2 * 768 + 768 + 2048));
        // The embedding is no product, norms are not counted.
        let products =
            2.0 * (3_353_032_704.0 - 151_936.0 * 2048.0 - 48.0 * (2.0 * 2048.0 + 256.0) - 2048.0);
        assert_eq!(shape.forward_operations(1.0, 0.0, 1.0), products);
    }

    #[test]
    fn gpt_oss_has_its_published_counts() {
        let check = |config: &ModelConfig, expected: f64| {
            let shape = ModelShape::from_config(config);
            assert!(
                (shape.parameters as f64 / expected - 1.0).abs() < 5e-4,
                "{}",
                shape.parameters
            );
        };
        check(&crate::hub::named_shape("gpt-oss-20b").unwrap(), 20.91e9);
        let larger = r#"{"model_type":"gpt_oss","vocab_size":201088,"hidden_size":2880,"num_hidden_layers":36}"#;
        check(
            &ModelConfig::parse(larger, "config.json").unwrap(),
            116.83e9,
        );
    }

    #[test]
    fn qwen3_8b_has_its_published_counts() {
        let shape = ModelShape::from_config(&qwen3_8b());
        let check = |found: usize, expected: f64, within: f64| {
            assert!(
                (found as f64 / expected - 1.0).abs() < within,
                "{found}, expected {expected}"
            )
        };
        check(shape.parameters, 8.19e9, 1e-3);
        check(shape.layer_matrices, 6.946e9, 1e-3);
        check(shape.head, 0.622e9, 1e-3);
        check(shape.lora_per_rank, 2.728e6, 1e-3);
        // 144 KiB a token in bf16.
        assert_eq!(2 * shape.key_values_per_token, 147_456);
        // 15.1 GFLOP a token, the head included; attention to 150 others adds 36 * 4096 * 4 * 150 = 88 MFLOP.
        assert!((shape.forward_operations(1.0, 0.0, 1.0) / 15.1e9 - 1.0).abs() < 3e-3);
        assert_eq!(
            shape.forward_operations(1.0, 150.0, 0.0) - shape.forward_operations(1.0, 0.0, 0.0),
            88_473_600.0
        );
    }
}
