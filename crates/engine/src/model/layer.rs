//! One decoder layer, forward and backward: norm, attention, norm, gated MLP, each added to the residual stream, in some
//! families after a norm of its own.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::AdapterUse;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::hub::NormNames;
use crate::kernels::adamw::MatrixCopy;
use crate::kernels::attention::{AttentionOutput, Segments, segment_attention, segment_attention_backward};
use crate::kernels::decode_attention::{DecodeRows, decode_attention};
use crate::kernels::heads::{Attention, Heads};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rms_norm::{
    Norm, add_rms_norm, rms_norm, rms_norm_backward, rms_norm_backward_weight, rms_norm_open,
};
use crate::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward, query_key_rope_backward_all,
    query_key_rope_open,
};
use crate::kernels::swiglu::{Activation, gated, gated_backward, gated_open};

/// A norm's weight, and the range of its gradient when it is trained.
#[derive(Clone, Debug)]
pub(super) struct NormWeight {
    /// [width].
    pub(super) weight: Tensor,
    pub(super) trained: Option<Range<usize>>,
    /// Added to the weight.
    pub(super) offset: f64,
    pub(super) epsilon: f64,
}

impl NormWeight {
    pub(super) fn norm(&self) -> Norm<'_> {
        Norm { weight: &self.weight, offset: self.offset, epsilon: self.epsilon }
    }

    /// Through the norm of `input`, and around it: `gradient`: [rows, width], `around`: [rows, width + any room] ->
    /// [rows, width + room]. Adds the weight's gradient.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        input: &Tensor,
        around: Option<&Tensor>,
        room: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(range) = &self.trained {
            gradients.add(range, &rms_norm_backward_weight(gradient, input, self.epsilon)?)?;
        }
        let width = input.dims2()?.1;
        let around = around.map(|around| around.narrow(1, 0, width)).transpose()?;
        rms_norm_backward(gradient, input, self.norm(), around.as_ref(), room)
    }
}

/// The residual stream between two layers, [rows, hidden]: the kernel of the next norm does the sum.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    sum: Tensor,
    /// The pending residual of the layer before.
    addend: Option<OpenRows>,
}

impl Stream {
    pub(super) fn start(sum: Tensor) -> Self {
        Self { sum, addend: None }
    }

    /// The whole sum, and its norm: [rows, hidden + room].
    pub(super) fn norm(&self, weight: &NormWeight, room: usize) -> Result<(Tensor, Tensor)> {
        match &self.addend {
            Some(addend) => add_rms_norm(&self.sum, addend, weight.norm(), room),
            None => Ok((self.sum.clone(), rms_norm(&self.sum, weight.norm(), room)?)),
        }
    }
}

/// One layer's weights. Queries, keys and values are one packed matrix, gate and up another.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) attention: Attention,
    pub(super) rope: RopeTable,
    pub(super) input_norm: NormWeight,
    pub(super) query_key_value: Linear,
    /// Norms of each query head and each key head, where the family has them.
    pub(super) query_key_norms: Option<(NormWeight, NormWeight)>,
    pub(super) attention_output: Linear,
    /// The norm after attention, where the family has one.
    pub(super) attention_output_norm: Option<NormWeight>,
    pub(super) middle_norm: NormWeight,
    pub(super) gate_up: Linear,
    pub(super) activation: Activation,
    pub(super) down: Linear,
    /// The norm after the MLP, where the family has one.
    pub(super) down_norm: Option<NormWeight>,
}

/// Positions, segments and adapters of a batch's rows, the same for every layer.
#[derive(Clone, Copy, Debug)]
pub struct RowContext<'a> {
    /// Position of each row: `[rows]`, u32.
    pub positions: &'a Tensor,
    /// Which rows attend to which.
    pub segments: &'a Segments,
    pub adapters: AdapterUse<'a>,
}

/// The inputs of a layer's backward, with [`DerivedActivations`]: no matmul of the forward is repeated.
#[derive(Debug)]
pub(super) struct LayerActivations {
    input: Tensor,
    packed: Tensor,
    attended: AttentionOutput,
    /// The output of attention, where a norm follows.
    attention: Option<Tensor>,
    middle: Tensor,
    gate_up: Tensor,
    /// The output of the MLP, where a norm follows.
    down: Option<Tensor>,
}

/// Activations that norms, rotation and the activation function recompute: a third of a layer's bytes in bf16.
#[derive(Debug)]
pub(super) struct DerivedActivations {
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

impl DerivedActivations {
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
    ) -> Result<(Stream, LayerActivations, DerivedActivations)> {
        let (input, normed) = stream.norm(&self.input_norm, self.query_key_value.room())?;
        drop(stream);
        let packed = self.query_key_value.forward(&normed, context.adapters)?;
        let rotated = query_key_rope(&packed, self.query_key(context.positions))?;
        let attended = segment_attention(&rotated, self.attention, context.segments, self.attention_output.room())?;
        let attention = self.attention_output.forward(&attended.rows, context.adapters)?;
        let (addend, attention) = added(attention, self.attention_output_norm.as_ref())?;
        let (middle, middle_normed) = add_rms_norm(&input, &addend, self.middle_norm.norm(), self.gate_up.room())?;
        let gate_up = self.gate_up.forward(&middle_normed, context.adapters)?;
        let activated = gated(&gate_up, self.activation, self.down.room())?;
        let (addend, down) = added(self.down.forward(&activated, context.adapters)?, self.down_norm.as_ref())?;
        let stream = Stream { sum: middle.clone(), addend: Some(addend) };
        let saved = LayerActivations { input, packed, attended, attention, middle, gate_up, down };
        Ok((stream, saved, DerivedActivations { normed, rotated, middle_normed, activated }))
    }

    /// As [`Layer::forward`] left it.
    pub(super) fn derive(&self, saved: &LayerActivations, context: RowContext<'_>) -> Result<DerivedActivations> {
        let norm = |input: &Tensor, norm: &NormWeight, linear: &Linear| {
            linear.with_inner(rms_norm(input, norm.norm(), linear.room())?, context.adapters)
        };
        let activated = gated(&saved.gate_up, self.activation, self.down.room())?;
        Ok(DerivedActivations {
            normed: norm(&saved.input, &self.input_norm, &self.query_key_value)?,
            rotated: query_key_rope(&saved.packed, self.query_key(context.positions))?,
            middle_normed: norm(&saved.middle, &self.middle_norm, &self.gate_up)?,
            activated: self.down.with_inner(activated, context.adapters)?,
        })
    }

    /// One new token a row, at `positions`: its keys and values go to `written`, [places, 2 * key_width], and
    /// it attends to them and to its prompt's, `prompts`: [prompt rows, 2 * key_width].
    pub(crate) fn decode(
        &self,
        stream: &Stream,
        positions: &Tensor,
        (prompts, written): (&Tensor, &Tensor),
        rows: &DecodeRows,
        adapters: AdapterUse<'_>,
    ) -> Result<Stream> {
        let (input, normed) = stream.norm(&self.input_norm, 0)?;
        let packed = self.query_key_value.open(&normed, adapters)?;
        let rotated = query_key_rope_open(&packed, self.query_key(positions), written, rows)?;
        let attended = decode_attention(&rotated, prompts, written, self.attention, rows)?;
        let attention = self.attention_output.open(&attended, adapters)?;
        let attention = added_open(attention, self.attention_output_norm.as_ref())?;
        let (sum, normed) = add_rms_norm(&input, &attention, self.middle_norm.norm(), 0)?;
        let activated = gated_open(&self.gate_up.open(&normed, adapters)?, self.activation, normed.dtype())?;
        let addend = added_open(self.down.open(&activated, adapters)?, self.down_norm.as_ref())?;
        Ok(Stream { sum, addend: Some(addend) })
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
        if self.down_norm.is_some() { 0 } else { self.down.room() }
    }

    /// How the packed rows divide.
    pub(crate) fn heads(&self) -> Heads {
        self.attention.heads
    }

    /// The layer's tensors under their names inside it, such as `self_attn.q_proj.weight`, adapters merged.
    pub(super) fn merged(&self, names: &NormNames) -> Result<Vec<(String, Tensor)>> {
        let (query, key) = (self.heads().query_width(), self.heads().key_width());
        let inner = self.gate_up.weight.dims2()?.0 / 2;
        let hidden = self.down.weight.dims2()?.0;
        let head_norms = self.query_key_norms.as_ref();
        let norms = [
            (names.input, Some(&self.input_norm)),
            (names.attention_output, self.attention_output_norm.as_ref()),
            (names.middle, Some(&self.middle_norm)),
            (names.down, self.down_norm.as_ref()),
            ("self_attn.q_norm", head_norms.map(|norms| &norms.0)),
            ("self_attn.k_norm", head_norms.map(|norms| &norms.1)),
        ];
        let named = |(name, norm): (&str, Option<&NormWeight>)| Some((format!("{name}.weight"), norm?.weight.clone()));
        let mut named: Vec<(String, Tensor)> = norms.into_iter().filter_map(named).collect();
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
        derived: &DerivedActivations,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let down_norm = self.down_norm.as_ref().zip(saved.down.as_ref());
        let down_gradient = output_backward(down_norm, gradient, self.down.room(), gradients)?;
        let activated_gradient = self.down.backward(&down_gradient, &derived.activated, gradients)?;
        let room = self.gate_up.room();
        let gate_up_gradient = gated_backward(&activated_gradient, &saved.gate_up, self.activation, room)?;
        let normed_gradient = self.gate_up.backward(&gate_up_gradient, &derived.middle_normed, gradients)?;
        let attention_norm = self.attention_output_norm.as_ref().zip(saved.attention.as_ref());
        let output_room = self.attention_output.room();
        let room = if attention_norm.is_some() { 0 } else { output_room };
        let middle_gradient =
            self.middle_norm.backward(&normed_gradient, &saved.middle, Some(gradient), room, gradients)?;

        let attention_gradient = output_backward(attention_norm, &middle_gradient, output_room, gradients)?;
        let attended_gradient = self.attention_output.backward(&attention_gradient, &saved.attended.rows, gradients)?;
        let (rotated, segments) = (&derived.rotated, context.segments);
        let rotated_gradient =
            segment_attention_backward(&attended_gradient, rotated, &saved.attended, self.attention, segments)?;
        let packed_gradient = self.query_key_backward(&rotated_gradient, &saved.packed, context, gradients)?;
        let normed_gradient = self.query_key_value.backward(&packed_gradient, &derived.normed, gradients)?;
        let (around, room) = (Some(&middle_gradient), self.gradient_room());
        self.input_norm.backward(&normed_gradient, &saved.input, around, room, gradients)
    }

    fn query_key<'a>(&'a self, positions: &'a Tensor) -> QueryKeyContext<'a> {
        let norms = self.query_key_norms.as_ref().map(|(query, key)| (&query.weight, &key.weight));
        let NormWeight { offset, epsilon, .. } = self.input_norm;
        QueryKeyContext { heads: self.heads(), norms, norm_offset: offset, epsilon, positions, table: &self.rope }
    }

    fn query_key_backward(
        &self,
        gradient: &Tensor,
        packed: &Tensor,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let query_key = self.query_key(context.positions);
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
}

/// A layer's addition to the stream, and the input of its norm where there is one.
fn added(output: Tensor, norm: Option<&NormWeight>) -> Result<(OpenRows, Option<Tensor>)> {
    match norm {
        Some(norm) => Ok((OpenRows::complete(rms_norm(&output, norm.norm(), 0)?), Some(output))),
        None => Ok((OpenRows::complete(output), None)),
    }
}

/// As [`added`], while decoding.
fn added_open(output: OpenRows, norm: Option<&NormWeight>) -> Result<OpenRows> {
    match norm {
        Some(norm) => Ok(OpenRows::complete(rms_norm_open(&output, norm.norm())?)),
        None => Ok(output),
    }
}

/// Through the norm of what was added, if there is one: `gradient` of the stream -> [rows, hidden + room].
fn output_backward(
    norm: Option<(&NormWeight, &Tensor)>,
    gradient: &Tensor,
    room: usize,
    gradients: &mut Gradients,
) -> Result<Tensor> {
    match norm {
        Some((norm, output)) => norm.backward(gradient, output, None, room, gradients),
        None => Ok(gradient.clone()),
    }
}
