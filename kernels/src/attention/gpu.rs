//! Launches of the attention kernels. Memory is linear in rows: scores are never stored.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::tiles::{TILE, Tiles};
use super::{AttentionOutput, Segment, Segments};
use crate::cuda::{
    Argument, Grid, Module, address, arguments, capability, device, empty, module, rows_at,
};
use crate::heads::{Attention, Heads};

static PLAIN: Module = module!("attention");
static TENSOR_CORES: Module = module!("attention_tensor_cores");

/// A batch's segments and tiles on its GPU.
#[derive(Clone, Debug)]
pub(super) struct DeviceSegments {
    pub(super) segments: Tensor,
    /// [rows], u32: number of keys each row attends to besides its own.
    positions: Tensor,
    pub(super) owners: Tensor,
    query_tiles: Tensor,
    key_tiles: Tensor,
    /// [tiles, 2], u32: segment, first row in it, in batch order.
    pub(super) chunks: Tensor,
    /// [segments], u32: first chunk of each segment.
    pub(super) first_chunks: Tensor,
}

impl DeviceSegments {
    pub(super) fn new(list: &[Segment], device: &Device) -> Result<Self> {
        let Tiles {
            segments,
            positions,
            owners,
            queries,
            keys,
            ordered,
            firsts,
        } = Tiles::new(list)?;
        let place = |numbers: Vec<u32>, columns: usize| {
            Tensor::from_vec(numbers.clone(), (numbers.len() / columns, columns), device)
        };
        // One copy for all tables.
        let (numbers, rows, count) = (segments.len(), positions.len(), firsts.len());
        let all = place([segments, positions, owners, firsts].concat(), 1)?.flatten_all()?;
        Ok(Self {
            segments: all.narrow(0, 0, numbers)?,
            positions: all.narrow(0, numbers, rows)?,
            owners: all.narrow(0, numbers + rows, rows)?,
            query_tiles: place(queries, 2)?,
            key_tiles: place(keys, 2)?,
            chunks: place(ordered, 2)?,
            first_chunks: all.narrow(0, numbers + 2 * rows, count)?,
        })
    }
}

/// The kernels for a head size.
struct Kernels {
    module: &'static Module,
    forward: &'static str,
    backward_queries: &'static str,
    backward_keys_values: &'static str,
    /// Rows of a block's tile.
    tile: usize,
    /// Threads per block, for each of the three,
    threads: [usize; 3],
    /// query heads per block, sharing a key head,
    heads: [usize; 2],
    /// dynamic shared memory in bytes.
    shared_bytes: [usize; 3],
}

macro_rules! plain {
    ($size:literal) => {
        plain!($size, 32)
    };
    ($size:literal, $tile:literal) => {
        Kernels {
            module: &PLAIN,
            forward: concat!("attention_", $size),
            backward_queries: concat!("attention_backward_queries_", $size),
            backward_keys_values: concat!("attention_backward_keys_values_", $size),
            tile: $tile,
            threads: [256; 3],
            heads: [1; 2],
            shared_bytes: [3, 4, 4]
                .map(|tiles| 4 * ((tiles * ($size + 4) + 2 * ($tile + 1) + 3) * $tile)),
        }
    };
}

macro_rules! tensor_cores {
    ($size:literal, $heads:expr, $last_threads:literal) => {
        tensor_cores!($size, $heads, $last_threads, "", 2)
    };
    ($size:literal, $heads:expr, $last_threads:literal, $suffix:literal, $buffers:literal) => {{
        let heads = $heads;
        Kernels {
            module: &TENSOR_CORES,
            forward: concat!("attention_tensor_", $size, $suffix),
            backward_queries: concat!("attention_backward_queries_tensor_", $size, $suffix),
            backward_keys_values: concat!("attention_backward_keys_values_tensor_", $size, $suffix),
            tile: 64,
            threads: [128 * heads[0], 128 * heads[1], $last_threads],
            heads,
            shared_bytes: [heads[0], 2 * heads[1], 2]
                .map(|tiles| 2 * (tiles + 2 * $buffers) * 64 * $size + 4 * 6 * 64),
        }
    }};
}

/// The fastest kernels that can read all `tensors`.
fn kernels<const N: usize>(attention: Attention<'_>, tensors: [&Tensor; N]) -> Result<Kernels> {
    let heads = attention.heads;
    // Tensor cores read 16 bytes at a time.
    let mut fed = heads.dimension.is_multiple_of(8);
    for tensor in tensors {
        fed = fed && tensor.dtype() == DType::BF16 && address(tensor)?.is_multiple_of(16);
    }
    let most = capability(device(tensors[0])?)?.shared_bytes;
    let fits = |kernels: &Kernels| kernels.shared_bytes.iter().all(|bytes| *bytes <= most);
    let are_even = (heads.query / heads.key_value).is_multiple_of(2);
    let either = |two: Kernels, one: Kernels| if are_even && fits(&two) { two } else { one };
    let kernels = match heads.dimension {
        1..=64 if fed => either(
            tensor_cores!(64, [2, 2], 128),
            tensor_cores!(64, [1, 1], 128),
        ),
        65..=128 if fed => either(
            tensor_cores!(128, [2, 2], 128),
            tensor_cores!(128, [1, 1], 128),
        ),
        129..=256 if fed && fits(&tensor_cores!(256, [1, 1], 256)) => either(
            tensor_cores!(256, [2, 1], 256),
            tensor_cores!(256, [1, 1], 256),
        ),
        129..=256 if fed && fits(&tensor_cores!(256, [1, 1], 256, "_single", 1)) => {
            tensor_cores!(256, [1, 1], 256, "_single", 1)
        }
        1..=32 => plain!(32),
        33..=64 => plain!(64),
        65..=128 => plain!(128),
        129..=256 if fits(&plain!(256)) => plain!(256),
        // Smaller tiles.
        129..=256 => plain!(272, 16),
        257..=512 => plain!(512, 16),
        other => bail!("heads of {other} numbers: the attention on a GPU takes 1 to 512"),
    };
    if !fits(&kernels) {
        bail!(
            "heads of {} numbers take more shared memory than the {} KiB of this GPU: take a model with heads of at most 256, or a GPU with 163 KiB (A100) or more",
            heads.dimension,
            most >> 10
        )
    }
    Ok(kernels)
}

/// Arguments common to all kernels.
fn batch(
    segments: &Segments,
    keys: bool,
    rows: usize,
    attention: Attention<'_>,
) -> Result<(usize, Vec<Argument>)> {
    let heads = attention.heads;
    let Some(tables) = &segments.tables else {
        bail!("segments on the CPU for tensors on a GPU")
    };
    let tiles = if keys {
        &tables.key_tiles
    } else {
        &tables.query_tiles
    };
    let longest = i32::MAX as usize;
    let window = attention.window.unwrap_or(longest).min(longest);
    let arguments = arguments!(
        at &tables.segments, tiles, &tables.positions; int rows, heads.row_width(), heads.query,
        heads.key_value, heads.dimension; float 1.0 / attention.divisor;
        int window
    )
    .to_vec();
    Ok((tiles.dims2()?.0, arguments))
}

fn check(packed: &Tensor, heads: Heads) -> Result<usize> {
    let (rows, width) = packed.dims2()?;
    if width != heads.row_width()
        || heads.key_value == 0
        || !heads.query.is_multiple_of(heads.key_value)
    {
        bail!("rows of {width} numbers for {heads:?}")
    }
    Ok(rows)
}

impl Kernels {
    /// Grid of kernel `at` of the three: blocks for all tiles and `heads`, `heads_a_block` each.
    fn grid(&self, at: usize, tiles: usize, heads: usize, heads_a_block: usize) -> Grid {
        let blocks = (tiles, heads / heads_a_block, TILE / self.tile);
        Grid {
            blocks,
            threads: self.threads[at],
            shared_bytes: self.shared_bytes[at],
        }
    }
}

pub(super) fn forward(
    packed: &Tensor,
    attention: Attention<'_>,
    segments: &Segments,
    adapter_columns: usize,
) -> Result<AttentionOutput> {
    let heads = attention.heads;
    let rows = check(packed, heads)?;
    let device = device(packed)?;
    let dtype = packed.dtype();
    let kernels = kernels(attention, [packed])?;
    let stride = heads.query_width() + adapter_columns;
    let output = empty((rows, stride), dtype, device)?;
    let log_sums = empty((heads.query, rows), DType::F32, device)?;
    let (tiles, mut arguments) = batch(segments, false, rows, attention)?;
    arguments.extend(arguments!(
        at packed, &output; int stride; at &log_sums; given attention.sinks_at(dtype)?
    ));
    let grid = kernels.grid(0, tiles, heads.query, kernels.heads[0]);
    kernels
        .module
        .typed(kernels.forward, dtype)
        .launch(device, grid, &arguments)?;
    Ok(AttentionOutput {
        rows: output,
        log_sums: Some(log_sums),
    })
}

pub(super) fn backward(
    gradient: &Tensor,
    packed: &Tensor,
    attended: &AttentionOutput,
    attention: Attention<'_>,
    segments: &Segments,
) -> Result<Tensor> {
    let heads = attention.heads;
    let rows = check(packed, heads)?;
    if gradient.dims2()? != (rows, heads.query_width()) || gradient.dtype() != packed.dtype() {
        bail!("a gradient of {gradient:?} for attention over {packed:?}")
    }
    let (output, Some(log_sums)) = (&attended.rows, &attended.log_sums) else {
        bail!("attention on the CPU for tensors on a GPU")
    };
    let [output_at, stride] = rows_at(output)?;
    if output.dims2()?.0 != rows
        || output.dtype() != packed.dtype()
        || log_sums.dims2()? != (heads.query, rows)
    {
        bail!("{output:?} was not attended by {packed:?}")
    }
    let device = device(packed)?;
    let dtype = packed.dtype();
    let kernels = kernels(attention, [gradient, packed, output])?;
    let packed_gradient = empty((rows, heads.row_width()), dtype, device)?;
    // Per query head and row: sum of probabilities times their gradients.
    let delta = empty((heads.query, rows), DType::F32, device)?;

    let (tiles, mut arguments) = batch(segments, false, rows, attention)?;
    arguments.extend(arguments!(
        at gradient, packed; given output_at, stride; at log_sums, &delta, &packed_gradient
    ));
    let query_grid = kernels.grid(1, tiles, heads.query, kernels.heads[1]);
    kernels
        .module
        .typed(kernels.backward_queries, dtype)
        .launch(device, query_grid, &arguments)?;

    let (tiles, mut arguments) = batch(segments, true, rows, attention)?;
    arguments.extend(arguments!(at gradient, packed, log_sums, &delta, &packed_gradient));
    let key_grid = kernels.grid(2, tiles, heads.key_value, 1);
    kernels
        .module
        .typed(kernels.backward_keys_values, dtype)
        .launch(device, key_grid, &arguments)?;
    Ok(packed_gradient)
}
