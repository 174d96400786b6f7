//! Low-rank adapters added to the matrices they stand beside, one matrix at a time.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::model::ModelError;

#[derive(Clone, Debug)]
pub(super) struct Merge {
    pub(super) base: Weights,
    /// A [rank, inputs] and B [outputs, rank] under PEFT's names.
    pub(super) adapters: HashMap<String, Tensor>,
    /// `alpha / rank`.
    pub(super) scale: f64,
    /// Whether merged matrices are rounded to the dtype that the base stores them in.
    pub(super) is_rounded: bool,
}

impl Merge {
    pub(super) fn get(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor, ModelError> {
        let Some((down, up)) = self.adapter(name) else { return self.base.get(name, shape, dtype, device) };
        let stored = self.base.dtype(name).unwrap_or(DType::F32);
        let on_device = |tensor: &Tensor| tensor.to_device(device)?.to_dtype(DType::F32);
        let delta = on_device(up)?.matmul(&on_device(down)?)?.affine(self.scale, 0.0)?;
        let merged = (self.base.get(name, shape, DType::F32, device)? + delta)?;
        let merged = if self.is_rounded { merged.to_dtype(stored)? } else { merged };
        Ok(merged.to_dtype(dtype)?)
    }

    /// A and B beside the matrix `MODULE.weight`.
    fn adapter(&self, name: &str) -> Option<(&Tensor, &Tensor)> {
        let module = name.strip_suffix(".weight")?;
        let tensor = |which: &str| self.adapters.get(&format!("base_model.model.{module}.lora_{which}.weight"));
        tensor("A").zip(tensor("B"))
    }
}
