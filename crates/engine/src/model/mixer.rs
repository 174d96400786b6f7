//! Token mixer of a layer: attention, or the gated delta rule. Input and output are each one
//! (packed) matrix product.

use candle_core::{Result, Tensor, bail};

use super::attention::AttentionMixer;
use super::gated_delta::GatedDeltaMixer;
use super::gradients::Gradients;
use super::mixed_inputs::{MixedInputs, MixerActivations};
use super::packed_batch::RowContext;
use crate::kernels::attention::AttentionOutput;
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::open_rows::OpenRows;

#[derive(Clone, Debug)]
pub(super) enum Mixer {
    Attention(Box<AttentionMixer>),
    GatedDelta(Box<GatedDeltaMixer>),
}

/// Saved for the backward, besides the input.
#[derive(Debug)]
pub(super) enum Mixed {
    Attention(AttentionOutput),
    /// The rule's output, [rows, value_width].
    GatedDelta(Tensor),
}

/// Cache of prefilled rows.
#[derive(Debug)]
pub(crate) enum PrefilledRows {
    /// [rows, 2 * key_width].
    KeysValues(Tensor),
    /// None: an earlier layer's keys and values are used.
    Nothing,
    /// States after each segment, [segments, width] each.
    States([Tensor; 2]),
}

/// Cache size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheWidth {
    /// Keys and values per token.
    Token(usize),
    /// None: those of this earlier layer are used.
    OfLayer(usize),
    /// State per sequence: of convolution and rule.
    Sequence([usize; 2]),
}

/// Cache of earlier tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CacheView<'a> {
    /// Keys and values of prompts, [prompt rows, 2 * key_width], and of decoded tokens, [slots, 2 *
    /// key_width].
    KeysValues(&'a Tensor, &'a Tensor),
    /// [slots, width] each.
    States(&'a [Tensor; 2]),
}

impl Mixer {
    /// `packed`: [rows, inputs].
    pub(super) fn forward(
        &self,
        packed: &Tensor,
        context: RowContext<'_>,
        adapter_columns: usize,
    ) -> Result<(Mixed, MixedInputs)> {
        match self {
            Self::Attention(mixer) => {
                let (attended, inputs) = mixer.forward(packed, context, adapter_columns)?;
                Ok((Mixed::Attention(attended), inputs))
            }
            Self::GatedDelta(mixer) => {
                let (mixed, inputs) = mixer.forward(packed, context.segments, adapter_columns)?;
                Ok((Mixed::GatedDelta(mixed), inputs))
            }
        }
    }

    /// Recomputes activations of [`Mixer::forward`].
    pub(super) fn derive(
        &self,
        packed: &Tensor,
        mixed: &Mixed,
        context: RowContext<'_>,
        adapter_columns: usize,
    ) -> Result<MixedInputs> {
        match (self, mixed) {
            (Self::Attention(mixer), Mixed::Attention(attended)) => {
                mixer.derive(packed, attended, context, adapter_columns)
            }
            (Self::GatedDelta(mixer), Mixed::GatedDelta(mixed)) => {
                mixer.derive(packed, mixed, context.segments, adapter_columns)
            }
            _ => other_mixer(),
        }
    }

    /// Whether decoding needs complete rows, in the model's dtype.
    pub(super) fn reads_complete(&self) -> bool {
        match self {
            Self::Attention(mixer) => mixer.has_gate || !mixer.keys_values.are_products(),
            Self::GatedDelta(_) => true,
        }
    }

    /// Whether the output is gated by part of the input: [`Mixer::derive`] recomputes it.
    pub(super) fn has_gate(&self) -> bool {
        match self {
            Self::Attention(mixer) => mixer.has_gate,
            Self::GatedDelta(_) => true,
        }
    }

    /// `gradient`: [rows, width] -> gradient of `packed`, [rows, inputs + adapter_columns]. Adds
    /// gradients of trained weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        MixerActivations {
            packed,
            mixed,
            prepared,
        }: MixerActivations<'_, Mixed>,
        context: RowContext<'_>,
        adapter_columns: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        match (self, mixed) {
            (Self::Attention(mixer), Mixed::Attention(attended)) => {
                let activations = MixerActivations {
                    packed,
                    mixed: attended,
                    prepared,
                };
                mixer.backward(gradient, activations, context, adapter_columns, gradients)
            }
            (Self::GatedDelta(mixer), Mixed::GatedDelta(mixed)) => mixer.backward(
                gradient,
                MixerActivations {
                    packed,
                    mixed,
                    prepared,
                },
                context.segments,
                adapter_columns,
                gradients,
            ),
            _ => other_mixer(),
        }
    }

    /// Cache of a forward's rows.
    pub(super) fn prefilled(
        &self,
        packed: &Tensor,
        inputs: &MixedInputs,
        context: RowContext<'_>,
    ) -> Result<PrefilledRows> {
        match self {
            Self::Attention(mixer) if mixer.keys_values.other_layer().is_some() => {
                Ok(PrefilledRows::Nothing)
            }
            Self::Attention(mixer) => Ok(PrefilledRows::KeysValues(
                mixer.keys_values(&inputs.prepared)?,
            )),
            Self::GatedDelta(mixer) => Ok(PrefilledRows::States(mixer.states(
                packed,
                &inputs.prepared,
                context.segments,
            )?)),
        }
    }

    /// One new token per row -> [rows, width].
    pub(super) fn decode(
        &self,
        packed: &OpenRows,
        positions: &Tensor,
        cache: CacheView<'_>,
        rows: &DecodeRows,
    ) -> Result<Tensor> {
        match (self, cache) {
            (Self::Attention(mixer), CacheView::KeysValues(prompts, written)) => {
                mixer.decode(packed, positions, (prompts, written), rows)
            }
            (Self::GatedDelta(mixer), CacheView::States(states)) => {
                mixer.decode(&packed.rows, states, rows)
            }
            _ => other_mixer(),
        }
    }

    pub(super) fn cache_width(&self) -> CacheWidth {
        match self {
            Self::Attention(mixer) => match mixer.keys_values.other_layer() {
                Some(layer) => CacheWidth::OfLayer(layer),
                None => CacheWidth::Token(2 * mixer.attention.heads.key_width()),
            },
            Self::GatedDelta(mixer) => CacheWidth::Sequence(mixer.state_widths()),
        }
    }
}

fn other_mixer<T>() -> Result<T> {
    bail!("activations or a cache of another mixer")
}
