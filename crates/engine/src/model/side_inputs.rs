//! Layer inputs besides the residual stream: an earlier layer's keys and values, and per-layer
//! inputs.

use candle_core::{Result, Tensor, bail};

use super::parameters::master_dtype;
use crate::kernels::write_rows::join_columns;

/// Side inputs of one layer's rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// [rows, 2 * key_width], for a layer that uses another's.
    pub keys_values: Option<&'a Tensor>,
    /// Sum of their gradients in a backward: for both the using and the owning layer.
    pub keys_values_gradient: Option<&'a Tensor>,
    /// [rows, width].
    pub input: Option<&'a Tensor>,
    /// Sum of its gradients in a backward; `None` if nothing it depends on is trained.
    pub input_gradient: Option<&'a Tensor>,
}

/// Side inputs by layer; also holds their gradients.
#[derive(Debug, Default)]
pub(super) struct SideInputs {
    /// [rows, width] each; empty if layers have none.
    inputs: Vec<Tensor>,
    /// [rows, 2 * key_width], of layers whose keys and values are shared.
    keys_values: Vec<Option<Tensor>>,
}

impl SideInputs {
    /// `inputs`: [rows, layers * width].
    pub(super) fn new(inputs: Option<&Tensor>, layers: usize) -> Result<Self> {
        let inputs = match inputs {
            Some(all) => all
                .chunk(layers, 1)?
                .iter()
                .map(|own| join_columns(&[own]))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            inputs,
            keys_values: vec![None; layers],
        })
    }

    /// Zeros of equal shapes, f32 for bf16; without inputs if nothing they depend on is trained.
    pub(super) fn gradients(&self, has_inputs: bool) -> Result<Self> {
        let inputs = if has_inputs {
            self.inputs.as_slice()
        } else {
            &[]
        };
        let zeros =
            |own: &Tensor| Tensor::zeros(own.shape(), master_dtype(own.dtype()), own.device());
        Ok(Self {
            inputs: inputs.iter().map(zeros).collect::<Result<_>>()?,
            keys_values: (self
                .keys_values
                .iter()
                .map(|own| own.as_ref().map(zeros).transpose()))
            .collect::<Result<_>>()?,
        })
    }

    /// [rows, layers * width]; `None` if layers have none.
    pub(super) fn joined(&self) -> Result<Option<Tensor>> {
        if self.inputs.is_empty() {
            Ok(None)
        } else {
            Tensor::cat(&self.inputs, 1).map(Some)
        }
    }

    /// `source`: the layer that computes the shared keys and values, possibly this one; `None`: not
    /// shared.
    pub(super) fn of(&self, layer: usize, source: Option<usize>) -> Beside<'_> {
        let keys_values = source.and_then(|source| self.keys_values[source].as_ref());
        Beside {
            keys_values,
            input: self.inputs.get(layer),
            ..Beside::default()
        }
    }

    /// As [`SideInputs::of`], with `self` the gradients of `of`.
    pub(super) fn with_gradients<'a>(
        &'a self,
        of: Beside<'a>,
        layer: usize,
        source: Option<usize>,
    ) -> Beside<'a> {
        let Beside {
            keys_values, input, ..
        } = self.of(layer, source);
        Beside {
            keys_values_gradient: keys_values,
            input_gradient: input,
            ..of
        }
    }

    pub(super) fn store(&mut self, layer: usize, keys_values: Tensor) {
        self.keys_values[layer] = Some(keys_values);
    }
}

impl<'a> Beside<'a> {
    /// Keys and values of an earlier layer.
    pub(super) fn shared(self) -> Result<&'a Tensor> {
        match self.keys_values {
            Some(rows) => Ok(rows),
            None => bail!("a layer without keys and values of its own was given no others"),
        }
    }
}
