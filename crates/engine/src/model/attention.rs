//! The mixer of a layer with attention: norms of heads, rotary positions, attention, in some families a gate.

use candle_core::{Result, Tensor};

use super::gated_delta::MaybeTrained;
use super::gradients::Gradients;
use super::mixed_inputs::MixedInputs;
use super::norm::NormWeight;
use super::packed_batch::RowContext;
use crate::kernels::attention::{
    AttentionOutput, segment_attention, segment_attention_backward, segment_attention_backward_all,
};
use crate::kernels::attention_gate::{
    gated_attention, gated_attention_backward, join_gate, split_gate, split_gate_open,
};
use crate::kernels::decode_attention::{DecodeRows, decode_attention};
use crate::kernels::heads::Attention;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rope::{
    QueryKeyContext, RopeTable, query_key_rope, query_key_rope_backward, query_key_rope_backward_all,
    query_key_rope_open,
};

#[derive(Clone, Debug)]
pub(super) struct AttentionMixer {
    /// Without its sinks.
    pub(super) attention: Attention<'static>,
    /// `[query heads]`, where the family has them.
    pub(super) sinks: Option<MaybeTrained>,
    pub(super) rope: RopeTable,
    /// Norms of each query head and each key head, where the family has them.
    pub(super) head_norms: Option<(NormWeight, NormWeight)>,
    pub(super) norm_offset: f64,
    pub(super) epsilon: f64,
    /// Whether its output is multiplied by a gate, whose numbers stand beside the queries.
    pub(super) has_gate: bool,
}

impl AttentionMixer {
    pub(super) fn forward(
        &self,
        packed: &Tensor,
        context: RowContext<'_>,
        room: usize,
    ) -> Result<(AttentionOutput, MixedInputs)> {
        let (own, gate) = self.split(packed)?;
        let prepared = query_key_rope(&own, self.query_key(context.positions))?;
        // Beside a gate the room is behind its product.
        let own_room = if self.has_gate { 0 } else { room };
        let attended = segment_attention(&prepared, self.attention(), context.segments, own_room)?;
        let output = gated(&attended.rows, gate.as_ref(), room)?;
        Ok((attended, MixedInputs { prepared, output }))
    }

    pub(super) fn derive(
        &self,
        packed: &Tensor,
        attended: &AttentionOutput,
        context: RowContext<'_>,
        room: usize,
    ) -> Result<MixedInputs> {
        let (own, gate) = self.split(packed)?;
        let prepared = query_key_rope(&own, self.query_key(context.positions))?;
        Ok(MixedInputs { prepared, output: gated(&attended.rows, gate.as_ref(), room)? })
    }

    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        (packed, attended, prepared): (&Tensor, &AttentionOutput, &Tensor),
        context: RowContext<'_>,
        room: usize,
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
        let prepared_gradient = match self.sinks.as_ref().and_then(|(_, trained)| trained.as_ref()) {
            None => segment_attention_backward(&attended_gradient, prepared, attended, attention, segments)?,
            Some(range) => {
                let (prepared, sinks) =
                    segment_attention_backward_all(&attended_gradient, prepared, attention, segments)?;
                gradients.add(range, &sinks)?;
                prepared
            }
        };
        let own_room = if self.has_gate { 0 } else { room };
        let own_gradient = self.query_key_backward(&prepared_gradient, &own, context, own_room, gradients)?;
        match gate_gradient {
            Some(gate) => join_gate(&own_gradient, &gate, self.attention.heads, room),
            None => Ok(own_gradient),
        }
    }

    fn query_key_backward(
        &self,
        gradient: &Tensor,
        own: &Tensor,
        context: RowContext<'_>,
        room: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let query_key = self.query_key(context.positions);
        let trained =
            self.head_norms.as_ref().and_then(|(query, key)| query.trained.as_ref().zip(key.trained.as_ref()));
        let Some((query_range, key_range)) = trained else {
            return query_key_rope_backward(gradient, own, query_key, room);
        };
        let (own_gradient, query_gradient, key_gradient) = query_key_rope_backward_all(gradient, own, query_key)?;
        gradients.add(query_range, &query_gradient)?;
        gradients.add(key_range, &key_gradient)?;
        Ok(own_gradient)
    }

    /// Its keys and values also go to their place in `written`; it attends to them and to its prompt's.
    pub(super) fn decode(
        &self,
        packed: &OpenRows,
        positions: &Tensor,
        (prompts, written): (&Tensor, &Tensor),
        rows: &DecodeRows,
    ) -> Result<Tensor> {
        let gated_rows = self.has_gate.then(|| split_gate_open(&packed.rows, self.attention.heads)).transpose()?;
        let (own, gate) = match gated_rows {
            Some((own, gate)) => (&OpenRows::complete(own), Some(gate)),
            None => (packed, None),
        };
        let prepared = query_key_rope_open(own, self.query_key(positions), written, rows)?;
        let attended = decode_attention(&prepared, prompts, written, self.attention(), rows)?;
        gated(&attended, gate.as_ref(), 0)
    }

    /// The rotated keys, and the values: [rows, 2 * key_width], columns of wider rows.
    pub(super) fn keys_values(&self, prepared: &Tensor) -> Result<Tensor> {
        let heads = self.attention.heads;
        prepared.narrow(1, heads.query_width(), 2 * heads.key_width())
    }

    pub(super) fn input_parts(&self) -> [(&'static str, usize); 3] {
        let (query, key) = (self.attention.heads.query_width(), self.attention.heads.key_width());
        let query = if self.has_gate { 2 * query } else { query };
        [("self_attn.q_proj", query), ("self_attn.k_proj", key), ("self_attn.v_proj", key)]
    }

    pub(super) fn named(&self) -> Vec<(&'static str, Tensor)> {
        let norms = self.head_norms.iter();
        let named = |(query, key): &(NormWeight, NormWeight)| {
            [("self_attn.q_norm.weight", query.weight.clone()), ("self_attn.k_norm.weight", key.weight.clone())]
        };
        let sinks = self.sinks.iter().map(|(sinks, _)| ("self_attn.sinks", sinks.clone()));
        norms.flat_map(named).chain(sinks).collect()
    }

    fn attention(&self) -> Attention<'_> {
        Attention { sinks: self.sinks.as_ref().map(|(sinks, _)| sinks), ..self.attention }
    }

    /// Queries, keys and values, and the gate's numbers.
    fn split(&self, packed: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        if !self.has_gate {
            return Ok((packed.clone(), None));
        }
        let (own, gate) = split_gate(packed, self.attention.heads)?;
        Ok((own, Some(gate)))
    }

    fn query_key<'a>(&'a self, positions: &'a Tensor) -> QueryKeyContext<'a> {
        let norms = self.head_norms.as_ref().map(|(query, key)| (&query.weight, &key.weight));
        let (norm_offset, epsilon) = (self.norm_offset, self.epsilon);
        QueryKeyContext { heads: self.attention.heads, norms, norm_offset, epsilon, positions, table: &self.rope }
    }
}

fn gated(attended: &Tensor, gate: Option<&Tensor>, room: usize) -> Result<Tensor> {
    gate.map_or(Ok(attended.clone()), |gate| gated_attention(attended, gate, room))
}
