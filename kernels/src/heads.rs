//! How rows of queries, keys and values divide into heads.

use candle_core::Tensor;
#[cfg(feature = "cuda")]
use candle_core::{DType, Result, bail};

#[cfg(feature = "cuda")]
use super::cuda::{Argument, at};

/// The layout of a packed row of queries, keys and values: `(query + 2 * key_value) * dimension` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key heads, and as many value heads; each serves `query / key_value` query heads.
    pub key_value: usize,
    /// Numbers a head.
    pub dimension: usize,
}

impl Heads {
    /// Numbers in a packed row.
    pub fn row_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.dimension
    }

    /// Numbers in a row of queries.
    pub fn query_width(&self) -> usize {
        self.query * self.dimension
    }

    /// Numbers in a row of keys (or of values).
    pub fn key_width(&self) -> usize {
        self.key_value * self.dimension
    }
}

/// Parameters of attention: the divisor of the scores, how many tokens a query sees, and its sinks.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    pub heads: Heads,
    /// Products of queries and keys are divided by it.
    pub divisor: f64,
    /// The tokens that a query sees, its own and the last ones before it; `None`: all before it.
    pub window: Option<usize>,
    /// By query head one more score of each of its rows, which takes probability and has no value: `[query heads]`.
    pub sinks: Option<&'a Tensor>,
}

impl Attention<'_> {
    /// The first of `keys` that the query at their end sees.
    pub(super) fn first_key(&self, keys: usize) -> usize {
        self.window.map_or(0, |window| keys.saturating_sub(window))
    }
}

impl From<Heads> for Attention<'_> {
    /// Products are divided by the root of a head's width; everything before a query is seen.
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
    /// The sinks for kernels that compute in `dtype`; null for none. A backward finds them in the sums that its forward left.
    pub(super) fn sinks_at(self, dtype: DType) -> Result<Argument> {
        match self.sinks {
            None => Ok(Argument::Address(0)),
            Some(sinks) if sinks.dims1()? == self.heads.query && sinks.dtype() == dtype => {
                at(sinks)
            }
            Some(sinks) => bail!(
                "sinks of {:?} {:?} for {:?} in {dtype:?}",
                sinks.shape(),
                sinks.dtype(),
                self.heads
            ),
        }
    }
}
