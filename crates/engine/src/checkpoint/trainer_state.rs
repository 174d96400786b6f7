//! Trainer state as a checkpoint folder: weights for everyone, moments and counters for an exact
//! resume.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use super::export::write_adapter;
use super::new_folder::{NewFolder, failed, write_file, write_folder};
use super::tensor_file::{ElementSource, STAGE_BYTES, TensorBytes, write_slots};
use crate::dataset::adaptive_order::AdaptiveOrder;
use crate::files::{self, Access, failpoint};
use crate::kernels::pinned_memory::HostBuffer;
use crate::kernels::upload::Uploader;
use crate::model::{ParameterSlot, Parameters, Trainable, nested_name};
use crate::run::CHECKPOINT_MARK;

/// The moments, only needed for a resume.
pub(super) const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// `trainer.json`: with the tensors, all that the next step depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of this folder's format.
    pub version: u32,
    /// Optimizer steps, including skipped ones.
    pub step: u64,
    /// AdamW updates applied.
    pub updates: u64,
    /// Training prompts consumed from the data order.
    pub prompts_taken: u64,
    /// Consecutive steps with a non-finite gradient.
    pub skipped_in_a_row: u64,
    /// Training time, for the time limit.
    pub seconds: f64,
    /// Set with `prompt_sampling = "adaptive"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveOrder>,
    /// Adaptive weight of the entropy bonus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_coef: Option<f64>,
    /// Whether `sampling_correction = "auto"` is on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrects_sampling: bool,
    /// Number of trained parameters not stored here, as they equal the base's; their moments are 0.
    #[serde(default, skip_serializing_if = "is_zero", alias = "numbers_of_base")]
    pub base_parameters: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The newest supported format.
const VERSION: u32 = 1;

/// `trainer.json` on disk: with digests of the other files for [`crate::run::verify_checkpoint`],
/// and its own checksum.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    state: &'a TrainerState,
    files: BTreeMap<String, String>,
}

impl TrainerState {
    /// State before the first step.
    pub fn start() -> Self {
        Self {
            version: VERSION,
            step: 0,
            updates: 0,
            prompts_taken: 0,
            skipped_in_a_row: 0,
            seconds: 0.0,
            adaptive: None,
            entropy_coef: None,
            corrects_sampling: false,
            base_parameters: 0,
        }
    }
}

/// A checkpoint's contents besides its tensors.
#[derive(Clone, Debug)]
pub struct Contents {
    slots: Vec<ParameterSlot>,
    dtype: DType,
    state: TrainerState,
    trainable: Trainable,
    base_model: String,
}

impl Contents {
    pub fn for_state(
        parameters: &Parameters,
        state: &TrainerState,
        trainable: Trainable,
        base_model: &str,
    ) -> Self {
        Self {
            slots: parameters.slots().to_vec(),
            dtype: parameters.flat().dtype(),
            state: state.clone(),
            trainable,
            base_model: base_model.to_owned(),
        }
    }

    /// Number of trained parameters.
    fn count(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.range().end)
    }

    /// Streams a checkpoint, replacing one of the same name; returns its size once durable.
    /// `parameters`: in full precision; `moments`: all first ones, then the second.
    ///
    /// # Errors
    /// [`CheckpointError::Write`] naming the file.
    pub fn write(
        &self,
        folder: &Path,
        parameters: &mut dyn ElementSource,
        moments: &mut dyn ElementSource,
    ) -> Result<u64, CheckpointError> {
        self.write_with(folder, &self.state, |new| {
            match self.trainable {
                Trainable::Lora { rank, alpha, .. } => write_adapter(
                    new,
                    &self.slots,
                    self.dtype,
                    parameters,
                    (&self.base_model, rank, alpha),
                )?,
                Trainable::Full | Trainable::Frozen => write_slots(
                    new,
                    "model.safetensors",
                    &self.slots,
                    self.dtype,
                    parameters,
                )?,
            }
            let slot = ParameterSlot {
                name: "moments".to_owned(),
                offset: 0,
                shape: vec![2 * self.count()],
            };
            write_slots(new, OPTIMIZER_FILE, &[slot], DType::F32, moments)
        })
    }

    /// Writes the initial checkpoint, without weights, as they equal the base's.
    pub fn write_start(&self, folder: &Path) -> Result<u64, CheckpointError> {
        self.write_with(
            folder,
            &TrainerState {
                base_parameters: self.count(),
                ..self.state.clone()
            },
            |_| Ok(()),
        )
    }

    fn write_with(
        &self,
        folder: &Path,
        state: &TrainerState,
        write_numbers: impl FnOnce(&NewFolder<'_>) -> Result<(), CheckpointError>,
    ) -> Result<u64, CheckpointError> {
        if folder.exists() {
            remove(folder)?;
        }
        // Parents must exist: a removed run's folder must not be recreated.
        folder.parent().map_or(Ok(()), |parent| {
            files::ensure_one_folder(parent, Access::Private).map_err(|error| failed(parent, error))
        })?;
        write_folder(folder, |new| {
            write_numbers(new)?;
            let document = Document {
                state,
                files: new.digests(),
            };
            let mut json =
                serde_json::to_vec_pretty(&document).map_err(candle_core::Error::wrap)?;
            files::seal_document(&mut json);
            json.push(b'\n');
            write_file(new, CHECKPOINT_MARK, &json)
        })?;
        size(folder)
    }
}

/// A checkpoint copied to host memory, written while training continues.
#[derive(Debug)]
pub struct Snapshot {
    contents: Contents,
    /// Parameters, then moments.
    buffer: HostBuffer,
}

impl Snapshot {
    /// Size for [`Snapshot::take`].
    pub fn buffer_bytes(parameters: &Parameters) -> usize {
        parameters.count()
            * (parameters.flat().dtype().size_in_bytes() + 2 * DType::F32.size_in_bytes())
    }

    /// Copies parameters and moments synchronously into `buffer`, of [`Snapshot::buffer_bytes`].
    ///
    /// # Errors
    /// A failed copy.
    pub fn take(
        mut buffer: HostBuffer,
        contents: Contents,
        parameters: &mut dyn ElementSource,
        moments: &mut dyn ElementSource,
    ) -> Result<Self, CheckpointError> {
        let count = contents.count();
        let (flat, moved) = buffer
            .bytes_mut()
            .split_at_mut(count * contents.dtype.size_in_bytes());
        parameters.copy(count, flat)?;
        moments.copy(2 * count, moved)?;
        Ok(Self { contents, buffer })
    }

    /// Writes the checkpoint; returns its size once durable.
    ///
    /// # Errors
    /// [`CheckpointError::Write`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<u64, CheckpointError> {
        let number_bytes = self.contents.dtype.size_in_bytes();
        let (flat, moments) = self
            .buffer
            .bytes()
            .split_at(self.contents.count() * number_bytes);
        let in_memory = |bytes, number_bytes| TensorBytes {
            bytes,
            number_bytes,
        };
        self.contents.write(
            folder,
            &mut in_memory(flat, number_bytes),
            &mut in_memory(moments, DType::F32.size_in_bytes()),
        )
    }

    /// Returns the buffer for reuse.
    pub fn into_buffer(self) -> HostBuffer {
        self.buffer
    }
}

/// Removes a checkpoint if it exists, `trainer.json` first, so that an interruption leaves no valid
/// checkpoint.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    let absent_or = |result: std::io::Result<()>| match result {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(CheckpointError::Write {
                path: folder.to_owned(),
                source,
            })
        }
        _ => Ok(()),
    };
    absent_or(std::fs::remove_file(folder.join(CHECKPOINT_MARK)))?;
    failpoint("checkpoint.unmarked", "");
    absent_or(std::fs::remove_dir_all(folder))
}

/// Loads the weights into `parameters`, which hold the base's; returns moments and state.
pub fn load(
    folder: &Path,
    parameters: &Parameters,
) -> Result<(Tensor, TrainerState), CheckpointError> {
    let path = folder.join(CHECKPOINT_MARK);
    let unreadable = |path: &Path, problem: String| CheckpointError::Read {
        path: path.to_owned(),
        problem,
    };
    let text =
        crate::files::read_text(&path).map_err(|error| unreadable(&path, error.to_string()))?;
    let state: TrainerState = serde_json::from_str(&text)
        .map_err(|error| unreadable(&path, format!("damaged ({error})")))?;
    if state.version > VERSION {
        return Err(unreadable(
            &path,
            format!(
                "it has format {}, this program reads up to {VERSION}",
                state.version
            ),
        ));
    }
    if state.base_parameters > 0 {
        let flat = parameters.flat();
        let moments = Tensor::zeros(2 * flat.elem_count(), DType::F32, flat.device())?;
        return Ok((
            moments,
            TrainerState {
                base_parameters: 0,
                ..state
            },
        ));
    }
    load_parameters(folder, parameters)?;
    let path = folder.join(OPTIMIZER_FILE);
    let file = open(&path)?;
    let view = file
        .get("moments")
        .map_err(|_| unreadable(&path, "no tensor `moments`".to_owned()))?;
    let count: usize = view.shape().iter().product();
    if count != 2 * parameters.count() || view.dtype() != DType::F32.into() {
        let problem = format!(
            "{count} moments ({:?}) for {} trained parameters",
            view.dtype(),
            parameters.count()
        );
        return Err(unreadable(&path, problem));
    }
    Ok((own_moments(view.data(), parameters)?, state))
}

/// This rank's (padded) part of first and second moments.
fn own_moments(bytes: &[u8], parameters: &Parameters) -> Result<Tensor, CheckpointError> {
    let count = parameters.count();
    let size = parameters.flat().elem_count();
    let flat = parameters.flat();
    let (uploader, number_bytes) = (Uploader::default(), DType::F32.size_in_bytes());
    let moments = Tensor::zeros(2 * size, DType::F32, flat.device())?;
    let own = parameters.shard().range(count);
    for half in 0..2 {
        // A second copy of all may not fit.
        for start in own.clone().step_by(STAGE_BYTES / number_bytes) {
            let end = own.end.min(start + STAGE_BYTES / number_bytes);
            let there = (half * count + start) * number_bytes..(half * count + end) * number_bytes;
            let piece =
                uploader.tensor(&bytes[there], DType::F32, &[end - start], flat.device())?;
            moments.slice_set(&piece, 0, half * size + start - own.start)?;
        }
    }
    Ok(moments)
}

/// Loads the weights into `parameters`, which must have the same tensors, directly from file to
/// device. A missing tensor leaves all unchanged.
pub fn load_parameters(folder: &Path, parameters: &Parameters) -> Result<(), CheckpointError> {
    let path = weights_path(folder);
    let file = open(&path)?;
    // Adapters of a vision model's base have other names in the file.
    let view = |name: &str| file.get(name).or_else(|_| file.get(&nested_name(name)));
    for slot in parameters.slots() {
        if view(&slot.name).is_ok_and(|view| view.shape() == slot.shape.as_slice()) {
            continue;
        }
        let problem = format!("no tensor `{}` of shape {:?}", slot.name, slot.shape);
        return Err(CheckpointError::Read { path, problem });
    }
    let (uploader, device) = (Uploader::default(), parameters.flat().device());
    Ok(parameters.restore_each(|slot| {
        let view = view(&slot.name)?;
        uploader.tensor(view.data(), view.dtype().try_into()?, &slot.shape, device)
    })?)
}

fn weights_path(folder: &Path) -> std::path::PathBuf {
    let adapter = folder.join("adapter_model.safetensors");
    if adapter.exists() {
        adapter
    } else {
        folder.join("model.safetensors")
    }
}

/// Memory-maps a file.
fn open(path: &Path) -> Result<MmapedSafetensors, CheckpointError> {
    let unreadable = |problem: String| CheckpointError::Read {
        path: path.to_owned(),
        problem,
    };
    // Rejects anything but a regular file before mapping.
    crate::files::open(path).map_err(|error| unreadable(error.to_string()))?;
    // SAFETY: the bytes are only copied out as numbers, for which every bit pattern is valid. Nobody writes to a
    // checkpoint's files under their final name; if someone shortens one meanwhile, the process ends with SIGBUS, as
    // with a model's files.
    unsafe { MmapedSafetensors::new(path) }
        .map_err(|error| unreadable(format!("incomplete safetensors file ({error})")))
}

/// Total size of a checkpoint's files.
///
/// # Errors
/// [`CheckpointError::Write`] naming an unreadable folder.
pub fn size(folder: &Path) -> Result<u64, CheckpointError> {
    let failed = |source| CheckpointError::Write {
        path: folder.to_owned(),
        source,
    };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        bytes += entry
            .and_then(|entry| entry.metadata())
            .map_err(failed)?
            .len();
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use candle_core::Device;

    use super::super::tensor_file::StreamedTensor;
    use super::*;
    use crate::model::Shard;
    use crate::update::{Optimizer, OptimizerSettings};

    /// Has as many slots as Qwen3-8B's adapters, small, in another order than their names.
    fn trained() -> (Parameters, Optimizer) {
        let tensors = (0..504).map(|at| {
            let numbers: Vec<f32> = (0..6)
                .map(|number| (at * 6 + number) as f32 * 0.25)
                .collect();
            (
                format!("layer.{}.{at}", 503 - at),
                Tensor::from_vec(numbers, (2, 3), &Device::Cpu).unwrap(),
            )
        });
        let parameters = Parameters::new(tensors.collect(), DType::F32, &Device::Cpu).unwrap();
        let moments = Tensor::arange(0f32, 2.0 * parameters.count() as f32, &Device::Cpu).unwrap();
        (
            parameters,
            Optimizer::restored(OptimizerSettings::PLAIN, moments, 7),
        )
    }

    fn snapshot(parameters: &Parameters, optimizer: &Optimizer) -> Snapshot {
        let buffer = HostBuffer::new(Snapshot::buffer_bytes(parameters), &Device::Cpu);
        let state = TrainerState {
            step: 3,
            ..TrainerState::start()
        };
        let contents = Contents::for_state(
            parameters,
            &state,
            Trainable::Lora {
                rank: 2,
                alpha: 4.0,
                has_experts: false,
            },
            "base",
        );
        let (mut flat, mut moments) = numbers(parameters, optimizer);
        Snapshot::take(buffer, contents, &mut flat, &mut moments).unwrap()
    }

    fn numbers<'a>(
        parameters: &'a Parameters,
        optimizer: &'a Optimizer,
    ) -> (StreamedTensor<'a>, StreamedTensor<'a>) {
        (
            StreamedTensor::new(parameters.flat()),
            StreamedTensor::new(optimizer.moments()),
        )
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_snapshot_is_one_copy_of_the_parameters_and_one_of_the_moments() {
        use crate::kernels::pinned_memory::COPIES;
        let (parameters, optimizer) = trained();
        COPIES.take();
        let snapshot = snapshot(&parameters, &optimizer);
        let work = tempfile::tempdir().unwrap();
        let bytes = snapshot.write(&work.path().join("out")).unwrap();
        assert_eq!(COPIES.take(), [504 * 6 * 4, 2 * 504 * 6 * 4]);
        assert_eq!(bytes, size(&work.path().join("out")).unwrap());
    }

    #[test]
    fn the_files_are_those_of_the_library_however_they_are_written() {
        let (parameters, optimizer) = trained();
        let snapshot = snapshot(&parameters, &optimizer);
        let work = tempfile::tempdir().unwrap();
        let (in_memory, streamed) = (work.path().join("held"), work.path().join("streamed"));
        snapshot.write(&in_memory).unwrap();
        let (mut flat, mut moments) = numbers(&parameters, &optimizer);
        snapshot
            .contents
            .write(&streamed, &mut flat, &mut moments)
            .unwrap();
        let about = || Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
        let named = parameters.named().unwrap();
        let expected = [
            (
                "adapter_model.safetensors",
                safetensors::serialize(named.iter().map(|(name, tensor)| (name, tensor)), about())
                    .unwrap(),
            ),
            (
                "optimizer.safetensors",
                safetensors::serialize([("moments", optimizer.moments())], about()).unwrap(),
            ),
        ];
        for folder in [&in_memory, &streamed] {
            for (file, expected) in &expected {
                assert!(
                    std::fs::read(folder.join(file)).unwrap() == *expected,
                    "{file}"
                );
            }
        }
        assert_eq!(
            std::fs::read(in_memory.join("trainer.json")).unwrap(),
            std::fs::read(streamed.join("trainer.json")).unwrap()
        );
    }

    /// Covers f32 and bf16; the last rank's part is padded.
    #[test]
    fn a_rank_loads_its_part_and_all_weights() {
        let (parameters, optimizer) = trained();
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("out");
        snapshot(&parameters, &optimizer).write(&folder).unwrap();
        let count = parameters.count();
        let numbers = |tensor: &Tensor| {
            tensor
                .to_dtype(DType::F32)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        let (weights, moments) = (numbers(parameters.flat()), numbers(optimizer.moments()));
        for (rank, dtype) in (0..5).flat_map(|rank| [(rank, DType::F32), (rank, DType::BF16)]) {
            let shard = Shard { rank, ranks: 5 };
            let zeros = parameters
                .named()
                .unwrap()
                .into_iter()
                .map(|(name, tensor)| (name, tensor.zeros_like().unwrap()));
            let own = Parameters::sharded(zeros.collect(), dtype, &Device::Cpu, shard).unwrap();
            let (loaded, _) = load(&folder, &own).unwrap();
            let (range, size) = (shard.range(count), shard.size(count));
            let padded =
                |all: &[f32]| [&all[range.clone()], &vec![0.0; size - range.len()]].concat();
            assert_eq!(
                numbers(&loaded),
                [padded(&moments), padded(&moments[count..])].concat(),
                "{shard:?}"
            );
            assert_eq!(numbers(own.flat()), padded(&weights), "{shard:?} {dtype:?}");
            let rounded = parameters.flat().to_dtype(dtype).unwrap();
            assert_eq!(
                numbers(own.read())[..count],
                numbers(&rounded),
                "{shard:?} {dtype:?}"
            );
        }
    }

    #[test]
    fn what_is_loaded_is_what_was_there_when_the_snapshot_was_taken() {
        let (parameters, optimizer) = trained();
        let then = parameters.flat().to_vec1::<f32>().unwrap();
        let moments = optimizer.moments().to_vec1::<f32>().unwrap();
        let snapshot = snapshot(&parameters, &optimizer);
        // Training continues before anything is written.
        let zeros = Tensor::zeros(parameters.count(), DType::F32, &Device::Cpu).unwrap();
        parameters.restore(&zeros).unwrap();
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("out");
        snapshot.write(&folder).unwrap();
        let (loaded, state) = load(&folder, &parameters).unwrap();
        assert_eq!(
            (
                parameters.flat().to_vec1::<f32>().unwrap(),
                loaded.to_vec1::<f32>().unwrap(),
                state.step
            ),
            (then, moments, 3)
        );

        // One tensor too few: nothing changes.
        parameters.restore(&zeros).unwrap();
        let path = folder.join("adapter_model.safetensors");
        let few = parameters.named().unwrap().split_off(1);
        safetensors::serialize_to_file(
            few.iter().map(|(name, tensor)| (name, tensor)),
            None,
            &path,
        )
        .unwrap();
        let message = load_parameters(&folder, &parameters)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no tensor `layer.503.0` of shape [2, 3]"),
            "{message}"
        );
        assert!(
            parameters
                .flat()
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|number| *number == 0.0)
        );
        // A torn file, and none.
        std::fs::write(&path, b"half").unwrap();
        assert!(
            load_parameters(&folder, &parameters)
                .unwrap_err()
                .to_string()
                .contains("incomplete safetensors file")
        );
        std::fs::remove_file(&path).unwrap();
        assert!(
            load_parameters(&folder, &parameters)
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
    }
}
