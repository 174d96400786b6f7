//! Reads LoRA adapters of PEFT or of this program, mapping tensor names to ours.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::CheckpointError;
use super::trainer_state::OPTIMIZER_FILE;
use crate::hub::{ModelConfig, find_model};
use crate::model::{
    Parameters, TARGET_PARAMETERS, Trainable, Weights, adapter_names, beside_each_other,
    is_of_experts,
};
use crate::run::{CHECKPOINT_MARK, verify_checkpoint};

/// A LoRA adapter from `adapter_config.json` and `adapter_model.safetensors`.
#[derive(Clone, Debug)]
pub struct PeftAdapter {
    rank: usize,
    /// Normalised such that the scale is `alpha / rank`.
    alpha: f64,
    base_model: Option<String>,
    targets: Targets,
    /// Tensors by the names of [`Parameters`]' slots.
    tensors: HashMap<String, Tensor>,
    weights_path: PathBuf,
}

/// Matrices named in the adapter's configuration.
#[derive(Clone, Debug)]
struct Targets {
    modules: Modules,
    /// `target_parameters`: of experts.
    parameters: Vec<String>,
}

#[derive(Clone, Debug)]
enum Modules {
    /// Modules equal to one of these, or ending with `.` and one of these.
    Named(Vec<String>),
    /// Inferred from the tensors: all linear layers, a pattern, or some layers.
    Shown,
}

/// Unsupported settings that change the meaning of the tensors. Null, false and empty are off.
const NOT_COMPUTED: [&str; 12] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
];

const MERGE: &str = "merge the adapter with PEFT (`merge_and_unload`) and use the merged model";

/// Values of `init_lora_weights` for which PEFT leaves the base unchanged. With others (`pissa`,
/// `olora`, `corda`, `loftq`, `lora_ga`, ...) it subtracts the initial `B A` from the base, or
/// quantizes it, when loading the adapter.
const BASE_UNCHANGED: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl PeftAdapter {
    /// Reads an adapter folder. Tensor names may lack the prefix `base_model.model.` or contain the
    /// adapter's name (`lora_A.default.weight`).
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] with file and remedy, if something is missing, damaged or
    /// unsupported.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        if folder.join(CHECKPOINT_MARK).exists() {
            verify_checkpoint(folder, |name| name != OPTIMIZER_FILE)?;
        }
        let path = folder.join("adapter_config.json");
        let text =
            crate::files::read_text(&path).map_err(|error| refused(&path, unread(&error)))?;
        let config: Value = serde_json::from_str(&text)
            .map_err(|error| refused(&path, format!("not valid JSON ({error})")))?;
        let mut adapter = Self::from_config(&config).map_err(|problem| refused(&path, problem))?;
        adapter.weights_path = folder.join("adapter_model.safetensors");
        adapter.tensors = adapter.read_tensors()?;
        // Checked before it determines allocations.
        let has_rank =
            |(name, tensor): &(&String, &Tensor)| match (is_of_experts(name), tensor.dims()) {
                // All experts of a layer in one matrix.
                (true, [rows, columns]) => {
                    (if is_a(name) { rows } else { columns }).is_multiple_of(adapter.rank)
                }
                (_, shape) => shape.contains(&adapter.rank),
            };
        if let Some((name, tensor)) = adapter.tensors.iter().find(|entry| !has_rank(entry)) {
            let problem = format!(
                "`r` = {}, but `{name}` has shape {:?}; the two files belong to different adapters",
                adapter.rank,
                tensor.dims()
            );
            return Err(refused(&path, problem));
        }
        Ok(adapter)
    }

    /// Combines adapters into one, concatenating their ranks, each zero-padded to the returned
    /// size. Scale 1: theirs are multiplied into B. Each row of a batch uses its own adapter
    /// (`model::AdapterUse`).
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(super) fn side_by_side(
        adapters: &[Self],
        config: &ModelConfig,
    ) -> Result<(Self, usize), CheckpointError> {
        // Whole 16 bytes of bf16 per row.
        let slot = adapters
            .iter()
            .map(|adapter| adapter.rank)
            .max()
            .unwrap_or(0)
            .next_multiple_of(8);
        let mut tensors = HashMap::new();
        let has_experts = adapters.iter().any(Self::has_experts);
        for (name, shape) in adapter_names(config, slot, has_experts) {
            let is_a = is_a(&name);
            // One adapter per expert, else one per matrix.
            let count = config
                .options
                .experts
                .as_ref()
                .filter(|_| is_of_experts(&name))
                .map_or(1, |own| own.count);
            let part = |adapter: &Self| -> candle_core::Result<Tensor> {
                let Some(own) = adapter.tensors.get(&name) else {
                    return Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu);
                };
                let scale = if is_a {
                    1.0
                } else {
                    adapter.alpha / adapter.rank as f64
                };
                let own = own.to_dtype(DType::F32)?.affine(scale, 0.0)?;
                let added = count * (slot - adapter.rank);
                let (rows, columns) = own.dims2()?;
                let zeros = if is_a {
                    (added, columns)
                } else {
                    (rows, added)
                };
                beside_each_other(
                    &[own, Tensor::zeros(zeros, DType::F32, &Device::Cpu)?],
                    count,
                    is_a,
                )
            };
            let parts = adapters
                .iter()
                .map(part)
                .collect::<candle_core::Result<Vec<_>>>()?;
            tensors.insert(name, beside_each_other(&parts, count, is_a)?);
        }
        let (rank, weights_path) = (slot * adapters.len(), PathBuf::new());
        let base_model = None;
        let targets = Targets {
            modules: Modules::Shown,
            parameters: Vec::new(),
        };
        Ok((
            Self {
                rank,
                alpha: rank as f64,
                base_model,
                targets,
                tensors,
                weights_path,
            },
            slot,
        ))
    }

    /// Checks the adapter against a model.
    pub(super) fn check_fits(&self, config: &ModelConfig) -> Result<(), CheckpointError> {
        self.check(&self.names(config))
    }

    fn names(&self, config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        adapter_names(config, self.rank, self.has_experts())
    }

    fn has_experts(&self) -> bool {
        self.tensors.keys().any(|name| is_of_experts(name))
    }

    /// Matching setting for a [`crate::model::Decoder`].
    pub fn trainable(&self) -> Trainable {
        Trainable::Lora {
            rank: self.rank,
            alpha: self.alpha,
            has_experts: self.has_experts(),
        }
    }

    /// Whether every B is 0, as before the first step.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn changes_nothing(&self) -> Result<bool, CheckpointError> {
        for (_, tensor) in self.tensors.iter().filter(|(name, _)| !is_a(name)) {
            let sum = tensor.to_dtype(DType::F32)?.abs()?.sum_all()?;
            // Also a number that is not finite is a change.
            if sum.to_scalar::<f32>()? != 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Named in the adapter's configuration.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// The base model's name, for an adapter given alone.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] if there is none, or it is another adapter.
    pub fn base_name(&self) -> Result<&str, CheckpointError> {
        let refuse = |problem: String| {
            Err(refused(
                &self.weights_path.with_file_name("adapter_config.json"),
                problem,
            ))
        };
        match &self.base_model {
            None => refuse(
                "`base_model_name_or_path` is missing; write the base model's name or folder into adapter_config.json"
                    .to_owned(),
            ),
            Some(base) if find_model(base).is_ok_and(|source| source.is_adapter()) => refuse(format!(
                "its base `{base}` is an adapter too; merge that one first (`grpo-tui model export --merged`)"
            )),
            Some(base) => Ok(base),
        }
    }

    /// Loads the adapter into `parameters`, made for [`PeftAdapter::trainable`]. Missing matrices
    /// keep their initial adapter, whose delta is 0.
    pub fn apply(&self, parameters: &Parameters) -> Result<(), CheckpointError> {
        let slots: Vec<(String, Vec<usize>)> = parameters
            .slots()
            .iter()
            .map(|slot| (slot.name.clone(), slot.shape.clone()))
            .collect();
        self.check(&slots)?;
        let piece = |(name, fresh): (String, Tensor)| {
            let tensor = self.tensors.get(&name).unwrap_or(&fresh);
            Ok(tensor
                .to_device(parameters.flat().device())?
                .to_dtype(parameters.flat().dtype())?
                .flatten_all()?)
        };
        let pieces = parameters
            .named()?
            .into_iter()
            .map(piece)
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        Ok(parameters.restore(&Tensor::cat(&pieces, 0)?)?)
    }

    /// Weights with the adapter merged on demand, tensor by tensor; `source` names them in
    /// messages.
    pub fn merged_into(
        &self,
        weights: Weights,
        config: &ModelConfig,
        source: &str,
    ) -> Result<Weights, CheckpointError> {
        self.check(&self.names(config))?;
        let experts = config.options.experts.as_ref();
        Ok(weights.merging(
            self.tensors.clone(),
            self.alpha / self.rank as f64,
            experts,
            source,
        ))
    }

    /// Checks names and shapes against a model's adapters.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] for an unknown tensor, a wrong shape, or a target without
    /// tensors.
    fn check(&self, slots: &[(String, Vec<usize>)]) -> Result<(), CheckpointError> {
        let bad = |problem: String| Err(refused(&self.weights_path, problem));
        let mut unused: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        for (name, shape) in slots {
            let Some(tensor) = self.tensors.get(name) else {
                if self.targets.want(name) {
                    return bad(format!(
                        "no tensor `{name}`, which adapter_config.json targets; the file is incomplete"
                    ));
                }
                continue;
            };
            if tensor.dims() != shape.as_slice() {
                let found = tensor.dims();
                return bad(format!(
                    "`{name}` has shape {found:?}, this model needs {shape:?}; it belongs to another base model"
                ));
            }
            unused.retain(|unused| unused != name);
        }
        unused.sort_unstable();
        // Of a layer that the model has, or of none: it is its module, which gets no adapter here.
        let is_module = |name: &str| {
            let layer = name.split_once(".layers.").and_then(|(before, rest)| {
                let number = rest.split('.').next()?;
                Some(format!("{before}.layers.{number}."))
            });
            layer.is_none_or(|layer| slots.iter().any(|(slot, _)| slot.starts_with(&layer)))
        };
        match (unused.first(), self.tensors.is_empty()) {
            (Some(name), _) if is_module(name) => bad(format!(
                "`{name}` is of a module that has no adapter in this model; {MERGE}"
            )),
            (Some(name), _) => bad(format!(
                "`{name}` does not exist in this model; it belongs to another base model"
            )),
            (None, true) => bad("it has no adapter".to_owned()),
            (None, false) => Ok(()),
        }
    }

    fn from_config(config: &Value) -> Result<Self, String> {
        let used = |key: &str| match config.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(_) => true,
        };
        if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            let kind = config.get("peft_type").unwrap_or(&Value::Null);
            return Err(format!(
                "`peft_type` = {kind}, only \"LORA\" is supported; {MERGE}"
            ));
        }
        if let Some(key) = NOT_COMPUTED.into_iter().find(|key| used(key)) {
            return Err(format!(
                "`{key}` = {} is not supported; {MERGE}",
                config[key]
            ));
        }
        if let Some(bias) = config
            .get("bias")
            .and_then(Value::as_str)
            .filter(|bias| *bias != "none")
        {
            return Err(format!(
                "`bias` = \"{bias}\", only \"none\" is supported; {MERGE}"
            ));
        }
        if let Some(start) = config
            .get("init_lora_weights")
            .and_then(Value::as_str)
            .filter(|start| !BASE_UNCHANGED.contains(start))
        {
            return Err(format!(
                "`init_lora_weights` = \"{start}\" changes the base weights when PEFT loads it, which is not supported; convert it to a plain adapter \
                 (PEFT: save_pretrained with path_initial_model_for_weight_conversion), or merge it with PEFT and use the merged model"
            ));
        }
        let rank = config
            .get("r")
            .and_then(Value::as_u64)
            .filter(|rank| *rank > 0)
            .ok_or("`r` is missing or not a whole number above 0")?;
        let alpha = config
            .get("lora_alpha")
            .and_then(Value::as_f64)
            .ok_or("`lora_alpha` is missing or not a number")?;
        // Rank-stabilised LoRA (arXiv 2312.03732) scales by alpha / sqrt(r).
        let alpha = if used("use_rslora") {
            alpha * (rank as f64).sqrt()
        } else {
            alpha
        };
        Ok(Self {
            rank: rank as usize,
            alpha,
            base_model: config
                .get("base_model_name_or_path")
                .and_then(Value::as_str)
                .map(str::to_owned),
            targets: Targets {
                parameters: expert_parameters(config)?,
                modules: if used("layers_to_transform") || used("exclude_modules") {
                    Modules::Shown
                } else {
                    Modules::from_config(config)?
                },
            },
            tensors: HashMap::new(),
            weights_path: PathBuf::new(),
        })
    }

    fn read_tensors(&self) -> Result<HashMap<String, Tensor>, CheckpointError> {
        let path = &self.weights_path;
        let bytes = crate::files::read_at_most(path, 16 << 30)
            .map_err(|error| refused(path, unread(&error)))?;
        let loaded = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| refused(path, format!("{error}; copy the file again")))?;
        let mut tensors = HashMap::with_capacity(loaded.len());
        // A vision model's other parts do not affect text.
        let is_nested = loaded.keys().any(|name| is_of_text_model(name));
        let is_left_out =
            |name: &str| is_nested && !is_of_text_model(name) && !name.contains("lm_head");
        // Sorted: the same name is refused each time.
        for (name, tensor) in BTreeMap::from_iter(loaded) {
            if is_left_out(&name) {
                continue;
            }
            let ours = our_name(&name).ok_or_else(|| {
                let problem = format!("`{name}` is not a LoRA matrix of a linear layer; {MERGE}");
                refused(path, problem)
            })?;
            let ours = self.targets.of_experts(ours);
            if tensors.insert(ours, tensor).is_some() {
                return Err(refused(
                    path,
                    format!("`{name}` occurs twice, with and without a prefix or a name"),
                ));
            }
        }
        Ok(tensors)
    }
}

impl Modules {
    fn from_config(config: &Value) -> Result<Self, String> {
        match config.get("target_modules") {
            Some(Value::Array(list)) => {
                let names = list.iter().map(|name| name.as_str().map(str::to_owned));
                names
                    .collect::<Option<_>>()
                    .map(Self::Named)
                    .ok_or_else(|| format!("`target_modules` = {list:?}, expected names"))
            }
            Some(Value::String(_)) | None | Some(Value::Null) => Ok(Self::Shown),
            Some(other) => Err(format!(
                "`target_modules` = {other}, expected a list of names or \"all-linear\""
            )),
        }
    }
}

/// `target_parameters`, which may name parameters of all experts of a layer.
fn expert_parameters(config: &Value) -> Result<Vec<String>, String> {
    let none = Vec::new();
    let list = match config.get("target_parameters") {
        None | Some(Value::Null) => &none,
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(format!(
                "`target_parameters` = {other}, expected a list of names"
            ));
        }
    };
    let known = |name: &Value| {
        let name = name.as_str()?;
        let is_known = TARGET_PARAMETERS
            .iter()
            .any(|known| is_target(name, known) || is_target(known, name));
        is_known.then(|| name.to_owned())
    };
    let unknown = |name: &Value| {
        format!("`target_parameters` has {name}, only {TARGET_PARAMETERS:?} are supported; {MERGE}")
    };
    list.iter()
        .map(|name| known(name).ok_or_else(|| unknown(name)))
        .collect()
}

fn has_target(targets: &[String], name: &str) -> bool {
    targets.iter().any(|target| is_target(name, target))
}

/// Whether PEFT's `target` matches module or parameter `name`.
fn is_target(name: &str, target: &str) -> bool {
    name.strip_suffix(target)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Targets {
    /// Whether the adapter's configuration requires tensor `name`.
    fn want(&self, name: &str) -> bool {
        let Some(module) = name
            .strip_prefix("base_model.model.")
            .and_then(|name| name.split(".lora_").next())
        else {
            return false;
        };
        match (module.split_once(".mlp.experts"), &self.modules) {
            (Some((layer, rest)), _) => {
                let part = TARGET_PARAMETERS[usize::from(rest.is_empty())];
                has_target(&self.parameters, &format!("{layer}.{part}"))
            }
            (None, Modules::Named(modules)) => has_target(modules, module),
            (None, Modules::Shown) => false,
        }
    }

    /// Our name of an adapter's tensor: if only gates and ups of a layer's experts have adapters,
    /// PEFT uses one wrapper with the outer one's name.
    fn of_experts(&self, name: String) -> String {
        match name.split_once(".mlp.experts.lora_") {
            Some((layer, rest)) if !self.want(&name) => {
                format!("{layer}.mlp.experts.base_layer.lora_{rest}")
            }
            _ => name,
        }
    }
}

fn is_a(name: &str) -> bool {
    name.contains(".lora_A.")
}

/// Whether an adapter's tensor belongs to the text model nested in another.
fn is_of_text_model(name: &str) -> bool {
    name.contains("language_model.")
}

/// Parses `base_model.model.MODULE.lora_A.weight` in any spelling; `None` if it is not a matrix's A
/// or B.
fn our_name(name: &str) -> Option<String> {
    let mut module = name;
    while let Some(rest) = module.strip_prefix("base_model.model.") {
        module = rest;
    }
    // `model.language_model.layers…`, formerly `language_model.model.layers…`.
    let module = module.replacen("language_model.", "", 1);
    let (module, which, rest) = ["A", "B"].into_iter().find_map(|which| {
        module
            .split_once(&format!(".lora_{which}."))
            .map(|(module, rest)| (module, which, rest))
    })?;
    // `weight`, or with an adapter's name before it.
    let named = rest == "weight"
        || rest
            .strip_suffix(".weight")
            .is_some_and(|adapter| !adapter.contains('.'));
    named.then(|| format!("base_model.model.{module}.lora_{which}.weight"))
}

fn refused(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::foreign(path.display(), problem)
}

fn unread(error: &std::io::Error) -> String {
    format!("{error}; an adapter folder contains adapter_config.json and adapter_model.safetensors")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_ours() {
        let ours = "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight";
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(our_name(name).as_deref(), expected, "{name}")
        };
        check(ours, Some(ours));
        check("model.layers.3.mlp.up_proj.lora_B.weight", Some(ours));
        check(
            "base_model.model.model.layers.3.mlp.up_proj.lora_B.default.weight",
            Some(ours),
        );
        check(
            "model.layers.3.mlp.up_proj.lora_B.policy.weight",
            Some(ours),
        );
        check(
            "base_model.model.model.language_model.layers.3.mlp.up_proj.lora_B.weight",
            Some(ours),
        );
        check(
            "base_model.model.language_model.model.layers.3.mlp.up_proj.lora_B.default.weight",
            Some(ours),
        );
        check(
            "base_model.model.model.layers.3.mlp.up_proj.lora_B.bias",
            None,
        );
        check(
            "base_model.model.model.layers.3.mlp.up_proj.lora_magnitude_vector",
            None,
        );
        check("base_model.model.model.embed_tokens.lora_embedding_A", None);
        check("base_model.model.lm_head.weight", None);
    }

    #[test]
    fn what_would_mean_other_numbers_is_refused() {
        let with = |changes: Value| {
            let mut config = serde_json::json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"]});
            for (key, value) in changes.as_object().unwrap() {
                config[key] = value.clone();
            }
            PeftAdapter::from_config(&config)
        };
        assert_eq!(
            with(serde_json::json!({})).unwrap().trainable(),
            Trainable::Lora {
                rank: 4,
                alpha: 8.0,
                has_experts: false
            }
        );
        assert_eq!(
            with(serde_json::json!({"use_rslora": true}))
                .unwrap()
                .trainable(),
            Trainable::Lora {
                rank: 4,
                alpha: 16.0,
                has_experts: false
            }
        );
        assert!(
            with(serde_json::json!({"target_modules": "all-linear", "rank_pattern": {}, "use_dora": false})).is_ok()
        );
        let check = |changes: Value, expected: &str| {
            let message = with(changes).unwrap_err();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        check(
            serde_json::json!({"peft_type": "IA3"}),
            "`peft_type` = \"IA3\"",
        );
        check(serde_json::json!({"use_dora": true}), "`use_dora` = true");
        check(
            serde_json::json!({"rank_pattern": {"q_proj": 8}}),
            "`rank_pattern`",
        );
        check(
            serde_json::json!({"modules_to_save": ["lm_head"]}),
            "`modules_to_save`",
        );
        check(serde_json::json!({"bias": "all"}), "`bias` = \"all\"");
        for start in [
            "pissa",
            "pissa_niter_16",
            "olora",
            "corda",
            "loftq",
            "lora_ga",
            "not yet known",
        ] {
            check(
                serde_json::json!({"init_lora_weights": start}),
                &format!("`init_lora_weights` = \"{start}\" changes the base"),
            );
        }
        for start in [
            serde_json::json!(true),
            serde_json::json!(false),
            serde_json::json!("gaussian"),
            serde_json::json!("eva"),
            Value::Null,
        ] {
            assert!(
                with(serde_json::json!({"init_lora_weights": start})).is_ok(),
                "{start}"
            );
        }
        check(serde_json::json!({"r": 0}), "`r` is missing or not");
        check(serde_json::json!({"lora_alpha": "x"}), "`lora_alpha`");
        check(
            serde_json::json!({"target_modules": 3}),
            "`target_modules` = 3",
        );
    }
}
