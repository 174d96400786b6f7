//! The names of a model's tensors, as the Hub writes them, with their shapes.

use crate::hub::{AttentionBias, ExpertTensors, Experts, GatedDelta, Mixer, ModelConfig};
use crate::model::beside_dense;
use crate::model::experts::FACTORS;

/// Every tensor that a model of this configuration has, in the order in which they are trained, with its shape.
pub fn tensor_names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let (norms, has_output_norms) = (config.norm_names(), config.options.has_output_norms);
    let mut names = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![config.vocab_size, hidden],
    )];
    if let Some(width) = config.options.layer_input {
        let all = config.num_hidden_layers * width;
        names.push((
            "model.embed_tokens_per_layer.weight".to_owned(),
            vec![config.vocab_size, all],
        ));
        names.push((
            "model.per_layer_model_projection.weight".to_owned(),
            vec![all, hidden],
        ));
        names.push((
            "model.per_layer_projection_norm.weight".to_owned(),
            vec![width],
        ));
    }
    for layer in 0..config.num_hidden_layers {
        let place = |part: &str, shape: Vec<usize>| (format!("model.layers.{layer}.{part}"), shape);
        let norm = |part: &str| place(&format!("{part}.weight"), vec![hidden]);
        names.push(norm(norms.input));
        match config.mixer(layer) {
            Mixer::Attention(_) => names.extend(attention_names(config, layer, place)),
            Mixer::GatedDelta(delta) => names.extend(gated_delta_names(delta, hidden, place)),
        }
        names.extend(has_output_norms.then(|| norm(norms.attention_output)));
        names.push(norm(norms.middle));
        match config.experts(layer) {
            None => names.extend(gated_mlp_names(
                "mlp",
                config.inner_size(layer),
                hidden,
                place,
            )),
            Some(experts) => {
                if experts.is_beside_dense {
                    names.extend(gated_mlp_names(
                        "mlp",
                        config.inner_size(layer),
                        hidden,
                        place,
                    ));
                    names.extend(beside_dense::NORMS.map(|norm| place(norm, vec![hidden])));
                    names.push(place(FACTORS, vec![experts.count]));
                }
                names.push(place(
                    &format!("{}.weight", experts.router()),
                    vec![experts.count, hidden],
                ));
                if experts.has_biases() {
                    names.push(place(
                        &format!("{}.bias", experts.router()),
                        vec![experts.count],
                    ));
                }
                let of = |index| format!("mlp.experts.{index}");
                let is_separate = experts.tensors == ExpertTensors::Separate;
                let own = (0..if is_separate { experts.count } else { 0 })
                    .map(|index| (of(index), experts.intermediate_size));
                let shared = experts
                    .shared_size
                    .map(|inner| ("mlp.shared_expert".to_owned(), inner));
                names.extend(
                    fused_names(experts, hidden)
                        .into_iter()
                        .map(|(name, shape)| place(name, shape)),
                );
                names
                    .extend(own.chain(shared).flat_map(|(prefix, inner)| {
                        gated_mlp_names(&prefix, inner, hidden, place)
                    }));
                names.extend(
                    experts
                        .shared_size
                        .map(|_| place("mlp.shared_expert_gate.weight", vec![1, hidden])),
                );
            }
        }
        names.extend(has_output_norms.then(|| norm(norms.down)));
        if let Some(width) = config.options.layer_input {
            names.push(place("per_layer_input_gate.weight", vec![width, hidden]));
            names.push(place("per_layer_projection.weight", vec![hidden, width]));
            names.push(norm("post_per_layer_input_norm"));
        }
        names.extend(
            config
                .options
                .has_layer_factors
                .then(|| place("layer_scalar", vec![1])),
        );
    }
    names.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        names.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    names
}

type Named = (String, Vec<usize>);

fn attention_names(
    config: &ModelConfig,
    layer: usize,
    place: impl Fn(&str, Vec<usize>) -> Named,
) -> Vec<Named> {
    let (hidden, packed) = (config.hidden_size, config.attention_inputs(layer));
    let matrix =
        |(part, outputs): &(&str, usize)| place(&format!("{part}.weight"), vec![*outputs, hidden]);
    let mut names: Vec<Named> = packed.iter().map(matrix).collect();
    // The parts of a packed matrix stand side by side: first the matrices, then their biases.
    let has_keys = packed.len() > 1;
    let biased = packed
        .into_iter()
        .filter(|(part, _)| has_bias(config, part));
    names.extend(biased.map(|(part, outputs)| place(&format!("{part}.bias"), vec![outputs])));
    if config.options.has_head_norms {
        let norms = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
        let own = norms.into_iter().take(if has_keys { 2 } else { 1 });
        names.extend(own.map(|part| place(part, vec![config.heads(layer).dimension])));
    }
    if config.options.has_attention_sinks {
        names.push(place("self_attn.sinks", vec![config.num_attention_heads]));
    }
    names.push(place(
        "self_attn.o_proj.weight",
        vec![hidden, config.query_width(layer)],
    ));
    if has_bias(config, "self_attn.o_proj") {
        names.push(place("self_attn.o_proj.bias", vec![hidden]));
    }
    names
}

fn gated_mlp_names(
    prefix: &str,
    inner: usize,
    hidden: usize,
    place: impl Fn(&str, Vec<usize>) -> Named,
) -> [Named; 3] {
    let shapes = [
        ("gate", [inner, hidden]),
        ("up", [inner, hidden]),
        ("down", [hidden, inner]),
    ];
    shapes.map(|(part, shape)| place(&format!("{prefix}.{part}_proj.weight"), shape.to_vec()))
}

/// The tensors that have all experts of a layer: of gates and ups, then of downs, each followed by its biases where there
/// are some.
pub(in crate::model) fn fused_names(
    experts: &Experts,
    hidden: usize,
) -> Vec<(&'static str, Vec<usize>)> {
    let (count, width) = (experts.count, experts.intermediate_size);
    match experts.tensors {
        ExpertTensors::Separate => Vec::new(),
        ExpertTensors::Fused if experts.is_beside_dense => vec![
            ("experts.gate_up_proj", vec![count, 2 * width, hidden]),
            ("experts.down_proj", vec![count, hidden, width]),
        ],
        ExpertTensors::Fused => vec![
            ("mlp.experts.gate_up_proj", vec![count, 2 * width, hidden]),
            ("mlp.experts.down_proj", vec![count, hidden, width]),
        ],
        ExpertTensors::FusedTransposed => vec![
            ("mlp.experts.gate_up_proj", vec![count, hidden, 2 * width]),
            ("mlp.experts.gate_up_proj_bias", vec![count, 2 * width]),
            ("mlp.experts.down_proj", vec![count, width, hidden]),
            ("mlp.experts.down_proj_bias", vec![count, hidden]),
        ],
    }
}

fn gated_delta_names(
    delta: &GatedDelta,
    hidden: usize,
    place: impl Fn(&str, Vec<usize>) -> Named,
) -> Vec<Named> {
    let (heads, values) = (delta.value_heads, delta.values());
    vec![
        place(
            "linear_attn.in_proj_qkv.weight",
            vec![delta.convolved(), hidden],
        ),
        place("linear_attn.in_proj_z.weight", vec![values, hidden]),
        place("linear_attn.in_proj_b.weight", vec![heads, hidden]),
        place("linear_attn.in_proj_a.weight", vec![heads, hidden]),
        place(
            "linear_attn.conv1d.weight",
            vec![delta.convolved(), 1, delta.kernel],
        ),
        place("linear_attn.A_log", vec![heads]),
        place("linear_attn.dt_bias", vec![heads]),
        place("linear_attn.norm.weight", vec![delta.value_dimension]),
        place("linear_attn.out_proj.weight", vec![hidden, values]),
    ]
}

/// Whether a layer's matrix, such as `self_attn.q_proj`, adds a bias.
pub(in crate::model) fn has_bias(config: &ModelConfig, part: &str) -> bool {
    match config.attention_bias {
        _ if part == "mlp.router" => true,
        AttentionBias::Absent => false,
        AttentionBias::QueryKeyValue => matches!(
            part,
            "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj"
        ),
        AttentionBias::All => part.starts_with("self_attn."),
    }
}

/// Whether full training moves the tensor: not the factors of layers, which transformers keeps as buffers.
pub fn is_trained(name: &str) -> bool {
    !name.ends_with(".layer_scalar")
}

/// Whether a base in fp8 rounds the tensor: the matrices of layers but for routers, whose choices rounding would change.
pub(super) fn is_layer_matrix(name: &str, shape: &[usize]) -> bool {
    let is_gate = [
        "mlp.gate.weight",
        "mlp.router.weight",
        "router.proj.weight",
        "mlp.shared_expert_gate.weight",
    ]
    .iter()
    .any(|gate| name.ends_with(gate));
    name.starts_with("model.layers.") && shape.len() == 2 && !is_gate && !name.ends_with("_bias")
}
