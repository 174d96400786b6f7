//! `grpo-tui model inspect`: a model's shape and memory, from its configuration and the headers of
//! its weights, without computing.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::memory_estimates::{ByDevice, MemoryEstimates, SEQUENCES, TOKENS};
use crate::cli::{Outcome, print, print_json};
use crate::format::{bytes, grouped, percent};
use crate::hub::{
    ExpertEntries, Kind, ModelConfig, ModelSource, ModelTensor, Quantization, Role, RopeScaling,
    Scope, TensorEntry, TensorSpec, find_model,
};
use crate::plan::ModelShape;
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Model: a folder, a Hugging Face name, or `tiny`
    model: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The tensors of a model's files, compared with its configuration.
struct Inspection {
    config: ModelConfig,
    files: Vec<String>,
    stored_bytes: u64,
    element_types: BTreeMap<String, u64>,
    quantization: Option<Quantization>,
    /// Whether a base in NF4 takes the files as they are.
    is_nf4_base: bool,
    /// (kind, tensors, elements), in the order of the model.
    kinds: Vec<(&'static str, u64, u64)>,
    /// Tensors that are missing or have a wrong shape.
    problems: Vec<String>,
    /// Number and bytes of vision, audio and multi-token-prediction tensors.
    not_loaded: (u64, u64),
}

/// Name fragments of tensors that text alone does not need.
const NOT_LOADED: [&str; 7] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.visual.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "mtp.",
];

/// In the order of the model.
const KINDS: [&str; 9] = [
    "embedding",
    "layer_input",
    "attention",
    "delta_rule",
    "feed_forward",
    "router",
    "experts",
    "norm",
    "head",
];

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let source = find_model(&arguments.model)?;
    let inspection = inspect(&source)?;
    let uses = ByDevice::for_model(&inspection.config)?;
    if arguments.json {
        print_json(inspection.json(&source.name, &uses))?;
    } else {
        print(&inspection.text(&source.name, &uses))?;
    }
    Ok(if inspection.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn inspect(source: &ModelSource) -> Result<Inspection, crate::hub::HubError> {
    let (config, quantization) = (source.config()?, source.quantization()?);
    let files = source.weight_files()?;
    let mut found: HashMap<String, TensorEntry> = HashMap::new();
    for file in &files {
        found.extend(
            source
                .tensors(file)?
                .into_iter()
                .map(|entry| (entry.name.clone(), entry)),
        );
    }
    for (name, state) in source.nf4_states()? {
        let halves = state.shape.iter().product::<u64>().div_ceil(2);
        if let Some(entry) = found
            .get_mut(&name)
            .filter(|entry| entry.shape == [halves, 1])
        {
            state.correct(entry);
        }
    }
    let mut element_types = BTreeMap::new();
    let mut stored_bytes = 0;
    let mut not_loaded = (0, 0);
    for entry in found.values() {
        if NOT_LOADED.iter().any(|part| entry.name.contains(part)) {
            not_loaded = (not_loaded.0 + 1, not_loaded.1 + entry.size_bytes);
        }
        *element_types.entry(entry.element_type.clone()).or_default() += 1;
        stored_bytes += entry.size_bytes;
    }
    let mut kinds: Vec<(&'static str, u64, u64)> =
        KINDS.into_iter().map(|kind| (kind, 0, 0)).collect();
    let mut problems = Vec::new();
    for ModelTensor {
        name, shape, spec, ..
    } in config.tensors()
    {
        let expected: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        problems.extend(problem(&name, &expected, &found, quantization));
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.0 == group_of(&spec)) {
            kind.1 += 1;
            kind.2 += expected.iter().product::<u64>();
        }
    }
    Ok(Inspection {
        config,
        files,
        stored_bytes,
        element_types,
        quantization,
        is_nf4_base: source.is_nf4_base()?,
        kinds,
        problems,
        not_loaded,
    })
}

fn problem(
    name: &str,
    expected: &[u64],
    found: &HashMap<String, TensorEntry>,
    quantization: Option<Quantization>,
) -> Option<String> {
    let find = |name: &str| found.get(name);
    let shape = match find(name) {
        Some(entry) => entry.shape.clone(),
        None => match ExpertEntries::find(name, quantization, find) {
            Err(problem) => return Some(problem),
            Ok(None) => return Some(format!("no tensor `{name}`")),
            Ok(Some(entries)) => entries.shape().to_vec(),
        },
    };
    if shape != expected {
        return Some(format!(
            "`{name}` has shape {shape:?}, config.json requires {expected:?}"
        ));
    }
    let fp8 = find(name).filter(|entry| entry.element_type == "F8_E4M3")?;
    fp8.fp8_scales(quantization.and_then(Quantization::fp8), find)
        .err()
}

fn group_of(spec: &TensorSpec) -> &'static str {
    match (spec.role, spec.kind) {
        (Role::Embedding | Role::LayerEmbedding, _) => "embedding",
        (Role::Head, _) => "head",
        (Role::Router | Role::RouterNorm | Role::ExpertFactors, _) => "router",
        (Role::DeltaNorm, _) | (_, Kind::Norm) => "norm",
        (Role::LayerProjection | Role::LayerFactor, _) => "layer_input",
        (Role::OwnInputGate | Role::OwnInputProjection, _) => "layer_input",
        (Role::GateUp | Role::Down, _) => "feed_forward",
        (Role::ExpertGateUp | Role::ExpertDown, _) => "experts",
        (Role::SharedGateUp | Role::SharedDown | Role::SharedGate, _) => "experts",
        _ if spec.name.starts_with("linear_attn") => "delta_rule",
        _ => "attention",
    }
}

impl Inspection {
    fn parameters(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.2).sum()
    }

    /// KV cache elements per token.
    fn cache_numbers_per_token(&self) -> u64 {
        ModelShape::from_config(&self.config).key_values_per_token as u64
    }

    /// Elements of a sequence's recurrent states.
    fn state_numbers(&self) -> u64 {
        ModelShape::from_config(&self.config).state as u64
    }

    fn json(&self, name: &str, uses: &ByDevice) -> Value {
        let config = &self.config;
        let tensors: Vec<Value> = self
            .kinds
            .iter()
            .filter(|kind| kind.1 > 0)
            .map(|(kind, tensors, parameters)| json!({ "kind": kind, "tensors": tensors, "parameters": parameters }))
            .collect();
        json!({
            "model": name,
            "architecture": format!("{:?}", config.architecture).to_lowercase(),
            "parameters": self.parameters(),
            "active_parameters": ModelShape::from_config(config).active_parameters(),
            "tensors": tensors,
            "memory_bytes": { "f32": 4 * self.parameters(), "bf16": 2 * self.parameters() },
            "cache_bytes_per_token": { "f32": 4 * self.cache_numbers_per_token(), "bf16": 2 * self.cache_numbers_per_token() },
            "state_bytes_per_sequence": { "f32": 4 * self.state_numbers() },
            "memory_by_use": uses,
            "stored": { "files": self.files, "bytes": self.stored_bytes, "element_types": self.element_types, "fp8_scales": self.quantization.and_then(Quantization::fp8).map(|scales| scales.to_string()) },
            "config": serde_json::from_str::<Value>(&config.to_json("float32", &[])).unwrap_or(Value::Null),
            "problems": self.problems,
            "not_loaded": { "tensors": self.not_loaded.0, "bytes": self.not_loaded.1 },
        })
    }

    fn text(&self, name: &str, uses: &ByDevice) -> String {
        let config = &self.config;
        let head = if config.tie_word_embeddings {
            "tied head"
        } else {
            "untied head"
        };
        let rope = match config.rope_scaling {
            RopeScaling::Unscaled => String::new(),
            RopeScaling::Linear { factor } => format!(", stretched {factor} times"),
            RopeScaling::Proportional { share, factor: 1.0 } => {
                format!(" on {} of a head", percent(share))
            }
            RopeScaling::Proportional { share, factor } => {
                format!(" on {} of a head, stretched {factor} times", percent(share))
            }
            RopeScaling::Llama3 {
                factor,
                original_positions,
                ..
            }
            | RopeScaling::Yarn {
                factor,
                original_positions,
                ..
            } => {
                format!(", stretched {factor} times from {original_positions}")
            }
        };
        let window = config
            .options
            .window
            .as_ref()
            .map_or_else(String::new, |window| {
                let layers = window
                    .scopes
                    .iter()
                    .filter(|scope| **scope == Scope::Window)
                    .count();
                format!(
                    "\n  window        {} tokens in {layers} layers, rotary base {}",
                    window.tokens, window.rope_theta
                )
            });
        let heads = config.options.global_heads.map_or_else(String::new, |heads| {
            let values = if heads.values_are_keys { ", values of the same product as keys" } else { "" };
            format!(
                "\n  global heads  {} key and value, {} numbers each, in layers without a window{values}",
                heads.key_value, heads.dimension
            )
        });
        let shared = config
            .options
            .shared_layers
            .map_or_else(String::new, |shared| {
                format!(
                    "\n  shared        the last {} layers read keys and values of layers before",
                    config.num_hidden_layers - shared.first
                )
            });
        let input = config
            .options
            .layer_input
            .map_or_else(String::new, |width| {
                format!("\n  layer inputs  {width} numbers for each layer, by token and embedding")
            });
        let delta = config.options.gated_delta.as_ref().map_or_else(String::new, |delta| {
            let layers = config.num_hidden_layers - config.attention_layers();
            format!(
                "\n  delta rule    {layers} layers, {} key and {} value heads of {} and {} numbers, convolution over {} tokens\n  \
                 attention     {} layers, gated, rotary positions on {} of {} numbers",
                delta.key_heads,
                delta.value_heads,
                delta.key_dimension,
                delta.value_dimension,
                delta.kernel,
                config.attention_layers(),
                config.rotary_dimension(),
                config.head_dim,
            )
        });
        let quantized = match self.quantization {
            None => String::new(),
            Some(Quantization::Mxfp4) => {
                "\n  mxfp4         experts in blocks of 32 numbers, read as they are by a GPU in bf16, else dequantized".to_owned()
            }
            Some(Quantization::Nf4) => {
                let then = match self.is_nf4_base {
                    true => "or taken as they are by base_precision = nf4",
                    false => "and rounded again by base_precision = nf4 where they lack double quantization in blocks of 64 and 256",
                };
                format!("\n  nf4           matrices in NF4, dequantized to bf16 when they are loaded, {then}")
            }
            Some(Quantization::Fp8(scales)) => {
                format!("\n  fp8           matrices in F8_E4M3 with {scales}, dequantized to bf16 when they are loaded")
            }
        };
        let experts = config.options.experts.as_ref().map_or_else(String::new, |experts| {
            let layers = (0..config.num_hidden_layers).filter(|&layer| config.experts(layer).is_some()).count();
            let shared = experts.shared_size.map_or_else(String::new, |size| format!(", one of {size} for every token"));
            let beside = if experts.is_beside_dense { ", beside a dense block" } else { "" };
            format!(
                "\n  experts       {} in each of {layers} layers, {} per token, feed-forward {}{shared}{beside}; {} active parameters",
                experts.count,
                experts.active,
                experts.intermediate_size,
                grouped(ModelShape::from_config(config).active_parameters() as u64),
            )
        });
        let types: Vec<String> = self
            .element_types
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let name = visible(name);
        let mut text = format!(
            "{name}: {}, {} parameters\n\n  layers        {}, hidden {}, feed-forward {}\n  heads         {} query, {} key and value, {} numbers each\n  \
             vocabulary    {}, {head}\n  positions     {}, rotary base {}{rope}{window}{heads}{shared}{input}{delta}{experts}\n  stored        {} in {} ({} tensors){quantized}\n\n",
            config.architecture.title(),
            grouped(self.parameters()),
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            grouped(config.vocab_size as u64),
            grouped(config.max_position_embeddings as u64),
            config.rope_theta,
            bytes(self.stored_bytes),
            self.files.join(", "),
            types.join(", "),
        );
        for (kind, tensors, parameters) in self.kinds.iter().filter(|kind| kind.1 > 0) {
            let share = percent(*parameters as f64 / self.parameters() as f64);
            text += &format!(
                "  {:<13} {tensors:>5} tensors {:>16} parameters {share:>6}\n",
                kind.replace('_', "-"),
                grouped(*parameters)
            );
        }
        let (weights, cache) = (self.parameters(), self.cache_numbers_per_token());
        text += &format!(
            "\n  memory        weights {} in f32, {} in bf16; ",
            bytes(4 * weights),
            bytes(2 * weights)
        );
        text += &format!(
            "KV cache {} per token in f32, {} in bf16\n",
            bytes(4 * cache),
            bytes(2 * cache)
        );
        if self.state_numbers() > 0 {
            text += &format!(
                "                states {} per sequence in f32\n",
                bytes(4 * self.state_numbers())
            );
        }
        text += &uses_text(uses);
        if let Some(problem) = config.gpu_problem() {
            text += &format!("  GPU           {problem}\n");
        }
        if self.not_loaded.0 > 0 {
            let (count, size) = self.not_loaded;
            text += &format!(
                "  not loaded    {count} tensors for images, sound or multi-token prediction ({}): only text is computed\n",
                bytes(size)
            );
        }
        for problem in &self.problems {
            text += &format!(
                "  problem       {}; the checkpoint is incomplete or of another architecture\n",
                visible(problem)
            );
        }
        text
    }
}

fn uses_text(uses: &ByDevice) -> String {
    let mut text = format!(
        "\n  by use, {SEQUENCES} sequences of {} tokens            GPU, bf16     CPU, f32\n",
        grouped(TOKENS as u64)
    );
    let mut row = |name: &str, of: fn(&MemoryEstimates) -> u64| {
        text += &format!(
            "  {name:<48} {:>12} {:>12}\n",
            bytes(of(&uses.gpu)),
            bytes(of(&uses.cpu))
        );
    };
    row("sampling", |uses| uses.sampling);
    row("training adapters, at the defaults", |uses| uses.lora);
    row("  with recompute_activations = always", |uses| {
        uses.lora_recomputed
    });
    row("training every weight (lora_rank = 0)", |uses| uses.full);
    row("  with recompute_activations = always", |uses| {
        uses.full_recomputed
    });
    text
}
