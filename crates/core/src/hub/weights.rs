//! Safetensors files: listing, headers, completeness; no tensors.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::Value;

use super::{Fp8Scales, HubError, ModelSource, Quantization};

pub const ELEMENT_TYPES: [(&str, u64); 15] = [
    ("BOOL", 1),
    ("U8", 1),
    ("I8", 1),
    ("F8_E5M2", 1),
    ("F8_E4M3", 1),
    ("F8_E8M0", 1),
    ("I16", 2),
    ("U16", 2),
    ("F16", 2),
    ("BF16", 2),
    ("I32", 4),
    ("U32", 4),
    ("F32", 4),
    ("F64", 8),
    ("I64", 8),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Type as written: `F32`, `BF16`, …
    pub element_type: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// Offset from the start of the file.
    pub offset_bytes: u64,
    pub size_bytes: u64,
}

impl TensorEntry {
    /// Scales of this `F8_E4M3` matrix, looked up by `find`, and [outputs, inputs] per scale.
    ///
    /// # Errors
    /// The problem, without file and remedy.
    pub fn fp8_scales<'a>(
        &self,
        scales: Option<Fp8Scales>,
        find: impl Fn(&str) -> Option<&'a Self>,
    ) -> Result<(&'a Self, [usize; 2]), String> {
        let (name, shape) = (&self.name, &self.shape);
        let &[outputs, inputs] = shape.as_slice() else {
            return Err(format!(
                "`{name}` is stored as F8_E4M3 with shape {shape:?}, supported are matrices"
            ));
        };
        let Some(scales) = scales else {
            return Err(format!(
                "`{name}` is stored as F8_E4M3, and config.json has no `quantization_config`"
            ));
        };
        let [inverse, plain] = ["_scale_inv", "_scale"].map(|end| format!("{name}{end}"));
        let missing =
            || format!("`{name}` is stored as F8_E4M3, and there is no `{inverse}` or `{plain}`");
        let found = find(&inverse)
            .or_else(|| find(&plain))
            .ok_or_else(missing)?;
        let block = scales.block([outputs as usize, inputs as usize]);
        let expected = [
            outputs.div_ceil(block[0] as u64),
            inputs.div_ceil(block[1] as u64),
        ];
        // [outputs, 1] is also written as [outputs], and [1, 1] as [1] or [].
        let without_ones = |shape: &[u64]| {
            shape
                .iter()
                .rev()
                .skip_while(|&&size| size == 1)
                .copied()
                .collect::<Vec<_>>()
        };
        if without_ones(&found.shape) != without_ones(&expected) {
            return Err(format!(
                "`{}` has shape {:?}, and {scales} of `{name}`, {shape:?}, requires {expected:?}",
                found.name, found.shape
            ));
        }
        Ok((found, block))
    }
}

/// Entries that form a tensor of all experts, such as `model.layers.0.mlp.experts.gate_up_proj`.
#[derive(Debug, Clone)]
pub enum ExpertEntries<'a> {
    /// Layout of gpt-oss.
    Mxfp4 {
        /// U8, [experts, outputs, blocks, 16]: two codes per byte, the first in the low half.
        blocks: &'a TensorEntry,
        /// U8, [experts, outputs, blocks].
        scales: &'a TensorEntry,
    },
    /// A tensor per matrix and expert, all of one shape, in stacking order.
    Separate {
        parts: Vec<&'a TensorEntry>,
        experts: usize,
    },
}

impl<'a> ExpertEntries<'a> {
    /// Entries of tensor `name` looked up by `find`; `None` if it has none of these forms.
    ///
    /// # Errors
    /// The problem, without file and remedy.
    pub fn find(
        name: &str,
        quantization: Option<Quantization>,
        find: impl Fn(&str) -> Option<&'a TensorEntry>,
    ) -> Result<Option<Self>, String> {
        if quantization != Some(Quantization::Mxfp4) {
            return Self::separate(name, find);
        }
        let Some(blocks) = find(&format!("{name}_blocks")) else {
            return Ok(None);
        };
        let scales = find(&format!("{name}_scales"))
            .ok_or_else(|| format!("`{name}_blocks` has no `{name}_scales`"))?;
        if let Some(entry) = [blocks, scales]
            .into_iter()
            .find(|entry| entry.element_type != "U8")
        {
            return Err(format!(
                "`{}` is stored as {}, MXFP4 requires U8",
                entry.name, entry.element_type
            ));
        }
        match blocks.shape.as_slice() {
            [own @ .., 16] if own.len() == 3 && scales.shape == own => {
                Ok(Some(Self::Mxfp4 { blocks, scales }))
            }
            shape => Err(format!(
                "`{}` has shape {shape:?} and `{}` {:?}, MXFP4 requires [experts, outputs, blocks, 16] and [experts, outputs, blocks]",
                blocks.name, scales.name, scales.shape
            )),
        }
    }

    fn separate(
        name: &str,
        find: impl Fn(&str) -> Option<&'a TensorEntry>,
    ) -> Result<Option<Self>, String> {
        let Some((prefix, own)) = name
            .strip_suffix("gate_up_proj")
            .map(|prefix| (prefix, &["gate_proj", "up_proj"][..]))
            .or_else(|| {
                name.strip_suffix("down_proj")
                    .map(|prefix| (prefix, &["down_proj"][..]))
            })
            .filter(|(prefix, _)| prefix.ends_with(".experts."))
        else {
            return Ok(None);
        };
        let entry = |index: usize, part: &str| find(&format!("{prefix}{index}.{part}.weight"));
        let experts = (0..)
            .take_while(|&index| entry(index, own[0]).is_some())
            .count();
        let Some(first) = entry(0, own[0]) else {
            return Ok(None);
        };
        let mut parts = Vec::with_capacity(experts * own.len());
        for (index, part) in
            (0..experts).flat_map(|index| own.iter().map(move |part| (index, part)))
        {
            let found = entry(index, part)
                .ok_or_else(|| format!("no tensor `{prefix}{index}.{part}.weight`"))?;
            if found.shape.len() != 2 || found.shape != first.shape {
                let (name, shape, first, expected) =
                    (&found.name, &found.shape, &first.name, &first.shape);
                return Err(format!(
                    "`{name}` has shape {shape:?} and `{first}` {expected:?}, experts have equal matrices"
                ));
            }
            parts.push(found);
        }
        Ok(Some(Self::Separate { parts, experts }))
    }

    pub fn shape(&self) -> [u64; 3] {
        match self {
            Self::Mxfp4 { scales, .. } => match *scales.shape.as_slice() {
                [experts, outputs, blocks] => [experts, 32 * blocks, outputs],
                _ => [0; 3],
            },
            Self::Separate { parts, experts } => {
                let [outputs, inputs] = [0, 1].map(|at| parts[0].shape[at]);
                [
                    *experts as u64,
                    (parts.len() / experts) as u64 * outputs,
                    inputs,
                ]
            }
        }
    }
}

const HEADER_LIMIT_BYTES: u64 = 100_000_000;
const FETCH_AGAIN: &str = "fetch or copy the file again";

impl ModelSource {
    /// Names of complete safetensors files: `model.safetensors`, or the shards in
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// Missing, pickled, truncated or foreign weights.
    pub fn weight_files(&self) -> Result<Vec<String>, HubError> {
        let files = file_names(self)?;
        for file in &files {
            self.tensors(file)?;
        }
        Ok(files)
    }

    /// Reads a weight file's header in byte order and checks it against the file's size. A vision
    /// model's text part gets the names of a text-only model.
    ///
    /// # Errors
    /// [`HubError::Weights`] with both sizes and the remedy.
    pub fn tensors(&self, file: &str) -> Result<Vec<TensorEntry>, HubError> {
        let (mut reader, size) = self.open(file)?;
        let mut entries = read_header(&mut reader, size, &self.label(file))?;
        entries
            .iter_mut()
            .for_each(|entry| entry.name = text_name(&entry.name));
        Ok(entries)
    }
}

/// `language_model.model.layers…` (the Hub's files), `model.language_model.layers…`
/// (transformers 5) -> `model.layers…`.
fn text_name(name: &str) -> String {
    name.strip_prefix("language_model.").map_or_else(
        || name.replacen("model.language_model.", "model.", 1),
        str::to_owned,
    )
}

/// Weight files in a stable order.
fn file_names(source: &ModelSource) -> Result<Vec<String>, HubError> {
    if source.exists("model.safetensors") {
        return Ok(vec!["model.safetensors".to_owned()]);
    }
    let index = "model.safetensors.index.json";
    if source.exists(index) {
        return shard_names(&source.read_text(index)?, &source.label(index));
    }
    if let Some(pickled) = ["pytorch_model.bin", "pytorch_model.bin.index.json"]
        .into_iter()
        .find(|file| source.exists(file))
    {
        return Err(HubError::Unsupported {
            path: source.label(pickled),
            feature: "a pickled PyTorch checkpoint, which can run code when it is read,".to_owned(),
            remedy: "convert it: load it with transformers and call `save_pretrained(FOLDER, safe_serialization=True)`, or take a revision with model.safetensors"
                .to_owned(),
        });
    }
    Err(HubError::MissingFile {
        path: source.label("model.safetensors"),
        remedy: format!(
            "the folder has neither it nor {index}: fetch the model again (weights are read from safetensors only)"
        ),
    })
}

/// Files named in `model.safetensors.index.json`.
pub(super) fn shard_names(text: &str, path: &str) -> Result<Vec<String>, HubError> {
    let problem = |problem: String| HubError::Config {
        path: path.to_owned(),
        problem,
    };
    let index: Value = serde_json::from_str(text)
        .map_err(|error| problem(format!("not valid JSON ({error}); {FETCH_AGAIN}")))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty());
    let map =
        map.ok_or_else(|| problem(format!("`weight_map` is missing or empty; {FETCH_AGAIN}")))?;
    let mut shards = BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(file) if !file.contains(['/', '\\']) => shards.insert(file.to_owned()),
            _ => {
                return Err(problem(format!(
                    "`weight_map` maps `{tensor}` to {file}, which is not a file name in the same folder"
                )));
            }
        };
    }
    Ok(shards.into_iter().collect())
}

/// Reads the header of a file of `size` bytes and checks that the file is complete.
pub(super) fn read_header(
    reader: &mut dyn Read,
    size: u64,
    path: &str,
) -> Result<Vec<TensorEntry>, HubError> {
    let bad = |problem: String| HubError::Weights {
        path: path.to_owned(),
        problem,
    };
    let refused = |source| HubError::Read {
        path: path.to_owned(),
        source,
    };
    let mut start = Vec::new();
    (&mut *reader)
        .take(8)
        .read_to_end(&mut start)
        .map_err(refused)?;
    let Ok(length) = <[u8; 8]>::try_from(start.as_slice()) else {
        return Err(bad(format!(
            "{size} bytes are too few for a safetensors file; {FETCH_AGAIN}"
        )));
    };
    if &length == b"version " {
        return Err(bad(format!(
            "a Git LFS pointer ({size} bytes) instead of the weights: run `git lfs pull` in its folder"
        )));
    }
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_LIMIT_BYTES {
        return Err(bad(format!(
            "not a safetensors file ({size} bytes, without its header); give a model saved as safetensors"
        )));
    }
    if 8 + header_bytes > size {
        return Err(bad(format!(
            "truncated: the header alone takes {} bytes, the file has {size}; {FETCH_AGAIN}",
            8 + header_bytes
        )));
    }
    let mut header = Vec::new();
    reader
        .take(header_bytes)
        .read_to_end(&mut header)
        .map_err(refused)?;
    let header: Value = serde_json::from_slice(&header).map_err(|error| {
        bad(format!(
            "not a safetensors file: its header is not JSON ({error}); {FETCH_AGAIN}"
        ))
    })?;
    let mut tensors = Vec::new();
    for (name, description) in header.as_object().ok_or_else(|| {
        bad(format!(
            "not a safetensors file: its header is not an object; {FETCH_AGAIN}"
        ))
    })? {
        if name != "__metadata__" {
            let entry = tensor_entry(name, description, 8 + header_bytes);
            tensors.push(entry.map_err(|problem| {
                bad(format!(
                    "tensor `{name}`: {problem}; the file is damaged, {FETCH_AGAIN}"
                ))
            })?);
        }
    }
    tensors.sort_by_key(|entry| entry.offset_bytes);
    let end = check_layout(&tensors, 8 + header_bytes).map_err(bad)?;
    match end.cmp(&size) {
        std::cmp::Ordering::Equal => Ok(tensors),
        std::cmp::Ordering::Greater => Err(bad(format!(
            "truncated: its header describes {end} bytes, the file has {size}; {FETCH_AGAIN}"
        ))),
        std::cmp::Ordering::Less => Err(bad(format!(
            "too long: its header describes {end} bytes, the file has {size}; it was written twice or is damaged, {FETCH_AGAIN}"
        ))),
    }
}

fn tensor_entry(name: &str, description: &Value, data_start: u64) -> Result<TensorEntry, String> {
    let element_type = description
        .get("dtype")
        .and_then(Value::as_str)
        .ok_or("`dtype` is missing")?;
    let (_, element_bytes) = ELEMENT_TYPES
        .iter()
        .find(|(known, _)| *known == element_type)
        .ok_or_else(|| format!("unknown element type `{element_type}`"))?;
    let numbers = |key: &str| -> Result<Vec<u64>, String> {
        let list = description
            .get(key)
            .and_then(Value::as_array)
            .ok_or_else(|| format!("`{key}` is missing"))?;
        list.iter()
            .map(|value| value.as_u64().ok_or_else(|| format!("`{key}` is {value}")))
            .collect()
    };
    let shape = numbers("shape")?;
    let offsets = numbers("data_offsets")?;
    let &[begin, end] = offsets.as_slice() else {
        return Err("`data_offsets` needs two numbers".to_owned());
    };
    let expected = shape.iter().try_fold(*element_bytes, |product, dimension| {
        product.checked_mul(*dimension)
    });
    if end < begin || expected != Some(end - begin) || end.checked_add(data_start).is_none() {
        return Err(format!(
            "{element_type} {shape:?} does not match bytes {begin} to {end}"
        ));
    }
    Ok(TensorEntry {
        name: name.to_owned(),
        element_type: element_type.to_owned(),
        shape,
        offset_bytes: data_start + begin,
        size_bytes: end - begin,
    })
}

fn check_layout(tensors: &[TensorEntry], data_start: u64) -> Result<u64, String> {
    tensors.iter().try_fold(data_start, |position, entry| {
        if entry.offset_bytes == position {
            Ok(position + entry.size_bytes)
        } else {
            Err(format!(
                "tensor `{}` starts at byte {}, expected {position}; the file is damaged, {FETCH_AGAIN}",
                entry.name, entry.offset_bytes
            ))
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(super) mod tests {
    use super::*;

    pub(in crate::hub) fn weight_file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), data].concat()
    }

    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        weight_file(header, &vec![0; data_bytes])
    }

    fn header_of(bytes: &[u8]) -> Result<Vec<TensorEntry>, String> {
        read_header(&mut &bytes[..], bytes.len() as u64, "m.safetensors")
            .map_err(|error| error.to_string())
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn a_whole_file_lists_its_tensors_in_the_order_of_bytes() {
        let entries = header_of(&file(TWO, 28)).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.name.as_str(),
                    entry.element_type.as_str(),
                    entry.size_bytes,
                )
            })
            .collect();
        assert_eq!(seen, [("a", "BF16", 4), ("b", "F32", 24)]);
        assert_eq!(entries[1].offset_bytes, 8 + TWO.len() as u64 + 4);
        assert_eq!(
            header_of(&file(
                r#"{"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
                4
            ))
            .unwrap()
            .len(),
            1
        );
    }

    #[test]
    fn a_damaged_file_is_named_with_both_sizes_and_the_remedy() {
        let check = |bytes: &[u8], expected: &[&str]| {
            let message = header_of(bytes).unwrap_err();
            for part in [&["m.safetensors: "], expected].concat() {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        };
        let total = 8 + TWO.len();
        check(b"", &["0 bytes", "again"]);
        check(b"\x01\x02\x03", &["3 bytes", "again"]);
        check(
            b"version https://git-lfs.github.com/spec/v1\n",
            &["Git LFS pointer", "git lfs pull"],
        );
        check(
            b"PK\x03\x04 a zip archive with a pickle inside",
            &["not a safetensors file", "saved as safetensors"],
        );
        check(
            &file(TWO, 28)[..40],
            &["truncated", &total.to_string(), "has 40", "again"],
        );
        check(
            &file(TWO, 20),
            &[
                "truncated",
                &(total + 28).to_string(),
                &(total + 20).to_string(),
                "again",
            ],
        );
        check(
            &file(TWO, 30),
            &[
                "too long",
                &(total + 28).to_string(),
                &(total + 30).to_string(),
            ],
        );
        check(&file("{not json", 0), &["not JSON"]);
        check(&file("[1]", 0), &["not an object"]);
        for (element_type, shape, offsets, expected) in [
            ("Q4", "[2]", "[0,4]", &["`a`", "`Q4`"][..]),
            ("F32", "[2]", "[0,4]", &["`a`", "[2]", "0 to 4"]),
            (
                "F32",
                "[4611686018427387904,4]",
                "[0,0]",
                &["does not match"],
            ),
            ("F32", "[1]", "[4,8]", &["`a` starts at"]),
            ("F32", "[-1]", "[0,4]", &["`shape` is -1"]),
            ("F32", "[1]", "[0]", &["two numbers"]),
        ] {
            let header = format!(
                r#"{{"a":{{"dtype":"{element_type}","shape":{shape},"data_offsets":{offsets}}}}}"#
            );
            check(&file(&header, 8), expected);
        }
    }

    #[test]
    fn the_weight_files_are_one_or_the_shards_of_the_index() {
        let check = |files: &[(&str, &str)], expected: Result<&[&str], &str>| {
            let work = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(work.path().join(name), text).unwrap();
            }
            match (file_names(&ModelSource::at("m", work.path())), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{error} lacks {part:?}")
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        };
        let index = "model.safetensors.index.json";
        let map = r#"{"weight_map":{"x":"model-00002-of-00002.safetensors","y":"model-00001-of-00002.safetensors","z":"model-00002-of-00002.safetensors"}}"#;
        check(
            &[("model.safetensors", ""), ("pytorch_model.bin", "")],
            Ok(&["model.safetensors"]),
        );
        check(
            &[(index, map)],
            Ok(&[
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ]),
        );
        check(
            &[("pytorch_model.bin", "")],
            Err("pytorch_model.bin: a pickled PyTorch checkpoint"),
        );
        check(&[], Err("model.safetensors: no such file"));
        check(&[(index, "{")], Err("not valid JSON"));
        check(
            &[(index, r#"{"weight_map":{}}"#)],
            Err("`weight_map` is missing or empty"),
        );
        check(
            &[(index, r#"{"weight_map":{"x":"../../etc/passwd"}}"#)],
            Err("not a file name in the same folder"),
        );
    }
}
