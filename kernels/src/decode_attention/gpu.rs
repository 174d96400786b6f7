//! Launches of decode attention. Grids depend only on tensor shapes, so that a captured step can be
//! replayed.

use candle_core::{DType, Result, Tensor, bail};

use crate::cuda::{Argument, Grid, Module, address, arguments, at, device, empty, int, module};
use crate::heads::{Attention, Heads};

static MODULE: Module = module!("decode_attention");

/// Blocks to fill an H200 twice; with fewer, keys are split among several blocks.
const BLOCKS_WANTED: usize = 264;
/// Minimum keys per block.
const KEYS_A_BLOCK: usize = 512;
const MAX_SPLITS: usize = 16;
/// From this length on, a block handles several completions that share the reading of their prompt:
/// at 100 tokens this costs 2 us a layer on an H200, at 4,000 it saves 10 us for 8 rows and 58 us
/// for 64.
const GROUPED_FROM: usize = 1024;

/// Checks that the new rows fit cache and table.
pub(crate) fn check(
    (count, width): (usize, usize),
    cache: &Tensor,
    heads: Heads,
    rows: &Tensor,
) -> Result<()> {
    let (_, cached) = cache.dims2()?;
    if width != heads.row_width()
        || cached != 2 * heads.key_width()
        || !heads.query.is_multiple_of(heads.key_value.max(1))
    {
        bail!("new rows of {width} numbers and a cache of {cached} a place for {heads:?}")
    }
    if rows.dims2()? != (count, 4) || rows.dtype() != DType::U32 {
        bail!(
            "a table of {:?} {:?} for {count} rows; it is [rows, 4] of u32",
            rows.shape(),
            rows.dtype()
        )
    }
    Ok(())
}

/// The fastest kernel variant, with query heads and rows per block.
fn variant(
    packed: &Tensor,
    prefix: &Tensor,
    cache: &Tensor,
    attention: Attention<'_>,
    longest: usize,
) -> Result<(&'static str, usize, usize)> {
    let heads = attention.heads;
    // Tensor cores read 16 bytes at a time.
    let aligned = (address(packed)? | address(prefix)? | address(cache)?).is_multiple_of(16)
        && heads.dimension.is_multiple_of(8);
    let on_tensor_cores = aligned && packed.dtype() == DType::BF16;
    // A tile has eight columns, each a query head of a row.
    let rows = (8 * heads.key_value / heads.query.max(1)).min(packed.dims2()?.0);
    // A window begins elsewhere for each row.
    let rows = if longest >= GROUPED_FROM && attention.window.is_none() {
        rows.max(1)
    } else {
        1
    };
    Ok(match (heads.dimension, rows) {
        (1..=64, 1) if on_tensor_cores => ("decode_attention_tensor_64", 8, 1),
        (1..=64, _) if on_tensor_cores => ("decode_attention_grouped_64", 8, rows),
        (65..=128, 1) if on_tensor_cores => ("decode_attention_tensor_128", 8, 1),
        (65..=128, _) if on_tensor_cores => ("decode_attention_grouped_128", 8, rows),
        (129..=256, _) if on_tensor_cores => ("decode_attention_tensor_256", 8, 1),
        (1..=256, _) => ("decode_attention", 1, 1),
        (257..=512, _) => ("decode_attention_wide", 1, 1),
        (other, _) => bail!("heads of {other} numbers: the attention on a GPU takes 1 to 512"),
    })
}

pub(super) fn attend(
    packed: &Tensor,
    prefix: &Tensor,
    cache: &Tensor,
    attention: Attention<'_>,
    (rows, longest): (&Tensor, usize),
) -> Result<Tensor> {
    let heads = attention.heads;
    check(packed.dims2()?, cache, heads, rows)?;
    let (count, _) = packed.dims2()?;
    let (_, prefix_width) = prefix.dims2()?;
    let types = [packed.dtype(), prefix.dtype(), cache.dtype()];
    if prefix_width != 2 * heads.key_width() || types != [types[0]; 3] {
        bail!(
            "prompts of {prefix_width} a row for {heads:?}; new rows, prompts and cache in {types:?}"
        )
    }
    let (device, dtype) = (device(packed)?, packed.dtype());
    let (name, heads_a_block, rows_a_block) = variant(packed, prefix, cache, attention, longest)?;
    let seen = attention.window.unwrap_or(longest).min(longest);
    let across = heads.key_value * (heads.query / heads.key_value).div_ceil(heads_a_block);
    let blocks = (across * count.div_ceil(rows_a_block)).max(1);
    let wanted = if rows_a_block > 1 {
        (BLOCKS_WANTED + blocks / 2) / blocks
    } else {
        BLOCKS_WANTED.div_ceil(blocks)
    };
    let splits = wanted.min(seen.div_ceil(KEYS_A_BLOCK)).clamp(1, MAX_SPLITS);
    // Eight warps for few blocks or shared rows, unless merging would exceed 48 KiB.
    let shared_bytes = |warps: usize| 4 * warps * heads_a_block * (heads.dimension + 2);
    let is_wide = rows_a_block > 1 || blocks <= BLOCKS_WANTED;
    let warps = if is_wide && shared_bytes(8) <= 48 << 10 {
        8
    } else {
        4
    };

    let output = empty((count, heads.query_width()), dtype, device)?;
    let partial = if splits == 1 {
        None
    } else {
        Some(empty(
            (splits, count, heads.query, heads.dimension + 2),
            DType::F32,
            device,
        )?)
    };
    let partial_at = partial.as_ref().map_or(Ok(Argument::Address(0)), at)?;
    let scale = std::f64::consts::LOG2_E / attention.divisor;
    let mut arguments = arguments!(
        at rows, packed, prefix, cache, &output; given partial_at;
        int heads.query, heads.key_value, heads.dimension, splits; float scale;
        given attention.sinks_at(dtype)?
    )
    .to_vec();
    if rows_a_block > 1 {
        arguments.extend([int(rows_a_block), int(count)]);
    } else {
        // 0: all.
        arguments.push(int(attention.window.unwrap_or(0)));
    }
    let y = count.div_ceil(rows_a_block);
    let grid = Grid {
        blocks: (across, y, splits),
        threads: 32 * warps,
        shared_bytes: shared_bytes(warps),
    };
    MODULE
        .typed(name, dtype)
        .early()
        .launch(device, grid, &arguments)?;
    if partial.is_some() {
        let grid = Grid::rows(count * heads.query, heads.dimension.next_multiple_of(32));
        let arguments = arguments!(given partial_at; at &output; int splits, heads.dimension);
        MODULE
            .typed("decode_attention_merge", dtype)
            .early()
            .launch(device, grid, &arguments)?;
    }
    Ok(output)
}
