//! Stacked matrices of a layer's experts, frozen, on a GPU: one kernel multiplies by all. May have
//! adapters.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::{AdapterUse, Adapters};
use super::gradients::Gradients;
use crate::kernels::adamw::MatrixCopy;
use crate::kernels::mxfp4::Mxfp4Stack;
use crate::kernels::router::{ExpertBias, LowRankLayout, Routing, StackedMatrices};
use crate::kernels::row_adapters::keep_own_of_pairs;

/// One matrix of every expert.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    pub(super) weights: StackWeights,
    pub(super) count: usize,
    /// [experts, outputs].
    pub(super) bias: Option<Tensor>,
    pub(super) adapters: Option<StackAdapters>,
}

#[derive(Clone, Debug)]
pub(super) enum StackWeights {
    /// [experts * outputs, inputs].
    Numbers(Tensor),
    /// [experts * inputs, outputs].
    Transposed(Tensor),
    Mxfp4(Mxfp4Stack),
}

impl StackWeights {
    /// What a product takes, and whether it is transposed.
    fn matrices(&self) -> (StackedMatrices<'_>, bool) {
        match self {
            Self::Numbers(stack) => (StackedMatrices::Numbers(stack), false),
            Self::Transposed(stack) => (StackedMatrices::Numbers(stack), true),
            Self::Mxfp4(stack) => (StackedMatrices::Mxfp4(stack), false),
        }
    }
}

/// An adapter per expert in the model's dtype; the flat buffer uses PEFT's layout
/// ([`super::expert_adapters`]).
#[derive(Clone, Debug)]
pub(super) struct StackAdapters {
    /// [experts * rank, inputs].
    pub(super) a: Tensor,
    pub(super) a_range: Range<usize>,
    /// `scale * B`: [experts * outputs, rank].
    pub(super) b: Tensor,
    pub(super) b_range: Range<usize>,
    pub(super) scale: f64,
}

impl Stack {
    /// `x`: [pairs, inputs] -> [pairs, outputs], plus `bias`.
    pub(super) fn forward(
        &self,
        routing: &Routing,
        x: &Tensor,
        bias: Option<ExpertBias<'_>>,
        used: AdapterUse<'_>,
    ) -> Result<Tensor> {
        let (matrices, is_transposed) = self.weights.matrices();
        let y = routing.product(x, matrices, is_transposed, bias)?;
        if let Some(StackAdapters { a, b, .. }) = self
            .adapters
            .as_ref()
            .filter(|_| used.adapters == Adapters::On)
        {
            let mut inner = routing.product(x, StackedMatrices::Numbers(a), false, None)?;
            if let Some((own, slot)) = used.own {
                inner = keep_own_of_pairs(inner, own, routing.rows_of_pairs(), b.dims2()?.1, slot)?;
            }
            routing.add_product(&y, &inner, b, false)?;
        }
        Ok(y)
    }

    /// `gradient`: [pairs, outputs] -> [pairs, inputs]; adds the adapters' gradients, using `x`:
    /// [pairs, inputs].
    pub(super) fn backward(
        &self,
        routing: &Routing,
        (gradient, x): (&Tensor, Option<&Tensor>),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (matrices, is_transposed) = self.weights.matrices();
        let own = routing.product(gradient, matrices, !is_transposed, None)?;
        if let (
            Some(StackAdapters {
                a,
                a_range,
                b,
                b_range,
                scale,
            }),
            Some(x),
        ) = (&self.adapters, x)
        {
            let inner = routing.product(x, StackedMatrices::Numbers(a), false, None)?;
            // B includes the scale.
            let inner_gradient =
                routing.product(gradient, StackedMatrices::Numbers(b), true, None)?;
            routing.add_outer(
                (x, &inner_gradient),
                &gradients.range(a_range)?,
                LowRankLayout::Below,
                1.0,
            )?;
            routing.add_outer(
                (gradient, &inner),
                &gradients.range(b_range)?,
                LowRankLayout::Interleaved,
                *scale,
            )?;
            routing.add_product(&own, &inner_gradient, a, true)?;
        }
        Ok(own)
    }

    /// Copies of the adapters in the flat buffer's layout.
    pub(super) fn copies(&self) -> Result<Vec<MatrixCopy>> {
        let Some(StackAdapters {
            a,
            a_range,
            b,
            b_range,
            scale,
        }) = &self.adapters
        else {
            return Ok(Vec::new());
        };
        let (rows, rank) = b.dims2()?;
        // The flat buffer interleaves experts.
        let by_expert = b.reshape((self.count, rows / self.count * rank))?.t()?;
        let copy = |range: &Range<usize>, place, scale| MatrixCopy {
            offset: range.start,
            place,
            scale,
        };
        Ok(vec![
            copy(a_range, a.clone(), 1.0),
            copy(b_range, by_expert, *scale),
        ])
    }
}
