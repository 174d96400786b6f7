//! A checkpoint's tensors by Hugging Face name, loaded on demand to a device and dtype.

mod files;
mod fp8_files;
mod load_progress;
mod nf4_files;
mod random_init;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use self::files::Files;
use self::nf4_files::Nf4Codes;
use self::random_init::RandomInit;
use super::{ModelError, expert_adapters};
use crate::config::BasePrecision;
use crate::hub::{
    ExpertTensors, Experts, ModelConfig, ModelSource, ModelTensor, is_quantized, is_trained,
};
use crate::kernels::mxfp4::Mxfp4Stack;
use crate::kernels::quantized::{self, Precision, QuantizedMatrix};

pub use self::load_progress::{LoadProgress, watch_loading};

/// Named tensors, loaded on demand and shared by clones.
#[derive(Clone, Debug)]
pub struct Weights {
    origin: Origin,
    /// Name in messages.
    source: String,
    /// That of layer matrices.
    base_precision: BasePrecision,
    /// The base, for untrained tensors, after full training.
    untrained: Option<Arc<Weights>>,
}

#[derive(Clone, Debug)]
enum Origin {
    Files(Arc<Files>),
    Memory(Arc<HashMap<String, Tensor>>),
    RandomInit(Arc<RandomInit>),
    Merged(Arc<Merge>),
}

impl Weights {
    /// Memory-maps the weight files; tensors are read on demand. Files must not be truncated while
    /// mapped.
    ///
    /// # Errors
    /// [`ModelError::Hub`] for a file that is missing, truncated or not safetensors, with size and
    /// remedy.
    pub fn open(source: &ModelSource) -> Result<Self, ModelError> {
        Ok(Self::new(
            Origin::Files(Arc::new(Files::open(source)?)),
            &source.name,
        ))
    }

    /// Wraps tensors in memory.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>, source: &str) -> Self {
        Self::new(
            Origin::Memory(Arc::new(tensors.into_iter().collect())),
            source,
        )
    }

    /// Initial weights: norms 1, biases 0, matrices uniform with std `0.02` (embedding) or `1 /
    /// sqrt(inputs)`, scaled down by depth if they feed the residual stream (as in GPT-2).
    /// Determined by configuration and seed.
    pub fn fresh(config: &ModelConfig, seed: u64) -> Self {
        Self::new(
            Origin::RandomInit(Arc::new(RandomInit::new(config, seed))),
            "fresh weights",
        )
    }

    /// Merges low-rank adapters: `W + scale * B A`, computed in f32 on demand and rounded to W's
    /// stored dtype, one tensor at a time. `adapters`: A [rank, inputs] and B [outputs, rank] under
    /// PEFT's names; `experts`: of the model.
    pub fn merging(
        self,
        adapters: HashMap<String, Tensor>,
        scale: f64,
        experts: Option<&Experts>,
        source: &str,
    ) -> Self {
        let experts = experts.map(|experts| (experts.count, experts.tensors));
        let merge = Merge {
            base: self,
            adapters,
            scale,
            experts,
            is_rounded: true,
        };
        Self::new(Origin::Merged(Arc::new(merge)), source)
    }

    /// Does not round the last merged adapters to the matrices' dtype: for files with more bits.
    /// Earlier merges, as of a run's base, stay rounded.
    #[must_use]
    pub fn unrounded(&self) -> Self {
        match &self.origin {
            Origin::Merged(merge) => {
                let merge = Merge {
                    is_rounded: false,
                    ..merge.as_ref().clone()
                };
                Self {
                    origin: Origin::Merged(Arc::new(merge)),
                    ..self.clone()
                }
            }
            _ => self.clone(),
        }
    }

    /// What the outermost adapter was merged into.
    pub fn merged_base(&self) -> Option<&Self> {
        match &self.origin {
            Origin::Merged(merge) => Some(&merge.base),
            _ => None,
        }
    }

    /// Rounds layer matrices to the precision of a base.
    #[must_use]
    pub fn in_precision(self, base_precision: BasePrecision) -> Self {
        Self {
            base_precision,
            ..self
        }
    }

    pub(super) fn base_precision(&self) -> BasePrecision {
        self.base_precision
    }

    /// Of a quantized base.
    pub(super) fn precision(&self) -> Option<Precision> {
        match self.base_precision {
            BasePrecision::Bf16 => None,
            BasePrecision::Fp8 => Some(Precision::Fp8),
            BasePrecision::Nf4 => Some(Precision::Nf4),
        }
    }

    fn new(origin: Origin, source: &str) -> Self {
        Self {
            origin,
            source: source.to_owned(),
            base_precision: BasePrecision::Bf16,
            untrained: None,
        }
    }

    /// Trained weights, with untrained tensors from `base`.
    #[must_use]
    pub fn trained_from(self, base: Self) -> Self {
        Self {
            untrained: Some(Arc::new(base)),
            ..self
        }
    }

    /// The weights that contain a tensor.
    fn owner(&self, name: &str) -> &Self {
        self.untrained
            .as_ref()
            .filter(|_| !is_trained(name))
            .map_or(self, |base| base.owner(name))
    }

    /// Stored dtype of `name`; `None` if missing.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match &self.owner(name).origin {
            Origin::Files(files) => files.dtype(name),
            Origin::Memory(tensors) => tensors.get(name).map(Tensor::dtype),
            Origin::RandomInit(fresh) => fresh.has(name).then_some(DType::F32),
            Origin::Merged(merge) => merge.base.dtype(name),
        }
    }

    /// Loads tensor `name` with shape `shape` in `dtype` on `device`, converting if necessary.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if it is missing or has another shape.
    pub fn get(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        let tensor = self.unquantized(name, shape, dtype, device)?;
        let Some(precision) = self.precision().filter(|_| is_quantized(name, shape)) else {
            return Ok(tensor);
        };
        if self.nf4_files(name, precision).is_some() {
            return Ok(tensor);
        }
        quantized::rounded(&tensor, precision)
            .map_err(|error| ModelError::Weights(format!("{}: `{name}`: {error}", self.source)))
    }

    /// A layer's matrix of the base on a GPU. `model`: dtype and device.
    pub(super) fn quantized(
        &self,
        name: &str,
        shape: &[usize],
        precision: Precision,
        (dtype, device): (DType, &Device),
    ) -> Result<QuantizedMatrix, ModelError> {
        self.check_shape(name, shape)?;
        let files = self.nf4_files(name, precision);
        let codes = files.map(|files| files.nf4(name)).transpose()?.flatten();
        let quantized = match codes.as_ref().and_then(Nf4Codes::stored) {
            Some(stored) => {
                files.inspect(|files| files.count(name));
                QuantizedMatrix::from_stored(&stored, (shape[0], shape[1]), device)
            }
            None => {
                let weight = self.unquantized(name, shape, dtype, device)?;
                QuantizedMatrix::quantize(&weight, precision)
            }
        };
        quantized.map_err(|error| {
            let base = self.base_precision;
            ModelError::Weights(format!("`{name}` in {base}: {error}"))
        })
    }

    /// Experts on a GPU as they are stored in MXFP4; `None` in another form, or with adapters
    /// merged into experts.
    pub(super) fn mxfp4(
        &self,
        name: &str,
        shape: &[usize],
        device: &Device,
    ) -> Result<Option<Mxfp4Stack>, ModelError> {
        self.check_shape(name, shape)?;
        match &self.owner(name).origin {
            Origin::Files(files) => files.mxfp4(name, device),
            Origin::RandomInit(fresh) => Ok(fresh.mxfp4(name, device)?),
            Origin::Merged(merge) if !merge.has_experts() => merge.base.mxfp4(name, shape, device),
            Origin::Memory(_) | Origin::Merged(_) => Ok(None),
        }
    }

    /// The files that store a matrix as a base in NF4 has it.
    fn nf4_files(&self, name: &str, precision: Precision) -> Option<&Files> {
        match &self.owner(name).origin {
            Origin::Files(files) => {
                let is_base = precision == Precision::Nf4 && files.is_nf4_base(name);
                is_base.then_some(files)
            }
            _ => None,
        }
    }

    /// As [`Weights::get`], unrounded.
    fn unquantized(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        self.check_shape(name, shape)?;
        match &self.owner(name).origin {
            Origin::Files(files) => files.get(name, dtype, device),
            Origin::Memory(tensors) => Ok(tensors[name]
                .to_device(device)?
                .to_dtype(dtype)?
                .contiguous()?),
            Origin::RandomInit(fresh) => Ok(fresh.get(name, dtype, device)?),
            Origin::Merged(merge) => merge.get(name, shape, dtype, device),
        }
    }

    fn check_shape(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        let found = self.shape(name)?.ok_or_else(|| {
            ModelError::Weights(format!(
                "{}: no tensor `{name}`; the checkpoint is incomplete or of another architecture",
                self.source
            ))
        })?;
        if found != shape {
            return Err(ModelError::Weights(format!(
                "{}: `{name}` has shape {found:?}, config.json requires {shape:?}",
                self.source
            )));
        }
        Ok(())
    }

    /// Every tensor of the model on the CPU, in its stored dtype.
    pub fn stored(&self, config: &ModelConfig) -> Result<Vec<(String, Tensor)>, ModelError> {
        let stored = |ModelTensor { name, shape, .. }: ModelTensor| {
            let dtype = self.dtype(&name).unwrap_or(DType::F32);
            let tensor = self.get(&name, &shape, dtype, &Device::Cpu)?;
            Ok((name, tensor))
        };
        config.tensors().into_iter().map(stored).collect()
    }

    fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, ModelError> {
        match &self.owner(name).origin {
            Origin::Files(files) => files.shape(name),
            Origin::Memory(tensors) => Ok(tensors.get(name).map(|tensor| tensor.dims().to_vec())),
            Origin::RandomInit(fresh) => Ok(fresh.shape(name)),
            Origin::Merged(merge) => merge.base.shape(name),
        }
    }
}

/// Low-rank adapters merged into their matrices on demand.
#[derive(Clone, Debug)]
struct Merge {
    base: Weights,
    /// A [rank, inputs] and B [outputs, rank] under PEFT's names.
    adapters: HashMap<String, Tensor>,
    /// `alpha / rank`.
    scale: f64,
    /// Number of experts per layer, and their tensor layout.
    experts: Option<(usize, ExpertTensors)>,
    /// Whether merged matrices are rounded to the base's stored dtype.
    is_rounded: bool,
}

impl Merge {
    fn get(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        let Some(delta) = self.delta(name, shape, device)? else {
            return self.base.get(name, shape, dtype, device);
        };
        let stored = self.base.dtype(name).unwrap_or(DType::F32);
        let merged = (self.base.get(name, shape, DType::F32, device)? + delta)?;
        let merged = if self.is_rounded {
            merged.to_dtype(stored)?
        } else {
            merged
        };
        Ok(merged.to_dtype(dtype)?)
    }

    fn has_experts(&self) -> bool {
        let mut names = self.adapters.keys();
        names.any(|name| expert_adapters::is_of_experts(name))
    }

    /// `scale * B A` in f32; `None` without an adapter.
    fn delta(
        &self,
        name: &str,
        shape: &[usize],
        device: &Device,
    ) -> candle_core::Result<Option<Tensor>> {
        let on_device = |tensor: &Tensor| tensor.to_device(device)?.to_dtype(DType::F32);
        let delta = match (self.adapter(name), self.experts) {
            (Some((down, up)), _) => Some(on_device(up)?.matmul(&on_device(down)?)?),
            (None, Some(experts)) => {
                expert_adapters::delta(&self.adapters, (name, shape), experts, device)?
            }
            (None, None) => None,
        };
        delta.map(|delta| delta.affine(self.scale, 0.0)).transpose()
    }

    /// A and B of matrix `MODULE.weight`.
    fn adapter(&self, name: &str) -> Option<(&Tensor, &Tensor)> {
        let module = name.strip_suffix(".weight")?;
        let tensor = |which: &str| {
            self.adapters
                .get(&format!("base_model.model.{module}.lora_{which}.weight"))
        };
        tensor("A").zip(tensor("B"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::hub::find_model;

    pub(super) fn numbers(tensor: &Tensor) -> Vec<f32> {
        let numbers = tensor.flatten_all().unwrap().to_dtype(DType::F32);
        numbers.unwrap().to_vec1().unwrap()
    }

    /// A tensor's numbers, or the message of the error.
    pub(super) fn read(weights: &Weights, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = weights.get(name, shape, DType::F32, &Device::Cpu);
        tensor
            .map(|tensor| numbers(&tensor))
            .map_err(|error| error.to_string())
    }

    /// Those of a tensor in bf16.
    pub(super) fn bits(tensor: &Tensor) -> Vec<u16> {
        let numbers = tensor.flatten_all().unwrap().to_vec1::<half::bf16>();
        let bits = numbers.unwrap().into_iter().map(half::bf16::to_bits);
        bits.collect()
    }

    fn write(folder: &std::path::Path, file: &str, tensors: Vec<(&str, Tensor)>) {
        safetensors::serialize_to_file(tensors, None, &folder.join(file)).unwrap();
    }

    #[test]
    fn a_tensor_is_the_same_from_the_binary_and_from_a_mapped_file() {
        let (embedded, work) = (find_model("tiny").unwrap(), tempfile::tempdir().unwrap());
        for file in ["config.json", "model.safetensors"] {
            std::fs::write(work.path().join(file), embedded.read(file).unwrap()).unwrap();
        }
        let config = embedded.config().unwrap();
        let folder = ModelSource::at("copy", work.path());
        let inside = Weights::open(&embedded).unwrap();
        let mapped = Weights::open(&folder).unwrap();
        for ModelTensor { name, shape, .. } in config.tensors() {
            let get = |weights| read(weights, &name, &shape).unwrap();
            assert_eq!(get(&inside), get(&mapped), "{name}");
        }
    }

    #[test]
    fn shards_are_one_model_and_what_is_wrong_is_named() {
        let work = tempfile::tempdir().unwrap();
        let ramp = |n: usize, dtype| {
            let ramp = Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap();
            ramp.to_dtype(dtype).unwrap()
        };
        let x = ramp(6, DType::BF16).reshape((2, 3)).unwrap();
        write(work.path(), "a.safetensors", vec![("x", x)]);
        let others = vec![("y", ramp(4, DType::F32)), ("z", ramp(2, DType::U32))];
        write(work.path(), "b.safetensors", others);
        std::fs::write(
            work.path().join("model.safetensors.index.json"),
            r#"{"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}}"#,
        )
        .unwrap();
        let source = ModelSource::at("two", work.path());
        let weights = Weights::open(&source).unwrap();
        let x = read(&weights, "x", &[2, 3]).unwrap();
        assert_eq!(x, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let y = weights.get("y", &[4], DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(y.dtype(), DType::BF16);
        assert_eq!(
            (weights.dtype("x"), weights.dtype("absent")),
            (Some(DType::BF16), None)
        );
        let refused = |name: &str, shape: &[usize], expected: &str| {
            let message = read(&weights, name, shape).unwrap_err();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        refused(
            "absent",
            &[1],
            "two: no tensor `absent`; the checkpoint is incomplete",
        );
        refused(
            "x",
            &[3, 2],
            "`x` has shape [2, 3], config.json requires [3, 2]",
        );
        refused(
            "z",
            &[2],
            "`z` is stored as U32; take the checkpoint in BF16, F16 or F32",
        );

        let check = |expected: &str| {
            let message = Weights::open(&source).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        let whole = std::fs::read(work.path().join("b.safetensors")).unwrap();
        std::fs::write(work.path().join("b.safetensors"), &whole[..whole.len() - 5]).unwrap();
        check(&format!(
            "b.safetensors: truncated: its header describes {} bytes, the file has {}",
            whole.len(),
            whole.len() - 5
        ));
        std::fs::remove_file(work.path().join("b.safetensors")).unwrap();
        check("b.safetensors: no such file; the model is incomplete");
    }

    #[test]
    fn adapters_are_added_in_f32_and_rounded_to_the_stored_type() {
        let tensor = |numbers: &[f32], shape: (usize, usize)| {
            Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap()
        };
        let base = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3))
            .to_dtype(DType::BF16)
            .unwrap();
        let plain = base.clone();
        let module = |which: &str| {
            format!("base_model.model.model.layers.0.mlp.up_proj.lora_{which}.weight")
        };
        let adapters = HashMap::from([
            (module("A"), tensor(&[1.0, 0.0, -1.0], (1, 3))),
            (module("B"), tensor(&[0.001, 2.0], (2, 1))),
        ]);
        let names = [
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.1.mlp.up_proj.weight",
        ]
        .map(str::to_owned);
        let weights = Weights::from_tensors(names.clone().map(|name| (name, base.clone())), "base")
            .merging(adapters, 0.5, None, "both");
        let get = |name| read(&weights, name, &[2, 3]).unwrap();
        // 1 + 0.0005 is 1 in bf16.
        assert_eq!(get(&names[0]), [1.0, 2.0, 3.0, 5.0, 5.0, 5.0]);
        assert_eq!(get(&names[1]), numbers(&plain));
        assert_eq!(weights.dtype(&names[0]), Some(DType::BF16));
        let exact = read(&weights.unrounded(), &names[0], &[2, 3]).unwrap();
        assert_eq!(exact, [1.0005, 2.0, 2.9995, 5.0, 5.0, 5.0]);
    }

    #[test]
    fn what_a_training_leaves_out_is_that_of_its_base() {
        let number = |value: f32| Tensor::new(&[value], &Device::Cpu).unwrap();
        let names = [
            "model.layers.0.layer_scalar",
            "model.layers.0.mlp.up_proj.weight",
            "model.norm.weight",
        ];
        let base = names.map(|name| (name.to_owned(), number(0.5).to_dtype(DType::BF16).unwrap()));
        let own = Weights::from_tensors([(names[1].to_owned(), number(2.0))], "run@3");
        let weights = own.trained_from(Weights::from_tensors(base, "base"));
        let get = |name| read(&weights, name, &[1]);
        assert_eq!(
            (get(names[0]).unwrap(), get(names[1]).unwrap()),
            (vec![0.5], vec![2.0])
        );
        assert_eq!(
            (weights.dtype(names[0]), weights.dtype(names[1])),
            (Some(DType::BF16), Some(DType::F32))
        );
        // It contains what it trains.
        let message = get(names[2]).unwrap_err();
        assert!(
            message.starts_with("run@3: no tensor `model.norm.weight`"),
            "{message}"
        );
    }

    #[test]
    fn in_fp8_matrices_of_layers_are_rounded_before_adapters_are_added() {
        let tensor = |numbers: &[f32], shape: (usize, usize)| {
            Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap()
        };
        let matrix = tensor(&[1.0, 0.3, -0.7, 0.01], (2, 2));
        let bad = tensor(&[1.0, f32::NAN], (1, 2));
        let names = [
            "model.layers.0.mlp.up_proj.weight",
            "model.embed_tokens.weight",
            "model.layers.1.mlp.up_proj.weight",
        ];
        let named = names
            .map(str::to_owned)
            .into_iter()
            .zip([matrix.clone(), matrix.clone(), bad]);
        let weights = Weights::from_tensors(named, "base").in_precision(BasePrecision::Fp8);
        let get = |weights, name| read(weights, name, &[2, 2]).unwrap();
        // Eighths of 0.25, 0.5 and 2^-7.
        let rounded = [1.0, 0.3125, -0.6875, 0.009_765_625];
        assert_eq!(
            (get(&weights, names[0]), get(&weights, names[1])),
            (rounded.to_vec(), numbers(&matrix))
        );
        let module = |which: &str| {
            format!("base_model.model.model.layers.0.mlp.up_proj.lora_{which}.weight")
        };
        let adapters = [
            (module("A"), tensor(&[1.0, 0.0], (1, 2))),
            (module("B"), tensor(&[0.001, 2.0], (2, 1))),
        ];
        let merged = weights
            .clone()
            .merging(HashMap::from(adapters), 1.0, None, "both");
        assert_eq!(
            get(&merged, names[0]),
            [1.001, 0.3125, 1.3125, 0.009_765_625]
        );
        let message = read(&weights, names[2], &[1, 2]).unwrap_err();
        // A backtrace may follow.
        let expected = format!("base: `{}`: a weight is not a finite number", names[2]);
        assert!(message.starts_with(&expected), "{message}");
    }

    /// transformers writes its own mixture with a tensor per matrix and expert.
    #[test]
    fn separate_experts_are_read_as_fused_ones() {
        let work = tempfile::tempdir().unwrap();
        let config = r#"{"model_type":"qwen3_5_moe_text","vocab_size":8,"hidden_size":3,"num_hidden_layers":1,"num_experts":2,
            "num_experts_per_tok":1,"moe_intermediate_size":2}"#;
        std::fs::write(work.path().join("config.json"), config).unwrap();
        let ramp = |start: f32| Tensor::arange(start, start + 6.0, &Device::Cpu).unwrap();
        let matrix = |index: usize, part: &str, start: f32, shape: (usize, usize)| {
            (
                format!("model.layers.0.mlp.experts.{index}.{part}_proj.weight"),
                ramp(start).reshape(shape).unwrap(),
            )
        };
        let whole = vec![
            matrix(0, "gate", 0.0, (2, 3)),
            matrix(0, "up", 6.0, (2, 3)),
            matrix(0, "down", 12.0, (3, 2)),
            matrix(1, "gate", 18.0, (2, 3)),
            matrix(1, "up", 24.0, (2, 3)),
            matrix(1, "down", 30.0, (3, 2)),
        ];
        let open = |tensors: Vec<(String, Tensor)>| {
            let tensors = tensors
                .iter()
                .map(|(name, tensor)| (name.as_str(), tensor.clone()))
                .collect();
            write(work.path(), "model.safetensors", tensors);
            Weights::open(&ModelSource::at("m", work.path())).unwrap()
        };
        let get = |weights: &Weights, part: &str, shape: [usize; 3]| {
            let name = format!("model.layers.0.mlp.experts.{part}");
            read(weights, &name, &shape)
        };
        let numbers = |starts: &[u16]| -> Vec<f32> {
            starts
                .iter()
                .flat_map(|&start| (0..6).map(move |i| f32::from(start + i)))
                .collect()
        };
        let weights = open(whole.clone());
        assert_eq!(
            get(&weights, "gate_up_proj", [2, 4, 3]).unwrap(),
            numbers(&[0, 6, 18, 24])
        );
        assert_eq!(
            get(&weights, "down_proj", [2, 3, 2]).unwrap(),
            numbers(&[12, 30])
        );
        let few = open(whole[..3].to_vec());
        assert!(
            get(&few, "down_proj", [2, 3, 2])
                .unwrap_err()
                .contains("has shape [1, 3, 2], config.json requires [2, 3, 2]")
        );
        let without_up = open([&whole[..1], &whole[2..]].concat());
        assert!(
            get(&without_up, "gate_up_proj", [2, 4, 3])
                .unwrap_err()
                .contains("no tensor `model.layers.0.mlp.experts.0.up_proj.weight`")
        );
    }
}
