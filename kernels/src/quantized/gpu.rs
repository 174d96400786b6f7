//! Kernels of quantized matrices.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{BlockScales, Precision, QuantizedMatrix, Scales, StoredNf4, check_scales};
use crate::cuda::{
    Argument, Grid, Module, address, arguments, at, capability, device, empty, int, module, rows_at,
};
use crate::matmul::matmul_f32;
use crate::nf4;
use crate::rows_map::{CHUNK, RowsMap};

static FP8: Module = module!("fp8");
static NF4: Module = module!("nf4");
/// Hopper's, and that of others.
static DECODE: Module = module!("quantized_decode");
static DECODE_BY_WARPS: Module = module!("quantized_decode_warps");

/// Rows per product.
const MOST_ROWS: usize = 256;
/// Chunks of activations in shared memory.
const STAGES: usize = 4;

pub(super) fn quantize(weight: &Tensor, precision: Precision) -> Result<QuantizedMatrix> {
    let (outputs, inputs) = weight.dims2()?;
    check_shape(outputs, inputs)?;
    match precision {
        Precision::Fp8 => quantize_fp8(weight),
        Precision::Nf4 => quantize_nf4(weight),
    }
}

fn check_shape(outputs: usize, inputs: usize) -> Result<()> {
    if !inputs.is_multiple_of(CHUNK) || !outputs.is_multiple_of(4) {
        bail!(
            "a GPU has no quantized form of [{outputs}, {inputs}], only outputs in multiples of 4 and inputs in multiples of {CHUNK}"
        )
    }
    Ok(())
}

fn quantize_fp8(weight: &Tensor) -> Result<QuantizedMatrix> {
    let ((outputs, inputs), device) = (weight.dims2()?, device(weight)?);
    let codes = empty((outputs, inputs), DType::U8, device)?;
    let scales = empty(outputs, DType::F32, device)?;
    let arguments = arguments!(at weight, &codes, &scales; int inputs);
    FP8.typed("quantize", weight.dtype())
        .launch(device, Grid::rows(outputs, 256), &arguments)?;
    Ok(QuantizedMatrix {
        codes,
        inputs,
        scales: Scales::Fp8(scales),
    })
}

fn quantize_nf4(weight: &Tensor) -> Result<QuantizedMatrix> {
    let ((outputs, inputs), gpu) = (weight.dims2()?, device(weight)?);
    let (codes, scales) = empty_nf4((outputs, inputs), &nf4::scale_numbers(), weight.device())?;
    let (row_blocks, blocks) = (inputs / nf4::BLOCK, outputs * inputs / nf4::BLOCK);
    let groups = blocks.div_ceil(nf4::GROUP);
    let maxima = empty(blocks, DType::F32, gpu)?;
    NF4.typed("maxima", weight.dtype()).launch(
        gpu,
        Grid::rows(blocks.div_ceil(8), 256),
        &arguments!(at weight, &maxima; int blocks),
    )?;
    let (sums, offset) = (empty(groups, DType::F64, gpu)?, empty(1, DType::F32, gpu)?);
    NF4.kernel("sum_groups").launch(
        gpu,
        Grid::elements(groups),
        &arguments!(at &maxima, &sums; int blocks),
    )?;
    NF4.kernel("mean").launch(
        gpu,
        Grid::rows(1, 1),
        &arguments!(at &sums, &offset; int blocks),
    )?;
    let arguments = arguments!(
        at &maxima, &offset, &scales.tables, &scales.codes, &scales.groups;
        int blocks, row_blocks, outputs
    );
    NF4.kernel("quantize_scales")
        .launch(gpu, Grid::rows(groups, nf4::GROUP), &arguments)?;
    let arguments = arguments!(at weight, &maxima, &scales.tables, &codes; int inputs);
    NF4.typed("quantize", weight.dtype())
        .launch(gpu, Grid::rows(outputs, 256), &arguments)?;
    Ok(QuantizedMatrix {
        codes,
        inputs,
        scales: Scales::Nf4(scales),
    })
}

pub(super) fn from_stored(
    stored: &StoredNf4<'_>,
    (outputs, inputs): (usize, usize),
    device: &Device,
) -> Result<QuantizedMatrix> {
    check_shape(outputs, inputs)?;
    let (codes, mut scales) = empty_nf4((outputs, inputs), stored.scale_numbers, device)?;
    let (row_blocks, blocks) = (inputs / nf4::BLOCK, outputs * inputs / nf4::BLOCK);
    let gpu = self::device(&codes)?;
    let from = Tensor::from_slice(stored.codes, stored.codes.len(), device)?;
    NF4.kernel("arrange_codes").launch(
        gpu,
        Grid::rows(outputs, 256),
        &arguments!(at &from, &codes; int inputs),
    )?;
    let from = Tensor::from_slice(stored.scale_codes, blocks, device)?;
    NF4.kernel("arrange_scales").launch(
        gpu,
        Grid::elements(blocks),
        &arguments!(at &from, &scales.codes; int blocks, row_blocks, outputs),
    )?;
    let mut groups: Vec<f32> = stored
        .group_scales
        .iter()
        .flat_map(|&scale| [scale, stored.offset])
        .collect();
    let count = scales.groups.dim(0)?;
    groups.resize(2 * count, 0.0);
    scales.groups = Tensor::from_vec(groups, (count, 2), device)?;
    Ok(QuantizedMatrix {
        codes,
        inputs,
        scales: Scales::Nf4(scales),
    })
}

/// Codes and scales to write, with the numbers of both.
fn empty_nf4(
    (outputs, inputs): (usize, usize),
    scale_numbers: &[f32; 256],
    device: &Device,
) -> Result<(Tensor, BlockScales)> {
    let (reads, row_blocks) = (inputs.div_ceil(2 * nf4::BLOCK), inputs / nf4::BLOCK);
    let first_blocks = (0..outputs).map(|row| (row * row_blocks) as u32).collect();
    let tables = Tensor::new([nf4::NUMBERS.as_slice(), scale_numbers].concat(), device)?;
    // A read's second block may be after a row's last, in a group after the last.
    let groups = (outputs * row_blocks) / nf4::GROUP + 1;
    check_scales(groups, 1)?;
    let scales = BlockScales {
        codes: Tensor::zeros((reads, outputs, 2), DType::U8, device)?,
        groups: Tensor::zeros((groups, 2), DType::F32, device)?,
        first_blocks: Tensor::from_vec(first_blocks, outputs, device)?,
        tables: tables.unsqueeze(0)?,
    };
    let codes = Tensor::zeros((outputs, reads * nf4::BLOCK), DType::U8, device)?;
    Ok((codes, scales))
}

/// As kernels take it by value: `Fp8` or `Nf4`.
fn addresses(matrix: &QuantizedMatrix) -> Result<[u64; 5]> {
    let mut addresses = [address(&matrix.codes)?, 0, 0, 0, 0];
    match &matrix.scales {
        Scales::Fp8(scales) => addresses[1] = address(scales)?,
        Scales::Nf4(scales) => {
            let tensors = [
                &scales.codes,
                &scales.groups,
                &scales.first_blocks,
                &scales.tables,
            ];
            for (place, tensor) in addresses[1..].iter_mut().zip(tensors) {
                *place = address(tensor)?;
            }
        }
    }
    Ok(addresses)
}

pub(super) fn joined(
    matrix: &QuantizedMatrix,
    beside: &Tensor,
    below: &Tensor,
    adapter_columns: usize,
) -> Result<Tensor> {
    let (outputs, inputs) = matrix.dims2()?;
    let (rank, _) = below.dims2()?;
    let (_, used) = beside.dims2()?;
    if used > adapter_columns
        || beside.dims2()?.0 != outputs
        || (rank > 0 && below.dims2()?.1 != inputs)
    {
        bail!(
            "{beside:?} and {below:?} around [{outputs}, {inputs}] with {adapter_columns} adapter columns"
        )
    }
    let gpu = device(&matrix.codes)?;
    let target = empty(
        (outputs + rank, inputs + adapter_columns),
        below.dtype(),
        gpu,
    )?;
    let addresses = addresses(matrix)?;
    let arguments = arguments!(
        given Argument::Struct(addresses.as_ptr().cast());
        at beside, below, &target;
        int inputs, outputs, used, adapter_columns
    );
    let module = match &matrix.scales {
        Scales::Fp8(_) => &FP8,
        Scales::Nf4(_) => &NF4,
    };
    module.typed("widen", below.dtype()).launch(
        gpu,
        Grid::rows(outputs + rank, 256),
        &arguments,
    )?;
    Ok(target)
}

pub(super) fn decode(matrix: &QuantizedMatrix, x: &Tensor, a: Option<&Tensor>) -> Result<Tensor> {
    let rows = x.dims2()?.0;
    let rank = a.map_or(Ok(0), |a| a.dims2().map(|(rank, _)| rank))?;
    let (outputs, _) = matrix.dims2()?;
    if x.dtype() != DType::BF16 {
        // For comparisons in f32.
        let base = matmul_f32(x, &matrix.numbers(x.dtype())?.t()?)?;
        let Some(a) = a else { return Ok(base) };
        return Tensor::cat(&[base, matmul_f32(x, &a.t()?)?], 1);
    }
    let target = empty((rows, outputs + rank), DType::F32, device(x)?)?;
    for first in (0..rows).step_by(MOST_ROWS) {
        let count = MOST_ROWS.min(rows - first);
        run(
            matrix,
            &x.narrow(0, first, count)?,
            a,
            &target.narrow(0, first, count)?,
        )?;
    }
    Ok(target)
}

/// Rows that the kernels for this many have room for.
fn room(rows: usize) -> usize {
    rows.next_power_of_two().clamp(8, MOST_ROWS)
}

/// Hopper's kernel of a room, and that of other GPUs.
fn kernels(scales: &Scales, room: usize) -> [&'static str; 2] {
    macro_rules! names {
        ($precision:literal) => {
            match room {
                8 => names!($precision, "8"),
                16 => names!($precision, "16"),
                32 => names!($precision, "32"),
                64 => names!($precision, "64"),
                128 => names!($precision, "128"),
                _ => names!($precision, "256"),
            }
        };
        ($precision:literal, $room:literal) => {
            [
                concat!("decode_", $precision, "_", $room),
                concat!("decode_", $precision, "_warps_", $room),
            ]
        };
    }
    match scales {
        Scales::Fp8(_) => names!("fp8"),
        Scales::Nf4(_) => names!("nf4"),
    }
}

/// Outputs of a block.
fn block_outputs(room: usize) -> usize {
    if room > 64 { 128 } else { 64 }
}

/// Split-K factor: measured on an H200 at the shapes of Qwen3-8B.
fn splits(room: usize, tiles: usize, reads: usize) -> usize {
    let best = if room > 64 {
        (100 / tiles).clamp(2, 6)
    } else {
        (400 / tiles).clamp(1, 6)
    };
    best.min(reads)
}

fn run(matrix: &QuantizedMatrix, x: &Tensor, a: Option<&Tensor>, target: &Tensor) -> Result<()> {
    let ((rows, inputs), (outputs, _)) = (x.dims2()?, matrix.dims2()?);
    let (gpu, room) = (device(x)?, room(rows));
    let block = block_outputs(room);
    let tiles = outputs.div_ceil(block);
    let splits = splits(room, tiles, matrix.codes.dim(1)? / CHUNK);
    let (beside, rank) = match a {
        Some(a) => (at(a)?, a.dims2()?.0),
        None => (Argument::Address(0), 0),
    };
    let [to, stride] = rows_at(target)?;
    let [hopper, by_warps] = kernels(&matrix.scales, room);
    let addresses = addresses(matrix)?;
    let weights = Argument::Struct(addresses.as_ptr().cast());
    let grid = |shared_bytes| Grid {
        blocks: (splits, rank.div_ceil(16) + tiles, 1),
        threads: 2 * block,
        shared_bytes,
    };
    if !capability(gpu)?.has_warpgroups() {
        let width = outputs + rank;
        let parts = match splits {
            1 => None,
            _ => Some(empty((splits, rows, width), DType::F32, gpu)?),
        };
        let (into, into_stride) = match &parts {
            None => (to, stride),
            Some(parts) => (at(parts)?, int(width)),
        };
        let arguments = arguments!(
            at x; given weights, beside, into;
            int rows, inputs, outputs, rank; given into_stride
        );
        let stages = if room > 128 { 3 } else { STAGES };
        DECODE_BY_WARPS.kernel(by_warps).early().launch(
            gpu,
            grid(stages * room * CHUNK * 2),
            &arguments,
        )?;
        let Some(parts) = parts else { return Ok(()) };
        let arguments = arguments!(at &parts; given to; int splits, rows, width; given stride);
        return DECODE_BY_WARPS.kernel("decode_sum").early().launch(
            gpu,
            Grid::elements(rows * width),
            &arguments,
        );
    }
    // The products of one may still run.
    let stages = if room > 64 { 6 } else { STAGES };
    // Activations, later reused for sums or the warps' A products.
    let sums = ((room + splits) * (block + 4)).max(block / 16 * 20 * room) * size_of::<f32>();
    let map = RowsMap::new(x, room)?;
    let arguments = arguments!(
        given map.argument();
        at x; given weights, beside, to;
        int rows, inputs, outputs, rank; given stride; int stages
    );
    DECODE.kernel(hopper).early().clusters(splits).launch(
        gpu,
        grid((stages * room * CHUNK * 2).max(sums)),
        &arguments,
    )
}
