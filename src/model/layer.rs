//! One decoder layer, forward and backward: norm, attention, norm, gated MLP, each added to the residual stream.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::Adapters;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::kernels::attention::{Segments, segment_attention, segment_attention_backward};
use crate::kernels::rms_norm::{add_rms_norm, add_to_stream, rms_norm, rms_norm_backward, rms_norm_backward_weight};
use crate::kernels::rope::{
    Heads, QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward, query_key_rope_backward_all,
};
use crate::kernels::swiglu::{swiglu, swiglu_backward};

/// A norm's weight, and the range of its gradient when it is trained.
#[derive(Clone, Debug)]
pub(super) struct NormWeight {
    /// [width].
    pub(super) weight: Tensor,
    pub(super) trained: Option<Range<usize>>,
}

/// One layer's weights. Queries, keys and values are one packed matrix, gate and up another.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) heads: Heads,
    pub(super) epsilon: f64,
    pub(super) input_norm: NormWeight,
    pub(super) query_key_value: Linear,
    /// Norms of each query head and each key head, where the family has them.
    pub(super) query_key_norms: Option<(NormWeight, NormWeight)>,
    pub(super) attention_output: Linear,
    pub(super) post_attention_norm: NormWeight,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// What the rows of a batch are, the same for every layer.
#[derive(Clone, Copy, Debug)]
pub struct RowContext<'a> {
    /// Position of each row: `[rows]`, u32.
    pub positions: &'a Tensor,
    /// Which rows attend to which.
    pub segments: &'a Segments,
    /// Cosines and sines.
    pub table: &'a RopeTable,
    /// Adapters on or off.
    pub adapters: Adapters,
}

/// What a layer's backward reads: enough that no matrix product of the forward is repeated.
#[derive(Debug)]
pub(super) struct LayerActivations {
    input: Tensor,
    normed: Tensor,
    packed: Tensor,
    rotated: Tensor,
    attended: Tensor,
    middle: Tensor,
    middle_normed: Tensor,
    gate_up: Tensor,
    activated: Tensor,
}

impl LayerActivations {
    /// The rotated queries and keys, and the values: [rows, row_width].
    pub(super) fn into_rotated(self) -> Tensor {
        self.rotated
    }
}

impl Layer {
    /// `input`: [rows, hidden] -> [rows, hidden], and what [`Layer::backward`] needs.
    pub(super) fn forward(&self, input: &Tensor, context: RowContext<'_>) -> Result<(Tensor, LayerActivations)> {
        let normed = rms_norm(input, &self.input_norm.weight, self.epsilon)?;
        let packed = self.query_key_value.forward(&normed, context.adapters)?;
        let rotated = query_key_rope(&packed, self.query_key(context.positions, context.table))?;
        let attended = segment_attention(&rotated, self.heads, context.segments)?;
        let (output, feed) = self.after_attention(input, &attended, context.adapters)?;
        let FeedForward { middle, middle_normed, gate_up, activated } = feed;
        let activations = LayerActivations {
            input: input.clone(),
            normed,
            packed,
            rotated,
            attended,
            middle,
            middle_normed,
            gate_up,
            activated,
        };
        Ok((output, activations))
    }

    /// The rotated queries and keys, and the values, of rows at `positions`: [rows, row_width]. First half of a decode
    /// step.
    pub(crate) fn before_attention(
        &self,
        input: &Tensor,
        positions: &Tensor,
        table: &RopeTable,
        adapters: Adapters,
    ) -> Result<Tensor> {
        let normed = rms_norm(input, &self.input_norm.weight, self.epsilon)?;
        let packed = self.query_key_value.forward(&normed, adapters)?;
        query_key_rope(&packed, self.query_key(positions, table))
    }

    /// The layer's result from its input and what attention returned. Second half of a decode step.
    pub(crate) fn finish(&self, input: &Tensor, attended: &Tensor, adapters: Adapters) -> Result<Tensor> {
        Ok(self.after_attention(input, attended, adapters)?.0)
    }

    /// How the packed rows divide.
    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// The layer's tensors under their names inside it, such as `self_attn.q_proj.weight`, adapters merged.
    pub(super) fn merged(&self) -> Result<Vec<(String, Tensor)>> {
        let (query, key) = (self.heads.query_width(), self.heads.key_width());
        let inner = self.gate_up.weight.dims2()?.0 / 2;
        let hidden = self.down.weight.dims2()?.0;
        let norm = |name: &str, norm: &NormWeight| (format!("{name}.weight"), norm.weight.clone());
        let mut named = vec![
            norm("input_layernorm", &self.input_norm),
            norm("post_attention_layernorm", &self.post_attention_norm),
        ];
        if let Some((query_norm, key_norm)) = &self.query_key_norms {
            named.extend([norm("self_attn.q_norm", query_norm), norm("self_attn.k_norm", key_norm)]);
        }
        let packed = [("self_attn.q_proj", query), ("self_attn.k_proj", key), ("self_attn.v_proj", key)];
        named.extend(self.query_key_value.merged_parts(&packed)?);
        named.extend(self.attention_output.merged_parts(&[("self_attn.o_proj", hidden)])?);
        named.extend(self.gate_up.merged_parts(&[("mlp.gate_proj", inner), ("mlp.up_proj", inner)])?);
        named.extend(self.down.merged_parts(&[("mlp.down_proj", hidden)])?);
        Ok(named)
    }

    /// `gradient`: [rows, hidden] of the layer's result. Adds the gradients of what is trained, returns the input's.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        saved: &LayerActivations,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let activated_gradient = self.down.backward(gradient, &saved.activated, gradients)?;
        let gate_up_gradient = swiglu_backward(&activated_gradient, &saved.gate_up)?;
        let normed_gradient = self.gate_up.backward(&gate_up_gradient, &saved.middle_normed, gradients)?;
        let through = self.norm_backward(&self.post_attention_norm, &normed_gradient, &saved.middle, gradients)?;
        let middle_gradient = (gradient + through)?;

        let attended_gradient = self.attention_output.backward(&middle_gradient, &saved.attended, gradients)?;
        let rotated_gradient =
            segment_attention_backward(&attended_gradient, &saved.rotated, self.heads, context.segments)?;
        let packed_gradient = self.query_key_backward(&rotated_gradient, &saved.packed, context, gradients)?;
        let normed_gradient = self.query_key_value.backward(&packed_gradient, &saved.normed, gradients)?;
        let through = self.norm_backward(&self.input_norm, &normed_gradient, &saved.input, gradients)?;
        middle_gradient + through
    }

    fn after_attention(&self, input: &Tensor, attended: &Tensor, adapters: Adapters) -> Result<(Tensor, FeedForward)> {
        let attention = self.attention_output.forward(attended, adapters)?;
        let (middle, middle_normed) = add_rms_norm(input, &attention, &self.post_attention_norm.weight, self.epsilon)?;
        let gate_up = self.gate_up.forward(&middle_normed, adapters)?;
        let activated = swiglu(&gate_up)?;
        let output = add_to_stream(&middle, &self.down.forward(&activated, adapters)?)?;
        Ok((output, FeedForward { middle, middle_normed, gate_up, activated }))
    }

    fn query_key<'a>(&'a self, positions: &'a Tensor, table: &'a RopeTable) -> QueryKeyContext<'a> {
        let norms = self.query_key_norms.as_ref().map(|(query, key)| (&query.weight, &key.weight));
        QueryKeyContext { heads: self.heads, norms, epsilon: self.epsilon, positions, table }
    }

    fn query_key_backward(
        &self,
        gradient: &Tensor,
        packed: &Tensor,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let query_key = self.query_key(context.positions, context.table);
        let trained =
            self.query_key_norms.as_ref().and_then(|(query, key)| query.trained.as_ref().zip(key.trained.as_ref()));
        let Some((query_range, key_range)) = trained else {
            return query_key_rope_backward(gradient, packed, query_key);
        };
        let (packed_gradient, query_gradient, key_gradient) = query_key_rope_backward_all(gradient, packed, query_key)?;
        gradients.add(query_range, &query_gradient)?;
        gradients.add(key_range, &key_gradient)?;
        Ok(packed_gradient)
    }

    fn norm_backward(
        &self,
        norm: &NormWeight,
        gradient: &Tensor,
        input: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(range) = &norm.trained {
            gradients.add(range, &rms_norm_backward_weight(gradient, input, self.epsilon)?)?;
        }
        rms_norm_backward(gradient, input, &norm.weight, self.epsilon)
    }
}

struct FeedForward {
    middle: Tensor,
    middle_normed: Tensor,
    gate_up: Tensor,
    activated: Tensor,
}
