//! Parses `quantization_config`.

use std::fmt;

use serde_json::{Map, Value};

use crate::hub::HubError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    Fp8(Fp8Scales),
    /// Matrices as bitsandbytes stores them.
    Nf4,
    /// Experts in e2m1; 32 inputs share a power-of-two scale (OCP Microscaling 1.0). As in gpt-oss.
    Mxfp4,
}

/// Granularity of scales of e4m3 matrices; a weight is its code times its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8Scales {
    PerTensor,
    PerOutput,
    /// [outputs, inputs] of a block; smaller at the ends.
    PerBlock([usize; 2]),
}

impl Fp8Scales {
    /// [outputs, inputs] that share a scale in a matrix of `shape`.
    pub fn block(self, shape: [usize; 2]) -> [usize; 2] {
        let [outputs, inputs] = match self {
            Self::PerTensor => shape,
            Self::PerOutput => [1, shape[1]],
            Self::PerBlock(block) => block,
        };
        [outputs.max(1), inputs.max(1)]
    }
}

impl Quantization {
    /// Parses `quantization_config`, which a vision model may have in its text part; `None` if
    /// absent.
    ///
    /// # Errors
    /// [`HubError::Unsupported`] for any other quantization.
    pub(in crate::hub) fn parse(
        keys: &Map<String, Value>,
        path: &str,
    ) -> Result<Option<Self>, HubError> {
        let text = keys.get("text_config").and_then(|text| text.get(KEY));
        let Some(quantization) = [keys.get(KEY), text]
            .into_iter()
            .flatten()
            .find(|value| !value.is_null())
        else {
            return Ok(None);
        };
        let scales = match quantization
            .get("quant_method")
            .and_then(Value::as_str)
            .unwrap_or("unnamed")
        {
            "fp8" => match quantization
                .get("weight_block_size")
                .filter(|size| !size.is_null())
            {
                None => Ok(Fp8Scales::PerTensor),
                Some(size) => block(size),
            },
            "mxfp4" => return Ok(Some(Self::Mxfp4)),
            "bitsandbytes" => match bitsandbytes(quantization) {
                Ok(()) => return Ok(Some(Self::Nf4)),
                Err(form) => Err(form),
            },
            "fbgemm_fp8" => Ok(Fp8Scales::PerOutput),
            "compressed-tensors" => compressed_tensors(quantization),
            other => Err(other.to_owned()),
        };
        scales.map(|scales| Some(Self::Fp8(scales))).map_err(|form| HubError::Unsupported {
            path: path.to_owned(),
            feature: format!("a quantized checkpoint ({form})"),
            remedy: "use the original weights in float32, float16 or bfloat16, in fp8 as `fp8`, `fbgemm_fp8`, or `compressed-tensors` in the format `float-quantized`, in NF4 by `bitsandbytes`, or gpt-oss in `mxfp4`"
                .to_owned(),
        })
    }
}

impl Quantization {
    pub fn fp8(self) -> Option<Fp8Scales> {
        match self {
            Self::Fp8(scales) => Some(scales),
            Self::Nf4 | Self::Mxfp4 => None,
        }
    }
}

impl fmt::Display for Fp8Scales {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => write!(formatter, "a scale per matrix"),
            Self::PerOutput => write!(formatter, "a scale per output"),
            Self::PerBlock([outputs, inputs]) => {
                write!(formatter, "a scale per block of {outputs} x {inputs}")
            }
        }
    }
}

const KEY: &str = "quantization_config";

fn block(size: &Value) -> Result<Fp8Scales, String> {
    let sizes: Option<Vec<usize>> = size.as_array().map(|sizes| {
        let count = |size: &Value| size.as_u64().filter(|size| (1..=1 << 20).contains(size));
        sizes
            .iter()
            .filter_map(|size| count(size).map(|size| size as usize))
            .collect()
    });
    match sizes.as_deref() {
        Some(&[outputs, inputs]) => Ok(Fp8Scales::PerBlock([outputs, inputs])),
        _ => Err(format!("blocks of {size}")),
    }
}

fn bitsandbytes(quantization: &Value) -> Result<(), String> {
    let text = |key: &str, default: &'static str| quantization[key].as_str().unwrap_or(default);
    if quantization["load_in_4bit"] != true {
        return Err("bitsandbytes, llm_int8".to_owned());
    }
    let form = text("bnb_4bit_quant_type", "fp4");
    match (form, text("bnb_4bit_quant_storage", "uint8")) {
        ("nf4", "uint8") => Ok(()),
        ("nf4", storage) => Err(format!("bitsandbytes, codes stored as {storage}")),
        _ => Err(format!("bitsandbytes, {form}")),
    }
}

fn compressed_tensors(quantization: &Value) -> Result<Fp8Scales, String> {
    let refused = |what: String| Err(format!("compressed-tensors, {what}"));
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    if quantization["format"] != "float-quantized" {
        return refused(format!("format `{}`", text(&quantization["format"])));
    }
    let sparsity = &quantization["sparsity_config"]["format"];
    if !sparsity.is_null() && sparsity != "dense" {
        return refused(format!("sparsity `{}`", text(sparsity)));
    }
    // Rotations, whose other half the model's code computes.
    if quantization["transform_config"]
        .as_object()
        .is_some_and(|transforms| !transforms.is_empty())
    {
        return refused("`transform_config`".to_owned());
    }
    let mut found = None;
    for group in quantization["config_groups"]
        .as_object()
        .into_iter()
        .flat_map(Map::values)
    {
        let weights = &group["weights"];
        if weights["type"] != "float" || weights["num_bits"] != 8 || weights["symmetric"] == false {
            return refused(format!("weights {weights}"));
        }
        let scales = match weights["strategy"].as_str() {
            Some("tensor") => Fp8Scales::PerTensor,
            Some("channel") => Fp8Scales::PerOutput,
            Some("block") => block(&weights["block_structure"])?,
            _ => return refused(format!("strategy `{}`", text(&weights["strategy"]))),
        };
        if found.is_some_and(|found| found != scales) {
            return refused("groups with different scales".to_owned());
        }
        found = Some(scales);
    }
    found.map_or_else(|| refused("no `config_groups`".to_owned()), Ok)
}
