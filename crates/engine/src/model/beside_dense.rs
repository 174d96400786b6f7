//! A dense feed-forward block beside a mixture of experts: both read the stream, and each has norms of its own.

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
    /// Before the router; what it gives is divided by the root of the width.
    pub(super) router_norm: NormWeight,
    /// Before the experts.
    pub(super) experts_norm: NormWeight,
    /// After the block, and after the experts.
    pub(super) output_norms: [NormWeight; 2],
}

/// What its backward reads.
#[derive(Debug)]
pub(super) struct BesideProducts {
    /// What router and experts read, [rows, hidden] each.
    pub(super) inputs: [Tensor; 2],
    mlp: MlpProducts,
    /// Before the norms, [rows, hidden] each.
    outputs: [Tensor; 2],
}

impl BesideDense {
    /// `stream`: [rows, hidden] -> what router and experts read.
    pub(super) fn inputs(&self, stream: &Tensor) -> Result<[Tensor; 2]> {
        let router =
            rms_norm(stream, self.router_norm.norm(), 0)?.affine(router_scale(stream)?, 0.0)?;
        Ok([router, rms_norm(stream, self.experts_norm.norm(), 0)?])
    }

    /// `others`: [rows, hidden] of the experts, `x`: [rows, hidden], the block's input -> products, and the sum.
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

    /// As [`BesideDense::add`] of one new token a row: `x`: [rows, hidden].
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

    /// `gradient`: [rows, hidden] of the sum -> that of `x`, and of what the experts gave. Adds the gradients of what is
    /// trained.
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

    /// `gradient`: of what router and experts read -> of the stream.
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
