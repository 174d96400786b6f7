//! A decoder's counts: its parameters, and the operations per token.

use crate::hub::{AttentionBias, ModelConfig, ModelSource};

/// Counts derived from `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// All weights.
    pub parameters: usize,
    /// Weights of the layers' matrices, used by every token.
    pub layer_matrices: usize,
    /// Weights of the head, used by tokens that are predicted from.
    pub head: usize,
    /// Numbers of a rank-1 adapter on all linear layers.
    pub lora_per_rank: usize,
    /// Per token, over all layers.
    pub key_values_per_token: usize,
    /// Numbers per token that a layer's backward reads; no matmul of the forward is repeated.
    pub layer_activations_per_token: usize,
    /// The part that follows from the rest without a matmul: a GPU keeps it for one layer at a time.
    pub derived_activations_per_token: usize,
    pub hidden: usize,
    pub layers: usize,
    pub vocabulary: usize,
    /// Query heads times their width: 4 operations per layer, token and attended token.
    pub query_width: usize,
}

/// `None` if `config.json` cannot be read.
pub fn parameters(model: &ModelSource) -> Option<u64> {
    model.config().ok().map(|config| ModelShape::from_config(&config).parameters as u64)
}

impl ModelShape {
    pub fn from_config(config: &ModelConfig) -> Self {
        let (hidden, inner, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
        let query = config.num_attention_heads * config.head_dim;
        let key = config.num_key_value_heads * config.head_dim;
        // [outputs, inputs] of q, k, v, o, gate, up, down.
        let matrices = [
            (query, hidden),
            (key, hidden),
            (key, hidden),
            (hidden, query),
            (inner, hidden),
            (inner, hidden),
            (hidden, inner),
        ];
        let layer_matrices = layers * matrices.iter().map(|(outputs, inputs)| outputs * inputs).sum::<usize>();
        let table = config.vocab_size * hidden;
        let head_norms = if config.options.has_head_norms { 2 * config.head_dim } else { 0 };
        let output_norms = if config.options.has_output_norms { 2 * hidden } else { 0 };
        let biases = match config.attention_bias {
            AttentionBias::Absent => 0,
            AttentionBias::QueryKeyValue => query + 2 * key,
            AttentionBias::All => query + 2 * key + hidden,
        };
        let vectors = layers * (2 * hidden + head_norms + output_norms + biases) + hidden;
        Self {
            parameters: layer_matrices + vectors + table * if config.tie_word_embeddings { 1 } else { 2 },
            layer_matrices,
            head: table,
            lora_per_rank: layers * matrices.iter().map(|(outputs, inputs)| outputs + inputs).sum::<usize>(),
            key_values_per_token: layers * 2 * key,
            // Input, two norms, the middle; queries, keys and values before and after rotation; attention's result;
            // gate, up and their product; what norms of outputs read.
            layer_activations_per_token: 4 * hidden + output_norms + 2 * (query + 2 * key) + query + 3 * inner,
            // Two norms, what is rotated, the product of gate and up.
            derived_activations_per_token: 2 * hidden + query + 2 * key + inner,
            hidden,
            layers,
            vocabulary: config.vocab_size,
            query_width: query,
        }
    }

    /// Operations of a forward of `rows` tokens that attend to `context` others on average, `predicted` of them through
    /// the head.
    pub fn forward_operations(&self, rows: f64, context: f64, predicted: f64) -> f64 {
        let attention = 4.0 * (self.layers * self.query_width) as f64 * context;
        rows * (2.0 * self.layer_matrices as f64 + attention) + predicted * 2.0 * self.head as f64
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
        mean_completion_tokens: 60.0,
        least_completion_tokens: 60.0,
        most_completion_tokens: 60.0,
    };

    /// The defaults, with these keys set.
    pub(in crate::plan) fn config(set: &[&str]) -> TrainConfig {
        Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() }
            .resolve()
            .unwrap()
            .config
    }

    pub(crate) fn qwen3_8b() -> ModelConfig {
        crate::hub::named_shape("qwen3-8b").unwrap()
    }

    #[test]
    fn gemma_3_and_mistral_have_their_published_counts() {
        let check = |name: &str, expected: f64| {
            let found = ModelShape::from_config(&crate::hub::named_shape(name).unwrap()).parameters as f64;
            assert!((found / expected - 1.0).abs() < 5e-3, "{name}: {found}, expected {expected}");
        };
        check("gemma3-270m", 268.1e6);
        check("gemma3-1b", 999.9e6);
        check("gemma3-4b", 3.88e9);
        check("gemma3-12b", 11.77e9);
        check("mistral-7b", 7.248e9);
        check("mistral-nemo-12b", 12.25e9);
        check("mistral-small-24b", 23.57e9);
    }

    #[test]
    fn qwen3_8b_has_its_published_counts() {
        let shape = ModelShape::from_config(&qwen3_8b());
        let check = |found: usize, expected: f64, within: f64| {
            assert!((found as f64 / expected - 1.0).abs() < within, "{found}, expected {expected}")
        };
        check(shape.parameters, 8.19e9, 1e-3);
        check(shape.layer_matrices, 6.946e9, 1e-3);
        check(shape.head, 0.622e9, 1e-3);
        check(shape.lora_per_rank, 2.728e6, 1e-3);
        // 144 KiB a token in bf16.
        assert_eq!(2 * shape.key_values_per_token, 147_456);
        // 15.1 GFLOP a token, the head included; attention to 150 others adds 36 * 4096 * 4 * 150 = 88 MFLOP.
        assert!((shape.forward_operations(1.0, 0.0, 1.0) / 15.1e9 - 1.0).abs() < 3e-3);
        assert_eq!(shape.forward_operations(1.0, 150.0, 0.0) - shape.forward_operations(1.0, 0.0, 0.0), 88_473_600.0);
    }
}
