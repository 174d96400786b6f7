//! Decode attention, one new token per row: over its prompt's keys and values, shared by a group's
//! rows, and over its own earlier tokens.

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::attention::{sinks, softmax};
use super::cpu_slice::{by_number_type, in_place, numbers};
use super::gemm::{View, multiply};
use super::heads::{Attention, Heads};
use super::real::{add_scaled, dot, vectorised};

#[cfg(feature = "cuda")]
pub(super) mod gpu;

/// A row of a decode step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeRow {
    /// Index of its first own token in the suffix cache.
    pub first: usize,
    /// First row and length of its prompt in the prefix cache.
    pub prefix: (usize, usize),
    /// Own tokens in the suffix cache, including the newest.
    pub length: usize,
    /// State slots before and after its token, in a model with recurrent states.
    pub states: (usize, usize),
}

/// State slots of rows that only pad a recorded step.
pub const NO_STATE: u32 = u32::MAX;

/// Rows of a decode step: a list on the CPU, a table advanced by the step itself on a GPU.
#[derive(Clone, Debug)]
pub enum DecodeRows {
    Listed(Vec<DecodeRow>),
    /// A table on a GPU.
    Table {
        /// [rows, 4] of u32: first index, prefix start, prefix length, length.
        rows: Tensor,
        /// [rows, 2] of u32: [`DecodeRow::states`]; [`NO_STATE`] for padding rows, which repeat the
        /// previous one.
        states: Tensor,
        /// Maximum length of prompt + completion.
        longest: usize,
    },
}

impl DecodeRows {
    /// # Errors
    /// The rows are a table on a GPU.
    pub fn listed(&self) -> Result<&[DecodeRow]> {
        match self {
            Self::Listed(rows) => Ok(rows),
            Self::Table { .. } => bail!("rows on a GPU for tensors on the CPU"),
        }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn table(&self) -> Result<(&Tensor, usize)> {
        match self {
            Self::Listed(_) => bail!("listed rows for tensors on a GPU"),
            Self::Table { rows, longest, .. } => Ok((rows, *longest)),
        }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn states(&self) -> Result<&Tensor> {
        match self {
            Self::Listed(_) => bail!("listed rows for tensors on a GPU"),
            Self::Table { states, .. } => Ok(states),
        }
    }
}

/// Appends each row's newest keys and values to `cache`: [slots, 2 * key_width]. `packed`: [rows,
/// row_width], rotated.
pub(super) fn append_keys_values(
    cache: &Tensor,
    packed: &Tensor,
    heads: Heads,
    rows: &[DecodeRow],
) -> Result<()> {
    let (places, _) = cache.dims2()?;
    if rows
        .iter()
        .any(|row| row.length == 0 || row.first + row.length > places)
    {
        bail!("a row leaves the cache of {places} places")
    }
    by_number_type!(packed, append(cache, packed, heads, rows))
}

/// `packed`: [rows, row_width], rotated; `prefix`: [prompt rows, 2 * key_width]; `cache`: [slots,
/// 2 * key_width] -> [rows, query_width]. Adjacent rows of one prompt read its keys once.
pub fn decode_attention(
    packed: &Tensor,
    prefix: &Tensor,
    cache: &Tensor,
    attention: Attention<'_>,
    rows: &DecodeRows,
) -> Result<Tensor> {
    on_gpu!(packed => gpu::attend(packed, prefix, cache, attention, rows.table()?));
    by_number_type!(
        packed,
        attend(packed, prefix, cache, attention, rows.listed()?)
    )
}

fn append<T: Real>(
    cache: &Tensor,
    packed: &Tensor,
    heads: Heads,
    rows: &[DecodeRow],
) -> Result<()> {
    let size = 2 * heads.key_width();
    let append = in_place("append keys and values", |cache: &mut [T], packed: &[T]| {
        let packed = &packed[..rows.len() * heads.row_width()];
        for (row, new) in rows.iter().zip(packed.chunks_exact(heads.row_width())) {
            let to = (row.first + row.length - 1) * size;
            cache[to..to + size].copy_from_slice(&new[heads.query_width()..]);
        }
        Ok(())
    });
    cache.inplace_op2(packed, &append)
}

fn attend<T: Real>(
    packed: &Tensor,
    prefix: &Tensor,
    cache: &Tensor,
    attention: Attention<'_>,
    rows: &[DecodeRow],
) -> Result<Tensor> {
    let (heads, sinks) = (attention.heads, sinks::<T>(attention)?);
    numbers!(T: numbers = packed, prefixes = prefix, cached = cache);
    let mut output = vec![T::zero(); rows.len() * heads.query_width()];
    let (mut scores, mut queries, mut mixed) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0;
    for group in rows.chunk_by(|a, b| a.prefix == b.prefix) {
        for key_head in 0..heads.key_value {
            let work = GroupHead {
                attention,
                heads,
                group,
                first,
                key_head,
            };
            work.gather(numbers, &mut queries);
            work.score((&queries, &sinks), prefixes, cached, &mut scores);
            work.mix(&scores, prefixes, cached, &mut mixed);
            work.scatter(&mixed, &mut output);
        }
        first += group.len();
    }
    Tensor::from_vec(output, (rows.len(), heads.query_width()), packed.device())
}

/// Rows of one prompt, for one key head and its query heads.
struct GroupHead<'a> {
    attention: Attention<'a>,
    heads: Heads,
    group: &'a [DecodeRow],
    /// First row of the group in the batch.
    first: usize,
    key_head: usize,
}

impl GroupHead<'_> {
    fn sharing(&self) -> usize {
        self.heads.query / self.heads.key_value
    }

    /// Scores per query: prompt, then longest suffix.
    fn line(&self) -> usize {
        self.group[0].prefix.1 + self.group.iter().map(|row| row.length).max().unwrap_or(0)
    }

    /// Column of this head's keys (`part` 0) or values (1).
    fn column(&self, part: usize) -> usize {
        part * self.heads.key_width() + self.key_head * self.heads.dimension
    }

    /// The prompt's keys (`part` 0) or values (1) of this head.
    fn prompt(&self, part: usize) -> View {
        let (column, width) = (self.column(part), 2 * self.heads.key_width());
        let (start, length) = self.group[0].prefix;
        View::rows(start * width + column, length, self.heads.dimension, width)
    }

    /// A cached key (`part` 0) or value (1) of this head.
    fn cached<'c, T>(
        &self,
        cached: &'c [T],
        row: &DecodeRow,
        token: usize,
        part: usize,
    ) -> &'c [T] {
        let at = (row.first + token) * 2 * self.heads.key_width() + self.column(part);
        &cached[at..at + self.heads.dimension]
    }

    /// Queries [rows * sharing, dimension].
    fn gather<T: Real>(&self, numbers: &[T], queries: &mut Vec<T>) {
        queries.clear();
        let size = self.sharing() * self.heads.dimension;
        for index in 0..self.group.len() {
            let at = (self.first + index) * self.heads.row_width() + self.key_head * size;
            queries.extend_from_slice(&numbers[at..at + size]);
        }
    }

    /// Probabilities [rows * sharing, line] over prompt and suffix. `sinks`: of all query heads.
    fn score<T: Real>(
        &self,
        (queries, sinks): (&[T], &[T]),
        prefixes: &[T],
        cached: &[T],
        scores: &mut Vec<T>,
    ) {
        let lines = self.group.len() * self.sharing();
        let size = self.heads.dimension;
        let line = self.line();
        let prefix = self.group[0].prefix.1;
        let scale = T::constant(1.0 / self.attention.divisor);
        scores.resize(lines * line, T::zero());
        let target = View::rows(0, lines, prefix, line);
        multiply(
            (scores, target),
            (queries, View::rows(0, lines, size, size)),
            (prefixes, self.prompt(0).transposed()),
            scale,
            false,
        );
        vectorised!(|| {
            for (index, row) in self.group.iter().enumerate() {
                let first = self.attention.first_key(prefix + row.length);
                for line_index in index * self.sharing()..(index + 1) * self.sharing() {
                    let query = &queries[line_index * size..(line_index + 1) * size];
                    let scores =
                        &mut scores[line_index * line..line_index * line + prefix + row.length];
                    for token in first.saturating_sub(prefix)..row.length {
                        scores[prefix + token] =
                            dot(query, self.cached(cached, row, token, 0)) * scale;
                    }
                    let (before, seen) = scores.split_at_mut(first);
                    before.fill(T::zero());
                    softmax(
                        seen,
                        sinks[self.key_head * self.sharing() + line_index % self.sharing()],
                    );
                }
            }
        });
    }

    /// Values weighted by probabilities: [rows * sharing, dimension].
    fn mix<T: Real>(&self, scores: &[T], prefixes: &[T], cached: &[T], mixed: &mut Vec<T>) {
        let lines = self.group.len() * self.sharing();
        let size = self.heads.dimension;
        let line = self.line();
        let prefix = self.group[0].prefix.1;
        mixed.resize(lines * size, T::zero());
        multiply(
            (mixed, View::rows(0, lines, size, size)),
            (scores, View::rows(0, lines, prefix, line)),
            (prefixes, self.prompt(1)),
            T::one(),
            false,
        );
        vectorised!(|| {
            for (index, row) in self.group.iter().enumerate() {
                let first = self.attention.first_key(prefix + row.length);
                for line_index in index * self.sharing()..(index + 1) * self.sharing() {
                    let target = &mut mixed[line_index * size..(line_index + 1) * size];
                    for token in first.saturating_sub(prefix)..row.length {
                        add_scaled(
                            target,
                            scores[line_index * line + prefix + token],
                            self.cached(cached, row, token, 1),
                        );
                    }
                }
            }
        });
    }

    fn scatter<T: Real>(&self, mixed: &[T], output: &mut [T]) {
        let size = self.sharing() * self.heads.dimension;
        for (index, values) in mixed.chunks_exact(size).enumerate() {
            let at = (self.first + index) * self.heads.query_width() + self.key_head * size;
            output[at..at + size].copy_from_slice(values);
        }
    }
}
