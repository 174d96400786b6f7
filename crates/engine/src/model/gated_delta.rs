//! Gated delta rule mixer: convolution, the rule, a gated norm.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::gradients::Gradients;
use super::mixed_inputs::{MixedInputs, MixerActivations};
use super::norm::NormWeight;
use crate::kernels::attention::Segments;
use crate::kernels::convolution::{
    causal_convolution, causal_convolution_backward, convolution_states, convolution_step,
};
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::delta_rule::{
    DeltaGradients, DeltaHeads, DeltaRule, delta_rule, delta_rule_backward, delta_rule_states,
    delta_rule_step,
};
use crate::kernels::gated_norm::{gated_norm, gated_norm_backward};
use crate::kernels::write_rows::write_columns;

/// A tensor, and the range of its gradient if trained.
pub(super) type MaybeTrained = (Tensor, Option<Range<usize>>);

/// A packed row contains the convolution's input, the output gate, and per value head the logits of
/// strength and decay.
#[derive(Clone, Debug)]
pub(super) struct GatedDeltaMixer {
    pub(super) heads: DeltaHeads,
    /// [width, kernel].
    pub(super) convolution: MaybeTrained,
    /// [value heads].
    pub(super) decay: MaybeTrained,
    /// [value heads].
    pub(super) bias: MaybeTrained,
    pub(super) norm: NormWeight,
}

impl GatedDeltaMixer {
    pub(super) fn forward(
        &self,
        packed: &Tensor,
        segments: &Segments,
        adapter_columns: usize,
    ) -> Result<(Tensor, MixedInputs)> {
        let prepared = causal_convolution(packed, &self.convolution.0, segments)?;
        let mixed = delta_rule(&prepared, self.rule(packed), segments)?;
        let output = self.normed(&mixed, packed, adapter_columns)?;
        Ok((mixed, MixedInputs { prepared, output }))
    }

    pub(super) fn derive(
        &self,
        packed: &Tensor,
        mixed: &Tensor,
        segments: &Segments,
        adapter_columns: usize,
    ) -> Result<MixedInputs> {
        let prepared = causal_convolution(packed, &self.convolution.0, segments)?;
        Ok(MixedInputs {
            prepared,
            output: self.normed(mixed, packed, adapter_columns)?,
        })
    }

    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        MixerActivations {
            packed,
            mixed,
            prepared,
        }: MixerActivations<'_, Tensor>,
        segments: &Segments,
        adapter_columns: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let gate = (packed, self.heads.row_width());
        let (mixed_gradient, gate_gradient, norm) =
            gated_norm_backward(gradient, mixed, gate, self.norm.norm())?;
        let DeltaGradients {
            convolved,
            gates,
            decay,
            bias,
        } = delta_rule_backward(&mixed_gradient, prepared, self.rule(packed), segments)?;
        let (weight, trained) = &self.convolution;
        let (own, convolution) =
            causal_convolution_backward(&convolved, packed, weight, segments, trained.is_some())?;
        let all = [
            (&self.norm.trained, Some(norm)),
            (&self.decay.1, Some(decay)),
            (&self.bias.1, Some(bias)),
            (trained, convolution),
        ];
        for (range, gradient) in all {
            if let (Some(range), Some(gradient)) = (range, gradient) {
                gradients.add(range, &gradient)?;
            }
        }
        let (rows, width) = packed.dims2()?;
        let joined = Tensor::zeros(
            (rows, width + adapter_columns),
            packed.dtype(),
            packed.device(),
        )?;
        let mut column = 0;
        for part in [own, gate_gradient, gates] {
            write_columns(&joined, column, &part)?;
            column += part.dims2()?.1;
        }
        Ok(joined)
    }

    /// States after each segment, of convolution and rule.
    pub(super) fn states(
        &self,
        packed: &Tensor,
        prepared: &Tensor,
        segments: &Segments,
    ) -> Result<[Tensor; 2]> {
        Ok([
            convolution_states(packed, &self.convolution.0, segments)?,
            delta_rule_states(prepared, self.rule(packed), segments)?,
        ])
    }

    pub(super) fn decode(
        &self,
        packed: &Tensor,
        states: &[Tensor; 2],
        rows: &DecodeRows,
    ) -> Result<Tensor> {
        let prepared = convolution_step(packed, &self.convolution.0, &states[0], rows)?;
        let mixed = delta_rule_step(&prepared, self.rule(packed), &states[1], rows)?;
        self.normed(&mixed, packed, 0)
    }

    pub(super) fn state_widths(&self) -> [usize; 2] {
        let kernel = self.convolution.0.dims()[1];
        [
            (kernel - 1) * self.heads.row_width(),
            self.heads.state_width(),
        ]
    }

    fn rule<'a>(&'a self, packed: &'a Tensor) -> DeltaRule<'a> {
        let column = self.heads.row_width() + self.heads.value_width();
        DeltaRule {
            heads: self.heads,
            packed,
            column,
            decay: &self.decay.0,
            bias: &self.bias.0,
        }
    }

    fn normed(&self, mixed: &Tensor, packed: &Tensor, adapter_columns: usize) -> Result<Tensor> {
        gated_norm(
            mixed,
            (packed, self.heads.row_width()),
            self.norm.norm(),
            adapter_columns,
        )
    }
}
