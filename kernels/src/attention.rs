//! Causal attention over packed segments; a completion's segment also attends to its prompt's
//! segment, computed once per group.

use candle_core::{Device, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::gemm::{View, multiply};
use super::heads::{Attention, Heads};
use super::matmul::no_adapter_columns;
use super::real::vectorised;

#[cfg(feature = "cuda")]
mod gpu;
#[cfg(any(test, feature = "cuda"))]
mod tiles;

/// Rows `start .. start + length` of a packed batch, each attending to itself, earlier rows of its
/// segment and, if set, every row of a prefix segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub start: usize,
    pub length: usize,
    /// First row and length of the shared prefix; (0, 0): none.
    pub prefix: (usize, usize),
}

impl Segment {
    /// The row `lag` tokens before token `token`, in the segment or its prefix.
    pub(super) fn row_before(&self, token: usize, lag: usize) -> Option<usize> {
        match token.checked_sub(lag) {
            Some(own) => Some(self.start + own),
            None => self
                .prefix
                .1
                .checked_sub(lag - token)
                .map(|row| self.prefix.0 + row),
        }
    }
}

/// A batch's segments, with tables for its device.
#[derive(Clone, Debug)]
pub struct Segments {
    list: Vec<Segment>,
    /// Tables on a GPU.
    #[cfg(feature = "cuda")]
    tables: Option<gpu::DeviceSegments>,
}

impl Segments {
    /// Segments for tensors on `device`; they must cover every row of the batch once.
    ///
    /// # Errors
    /// On a GPU, a prefix that is not one whole segment.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "only a GPU reads tables")
    )]
    pub fn new(list: Vec<Segment>, device: &Device) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "cuda")]
            tables: if device.is_cuda() {
                Some(gpu::DeviceSegments::new(&list, device)?)
            } else {
                None
            },
            list,
        })
    }

    /// Segments in batch order.
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// Returns [segments, 5] as in `tiles.rs`, and the segment of each row, on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) fn tables(&self) -> Result<[&Tensor; 2]> {
        match &self.tables {
            Some(tables) => Ok([&tables.segments, &tables.owners]),
            None => bail!("segments on the CPU for tensors on a GPU"),
        }
    }

    /// Returns chunks of 64 rows on a GPU: [chunks, 2] of segment and first row in it, and the
    /// first chunk per segment.
    #[cfg(feature = "cuda")]
    pub(super) fn chunks(&self) -> Result<[&Tensor; 2]> {
        match &self.tables {
            Some(tables) => Ok([&tables.chunks, &tables.first_chunks]),
            None => bail!("segments on the CPU for tensors on a GPU"),
        }
    }
}

/// Attention output, and on a GPU what its backward needs.
#[derive(Clone, Debug)]
pub struct AttentionOutput {
    /// [rows, query_width + adapter_columns], last `adapter_columns` columns unwritten (see
    /// [`super::matmul`]).
    pub rows: Tensor,
    /// Base-2 log-sum-exp of the scores on a GPU: [query heads, rows], f32.
    #[cfg(feature = "cuda")]
    log_sums: Option<Tensor>,
}

/// `packed`: [rows, row_width] of rotated queries and keys, and values.
pub fn segment_attention(
    packed: &Tensor,
    attention: Attention<'_>,
    segments: &Segments,
    adapter_columns: usize,
) -> Result<AttentionOutput> {
    check(packed, &segments.list)?;
    on_gpu!(packed => gpu::forward(packed, attention, segments, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    Ok(AttentionOutput {
        rows: by_number_type!(packed, forward(packed, attention, &segments.list))?,
        #[cfg(feature = "cuda")]
        log_sums: None,
    })
}

/// `gradient`: [rows, query_width] -> gradient of `packed`: [rows, row_width]. Recomputes the
/// probabilities.
#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "only a GPU reads what was attended")
)]
pub fn segment_attention_backward(
    gradient: &Tensor,
    packed: &Tensor,
    attended: &AttentionOutput,
    attention: Attention<'_>,
    segments: &Segments,
) -> Result<Tensor> {
    check(packed, &segments.list)?;
    on_gpu!(packed => gpu::backward(gradient, packed, attended, attention, segments));
    Ok(by_number_type!(
        packed,
        backward(gradient, packed, attention, &segments.list)
    )?
    .0)
}

/// As [`segment_attention_backward`], plus the gradient of the sinks, `[query heads]`; CPU only.
pub fn segment_attention_backward_all(
    gradient: &Tensor,
    packed: &Tensor,
    attention: Attention<'_>,
    segments: &Segments,
) -> Result<(Tensor, Tensor)> {
    check(packed, &segments.list)?;
    by_number_type!(
        packed,
        backward(gradient, packed, attention, &segments.list)
    )
}

fn check(packed: &Tensor, segments: &[Segment]) -> Result<()> {
    let (rows, _) = packed.dims2()?;
    let covered: usize = segments.iter().map(|segment| segment.length).sum();
    if covered != rows
        || segments
            .iter()
            .any(|s| s.start + s.length > rows || s.prefix.0 + s.prefix.1 > rows)
    {
        bail!("segments cover {covered} of {rows} rows, or leave them")
    }
    Ok(())
}

/// Position of a head's queries, keys and values of one segment in a packed row-major matrix.
struct HeadViews {
    query: View,
    /// Of the segment, and of its prefix.
    keys_values: [KeyValueViews; 2],
}

#[derive(Clone, Copy)]
struct KeyValueViews {
    key: View,
    value: View,
    /// Their columns in [length, prefix + length] of scores.
    scores: View,
}

fn head_views(heads: Heads, segment: Segment, head: usize) -> HeadViews {
    let (width, size) = (heads.row_width(), heads.dimension);
    let key_column = heads.query_width() + head / (heads.query / heads.key_value) * size;
    let value_column = key_column + heads.key_width();
    let (own, prefix) = ((segment.start, segment.length), segment.prefix);
    let rows = |(start, length), column| View::rows(start * width + column, length, size, width);
    let keys_values = |rows_of: (usize, usize), first_score| KeyValueViews {
        key: rows(rows_of, key_column),
        value: rows(rows_of, value_column),
        scores: View::rows(first_score, own.1, rows_of.1, prefix.1 + own.1),
    };
    HeadViews {
        query: rows(own, head * size),
        keys_values: [keys_values(own, prefix.1), keys_values(prefix, 0)],
    }
}

/// Additional scores in the softmax, one per head.
pub(super) fn sinks<T: Real>(attention: Attention<'_>) -> Result<Vec<T>> {
    let Some(sinks) = attention.sinks else {
        return Ok(vec![T::neg_infinity(); attention.heads.query]);
    };
    numbers!(T: numbers = sinks);
    if numbers.len() == attention.heads.query {
        Ok(numbers.to_vec())
    } else {
        bail!("{:?} for {:?}", sinks.shape(), attention.heads)
    }
}

/// Writes probabilities [length, prefix + length] of one head and segment to `scores`; 0 after a
/// row's own position and before its window.
fn probabilities<T: Real>(
    numbers: &[T],
    (attention, sink): (Attention<'_>, T),
    segment: Segment,
    views: &HeadViews,
    scores: &mut [T],
) {
    let prefix = segment.prefix.1;
    let width = prefix + segment.length;
    let scale = T::constant(1.0 / attention.divisor);
    for part in views.keys_values {
        multiply(
            (scores, part.scores),
            (numbers, views.query),
            (numbers, part.key.transposed()),
            scale,
            false,
        );
    }
    vectorised!(|| {
        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
            let (seen, hidden) = row.split_at_mut(prefix + i + 1);
            let (before, seen) = seen.split_at_mut(attention.first_key(prefix + i + 1));
            softmax(seen, sink);
            before.fill(T::zero());
            hidden.fill(T::zero());
        }
    });
}

/// `sink`: an additional score, whose probability is discarded.
#[inline(always)]
pub(super) fn softmax<T: Real>(row: &mut [T], sink: T) {
    let mut largest = sink;
    for &x in row.iter() {
        largest = if x > largest { x } else { largest };
    }
    let mut total = (sink - largest).exponential();
    for x in row.iter_mut() {
        *x = (*x - largest).exponential();
    }
    for &x in row.iter() {
        total += x;
    }
    let inverse = T::one() / total;
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

fn forward<T: Real>(
    packed: &Tensor,
    attention: Attention<'_>,
    segments: &[Segment],
) -> Result<Tensor> {
    let heads = attention.heads;
    let (rows, _) = packed.dims2()?;
    numbers!(T: numbers = packed);
    let out_width = heads.query_width();
    let mut output = vec![T::zero(); rows * out_width];
    let (sinks, mut scores) = (sinks::<T>(attention)?, Vec::new());
    for &segment in segments {
        let length = segment.length;
        scores.resize(length * (segment.prefix.1 + length), T::zero());
        for (head, &sink) in sinks.iter().enumerate() {
            let views = head_views(heads, segment, head);
            probabilities(numbers, (attention, sink), segment, &views, &mut scores);
            let target = View::rows(
                segment.start * out_width + head * heads.dimension,
                length,
                heads.dimension,
                out_width,
            );
            for part in views.keys_values {
                multiply(
                    (&mut output, target),
                    (&scores, part.scores),
                    (numbers, part.value),
                    T::one(),
                    true,
                );
            }
        }
    }
    Tensor::from_vec(output, (rows, out_width), packed.device())
}

/// Gradients of `packed` and of the sinks.
fn backward<T: Real>(
    gradient: &Tensor,
    packed: &Tensor,
    attention: Attention<'_>,
    segments: &[Segment],
) -> Result<(Tensor, Tensor)> {
    let heads = attention.heads;
    numbers!(T: gradients = gradient, numbers = packed);
    let mut output = vec![T::zero(); numbers.len()];
    let (mut scores, mut changes) = (Vec::new(), Vec::new());
    let sinks = sinks::<T>(attention)?;
    let mut sink_gradients = vec![T::zero(); heads.query];
    let scale = T::constant(1.0 / attention.divisor);
    let one = T::one();
    for &segment in segments {
        let (length, prefix) = (segment.length, segment.prefix.1);
        let width = prefix + length;
        scores.resize(length * width, T::zero());
        changes.resize(length * width, T::zero());
        for (head, &sink) in sinks.iter().enumerate() {
            let views = head_views(heads, segment, head);
            probabilities(numbers, (attention, sink), segment, &views, &mut scores);
            let out_width = heads.query_width();
            let incoming = View::rows(
                segment.start * out_width + head * heads.dimension,
                length,
                heads.dimension,
                out_width,
            );
            for part in views.keys_values {
                // values: dV += P^T dO
                multiply(
                    (&mut output, part.value),
                    (&scores, part.scores.transposed()),
                    (gradients, incoming),
                    one,
                    true,
                );
                // probabilities: dP = dO V^T, then through the softmax
                multiply(
                    (&mut changes, part.scores),
                    (gradients, incoming),
                    (numbers, part.value.transposed()),
                    one,
                    false,
                );
            }
            sink_gradients[head] -= softmax_backward(&scores, &mut changes, width, prefix);
            for part in views.keys_values {
                // queries and keys: dQ = dS K, dK += dS^T Q
                multiply(
                    (&mut output, views.query),
                    (&changes, part.scores),
                    (numbers, part.key),
                    scale,
                    true,
                );
                multiply(
                    (&mut output, part.key),
                    (&changes, part.scores.transposed()),
                    (numbers, views.query),
                    scale,
                    true,
                );
            }
        }
    }
    let sink_gradients = Tensor::from_vec(sink_gradients, heads.query, packed.device())?;
    Ok((
        Tensor::from_vec(output, packed.shape(), packed.device())?,
        sink_gradients,
    ))
}

/// `changes`: gradient of the probabilities in, of the scores out: `dS = P * (dP - sum(dP * P))`; 0
/// where masked. Returns the negative gradient of the sink: the sum over rows of its probability
/// times `sum(dP * P)`.
fn softmax_backward<T: Real>(scores: &[T], changes: &mut [T], width: usize, prefix: usize) -> T {
    let one = T::one();
    let mut sum = T::zero();
    vectorised!(|| {
        for (i, (p, d)) in scores
            .chunks_exact(width)
            .zip(changes.chunks_exact_mut(width))
            .enumerate()
        {
            let seen = prefix + i + 1;
            let shared = super::real::dot(&p[..seen], &d[..seen]);
            sum += (one - p[..seen].iter().copied().sum()) * shared;
            for (d, &p) in d[..seen].iter_mut().zip(p) {
                *d = p * (*d - shared);
            }
            d[seen..].fill(T::zero());
        }
    });
    sum
}
