//! Shaped rows of one pass on a GPU, between its logits and its tokens.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use super::{ShapedRow, ShapedToken, Shaping};
use crate::cuda::{Grid, Module, arguments, at, device, empty, module};
use crate::embedding::gather_rows;
use crate::sampler::{SampleParams, SampledToken, mask_words, read_sampled};

static MODULE: Module = module!("shaping");

/// Also the most alternatives of a row.
const THREADS: usize = 1024;
/// Words of `Shape`.
const WORDS: usize = 24;
/// Most tokens whose weights can be summed.
const MAX_VOCABULARY: usize = 1 << 19;

/// What the kernels read: a `Shape` for each row, then their lists.
pub fn words(rows: &[ShapedRow]) -> Vec<u32> {
    let mut shapes = Vec::with_capacity(rows.len() * WORDS);
    let (mut lists, mut alternatives) = (Vec::new(), 0);
    for row in rows {
        let shaping = &row.shaping;
        let numbers = [
            row.params.uniform,
            row.params.temperature,
            shaping.top_p,
            shaping.min_p,
            shaping.repetition_penalty,
            shaping.presence_penalty,
            shaping.frequency_penalty,
        ];
        let halves = |number: f64| [number.to_bits() as u32, (number.to_bits() >> 32) as u32];
        shapes.extend(numbers.into_iter().flat_map(halves));
        let start = |lists: &Vec<u32>| rows.len() * WORDS + lists.len();
        let seen = start(&lists);
        let pairs = row.seen.iter().flat_map(|seen| &seen.counts);
        lists.extend(pairs.flat_map(|(id, count)| [*id, *count]));
        let suppressed = start(&lists);
        lists.extend(&row.suppressed);
        let newest = row.newest.filter(|_| row.seen.is_some());
        let integers = [
            row.row,
            shaping.top_k.min(MAX_VOCABULARY),
            newest.unwrap_or(u32::MAX as usize),
            seen,
            (suppressed - seen) / 2,
            suppressed,
            row.suppressed.len(),
            shaping.alternatives,
            alternatives,
            usize::from(shaping.changes_distribution()),
        ];
        shapes.extend(integers.map(|integer| integer as u32));
        alternatives += shaping.alternatives;
    }
    shapes.append(&mut lists);
    shapes
}

/// Penalizes `logits`, [rows, vocabulary], in place; `words`: those of `count` rows; `last`: the
/// last pass's samples, as [`crate::sampler::sample_into`] writes them.
pub fn penalize(logits: &Tensor, words: &Tensor, count: usize, last: &Tensor) -> Result<()> {
    let (_, vocabulary) = logits.dims2()?;
    let arguments = arguments!(at logits, words, last; int vocabulary);
    let kernel = MODULE.kernel("penalize");
    kernel.launch(device(logits)?, Grid::rows(count, 256), &arguments)
}

/// Replaces tokens in `sampled`, [rows, 2], after [`penalize`], and writes each row's
/// `alternatives`, one after the other, as such pairs, with `u32::MAX` in place of those that
/// there are not.
pub fn shape(
    (logits, masks): (&Tensor, Option<&Tensor>),
    words: &Tensor,
    count: usize,
    sampled: &Tensor,
    alternatives: &Tensor,
) -> Result<()> {
    let (rows, vocabulary) = logits.dims2()?;
    if logits.dtype() != DType::F32
        || vocabulary > MAX_VOCABULARY
        || sampled.dims() != [rows, 2]
        || masks.is_some_and(|masks| masks.dims() != [rows, mask_words(vocabulary)])
    {
        bail!("shaped rows of {logits:?}, masks {masks:?}, to {sampled:?}")
    }
    let no_masks = crate::cuda::Argument::Address(0);
    let masks = masks.map_or(Ok(no_masks), at)?;
    let arguments =
        arguments!(at logits, words; given masks; at sampled, alternatives; int vocabulary);
    let kernel = MODULE.kernel("shape");
    kernel.launch(device(logits)?, Grid::rows(count, THREADS), &arguments)
}

/// Alternatives of rows from the pairs that [`shape`] wrote.
pub fn read_alternatives(pairs: &[[u32; 2]]) -> Vec<(u32, f32)> {
    let possible = pairs.iter().take_while(|[id, _]| *id != u32::MAX);
    possible
        .map(|[id, bits]| (*id, f32::from_bits(*bits)))
        .collect()
}

pub(super) fn likeliest(logits: &Tensor, count: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let shaping = Arc::new(Shaping {
        alternatives: count,
        ..Shaping::default()
    });
    let row = |row| ShapedRow {
        row,
        shaping: Arc::clone(&shaping),
        params: SampleParams {
            uniform: 0.0,
            temperature: 1.0,
        },
        seen: None,
        newest: None,
        suppressed: Vec::new(),
    };
    let rows: Vec<ShapedRow> = (0..logits.dims2()?.0).map(row).collect();
    let shaped = sample_shaped(logits, &rows, &[], None)?;
    Ok(shaped.into_iter().map(|row| row.alternatives).collect())
}

pub(super) fn sample_shaped(
    logits: &Tensor,
    rows: &[ShapedRow],
    last: &[SampledToken],
    masks: Option<&[u32]>,
) -> Result<Vec<ShapedToken>> {
    let (on_gpu, count, width) = (logits.device(), rows.len(), mask_words(logits.dims2()?.1));
    // A copy, as the logits of a shared prompt are read again.
    let indices: Vec<u32> = rows.iter().map(|row| row.row as u32).collect();
    let logits = gather_rows(logits, &Tensor::new(indices, on_gpu)?, DType::F32)?;
    let masks = masks.map(|masks| {
        let mask = |row: &ShapedRow| &masks[row.row * width..(row.row + 1) * width];
        let masks = rows.iter().flat_map(mask).copied();
        Tensor::from_vec(masks.collect(), (count, width), on_gpu)
    });
    let renumbered = rows.iter().enumerate().map(|(index, row)| ShapedRow {
        row: index,
        ..row.clone()
    });
    let words = words(&renumbered.collect::<Vec<_>>());
    let words = Tensor::from_vec(words.clone(), words.len(), on_gpu)?;
    let pair = |token: &SampledToken| [token.token_id, token.log_prob.to_bits()];
    let last: Vec<u32> = last.iter().flat_map(pair).chain([0, 0]).collect();
    let last = Tensor::from_vec(last.clone(), last.len(), on_gpu)?;
    let most = rows
        .iter()
        .map(|row| row.shaping.alternatives)
        .sum::<usize>();
    let alternatives = empty(2 * most.max(1), DType::U32, device(&logits)?)?;
    let sampled = Tensor::zeros((count, 2), DType::U32, on_gpu)?;
    penalize(&logits, &words, count, &last)?;
    let masked = (&logits, masks.transpose()?);
    shape(
        (masked.0, masked.1.as_ref()),
        &words,
        count,
        &sampled,
        &alternatives,
    )?;
    let sampled = sampled.flatten_all()?.to_vec1::<u32>()?;
    let tokens = read_sampled(sampled.as_chunks().0)?;
    let alternatives = alternatives.to_vec1::<u32>()?;
    let mut pairs = alternatives.as_chunks().0;
    let read = |(row, token): (&ShapedRow, SampledToken)| {
        let own;
        (own, pairs) = pairs.split_at(row.shaping.alternatives);
        ShapedToken {
            row: row.row,
            token: row.shaping.changes_distribution().then_some(token),
            alternatives: read_alternatives(own),
        }
    };
    Ok(rows.iter().zip(tokens).map(read).collect())
}
