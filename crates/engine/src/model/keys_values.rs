//! Keys and values of a layer's attention: products of its own, in some families one product for both, or an earlier layer's;
//! values may be normed.

use candle_core::{Result, Tensor};

use super::norm::NormWeight;
use crate::hub;
use crate::kernels::heads::Heads;
use crate::kernels::rms_norm::{rms_norm, rms_norm_backward};
use crate::kernels::write_rows::join_columns;

#[derive(Clone, Debug)]
pub(super) struct KeysValues {
    pub(super) source: hub::KeysValues,
    /// The norm of each value head, whose weights are ones.
    pub(super) norm: Option<NormWeight>,
}

impl KeysValues {
    /// Whether a packed row has queries, keys and values as attention reads them.
    pub(super) fn are_products(&self) -> bool {
        self.source == hub::KeysValues::Own && self.norm.is_none()
    }

    /// Whether values are made from the layer's own products.
    pub(super) fn are_expanded(&self) -> bool {
        !self.are_products() && self.other_layer().is_none()
    }

    /// The earlier layer whose keys and values are read.
    pub(super) fn other_layer(&self) -> Option<usize> {
        match self.source {
            hub::KeysValues::OfLayer(layer) => Some(layer),
            _ => None,
        }
    }

    /// `products`: [rows, outputs] -> queries, keys and values, [rows, row_width]; of a layer that reads another's, queries.
    pub(super) fn expand(&self, products: &Tensor, heads: Heads) -> Result<Tensor> {
        if !self.are_expanded() {
            return Ok(products.clone());
        }
        let rows = products.dims2()?.0;
        let values = self.values(products, heads)?;
        let values = self
            .norm
            .as_ref()
            .map_or(Ok(values.clone()), |norm| rms_norm(&values, norm.norm(), 0))?;
        let before = products.narrow(1, 0, heads.query_width() + heads.key_width())?;
        join_columns(&[&before, &values.reshape((rows, heads.key_width()))?])
    }

    /// `gradient`: of what [`KeysValues::expand`] gave -> of `products`, [rows, outputs + adapter_columns]; where nothing was made of these,
    /// both have the adapter columns.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        products: &Tensor,
        heads: Heads,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        if !self.are_expanded() {
            return Ok(gradient.clone());
        }
        let (query, key, rows) = (heads.query_width(), heads.key_width(), products.dims2()?.0);
        let own = join_columns(&[&gradient.narrow(1, query + key, key)?])?
            .reshape((rows * heads.key_value, heads.dimension))?;
        let values = match &self.norm {
            Some(norm) => {
                rms_norm_backward(&own, &self.values(products, heads)?, norm.norm(), None, 0)?
            }
            None => own,
        };
        let (values, keys) = (
            values.reshape((rows, key))?,
            gradient.narrow(1, query, key)?,
        );
        let queries = gradient.narrow(1, 0, query)?;
        let shape = (rows, adapter_columns);
        let empty = Tensor::zeros(shape, gradient.dtype(), gradient.device())?;
        match self.source {
            hub::KeysValues::AreKeys => join_columns(&[&queries, &(keys + values)?, &empty]),
            _ => join_columns(&[&queries, &keys, &values, &empty]),
        }
    }

    /// The products that values are made of, [rows * value heads, dimension].
    fn values(&self, products: &Tensor, heads: Heads) -> Result<Tensor> {
        let behind = if self.source == hub::KeysValues::AreKeys {
            0
        } else {
            heads.key_width()
        };
        let own = products.narrow(1, heads.query_width() + behind, heads.key_width())?;
        join_columns(&[&own])?.reshape((products.dims2()?.0 * heads.key_value, heads.dimension))
    }
}
