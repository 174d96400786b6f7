//! One decoder layer, forward and backward: norm, attention, norm, gated MLP, each added to the residual stream.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::AdapterUse;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::kernels::adamw::MatrixCopy;
use crate::kernels::attention::{Attended, Segments, segment_attention, segment_attention_backward};
use crate::kernels::decode_attention::{DecodeRows, decode_attention};
use crate::kernels::heads::Heads;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rms_norm::{add_rms_norm, rms_norm, rms_norm_backward, rms_norm_backward_weight};
use crate::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward, query_key_rope_backward_all,
    query_key_rope_open,
};
use crate::kernels::swiglu::{swiglu, swiglu_backward, swiglu_open};

/// A norm's weight, and the range of its gradient when it is trained.
#[derive(Clone, Debug)]
pub(super) struct NormWeight {
    /// [width].
    pub(super) weight: Tensor,
    pub(super) trained: Option<Range<usize>>,
}

/// The residual stream between two layers, [rows, hidden]: the kernel of the next norm does the sum.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    sum: Tensor,
    /// What the layer before has yet to add.
    addend: Option<OpenRows>,
}

impl Stream {
    pub(super) fn start(sum: Tensor) -> Self {
        Self { sum, addend: None }
    }

    /// The whole sum, and its norm: [rows, hidden + room].
    pub(super) fn norm(&self, weight: &Tensor, epsilon: f64, room: usize) -> Result<(Tensor, Tensor)> {
        match &self.addend {
            Some(addend) => add_rms_norm(&self.sum, addend, weight, epsilon, room),
            None => Ok((self.sum.clone(), rms_norm(&self.sum, weight, epsilon, room)?)),
        }
    }
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
    pub adapters: AdapterUse<'a>,
}

/// What a layer's backward reads, with [`Derived`]: no product with the layer's matrices is repeated.
#[derive(Debug)]
pub(super) struct LayerActivations {
    input: Tensor,
    packed: Tensor,
    attended: Attended,
    middle: Tensor,
    gate_up: Tensor,
}

/// What follows from a layer's activations by its norms, its rotation and its activation function: a third of the bytes
/// beside bf16.
#[derive(Debug)]
pub(super) struct Derived {
    normed: Tensor,
    rotated: Tensor,
    middle_normed: Tensor,
    activated: Tensor,
}

impl LayerActivations {
    /// The layer's input, from which the rest can be computed again.
    pub(super) fn into_input(self) -> Tensor {
        self.input
    }
}

impl Derived {
    /// The rotated keys, and the values: [rows, 2 * key_width], columns of wider rows.
    pub(super) fn into_keys_values(self, heads: Heads) -> Result<Tensor> {
        self.rotated.narrow(1, heads.query_width(), 2 * heads.key_width())
    }
}

impl Layer {
    /// The stream after the layer, and what [`Layer::backward`] needs.
    pub(super) fn forward(
        &self,
        stream: Stream,
        context: RowContext<'_>,
    ) -> Result<(Stream, LayerActivations, Derived)> {
        let (input, normed) = stream.norm(&self.input_norm.weight, self.epsilon, self.query_key_value.room())?;
        drop(stream);
        let packed = self.query_key_value.forward(&normed, context.adapters)?;
        let rotated = query_key_rope(&packed, self.query_key(context.positions, context.table))?;
        let attended = segment_attention(&rotated, self.heads, context.segments, self.attention_output.room())?;
        let attention = OpenRows::complete(self.attention_output.forward(&attended.rows, context.adapters)?);
        let (weight, room) = (&self.post_attention_norm.weight, self.gate_up.room());
        let (middle, middle_normed) = add_rms_norm(&input, &attention, weight, self.epsilon, room)?;
        let gate_up = self.gate_up.forward(&middle_normed, context.adapters)?;
        let activated = swiglu(&gate_up, self.down.room())?;
        let addend = OpenRows::complete(self.down.forward(&activated, context.adapters)?);
        let stream = Stream { sum: middle.clone(), addend: Some(addend) };
        let saved = LayerActivations { input, packed, attended, middle, gate_up };
        Ok((stream, saved, Derived { normed, rotated, middle_normed, activated }))
    }

    /// As [`Layer::forward`] left it.
    pub(super) fn derive(&self, saved: &LayerActivations, context: RowContext<'_>) -> Result<Derived> {
        let norm = |input: &Tensor, norm: &NormWeight, linear: &Linear| {
            linear.with_inner(rms_norm(input, &norm.weight, self.epsilon, linear.room())?, context.adapters)
        };
        Ok(Derived {
            normed: norm(&saved.input, &self.input_norm, &self.query_key_value)?,
            rotated: query_key_rope(&saved.packed, self.query_key(context.positions, context.table))?,
            middle_normed: norm(&saved.middle, &self.post_attention_norm, &self.gate_up)?,
            activated: self.down.with_inner(swiglu(&saved.gate_up, self.down.room())?, context.adapters)?,
        })
    }

    /// One new token a row, at `positions`: its keys and values go to `written`, [places, 2 * key_width], and
    /// it attends to them and to its prompt's, `prompts`: [prompt rows, 2 * key_width].
    pub(crate) fn decode(
        &self,
        stream: &Stream,
        (positions, table): (&Tensor, &RopeTable),
        (prompts, written): (&Tensor, &Tensor),
        rows: &DecodeRows,
        adapters: AdapterUse<'_>,
    ) -> Result<Stream> {
        let (input, normed) = stream.norm(&self.input_norm.weight, self.epsilon, 0)?;
        let packed = self.query_key_value.open(&normed, adapters)?;
        let rotated = query_key_rope_open(&packed, self.query_key(positions, table), written, rows)?;
        let attended = decode_attention(&rotated, prompts, written, self.heads, rows)?;
        let attention = self.attention_output.open(&attended, adapters)?;
        let (sum, normed) = add_rms_norm(&input, &attention, &self.post_attention_norm.weight, self.epsilon, 0)?;
        let activated = swiglu_open(&self.gate_up.open(&normed, adapters)?, normed.dtype())?;
        Ok(Stream { sum, addend: Some(self.down.open(&activated, adapters)?) })
    }

    /// Where the adapters stand a second time.
    pub(super) fn copies(&self) -> Result<Vec<MatrixCopy>> {
        let linears = [&self.query_key_value, &self.attention_output, &self.gate_up, &self.down];
        let copies = linears
            .iter()
            .map(|linear| linear.adapters.as_ref().map_or(Ok(Vec::new()), |set| set.copies(&linear.weight)));
        Ok(copies.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Columns that rows of the result's gradient need behind them.
    pub(super) fn gradient_room(&self) -> usize {
        self.down.room()
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

    /// `gradient`: [rows, hidden + room] of the layer's result. Adds the gradients of what is trained, returns the
    /// input's, [rows, hidden + room].
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        saved: &LayerActivations,
        derived: &Derived,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let activated_gradient = self.down.backward(gradient, &derived.activated, gradients)?;
        let gate_up_gradient = swiglu_backward(&activated_gradient, &saved.gate_up, self.gate_up.room())?;
        let normed_gradient = self.gate_up.backward(&gate_up_gradient, &derived.middle_normed, gradients)?;
        let norm = (&self.post_attention_norm, &saved.middle);
        let middle_gradient =
            self.norm_backward(norm, &normed_gradient, gradient, self.attention_output.room(), gradients)?;

        let attended_gradient = self.attention_output.backward(&middle_gradient, &saved.attended.rows, gradients)?;
        let (rotated, segments) = (&derived.rotated, context.segments);
        let rotated_gradient =
            segment_attention_backward(&attended_gradient, rotated, &saved.attended, self.heads, segments)?;
        let packed_gradient = self.query_key_backward(&rotated_gradient, &saved.packed, context, gradients)?;
        let normed_gradient = self.query_key_value.backward(&packed_gradient, &derived.normed, gradients)?;
        let norm = (&self.input_norm, &saved.input);
        self.norm_backward(norm, &normed_gradient, &middle_gradient, self.gradient_room(), gradients)
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
            return query_key_rope_backward(gradient, packed, query_key, self.query_key_value.room());
        };
        let (packed_gradient, query_gradient, key_gradient) = query_key_rope_backward_all(gradient, packed, query_key)?;
        gradients.add(query_range, &query_gradient)?;
        gradients.add(key_range, &key_gradient)?;
        Ok(packed_gradient)
    }

    /// Through a norm of `input`, and around it: `gradient`: [rows, hidden], `around`: [rows, hidden + any room] ->
    /// [rows, hidden + room].
    fn norm_backward(
        &self,
        (norm, input): (&NormWeight, &Tensor),
        gradient: &Tensor,
        around: &Tensor,
        room: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(range) = &norm.trained {
            gradients.add(range, &rms_norm_backward_weight(gradient, input, self.epsilon)?)?;
        }
        let around = around.narrow(1, 0, input.dims2()?.1)?;
        rms_norm_backward(gradient, input, &norm.weight, self.epsilon, Some(&around), room)
    }
}
