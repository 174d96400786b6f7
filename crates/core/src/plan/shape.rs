//! A decoder's counts: its parameters, and the operations per token.

use crate::hub::{KeysValues, Kind, Mixer, ModelConfig, ModelSource, Role, TensorSpec};

/// Counts derived from `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    pub parameters: usize,
    pub layer_matrices: usize,
    /// Tables of which a token reads a row, and nothing reads the whole.
    pub gathered: usize,
    /// The part of [`Self::layer_matrices`] that a token uses: without its idle experts.
    pub active_matrices: usize,
    /// Experts in MXFP4 on a GPU, of [`Self::layer_matrices`].
    pub mxfp4: usize,
    /// Weights of the head, used by tokens that are predicted from.
    pub head: usize,
    /// Numbers of a rank-1 adapter on all linear layers but experts, and beside those not on dense ones.
    pub lora_per_rank: usize,
    /// The part of [`Self::lora_per_rank`] on experts, gate and up together.
    pub expert_lora_per_rank: usize,
    /// Per token, over all layers.
    pub key_values_per_token: usize,
    /// States of the gated delta rule per sequence, over all layers.
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
        let (has_output_norms, own_input) =
            (config.options.has_output_norms, config.options.layer_input);
        let head = config.vocab_size * hidden;
        let outside = config.tensors_of(None);
        let is_gathered = |spec: &&TensorSpec| config.is_only_gathered(spec.role);
        let mut shape = Self {
            parameters: outside.iter().map(TensorSpec::count).sum(),
            layer_matrices: 0,
            gathered: (outside.iter().filter(is_gathered).map(TensorSpec::count)).sum(),
            active_matrices: 0,
            mxfp4: 0,
            head,
            lora_per_rank: 0,
            expert_lora_per_rank: 0,
            key_values_per_token: 0,
            state: 0,
            // Input, two norms, the middle; what norms of outputs read.
            layer_activations_per_token: if has_output_norms { 6 } else { 4 } * hidden
                // What its own input is added to, the gate and the input, and what a norm reads.
                + own_input.map_or(0, |input| 2 * (hidden + input)),
            // Two norms.
            derived_activations_per_token: 2 * hidden,
            hidden,
            layers,
            vocabulary: config.vocab_size,
            query_width: 0,
        };
        let (mut mixer, mut feed_forward) = (Activations::default(), Activations::default());
        for layer in 0..layers {
            let mut mixer_outputs = 0;
            for spec in config.tensors_of(Some(layer)) {
                let count = spec.count();
                shape.parameters += count;
                if is_in_matrices(&spec) {
                    shape.layer_matrices += count;
                    shape.active_matrices += match config.experts(layer) {
                        Some(experts) if is_of_experts(&spec) => {
                            count / experts.count * experts.active
                        }
                        _ => count,
                    };
                    let is_mxfp4 = (config.experts(layer)).is_some_and(|experts| experts.is_mxfp4);
                    if is_mxfp4 && is_of_experts(&spec) && spec.kind == Kind::Matrix {
                        shape.mxfp4 += count;
                    }
                }
                if let [outputs, inputs] = spec.shape()
                    && spec.is_adapted
                {
                    shape.lora_per_rank += outputs + inputs;
                    if spec.role == Role::MixerInput {
                        mixer_outputs += outputs;
                    }
                }
            }
            if let Some(experts) = config.experts(layer) {
                let adapters = experts.adapter_shapes(hidden).into_iter().flatten();
                shape.expert_lora_per_rank += experts.count * adapters.sum::<usize>();
            }
            match config.mixer(layer) {
                Mixer::Attention(_) => {
                    shape.query_width += config.query_width(layer);
                    if !matches!(config.keys_values(layer), KeysValues::OfLayer(_)) {
                        shape.key_values_per_token += 2 * config.heads(layer).width();
                    }
                }
                Mixer::GatedDelta(delta) => shape.state += delta.state(),
            }
            mixer = mixer.max(Activations::of_mixer(config, layer, mixer_outputs));
            feed_forward = feed_forward.max(Activations::of_feed_forward(config, layer));
        }
        shape.layer_activations_per_token += mixer.all + feed_forward.all;
        shape.derived_activations_per_token += mixer.derived + feed_forward.derived;
        shape
    }

    /// Bytes that a GPU saves where experts in MXFP4 stay so: beside others in bf16.
    pub fn mxfp4_saving(&self, number_bytes: usize) -> usize {
        match number_bytes {
            // A code of four bits, and a byte for each 32.
            2 => 2 * self.mxfp4 - self.mxfp4 / 2 - self.mxfp4 / 32,
            _ => 0,
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

fn is_of_experts(spec: &TensorSpec) -> bool {
    matches!(spec.role, Role::ExpertGateUp | Role::ExpertDown)
}

/// Whether the layers' matrices are counted with it: a matrix, or what else a mixture of experts has.
fn is_in_matrices(spec: &TensorSpec) -> bool {
    match spec.role {
        Role::Convolution => false,
        Role::Router | Role::RouterNorm | Role::ExpertsNorm | Role::ExpertFactors => true,
        Role::DenseOutputNorm | Role::ExpertsOutputNorm => true,
        _ => spec.kind == Kind::Matrix || is_of_experts(spec),
    }
}

/// Numbers per token that the backward of a part of a layer reads.
#[derive(Clone, Copy, Default)]
struct Activations {
    all: usize,
    /// The part that follows from the rest without a matmul.
    derived: usize,
}

impl Activations {
    fn max(self, other: Self) -> Self {
        Self {
            all: self.all.max(other.all),
            derived: self.derived.max(other.derived),
        }
    }

    /// `outputs`: of the product that the mixer reads.
    fn of_mixer(config: &ModelConfig, layer: usize, outputs: usize) -> Self {
        match config.mixer(layer) {
            Mixer::Attention(_) => {
                let query = config.query_width(layer);
                let prepared = query + 2 * config.heads(layer).width();
                let gated = if config.options.has_attention_gate {
                    query
                } else {
                    0
                };
                // Queries, keys and values before and after rotation; attention's result; that with its gate.
                Self {
                    all: outputs + prepared + query + gated,
                    derived: prepared + gated,
                }
            }
            // The product; what is convolved; the rule's result, and that with its gate.
            Mixer::GatedDelta(delta) => Self {
                all: outputs + delta.convolved() + 2 * delta.values(),
                derived: delta.convolved() + delta.values(),
            },
        }
    }

    /// Gate, up and their product; of a token's experts those and the logits of the router, of the expert that each token
    /// uses also its output.
    fn of_feed_forward(config: &ModelConfig, layer: usize) -> Self {
        let inner = config.inner_size(layer);
        let Some(experts) = config.experts(layer) else {
            return Self {
                all: 3 * inner,
                derived: inner,
            };
        };
        let (hidden, active) = (
            config.hidden_size,
            experts.active * experts.intermediate_size,
        );
        // What router and experts read, and the outputs before their norms.
        let beside = if experts.is_beside_dense {
            (3 * inner + 4 * hidden, inner)
        } else {
            (0, 0)
        };
        let shared = experts.shared_size.map_or(0, |size| 3 * size + hidden);
        Self {
            all: experts.count + 3 * active + shared + beside.0,
            derived: active.max(beside.1),
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
        // Of each token cached: two numbers for each of a layer's own keys. The embedding is the head.
        let rows = |layers: usize| layers * 256 * 262_144;
        for (keys, parameters, gathered, cached) in [
            (
                e2b.as_str(),
                4_628_569_379,
                rows(35),
                2 * (12 * 256 + 3 * 512),
            ),
            (e4b, 7_463_013_418, rows(42), 2 * 2 * (20 * 256 + 4 * 512)),
            (&sparse, 25_233_141_790, 0, 2 * (25 * 8 * 256 + 5 * 2 * 512)),
            (
                &dense,
                30_697_345_340,
                0,
                2 * (50 * 16 * 256 + 10 * 4 * 512),
            ),
        ] {
            let config =
                ModelConfig::parse(&format!(r#"{{"model_type":"gemma4_text",{keys}}}"#), "x")
                    .unwrap();
            let shape = ModelShape::from_config(&config);
            assert_eq!(
                (shape.parameters, shape.gathered, shape.key_values_per_token),
                (parameters, gathered, cached),
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
        // The embedding is not a matmul, norms are not counted.
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
        check(shape.gathered, 0.622e9, 1e-3);
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
