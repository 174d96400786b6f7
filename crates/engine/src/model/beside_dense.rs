//! Dense feed-forward block in parallel with a mixture of experts, each with its own norms.

use candle_core::{Result, Tensor};

use super::AdapterUse;
use super::gated_mlp::{GatedMlp, MlpProducts};
use super::gradients::Gradients;
use super::norm::NormWeight;
use super::parameters::master_dtype;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rms_norm::{rms_norm, rms_norm_open};

#[derive(Clone, Debug)]
pub(super) struct BesideDense {
    pub(super) mlp: GatedMlp,
    /// Norm before the router; its output is divided by the root of the width.
    pub(super) router_norm: NormWeight,
    /// Norm before the experts.
    pub(super) experts_norm: NormWeight,
    /// Norms after the block, and after the experts.
    pub(super) output_norms: [NormWeight; 2],
}

/// Saved for the backward.
#[derive(Debug)]
pub(super) struct BesideProducts {
    /// Inputs of router and experts, [rows, hidden] each.
    pub(super) inputs: [Tensor; 2],
    mlp: MlpProducts,
    /// Outputs before the norms, [rows, hidden] each.
    outputs: [Tensor; 2],
}

impl BesideDense {
    /// `stream`: [rows, hidden] -> inputs of router and experts.
    pub(super) fn inputs(&self, stream: &Tensor) -> Result<[Tensor; 2]> {
        let router =
            rms_norm(stream, self.router_norm.norm(), 0)?.affine(router_scale(stream)?, 0.0)?;
        Ok([router, rms_norm(stream, self.experts_norm.norm(), 0)?])
    }

    /// `others`: [rows, hidden] of the experts, `x`: [rows, hidden], the block's input -> saved
    /// products, and the sum.
    pub(super) fn add(
        &self,
        others: Tensor,
        x: &Tensor,
        inputs: [Tensor; 2],
        adapters: AdapterUse<'_>,
    ) -> Result<(BesideProducts, Tensor)> {
        let (mlp, own) = self.mlp.forward(x, adapters)?;
        let [own_norm, others_norm] = &self.output_norms;
        let sum =
            (rms_norm(&own, own_norm.norm(), 0)? + rms_norm(&others, others_norm.norm(), 0)?)?;
        Ok((
            BesideProducts {
                inputs,
                mlp,
                outputs: [own, others],
            },
            sum,
        ))
    }

    /// As [`BesideDense::add`] for one new token per row: `x`: [rows, hidden].
    pub(super) fn decode(
        &self,
        others: &Tensor,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<OpenRows> {
        let own = self.mlp.decode(x, adapters)?;
        let [own_norm, others_norm] = &self.output_norms;
        let sum =
            (rms_norm_open(&own, own_norm.norm())? + rms_norm(others, others_norm.norm(), 0)?)?;
        Ok(OpenRows::complete(sum.to_dtype(master_dtype(x.dtype()))?))
    }

    /// `gradient`: [rows, hidden] of the sum -> of `x`, and of the experts' output. Adds gradients
    /// of trained weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        products: &BesideProducts,
        gradients: &mut Gradients,
    ) -> Result<[Tensor; 2]> {
        let BesideProducts {
            mlp,
            outputs: [own, others],
            ..
        } = products;
        let [own_norm, others_norm] = &self.output_norms;
        let others = others_norm.backward(gradient, others, None, 0, gradients)?;
        let own = own_norm.backward(
            gradient,
            own,
            None,
            self.mlp.down.adapter_columns(),
            gradients,
        )?;
        let products = (&mlp.gate_up, &mlp.activated);
        Ok([self.mlp.backward(&own, x, products, gradients)?, others])
    }

    /// `gradient`: of the inputs of router and experts -> of the stream.
    pub(super) fn inputs_backward(
        &self,
        [router, experts]: [Tensor; 2],
        stream: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let router = router.affine(router_scale(stream)?, 0.0)?;
        let own = self
            .router_norm
            .backward(&router, stream, None, 0, gradients)?;
        self.experts_norm
            .backward(&experts, stream, Some(&own), 0, gradients)
    }
}

fn router_scale(stream: &Tensor) -> Result<f64> {
    Ok(1.0 / (stream.dims2()?.1 as f64).sqrt())
}
