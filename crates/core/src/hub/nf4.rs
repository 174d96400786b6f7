//! Matrices in NF4 as bitsandbytes stores them.

use std::collections::HashMap;
use std::io::Read as _;

use serde::Deserialize;

use super::{HubError, ModelSource, Quantization, TensorEntry, is_quantized};

/// After the name of a matrix: JSON as bytes.
pub const NF4_STATE: &str = ".quant_state.bitsandbytes__nf4";
const MAX_STATE_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
pub struct Nf4State {
    /// [outputs, inputs].
    pub shape: Vec<u64>,
    pub blocksize: usize,
    pub nested_blocksize: Option<usize>,
    pub nested_offset: Option<f32>,
}

impl Nf4State {
    /// Gives an entry of codes the shape of its numbers.
    pub fn correct(&self, entry: &mut TensorEntry) {
        entry.shape.clone_from(&self.shape);
    }

    /// Whether blocks are those of a base in NF4 (`kernels::nf4`).
    pub fn has_base_blocks(&self) -> bool {
        (self.blocksize, self.nested_blocksize) == (64, Some(256))
    }
}

impl ModelSource {
    /// States of matrices in NF4, by name.
    ///
    /// # Errors
    /// Missing or damaged weights.
    pub fn nf4_states(&self) -> Result<HashMap<String, Nf4State>, HubError> {
        let mut states = HashMap::new();
        for file in self.weight_files()? {
            for entry in self.tensors(&file)? {
                let Some(matrix) = entry.name.strip_suffix(NF4_STATE).map(str::to_owned) else {
                    continue;
                };
                let (name, mut text) = (entry.name.clone(), Vec::new());
                self.bytes_of(&(file.clone(), entry))?
                    .take(MAX_STATE_BYTES)
                    .read_to_end(&mut text)
                    .map_err(|source| self.refused(&file, source))?;
                let state = serde_json::from_slice(&text).map_err(|error| HubError::Weights {
                    path: self.label(&file),
                    problem: format!(
                        "`{name}`: {error}; fetch the checkpoint again, or take it in bf16"
                    ),
                })?;
                states.insert(matrix, state);
            }
        }
        Ok(states)
    }

    /// Whether a base in NF4 takes every matrix that it quantizes as the files store it.
    ///
    /// # Errors
    /// As [`ModelSource::nf4_states`], or an unreadable configuration.
    pub fn is_nf4_base(&self) -> Result<bool, HubError> {
        if self.quantization()? != Some(Quantization::Nf4) {
            return Ok(false);
        }
        let states = self.nf4_states()?;
        Ok(self.config()?.tensors().iter().all(|tensor| {
            !is_quantized(&tensor.name, &tensor.shape)
                || states
                    .get(&tensor.name)
                    .is_some_and(Nf4State::has_base_blocks)
        }))
    }
}
