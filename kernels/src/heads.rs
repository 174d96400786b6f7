//! Head layout of queries, keys and values.

use candle_core::Tensor;
#[cfg(feature = "cuda")]
use candle_core::{DType, Result, bail};

#[cfg(feature = "cuda")]
use super::cuda::{Argument, at};

/// Layout of a packed row of queries, keys and values: `(query + 2 * key_value) * dimension`
/// elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    /// Number of key heads, and of value heads; each serves `query / key_value` query heads.
    pub key_value: usize,
    /// Dimension of a head.
    pub dimension: usize,
}

impl Heads {
    /// Elements of a packed row.
    pub fn row_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.dimension
    }

    /// Elements of a row's queries.
    pub fn query_width(&self) -> usize {
        self.query * self.dimension
    }

    /// Elements of a row's keys (or values).
    pub fn key_width(&self) -> usize {
        self.key_value * self.dimension
    }
}

/// Parameters of attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    pub heads: Heads,
    /// Divisor of the scores.
    pub divisor: f64,
    /// Tokens attended to, including the query's own; `None`: all before it.
    pub window: Option<usize>,
    /// Additional score per query head without a value, which only takes probability: `[query
    /// heads]`.
    pub sinks: Option<&'a Tensor>,
}

impl Attention<'_> {
    /// The first of `keys` that a query at their end attends to.
    pub(super) fn first_key(&self, keys: usize) -> usize {
        self.window.map_or(0, |window| keys.saturating_sub(window))
    }
}

impl From<Heads> for Attention<'_> {
    /// Scores divided by the root of the head dimension, no window.
    fn from(heads: Heads) -> Self {
        Self {
            heads,
            divisor: (heads.dimension as f64).sqrt(),
            window: None,
            sinks: None,
        }
    }
}

#[cfg(feature = "cuda")]
impl Attention<'_> {
    /// The sinks for kernels that compute in `dtype`; null for none. A backward finds them in the
    /// forward's sums.
    pub(super) fn sinks_at(self, dtype: DType) -> Result<Argument> {
        match self.sinks {
            None => Ok(Argument::Address(0)),
            Some(sinks) if sinks.dims1()? == self.heads.query && sinks.dtype() == dtype => {
                at(sinks)
            }
            Some(sinks) => bail!("sinks of {sinks:?} for {:?} in {dtype:?}", self.heads),
        }
    }
}
