//! A decoder layer, forward and backward: norm, mixer, norm, feed-forward, each with a residual
//! addition, in some families after another norm; some also have a per-layer input, and a scale.

use candle_core::{Result, Tensor, bail};

use super::adapter::{AdapterSet, AdapterUse};
use super::expert_stack::{Stack, StackWeights};
use super::experts::RouterUse;
use super::feed_forward::{FeedForward, Products};
use super::gradients::Gradients;
use super::layer_input::{OwnInput, OwnInputProducts};
use super::linear::Linear;
use super::mixed_inputs::{MixedInputs, MixerActivations};
use super::mixer::{CacheView, CacheWidth, Mixed, Mixer, PrefilledRows};
use super::norm::NormWeight;
use super::packed_batch::RowContext;
use crate::kernels::accumulate::accumulate;
use crate::kernels::adamw::MatrixCopy;
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::rms_norm::{add_rms_norm, rms_norm, rms_norm_open};
use crate::kernels::router::Selection;
use crate::kernels::write_rows::join_columns;

/// The residual stream between layers, [rows, hidden]: the next norm's kernel performs the
/// addition.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    sum: Tensor,
    /// Pending residual of the previous layer.
    addend: Option<OpenRows>,
}

impl Stream {
    pub(super) fn start(sum: Tensor) -> Self {
        Self { sum, addend: None }
    }

    /// The sum, and its norm: [rows, hidden + adapter_columns].
    pub(super) fn norm(
        &self,
        weight: &NormWeight,
        adapter_columns: usize,
    ) -> Result<(Tensor, Tensor)> {
        match &self.addend {
            Some(addend) => add_rms_norm(&self.sum, addend, weight.norm(), adapter_columns),
            None => Ok((
                self.sum.clone(),
                rms_norm(&self.sum, weight.norm(), adapter_columns)?,
            )),
        }
    }

    /// The sum, if the addend is complete: after a norm.
    fn complete(self) -> Result<Tensor> {
        match self.addend {
            Some(addend) => &self.sum + addend.rows.to_dtype(self.sum.dtype())?,
            None => Ok(self.sum),
        }
    }
}

/// Scale of the stream after a layer.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    /// [1].
    pub(super) stored: Tensor,
    pub(super) value: f64,
}

/// One new token per row, with its inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewestRows<'a> {
    /// `[rows]`, u32.
    pub(crate) positions: &'a Tensor,
    pub(crate) rows: &'a DecodeRows,
    /// Extended by the tokens.
    pub(crate) cache: CacheView<'a>,
    /// Per-layer input, [rows, width], in some families.
    pub(crate) input: Option<&'a Tensor>,
    pub(crate) selection: Selection<'a>,
    pub(crate) adapters: AdapterUse<'a>,
}

/// Weights of a layer. The mixer's input is the product of one packed matrix.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) input_norm: NormWeight,
    pub(super) mixer_input: Linear,
    pub(super) mixer: Mixer,
    pub(super) mixer_output: Linear,
    /// Norm after the mixer, in some families.
    pub(super) mixer_output_norm: Option<NormWeight>,
    pub(super) middle_norm: NormWeight,
    pub(super) feed_forward: FeedForward,
    /// Norm after the feed-forward block, in some families.
    pub(super) down_norm: Option<NormWeight>,
    /// Per-layer input, added after the feed-forward block in some families.
    pub(super) own_input: Option<OwnInput>,
    pub(super) factor: Option<Factor>,
}

/// Saved for the backward; with [`DerivedActivations`] no matmul is repeated.
#[derive(Debug)]
pub(super) struct LayerActivations {
    input: Tensor,
    packed: Tensor,
    mixed: Mixed,
    /// Mixer output, if a norm follows.
    mixer_output: Option<Tensor>,
    middle: Tensor,
    products: Products,
    /// Feed-forward output, if a norm follows.
    down: Option<Tensor>,
    own_input: Option<OwnInputProducts>,
}

/// Activations recomputed by norms, rotation and activation function: a third of a layer's bytes in
/// bf16.
#[derive(Debug)]
pub(super) struct DerivedActivations {
    normed: Tensor,
    mixed: MixedInputs,
    middle_normed: Tensor,
    activated: Tensor,
}

impl LayerActivations {
    /// Router statistics, if known to the host.
    pub(super) fn router_use(&self) -> Result<Option<RouterUse>> {
        self.products.router_use(self.middle.dims2()?.0)
    }

    /// The layer's input, from which the rest can be recomputed.
    pub(super) fn into_input(self) -> Tensor {
        self.input
    }
}

impl Layer {
    /// The stream after the layer, and what [`Layer::backward`] needs.
    pub(super) fn forward(
        &self,
        stream: Stream,
        context: RowContext<'_>,
    ) -> Result<(Stream, LayerActivations, DerivedActivations)> {
        let (input, normed) = stream.norm(&self.input_norm, self.mixer_input.adapter_columns())?;
        drop(stream);
        let packed = self.mixer_input.forward(&normed, context.adapters)?;
        let (mixed, inputs) =
            self.mixer
                .forward(&packed, context, self.mixer_output.adapter_columns())?;
        let output = self
            .mixer_output
            .forward(&inputs.output, context.adapters)?;
        let (addend, mixer_output) = added(output, self.mixer_output_norm.as_ref())?;
        let adapter_columns = self.feed_forward.input().adapter_columns();
        let (middle, middle_normed) =
            add_rms_norm(&input, &addend, self.middle_norm.norm(), adapter_columns)?;
        let (products, activated, output) = self.feed_forward.forward(
            (&middle, &middle_normed),
            context.selection,
            context.adapters,
        )?;
        let (addend, down) = added(output, self.down_norm.as_ref())?;
        let stream = Stream {
            sum: middle.clone(),
            addend: Some(addend),
        };
        let (stream, own_input) = self.finished(stream, context.beside.input, context.adapters)?;
        let saved = LayerActivations {
            input,
            packed,
            mixed,
            mixer_output,
            middle,
            products,
            down,
            own_input,
        };
        Ok((
            stream,
            saved,
            DerivedActivations {
                normed,
                mixed: inputs,
                middle_normed,
                activated,
            },
        ))
    }

    /// Adds the per-layer input's part, then scales.
    fn finished(
        &self,
        stream: Stream,
        input: Option<&Tensor>,
        adapters: AdapterUse<'_>,
    ) -> Result<(Stream, Option<OwnInputProducts>)> {
        let (own, factor) = (self.own_input.as_ref().zip(input), self.factor.as_ref());
        if own.is_none() && factor.is_none() {
            return Ok((stream, None));
        }
        let (mut sum, mut products) = (stream.complete()?, None);
        if let Some((own, input)) = own {
            let (saved, with_own) = own.forward(sum, input, adapters)?;
            (products, sum) = (Some(saved), with_own);
        }
        let sum = factor.map_or(Ok(sum.clone()), |factor| sum.affine(factor.value, 0.0))?;
        Ok((Stream::start(sum), products))
    }

    /// Backward of [`Layer::finished`].
    fn finished_backward(
        &self,
        gradient: &Tensor,
        products: Option<&OwnInputProducts>,
        input_gradient: Option<&Tensor>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let gradient = self
            .factor
            .as_ref()
            .map_or(Ok(gradient.clone()), |factor| {
                gradient.affine(factor.value, 0.0)
            })?;
        let Some((own, products)) = self.own_input.as_ref().zip(products) else {
            return Ok(gradient);
        };
        let (gradient, own) = own.backward(&gradient, products, gradients)?;
        input_gradient.map_or(Ok(()), |sum| accumulate(sum, &own))?;
        Ok(gradient)
    }

    /// Keys and values used by other layers, [rows, 2 * key_width].
    pub(super) fn keys_values(&self, derived: &DerivedActivations) -> Result<Tensor> {
        match &self.mixer {
            Mixer::Attention(mixer) => {
                join_columns(&[&mixer.keys_values(&derived.mixed.prepared)?])
            }
            Mixer::GatedDelta(_) => {
                bail!("the gated delta rule has no keys and values that others read")
            }
        }
    }

    /// Recomputes activations of [`Layer::forward`].
    pub(super) fn derive(
        &self,
        saved: &LayerActivations,
        context: RowContext<'_>,
    ) -> Result<DerivedActivations> {
        let norm = |input: &Tensor, norm: &NormWeight, linear: &Linear| {
            linear.with_inner(
                rms_norm(input, norm.norm(), linear.adapter_columns())?,
                context.adapters,
            )
        };
        let mut mixed = self.mixer.derive(
            &saved.packed,
            &saved.mixed,
            context,
            self.mixer_output.adapter_columns(),
        )?;
        if self.mixer.has_gate() {
            mixed.output = self
                .mixer_output
                .with_inner(mixed.output, context.adapters)?;
        }
        Ok(DerivedActivations {
            normed: norm(&saved.input, &self.input_norm, &self.mixer_input)?,
            mixed,
            middle_normed: norm(&saved.middle, &self.middle_norm, self.feed_forward.input())?,
            activated: self
                .feed_forward
                .derive(&saved.products, context.adapters)?,
        })
    }

    /// Cache of a forward's rows.
    pub(super) fn prefilled(
        &self,
        saved: &LayerActivations,
        derived: &DerivedActivations,
        context: RowContext<'_>,
    ) -> Result<PrefilledRows> {
        self.mixer.prefilled(&saved.packed, &derived.mixed, context)
    }

    pub(crate) fn decode(&self, stream: &Stream, newest: NewestRows<'_>) -> Result<Stream> {
        let NewestRows {
            positions,
            rows,
            cache,
            input: own_input,
            selection,
            adapters,
        } = newest;
        let (input, normed) = stream.norm(&self.input_norm, 0)?;
        let packed = match self.mixer.reads_complete() {
            true => OpenRows::complete(self.mixer_input.complete(&normed, adapters)?),
            false => self.mixer_input.open(&normed, adapters)?,
        };
        let mixed = self.mixer.decode(&packed, positions, cache, rows)?;
        let attention = self.mixer_output.open(&mixed, adapters)?;
        let attention = added_open(attention, self.mixer_output_norm.as_ref())?;
        let (sum, normed) = add_rms_norm(&input, &attention, self.middle_norm.norm(), 0)?;
        let addend = added_open(
            self.feed_forward
                .decode((&sum, &normed), selection, adapters)?,
            self.down_norm.as_ref(),
        )?;
        Ok(self
            .finished(
                Stream {
                    sum,
                    addend: Some(addend),
                },
                own_input,
                adapters,
            )?
            .0)
    }

    /// Whether a router selects experts.
    pub(super) fn has_experts(&self) -> bool {
        matches!(self.feed_forward, FeedForward::Experts(_))
    }

    /// Whether its experts on a GPU, if any, are in MXFP4.
    pub(super) fn keeps_mxfp4(&self) -> bool {
        let is_mxfp4 = |stack: &Stack| matches!(stack.weights, StackWeights::Mxfp4(_));
        self.feed_forward.stacks().into_iter().all(is_mxfp4)
    }

    /// Copies of adapters.
    pub(super) fn copies(&self) -> Result<Vec<MatrixCopy>> {
        let linears = [
            vec![&self.mixer_input, &self.mixer_output],
            self.feed_forward.adapted(),
        ]
        .concat();
        let copies = linears.iter().map(|linear| {
            linear
                .adapters
                .as_ref()
                .map_or(Ok(Vec::new()), AdapterSet::copies)
        });
        let of_experts = self.feed_forward.stacks().into_iter().map(Stack::copies);
        Ok(copies
            .chain(of_experts)
            .collect::<Result<Vec<_>>>()?
            .concat())
    }

    /// Additional columns of the result's gradient.
    pub(super) fn gradient_adapter_columns(&self) -> usize {
        if self.down_norm.is_some() {
            0
        } else {
            self.feed_forward.gradient_adapter_columns()
        }
    }

    /// Cache size.
    pub(crate) fn cache_width(&self) -> CacheWidth {
        self.mixer.cache_width()
    }

    /// `gradient`: [rows, hidden + adapter_columns] of the layer's result. Adds gradients of
    /// trained weights, returns the input's, [rows, hidden + adapter_columns].
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        saved: &LayerActivations,
        derived: &DerivedActivations,
        context: RowContext<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (own_input, input_gradient) = (saved.own_input.as_ref(), context.beside.input_gradient);
        let gradient = &self.finished_backward(gradient, own_input, input_gradient, gradients)?;
        let down_norm = self.down_norm.as_ref().zip(saved.down.as_ref());
        let down_gradient = output_backward(
            down_norm,
            gradient,
            self.feed_forward.gradient_adapter_columns(),
            gradients,
        )?;
        let inputs = (&saved.middle, &derived.middle_normed);
        let products = (&saved.products, &derived.activated);
        let (normed_gradient, around) =
            self.feed_forward
                .backward(&down_gradient, inputs, products, gradients)?;
        let gradient = &around.map_or(Ok(gradient.clone()), |around| gradient + around)?;
        let mixer_norm = self
            .mixer_output_norm
            .as_ref()
            .zip(saved.mixer_output.as_ref());
        let output_columns = self.mixer_output.adapter_columns();
        let adapter_columns = if mixer_norm.is_some() {
            0
        } else {
            output_columns
        };
        let middle_gradient = self.middle_norm.backward(
            &normed_gradient,
            &saved.middle,
            Some(gradient),
            adapter_columns,
            gradients,
        )?;

        let mixer_gradient =
            output_backward(mixer_norm, &middle_gradient, output_columns, gradients)?;
        let mixed_gradient =
            self.mixer_output
                .backward(&mixer_gradient, &derived.mixed.output, gradients)?;
        let activations = MixerActivations {
            packed: &saved.packed,
            mixed: &saved.mixed,
            prepared: &derived.mixed.prepared,
        };
        let packed_gradient = self.mixer.backward(
            &mixed_gradient,
            activations,
            context,
            self.mixer_input.adapter_columns(),
            gradients,
        )?;
        let normed_gradient =
            self.mixer_input
                .backward(&packed_gradient, &derived.normed, gradients)?;
        let (around, adapter_columns) = (Some(&middle_gradient), self.gradient_adapter_columns());
        self.input_norm.backward(
            &normed_gradient,
            &saved.input,
            around,
            adapter_columns,
            gradients,
        )
    }
}

/// A layer's residual, and its norm's input, if any.
fn added(output: Tensor, norm: Option<&NormWeight>) -> Result<(OpenRows, Option<Tensor>)> {
    match norm {
        Some(norm) => Ok((
            OpenRows::complete(rms_norm(&output, norm.norm(), 0)?),
            Some(output),
        )),
        None => Ok((OpenRows::complete(output), None)),
    }
}

/// As [`added`], for decoding.
fn added_open(output: OpenRows, norm: Option<&NormWeight>) -> Result<OpenRows> {
    match norm {
        Some(norm) => Ok(OpenRows::complete(rms_norm_open(&output, norm.norm())?)),
        None => Ok(output),
    }
}

/// Backward of a residual's norm, if any: `gradient` of the stream -> [rows, hidden +
/// adapter_columns].
fn output_backward(
    norm: Option<(&NormWeight, &Tensor)>,
    gradient: &Tensor,
    adapter_columns: usize,
    gradients: &mut Gradients,
) -> Result<Tensor> {
    match norm {
        Some((norm, output)) => norm.backward(gradient, output, None, adapter_columns, gradients),
        None => Ok(gradient.clone()),
    }
}
