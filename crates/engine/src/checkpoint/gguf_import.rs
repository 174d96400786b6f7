//! Imports GGUF as a new Hugging Face folder: weights dequantized in chunks; `config.json`,
//! tokenizer and chat template from the metadata. candle reads the header; names and shapes follow
//! llama.cpp's converter.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, TensorInfo};
use candle_core::quantized::{QStorage, QTensor};
use candle_core::{DType, Device, Error, Tensor};

use super::CheckpointError;
use super::export::write_folder;
use super::gguf_metadata::Metadata;
use super::gguf_vocabulary::{Vocabulary, vocabulary};
use super::new_folder::write_file;
use super::tensor_file::{TensorHeader, write_tensors};
use crate::hub::{
    Architecture, AttentionBias, DecoderOptions, Kind, ModelConfig, ModelSource, ModelTensor,
    RopeScaling, Scope, SlidingWindow, gguf_folder,
};
use crate::text::catch_panic::catch_panic;
use crate::text::{Message, TextError, Thinking, Tokenizer};

/// 260,000 tokens with merges take 12 MB.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Elements dequantized at once.
const CHUNK_NUMBERS: usize = 4 << 20;

/// Writes a GGUF file's model (version 2 or 3, little endian) as a new folder, in bf16 or f32.
/// Memory: header and one chunk of 4 M elements. Returns a note if missing metadata was assumed.
///
/// # Errors
/// [`CheckpointError::Foreign`] for a damaged or unsupported file; nothing is written then.
pub fn import_gguf(
    file: &Path,
    folder: &Path,
    in_f32: bool,
) -> Result<Option<&'static str>, CheckpointError> {
    Gguf::open(file)?.write(folder, if in_f32 { DType::F32 } else { DType::BF16 })
}

/// Imports a GGUF file in bf16 to its folder in the user's cache ([`gguf_folder`]), unless present;
/// returns that with [`import_gguf`]'s result, `None` for other names.
///
/// # Errors
/// As [`import_gguf`], and a missing file.
pub fn import_into_cache(
    file: &Path,
) -> Result<Option<(PathBuf, Option<&'static str>)>, CheckpointError> {
    let refused = |problem: String| CheckpointError::foreign(file.display(), problem);
    let folder = match gguf_folder(file) {
        Some(folder) if folder.exists() => return Ok(Some((folder, None))),
        Some(folder) => folder,
        None if file
            .extension()
            .is_some_and(|extension| extension == "gguf")
            && !file.is_dir() =>
        {
            let problem = std::fs::metadata(file)
                .err()
                .map_or("not a regular file".to_owned(), |error| error.to_string());
            return Err(refused(format!(
                "{problem}; check that the file exists and can be read"
            )));
        }
        None => return Ok(None),
    };
    let cache = folder.parent().unwrap_or(&folder);
    let failed = |source| CheckpointError::Write {
        path: cache.to_owned(),
        source,
    };
    std::fs::create_dir_all(cache).map_err(failed)?;
    // One process imports; others wait.
    let _lock = crate::files::lock_folder(cache).map_err(failed)?;
    let note = if folder.exists() {
        None
    } else {
        import_gguf(file, &folder, false)?
    };
    Ok(Some((folder, note)))
}

/// An open file with its header.
struct Gguf<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    content: Content,
}

impl<'a> Gguf<'a> {
    fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let refused = |problem: String| CheckpointError::foreign(path.display(), problem);
        let unread = |source: std::io::Error| {
            refused(format!(
                "{source}; check that the file exists and can be read"
            ))
        };
        let file = crate::files::open(path).map_err(unread)?;
        let length = file.metadata().map_err(unread)?.len();
        let mut header = vec![0; length.min(MAX_HEADER_BYTES) as usize];
        file.read_exact_at(&mut header, 0).map_err(unread)?;
        check_version(&header).map_err(refused)?;
        // candle divides by an alignment of 0.
        let content = catch_panic(|| Content::read(&mut Cursor::new(&header)));
        let content =
            content.map_err(|_| refused("damaged header; download the file again".to_owned()))?;
        let content = content.map_err(|error| {
            // With RUST_BACKTRACE candle adds a backtrace of thirty lines.
            let error = match error {
                Error::WithBacktrace { inner, .. } => *inner,
                error => error,
            };
            refused(format!(
                "{error}; the file is damaged or cut short, or it has a type other than F32, F16, BF16, Q4_0 to Q8_1 and Q2_K to Q8_K"
            ))
        })?;
        Ok(Self {
            path,
            file,
            length,
            content,
        })
    }

    fn write(&self, folder: &Path, dtype: DType) -> Result<Option<&'static str>, CheckpointError> {
        let config = self.config().map_err(|problem| self.refused(problem))?;
        let vocabulary = self
            .vocabulary(&config)
            .map_err(|problem| self.refused(problem))?;
        let tensors = config.tensors();
        let described =
            |tensor: &ModelTensor| TensorHeader::new(&tensor.name, dtype, &tensor.shape);
        let headers: Vec<TensorHeader> = tensors.iter().map(described).collect();
        self.check_tensors(&config, &tensors)
            .map_err(|problem| self.refused(problem))?;
        write_folder(folder, |new| {
            let torch_dtype = if dtype == DType::BF16 {
                "bfloat16"
            } else {
                "float32"
            };
            write_file(
                new,
                "config.json",
                config.to_json(torch_dtype, &vocabulary.stop_ids).as_bytes(),
            )?;
            for (name, json) in &vocabulary.files {
                write_file(new, name, format!("{json:#}\n").as_bytes())?;
            }
            self.check_text(new.path())?;
            write_tensors(new, "model.safetensors", &headers, |at, write| {
                self.dequantized(&config, &tensors[at], &mut |numbers| {
                    write(&safetensors::View::data(&&numbers.to_dtype(dtype)?))
                })
            })
        })?;
        Ok(vocabulary.note)
    }

    /// Checks tokenizer and chat template before writing weights.
    fn check_text(&self, new: &Path) -> Result<(), CheckpointError> {
        // Omits the path of the temporary folder.
        let failed = |error: TextError| match error {
            TextError::Template { problem, .. } => self.refused(problem),
            TextError::Tokenizer { problem, .. } => self.refused(format!("tokenizer: {problem}")),
            other => self.refused(other.to_string()),
        };
        let tokenizer = Tokenizer::load(&ModelSource::at("GGUF", new)).map_err(failed)?;
        match tokenizer.render(&[Message::new("user", "Hello")], None, &Thinking::On.into()) {
            Ok(_) | Err(TextError::NoTemplate { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn config(&self) -> Result<ModelConfig, String> {
        let metadata = Metadata(&self.content.metadata);
        let family = metadata.text("general.architecture")?;
        let architecture = match family {
            "qwen3" => Architecture::Qwen3,
            "qwen2" => Architecture::Qwen2,
            "llama" => Architecture::Llama,
            "gemma3" => Architecture::Gemma3,
            other => {
                return Err(format!(
                    "the architecture `{other}` is not supported; use one of gemma3, llama, qwen2, qwen3"
                ));
            }
        };
        let count = |key: &str| metadata.count(&format!("{family}.{key}"));
        let given = |key: &str| metadata.0.contains_key(&format!("{family}.{key}"));
        if let Some(parts) = metadata
            .0
            .get("split.count")
            .and_then(|parts| parts.to_u64().ok())
            .filter(|parts| *parts > 1)
        {
            return Err(format!(
                "one of {parts} parts; join them with `llama-gguf-split --merge`"
            ));
        }
        if given("expert_count") && count("expert_count")? > 0 {
            return Err("a mixture of experts is not supported; use a dense model".to_owned());
        }
        let hidden = count("embedding_length")?;
        let heads = count("attention.head_count")?.max(1);
        let head_dim = if given("attention.key_length") {
            count("attention.key_length")?
        } else {
            hidden / heads
        };
        let rotated = if given("rope.dimension_count") {
            count("rope.dimension_count")?
        } else {
            head_dim
        };
        if rotated != head_dim {
            return Err(format!(
                "rotary positions on {rotated} of {head_dim} numbers of a head are not supported"
            ));
        }
        let number =
            |key: &str, default: Option<f64>| metadata.number(&format!("{family}.{key}"), default);
        let config = ModelConfig {
            architecture,
            vocab_size: self.rows("token_embd.weight")?,
            hidden_size: hidden,
            intermediate_size: count("feed_forward_length")?,
            num_hidden_layers: count("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: if given("attention.head_count_kv") {
                count("attention.head_count_kv")?
            } else {
                heads
            },
            head_dim,
            rms_norm_eps: number("attention.layer_norm_rms_epsilon", None)?,
            rope_theta: number(
                "rope.freq_base",
                Some(if architecture == Architecture::Gemma3 {
                    1e6
                } else {
                    1e4
                }),
            )?,
            rope_scaling: RopeScaling::Unscaled,
            attention_bias: self.attention_bias(architecture)?,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            max_position_embeddings: count("context_length")?,
            options: match architecture {
                Architecture::Qwen3 => DecoderOptions::QWEN3,
                Architecture::Gemma3 => gemma3(&metadata)?,
                _ => DecoderOptions::PLAIN,
            },
        };
        // Limits of `config.json` apply too.
        let config = ModelConfig::parse(&config.to_json("float32", &[]), "metadata")
            .map_err(|error| error.to_string())?;
        Ok(ModelConfig {
            rope_scaling: self.rope_scaling(family, &config)?,
            ..config
        })
    }

    fn rows(&self, name: &str) -> Result<usize, String> {
        let info = self
            .content
            .tensor_infos
            .get(name)
            .ok_or_else(|| format!("tensor `{name}` is missing"))?;
        info.shape
            .dims()
            .first()
            .copied()
            .ok_or_else(|| format!("tensor `{name}` has no dimensions"))
    }

    fn attention_bias(&self, architecture: Architecture) -> Result<AttentionBias, String> {
        let has = |part: &str| {
            self.content
                .tensor_infos
                .contains_key(&format!("blk.0.{part}.bias"))
        };
        match (architecture, has("attn_q"), has("attn_output")) {
            (Architecture::Qwen2, true, false) => Ok(AttentionBias::QueryKeyValue),
            (Architecture::Qwen2, _, _) => {
                Err("a Qwen2 model without its biases is not supported".to_owned())
            }
            (_, false, false) => Ok(AttentionBias::Absent),
            (_, true, true) => Ok(AttentionBias::All),
            _ => Err(
                "these biases of the attention are not supported for its architecture".to_owned(),
            ),
        }
    }

    /// GGUF stores Llama 3's scaling as a tensor of divisors, `config.json` as four numbers: tries
    /// those of published models.
    fn rope_scaling(&self, family: &str, config: &ModelConfig) -> Result<RopeScaling, String> {
        let metadata = Metadata(&self.content.metadata);
        let kind = metadata
            .0
            .get(&format!("{family}.rope.scaling.type"))
            .and_then(|kind| kind.to_string().ok());
        let factor = metadata.number(&format!("{family}.rope.scaling.factor"), Some(1.0))?;
        match kind.filter(|kind| *kind != "none" && factor != 1.0) {
            Some(kind) if kind == "linear" && factor > 1.0 => {
                return Ok(RopeScaling::Linear { factor });
            }
            Some(kind) if kind == "yarn" && factor > 1.0 => {
                let original =
                    metadata.count(&format!("{family}.rope.scaling.original_context_length"))?;
                return Ok(RopeScaling::yarn(factor, original));
            }
            Some(kind) => {
                return Err(format!(
                    "rotary scaling `{kind}` by {factor} is not supported"
                ));
            }
            None => {}
        }
        let Some(info) = self.content.tensor_infos.get("rope_freqs.weight") else {
            return Ok(RopeScaling::Unscaled);
        };
        let half = [config.head_dim / 2];
        if info.shape.dims() != half {
            return Err(format!(
                "`rope_freqs.weight` has shape {:?}, expected {half:?}",
                info.shape.dims()
            ));
        }
        let mut divisors: Vec<f32> = Vec::new();
        self.chunks("rope_freqs.weight", &half, 1, &mut |numbers| {
            divisors.extend(numbers.to_vec1::<f32>()?);
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        let plain = config.rope_frequencies(Scope::Everything);
        [8.0, 32.0, 16.0, 4.0]
            .map(|factor| RopeScaling::Llama3 {
                factor,
                low_frequency_factor: 1.0,
                high_frequency_factor: 4.0,
                original_positions: 8192,
            })
            .into_iter()
            .find(|scaling| {
                let scaled = ModelConfig {
                    rope_scaling: *scaling,
                    ..config.clone()
                }
                .rope_frequencies(Scope::Everything);
                plain
                    .iter()
                    .zip(scaled)
                    .zip(&divisors)
                    .all(|((plain, scaled), divisor)| {
                        (plain / scaled - f64::from(*divisor)).abs() < 1e-3 * f64::from(*divisor)
                    })
            })
            .ok_or_else(|| "`rope_freqs.weight` is no scaling of Llama 3.1 or 3.2".to_owned())
    }

    /// Checks that exactly the model's tensors are present, with their shapes.
    fn check_tensors(&self, config: &ModelConfig, tensors: &[ModelTensor]) -> Result<(), String> {
        let infos = &self.content.tensor_infos;
        let mut unused: Vec<&str> = infos
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "rope_freqs.weight")
            .collect();
        for tensor in tensors {
            let name = tensor.gguf_name();
            let info = infos
                .get(&name)
                .ok_or_else(|| format!("tensor `{name}` is missing"))?;
            if info.shape.dims() != tensor.shape {
                let found = info.shape.dims();
                return Err(format!(
                    "tensor `{name}` has shape {found:?}, the metadata say {:?}",
                    tensor.shape
                ));
            }
            let width = tensor.shape.last().copied().unwrap_or(1);
            let block = info.ggml_dtype.block_size();
            if width % block != 0 {
                return Err(format!(
                    "tensor `{name}` has rows of {width} numbers, no multiple of its blocks of {block}"
                ));
            }
            let end = self
                .start(info)
                .saturating_add(bytes_of(info, tensor.shape.iter().product()) as u64);
            if end > self.length {
                let length = self.length;
                return Err(format!(
                    "tensor `{name}` ends at byte {end} of {length}; the file is cut short: download it again"
                ));
            }
            unused.retain(|unused| *unused != name);
        }
        unused.sort_unstable();
        match unused.first() {
            Some(name) => Err(format!(
                "tensor `{name}` does not belong to a {:?} model",
                config.architecture
            )),
            None => Ok(()),
        }
    }

    fn start(&self, info: &TensorInfo) -> u64 {
        self.content.tensor_data_offset.saturating_add(info.offset)
    }

    /// A tensor in f32 and in order, in pieces [rows, width] or [rows].
    fn dequantized(
        &self,
        config: &ModelConfig,
        tensor: &ModelTensor,
        write: &mut dyn FnMut(Tensor) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let is_turned = config.architecture == Architecture::Llama && tensor.is_query_or_key();
        let whole_rows = if is_turned { config.head_dim } else { 1 };
        // llama.cpp adds the offset to norm weights.
        let offset = if tensor.spec.kind == Kind::Norm {
            config.options.norm_offset
        } else {
            0.0
        };
        self.chunks(
            &tensor.gguf_name(),
            &tensor.shape,
            whole_rows,
            &mut |numbers| {
                if offset != 0.0 {
                    return write(numbers.affine(1.0, -offset)?);
                }
                if !is_turned {
                    return write(numbers);
                }
                // llama.cpp rotates adjacent pairs of a head, transformers its two halves.
                let heads = numbers.dim(0)? / config.head_dim;
                let pairs = numbers.reshape((
                    heads,
                    config.head_dim / 2,
                    2,
                    numbers.elem_count() / numbers.dim(0)?,
                ))?;
                write(
                    pairs
                        .transpose(1, 2)?
                        .contiguous()?
                        .reshape(numbers.shape())?,
                )
            },
        )
    }

    fn chunks(
        &self,
        name: &str,
        shape: &[usize],
        whole_rows: usize,
        write: &mut dyn FnMut(Tensor) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Ok(());
        };
        // A vector is one row, as blocks do not respect its elements.
        let (rows, width) = match shape {
            [rows, width] => (*rows, *width),
            _ => (1, shape.iter().product()),
        };
        let at_once = (CHUNK_NUMBERS / width.max(1))
            .next_multiple_of(whole_rows)
            .max(whole_rows);
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let mut raw = vec![0; bytes_of(info, count * width)];
            let at = self.start(info) + bytes_of(info, first * width) as u64;
            self.file
                .read_exact_at(&mut raw, at)
                .map_err(|error| self.refused(error.to_string()))?;
            let storage = QStorage::from_data(raw.into(), &Device::Cpu, info.ggml_dtype)?;
            let numbers = QTensor::new(storage, (count, width))?.dequantize(&Device::Cpu)?;
            write(if shape.len() == 2 {
                numbers
            } else {
                numbers.flatten_all()?
            })?;
        }
        Ok(())
    }

    fn vocabulary(&self, config: &ModelConfig) -> Result<Vocabulary, String> {
        vocabulary(&Metadata(&self.content.metadata), config.vocab_size)
    }

    fn refused(&self, problem: String) -> CheckpointError {
        CheckpointError::foreign(self.path.display(), problem)
    }
}

/// llama.cpp hard-codes five window layers per global one, the local base, and the query scale
/// except for the 27B.
fn gemma3(metadata: &Metadata<'_>) -> Result<DecoderOptions, String> {
    let key = |name: &str| format!("gemma3.{name}");
    let caps = ["attn_logit_softcapping", "final_logit_softcapping"];
    if let Some(cap) = caps
        .into_iter()
        .find(|cap| metadata.0.contains_key(&key(cap)))
    {
        return Err(format!("soft caps (`{cap}`) are not supported"));
    }
    let count = |name: &str| metadata.count(&key(name));
    let (hidden, layers) = (count("embedding_length")?, count("block_count")?);
    let pattern = "attention.sliding_window_pattern";
    let pattern = if metadata.0.contains_key(&key(pattern)) {
        count(pattern)?.max(1)
    } else {
        6
    };
    let window = SlidingWindow {
        tokens: count("attention.sliding_window")?,
        scopes: (1..=layers)
            .map(|layer| {
                if layer.is_multiple_of(pattern) {
                    Scope::Everything
                } else {
                    Scope::Window
                }
            })
            .collect(),
        rope_theta: metadata.number(&key("rope.freq_base_swa"), Some(1e4))?,
        rope_scaling: RopeScaling::Unscaled,
    };
    // Only the 27B has 62 layers.
    let scalar = if layers == 62 {
        hidden / count("attention.head_count")?.max(1)
    } else {
        count("attention.key_length")?
    };
    Ok(DecoderOptions::gemma3(hidden, scalar as f64, Some(window)))
}

fn bytes_of(info: &TensorInfo, numbers: usize) -> usize {
    numbers / info.ggml_dtype.block_size() * info.ggml_dtype.type_size()
}

fn check_version(header: &[u8]) -> Result<(), String> {
    let Some([b'G', b'G', b'U', b'F', version @ ..]) = header.first_chunk::<8>() else {
        return Err("not a GGUF file: it does not begin with `GGUF`".to_owned());
    };
    match u32::from_le_bytes(*version) {
        2 | 3 => Ok(()),
        big if matches!(big.swap_bytes(), 2 | 3) => {
            Err("big-endian; convert it with llama.cpp's gguf_convert_endian.py".to_owned())
        }
        other => Err(format!(
            "GGUF version {other}; versions 2 and 3 are supported: convert the model again"
        )),
    }
}
