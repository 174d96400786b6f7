//! Per-layer inputs in some families: made from tokens and embeddings for all layers at once, added
//! by each after its feed-forward block.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::gradients::Gradients;
use super::linear::Linear;
use super::norm::NormWeight;
use super::{AdapterUse, Adapters};
use crate::kernels::embedding::{Table, embedding_backward};
use crate::kernels::rms_norm::rms_norm;
use crate::kernels::swiglu::{Activation, gated, gated_backward};
use crate::kernels::write_rows::join_columns;

/// Produces the inputs of all layers.
#[derive(Clone, Debug)]
pub(super) struct LayerInputs {
    /// [vocabulary, layers * width]; frozen, possibly bf16 in an f32 model.
    pub(super) table: (Table, Option<Range<usize>>),
    /// Scale of its rows.
    pub(super) table_scale: f64,
    /// [layers * width, hidden].
    pub(super) projection: Linear,
    /// Norm of each layer's part.
    pub(super) norm: NormWeight,
}

impl LayerInputs {
    /// `embedded`: [ids, hidden], start of the stream -> [ids, layers * width].
    pub(super) fn forward(&self, token_ids: &Tensor, embedded: &Tensor) -> Result<Tensor> {
        let embedded = embedded.to_dtype(self.dtype())?;
        let by_token = self.table.0.gather(token_ids, self.dtype())?;
        let by_token = by_token.affine(self.table_scale, 0.0)?;
        let normed = rms_norm(&self.projected(&embedded)?, self.norm.norm(), 0)?;
        (normed.reshape(by_token.shape())? + by_token)?.affine(MEAN, 0.0)
    }

    /// `gradient`: [ids, layers * width] of the inputs -> of `embedded`. Adds gradients of trained
    /// weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        (token_ids, embedded): (&[u32], &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let embedded = &embedded.to_dtype(self.dtype())?;
        let gradient = gradient.to_dtype(self.dtype())?.affine(MEAN, 0.0)?;
        if let (Table::Tensor { tensor, .. }, Some(range)) = &self.table {
            let sums = embedding_backward(&gradient, token_ids, tensor.dims2()?.0)?;
            gradients.add(range, &sums.affine(self.table_scale, 0.0)?)?;
        }
        let projected = self.projected(embedded)?;
        let own = self.norm.backward(
            &gradient.reshape(projected.shape())?,
            &projected,
            None,
            0,
            gradients,
        )?;
        let own = own
            .affine(projection_scale(embedded)?, 0.0)?
            .reshape(gradient.shape())?;
        self.projection.backward(&own, embedded, gradients)
    }

    /// The model's; the stream may be f32 in a bf16 model.
    fn dtype(&self) -> DType {
        self.norm.weight.dtype()
    }

    /// [ids * layers, width].
    fn projected(&self, embedded: &Tensor) -> Result<Tensor> {
        let product = self.projection.forward(embedded, Adapters::Off.into())?;
        let (ids, all) = product.dims2()?;
        let width = self.norm.weight.dims1()?;
        product
            .affine(projection_scale(embedded)?, 0.0)?
            .reshape((ids * all / width, width))
    }
}

/// Scale of the sum of two parts with unit variance.
const MEAN: f64 = std::f64::consts::FRAC_1_SQRT_2;

fn projection_scale(embedded: &Tensor) -> Result<f64> {
    Ok(1.0 / (embedded.dims2()?.1 as f64).sqrt())
}

/// A layer's use of its input: gated by the stream, then a second matrix and a norm.
#[derive(Clone, Debug)]
pub(super) struct OwnInput {
    /// [width, hidden].
    pub(super) gate: Linear,
    pub(super) activation: Activation,
    /// [hidden, width].
    pub(super) projection: Linear,
    pub(super) norm: NormWeight,
}

/// Saved for the backward.
#[derive(Debug)]
pub(super) struct OwnInputProducts {
    /// [rows, hidden], in the model's dtype.
    stream: Tensor,
    /// Gate product and input: [rows, 2 * width].
    gate_input: Tensor,
    /// Input of the norm, [rows, hidden].
    output: Tensor,
}

impl OwnInput {
    /// `stream`: [rows, hidden], `input`: [rows, width] -> saved products, and the new stream.
    pub(super) fn forward(
        &self,
        stream: Tensor,
        input: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<(OwnInputProducts, Tensor)> {
        let read = stream.to_dtype(input.dtype())?;
        let gate_input = join_columns(&[&self.gate.forward(&read, adapters)?, input])?;
        let output = self
            .projection
            .forward(&gated(&gate_input, self.activation, 0)?, adapters)?;
        let sum = (&stream + rms_norm(&output, self.norm.norm(), 0)?.to_dtype(stream.dtype())?)?;
        Ok((
            OwnInputProducts {
                stream: read,
                gate_input,
                output,
            },
            sum,
        ))
    }

    /// `gradient`: [rows, hidden] -> of stream and input. Adds gradients of trained weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        products: &OwnInputProducts,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, Tensor)> {
        let OwnInputProducts {
            stream,
            gate_input,
            output,
        } = products;
        let own = self.norm.backward(gradient, output, None, 0, gradients)?;
        let own =
            self.projection
                .backward(&own, &gated(gate_input, self.activation, 0)?, gradients)?;
        let own = gated_backward(&own, gate_input, self.activation, 0)?;
        let width = own.dims2()?.1 / 2;
        let part = |start| join_columns(&[&own.narrow(1, start, width)?]);
        let (gate, input) = (part(0)?, part(width)?);
        let stream_gradient = (gradient + self.gate.backward(&gate, stream, gradients)?)?;
        Ok((stream_gradient, input))
    }
}
