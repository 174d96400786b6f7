//! PEFT's layout of experts' adapters, as one parameter per layer (`target_parameters`): stacked A,
//! column-interleaved B.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use crate::hub::ExpertTensors;

/// PEFT's modules for adapters of gates and ups, and of downs: nested wrappers.
pub(super) const MODULES: [&str; 2] = ["mlp.experts.base_layer", "mlp.experts"];

/// The adapted parameters in PEFT's `target_parameters`.
pub const TARGET_PARAMETERS: [&str; 2] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"];

/// Whether an adapter's tensor belongs to experts.
pub fn is_of_experts(name: &str) -> bool {
    name.contains(".mlp.experts.")
}

/// An expert of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneExpert {
    pub(super) index: usize,
    pub(super) count: usize,
}

impl OneExpert {
    /// `all`: [experts * rank, inputs] -> [rank, inputs].
    pub(super) fn a(self, all: &Tensor) -> Result<Tensor> {
        let rank = all.dims2()?.0 / self.count;
        all.narrow(0, self.index * rank, rank)
    }

    /// `all`: [outputs, rank * experts] -> [outputs, rank], a view.
    pub(super) fn b(self, all: &Tensor) -> Result<Tensor> {
        let (outputs, columns) = all.dims2()?;
        all.reshape((outputs, columns / self.count, self.count))?
            .narrow(2, self.index, 1)?
            .squeeze(2)
    }
}

/// Concatenates several adapters of experts along the rank: A [experts * rank, inputs] if `is_a`,
/// else B [outputs, rank * experts].
pub fn beside_each_other(parts: &[Tensor], experts: usize, is_a: bool) -> Result<Tensor> {
    let apart = parts.iter().map(|part| {
        let (rows, columns) = part.dims2()?;
        part.reshape(if is_a {
            (experts, rows / experts, columns)
        } else {
            (rows, columns / experts, experts)
        })
    });
    let all = Tensor::cat(&apart.collect::<Result<Vec<_>>>()?, 1)?;
    if is_a {
        all.flatten(0, 1)
    } else {
        all.flatten(1, 2)
    }
}

/// `B A` in f32 for a tensor of experts by name: one matrix of one expert, or all experts; `None`
/// for other tensors. `adapters`: under PEFT's names.
pub(super) fn delta(
    adapters: &HashMap<String, Tensor>,
    (name, shape): (&str, &[usize]),
    (count, tensors): (usize, ExpertTensors),
    device: &Device,
) -> Result<Option<Tensor>> {
    let Some((layer, part)) = name.split_once(".mlp.experts.") else {
        return Ok(None);
    };
    let module = MODULES[usize::from(part.contains("down_proj"))];
    let tensor = |which: &str| {
        adapters.get(&format!(
            "base_model.model.{layer}.{module}.lora_{which}.weight"
        ))
    };
    let (Some(a), Some(b)) = (tensor("A"), tensor("B")) else {
        return Ok(None);
    };
    let on_device = |tensor: Tensor| tensor.contiguous()?.to_device(device)?.to_dtype(DType::F32);
    let product = |index: usize| {
        let own = OneExpert { index, count };
        on_device(own.b(b)?)?.matmul(&on_device(own.a(a)?)?)
    };
    let delta = match part.split_once('.') {
        Some((index, part)) => {
            let all = product(index.parse().map_err(candle_core::Error::wrap)?)?;
            // Gate is above up.
            let start = if part.starts_with("up_proj") {
                shape[0]
            } else {
                0
            };
            all.narrow(0, start, shape[0])?
        }
        None if part.ends_with("_bias") => return Ok(None),
        None => {
            let all = Tensor::stack(&(0..count).map(product).collect::<Result<Vec<_>>>()?, 0)?;
            if tensors == ExpertTensors::FusedTransposed {
                all.transpose(1, 2)?
            } else {
                all
            }
        }
    };
    Ok(Some(delta))
}
