//! How rows of queries, keys and values divide into heads.

/// How a packed row of queries, keys and values divides: `(query + 2 * key_value) * dimension` numbers.
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
