//! Keys and values of a layer: separate projections, in some families one for both, or an earlier
//! layer's; values may be normed.

use candle_core::{Result, Tensor};

use super::norm::NormWeight;
use crate::hub;
use crate::kernels::heads::Heads;
use crate::kernels::rms_norm::{rms_norm, rms_norm_backward};
use crate::kernels::write_rows::join_columns;

#[derive(Clone, Debug)]
pub(super) struct KeysValues {
    pub(super) source: hub::KeysValues,
    /// Weightless norm of value heads.
    pub(super) norm: Option<NormWeight>,
}

impl KeysValues {
    /// Whether a packed row already has the queries, keys and values.
    pub(super) fn are_products(&self) -> bool {
        self.source == hub::KeysValues::Own && self.norm.is_none()
    }

    /// Whether values are derived from this layer's projections.
    pub(super) fn are_expanded(&self) -> bool {
        !self.are_products() && self.other_layer().is_none()
    }

    /// The earlier layer whose keys and values are used.
    pub(super) fn other_layer(&self) -> Option<usize> {
        match self.source {
            hub::KeysValues::OfLayer(layer) => Some(layer),
            _ => None,
        }
    }

    /// `products`: [rows, outputs] -> queries, keys and values, [rows, row_width]; only queries if
    /// a layer uses another's.
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

    /// `gradient`: of the result of [`KeysValues::expand`] -> of `products`, [rows, outputs +
    /// adapter_columns]; if nothing was expanded, both have adapter columns.
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
        let values = values.reshape((rows, key))?;
        let keys = gradient.narrow(1, query, key)?;
        let queries = gradient.narrow(1, 0, query)?;
        let shape = (rows, adapter_columns);
        let empty = Tensor::zeros(shape, gradient.dtype(), gradient.device())?;
        match self.source {
            hub::KeysValues::AreKeys => join_columns(&[&queries, &(keys + values)?, &empty]),
            _ => join_columns(&[&queries, &keys, &values, &empty]),
        }
    }

    /// Projections from which values are made, [rows * value heads, dimension].
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
