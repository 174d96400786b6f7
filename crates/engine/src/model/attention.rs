//! Attention mixer: head norms, rotary positions, attention, in some families a gate.

use candle_core::{Result, Tensor};

use super::gated_delta::MaybeTrained;
use super::gradients::Gradients;
use super::keys_values::KeysValues;
use super::mixed_inputs::{MixedInputs, MixerActivations};
use super::norm::NormWeight;
use super::packed_batch::RowContext;
use super::parameters::master_dtype;
use super::side_inputs::Beside;
use crate::kernels::accumulate::accumulate;
use crate::kernels::attention::{
    AttentionOutput, segment_attention, segment_attention_backward, segment_attention_backward_all,
};
use crate::kernels::attention_gate::{
    gated_attention, gated_attention_backward, join_gate, split_gate, split_gate_open,
};
use crate::kernels::decode_attention::{DecodeRows, decode_attention};
use crate::kernels::heads::{Attention, Heads};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward,
    query_key_rope_backward_all, query_key_rope_open,
};
use crate::kernels::write_rows::join_columns;

#[derive(Clone, Debug)]
pub(super) struct AttentionMixer {
    /// Parameters without sinks.
    pub(super) attention: Attention<'static>,
    pub(super) keys_values: KeysValues,
    /// `[query heads]`, in some families.
    pub(super) sinks: Option<MaybeTrained>,
    pub(super) rope: RopeTable,
    /// Norms of query and key heads, in some families; no key norm if the layer has no keys.
    pub(super) head_norms: Option<(NormWeight, Option<NormWeight>)>,
    pub(super) norm_offset: f64,
    pub(super) epsilon: f64,
    /// Whether the output is gated; gates are interleaved with the queries.
    pub(super) has_gate: bool,
}

impl AttentionMixer {
    pub(super) fn forward(
        &self,
        packed: &Tensor,
        context: RowContext<'_>,
        adapter_columns: usize,
    ) -> Result<(AttentionOutput, MixedInputs)> {
        let (own, gate) = self.split(packed)?;
        let prepared = self.prepared(&own, context)?;
        // With a gate, the adapter columns follow the gated product.
        let own_columns = if self.has_gate { 0 } else { adapter_columns };
        let attended =
            segment_attention(&prepared, self.attention(), context.segments, own_columns)?;
        let output = gated(&attended.rows, gate.as_ref(), adapter_columns)?;
        Ok((attended, MixedInputs { prepared, output }))
    }

    pub(super) fn derive(
        &self,
        packed: &Tensor,
        attended: &AttentionOutput,
        context: RowContext<'_>,
        adapter_columns: usize,
    ) -> Result<MixedInputs> {
        let (own, gate) = self.split(packed)?;
        let prepared = self.prepared(&own, context)?;
        Ok(MixedInputs {
            prepared,
            output: gated(&attended.rows, gate.as_ref(), adapter_columns)?,
        })
    }

    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        MixerActivations {
            packed,
            mixed: attended,
            prepared,
        }: MixerActivations<'_, AttentionOutput>,
        context: RowContext<'_>,
        adapter_columns: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (own, gate) = self.split(packed)?;
        let (attended_gradient, gate_gradient) = match &gate {
            Some(gate) => {
                let (attended, gate) = gated_attention_backward(gradient, &attended.rows, gate)?;
                (attended, Some(gate))
            }
            None => (gradient.clone(), None),
        };
        let (attention, segments) = (self.attention(), context.segments);
        let prepared_gradient = match self
            .sinks
            .as_ref()
            .and_then(|(_, trained)| trained.as_ref())
        {
            None => segment_attention_backward(
                &attended_gradient,
                prepared,
                attended,
                attention,
                segments,
            )?,
            Some(range) => {
                let (prepared, sinks) = segment_attention_backward_all(
                    &attended_gradient,
                    prepared,
                    attention,
                    segments,
                )?;
                gradients.add(range, &sinks)?;
                prepared
            }
        };
        let prepared_gradient = self.with_shared_gradient(prepared_gradient, context.beside)?;
        let own_columns = if self.has_gate || self.keys_values.are_expanded() {
            0
        } else {
            adapter_columns
        };
        let products = self.keys_values.expand(&own, self.attention.heads)?;
        let own_gradient = self.query_key_backward(
            &prepared_gradient,
            &products,
            context,
            own_columns,
            gradients,
        )?;
        let own_gradient = self.keys_values.backward(
            &own_gradient,
            &own,
            self.attention.heads,
            adapter_columns,
        )?;
        match gate_gradient {
            Some(gate) => join_gate(&own_gradient, &gate, self.attention.heads, adapter_columns),
            None => Ok(own_gradient),
        }
    }

    fn query_key_backward(
        &self,
        gradient: &Tensor,
        own: &Tensor,
        context: RowContext<'_>,
        adapter_columns: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let query_key = self.query_key(context.positions);
        let Some((query, key)) = self
            .head_norms
            .as_ref()
            .filter(|(query, _)| query.trained.is_some())
        else {
            return query_key_rope_backward(gradient, own, query_key, adapter_columns);
        };
        let (own_gradient, query_gradient, key_gradient) =
            query_key_rope_backward_all(gradient, own, query_key)?;
        for (norm, gradient) in [(Some(query), query_gradient), (key.as_ref(), key_gradient)] {
            if let Some(range) = norm.and_then(|norm| norm.trained.as_ref()) {
                gradients.add(range, &gradient)?;
            }
        }
        Ok(own_gradient)
    }

    /// `own`: [rows, outputs] -> rotated queries and keys, and values, possibly another layer's:
    /// [rows, row_width].
    fn prepared(&self, own: &Tensor, context: RowContext<'_>) -> Result<Tensor> {
        let products = self.keys_values.expand(own, self.attention.heads)?;
        let rotated = query_key_rope(&products, self.query_key(context.positions))?;
        match self.keys_values.other_layer() {
            Some(_) => join_columns(&[&rotated, context.beside.shared()?]),
            None => Ok(rotated),
        }
    }

    /// `gradient`: [rows, row_width] of prepared rows -> of rows rotated here. Shared keys and
    /// values get the sum of their gradients in the layer that owns them, whose backward comes
    /// last.
    fn with_shared_gradient(&self, gradient: Tensor, beside: Beside<'_>) -> Result<Tensor> {
        let Some(sum) = beside.keys_values_gradient else {
            return Ok(gradient);
        };
        let queries = gradient.narrow(1, 0, self.attention.heads.query_width())?;
        accumulate(sum, &join_columns(&[&self.keys_values(&gradient)?])?)?;
        match self.keys_values.other_layer() {
            Some(_) => join_columns(&[&queries]),
            None => join_columns(&[&queries, &sum.to_dtype(gradient.dtype())?]),
        }
    }

    /// Decodes and writes keys and values to `written`; attends to these and the prompt's.
    pub(super) fn decode(
        &self,
        packed: &OpenRows,
        positions: &Tensor,
        (prompts, written): (&Tensor, &Tensor),
        rows: &DecodeRows,
    ) -> Result<Tensor> {
        let gated_rows = self
            .has_gate
            .then(|| split_gate_open(&packed.rows, self.attention.heads))
            .transpose()?;
        let (own, gate) = match gated_rows {
            Some((own, gate)) => (&OpenRows::complete(own), Some(gate)),
            None => (packed, None),
        };
        let prepared = if self.keys_values.are_products() {
            query_key_rope_open(own, self.query_key(positions), written, rows)?
        } else {
            self.prepare_newest(&own.rows, positions, written, rows)?
        };
        let attended = decode_attention(&prepared, prompts, written, self.attention(), rows)?;
        gated(&attended, gate.as_ref(), 0)
    }

    /// Prepares complete packed rows for decode attention.
    fn prepare_newest(
        &self,
        own: &Tensor,
        positions: &Tensor,
        written: &Tensor,
        rows: &DecodeRows,
    ) -> Result<Tensor> {
        let products = self.keys_values.expand(own, self.attention.heads)?;
        if self.keys_values.other_layer().is_none() {
            let products = OpenRows::complete(products.to_dtype(master_dtype(own.dtype()))?);
            return query_key_rope_open(&products, self.query_key(positions), written, rows);
        }
        let queries = query_key_rope(&products, self.query_key(positions))?;
        // Attention reads keys and values from the cache, written by the other layer.
        let behind = (queries.dims2()?.0, 2 * self.attention.heads.key_width());
        join_columns(&[
            &queries,
            &Tensor::zeros(behind, queries.dtype(), queries.device())?,
        ])
    }

    /// Rotated keys, and values: [rows, 2 * key_width], strided.
    pub(super) fn keys_values(&self, prepared: &Tensor) -> Result<Tensor> {
        let heads = self.attention.heads;
        prepared.narrow(1, heads.query_width(), 2 * heads.key_width())
    }

    fn attention(&self) -> Attention<'_> {
        Attention {
            sinks: self.sinks.as_ref().map(|(sinks, _)| sinks),
            ..self.attention
        }
    }

    /// Splits off the gate.
    fn split(&self, packed: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        if !self.has_gate {
            return Ok((packed.clone(), None));
        }
        let (own, gate) = split_gate(packed, self.attention.heads)?;
        Ok((own, Some(gate)))
    }

    fn query_key<'a>(&'a self, positions: &'a Tensor) -> QueryKeyContext<'a> {
        // A layer without keys has no key norm.
        let key = |(query, key): &'a (NormWeight, Option<NormWeight>)| {
            &key.as_ref().unwrap_or(query).weight
        };
        let norms = self
            .head_norms
            .as_ref()
            .map(|norms| (&norms.0.weight, key(norms)));
        let (norm_offset, epsilon) = (self.norm_offset, self.epsilon);
        let own = self.attention.heads;
        let heads = if self.keys_values.other_layer().is_some() {
            Heads {
                key_value: 0,
                ..own
            }
        } else {
            own
        };
        QueryKeyContext {
            heads,
            norms,
            norm_offset,
            epsilon,
            positions,
            table: &self.rope,
        }
    }
}

fn gated(attended: &Tensor, gate: Option<&Tensor>, adapter_columns: usize) -> Result<Tensor> {
    gate.map_or(Ok(attended.clone()), |gate| {
        gated_attention(attended, gate, adapter_columns)
    })
}
