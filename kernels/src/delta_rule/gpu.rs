//! GPU launches of the gated delta rule: chunks of 64 tokens (`delta_rule_chunks.cuh`), and decode
//! steps. The backward repeats the chunks forwards and backwards, recording the states between
//! them.

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::{DeltaGradients, DeltaHeads, DeltaRule};
use crate::attention::Segments;
use crate::capability::Capability;
use crate::cuda::{
    Argument, Grid, Module, arguments, at, capability, device, empty, int, module, sum_parts,
};

static STEP: Module = module!("delta_rule");
static CHUNKS: Module = module!("delta_rule_chunks");
static GRADIENTS: Module = module!("delta_rule_gradients");

/// State columns per block.
const SLICE: usize = 32;
/// Maximum head dimension.
const MOST: usize = 128;
/// Tokens per chunk.
const CHUNK: usize = 64;
/// Sizes as in `delta_rule_chunks.cuh`: elements of a chunk's keys, of its token-by-token matrix,
/// of 32 state columns and their values, and of the record of 32 columns.
const TILE: usize = CHUNK * MOST;
const SQUARE: usize = CHUNK * CHUNK;
const STATE: usize = MOST * SLICE;
const PANEL: usize = CHUNK * SLICE;
const RECORD: usize = 3 * PANEL + 2 * STATE;

/// Number of bf16 summands that represent an input, and a computed number.
fn parts(dtype: DType, capability: Capability) -> [usize; 2] {
    match dtype {
        DType::BF16 => [1, 2],
        _ if capability.has_clusters() => [3, 3],
        _ => [2, 2],
    }
}

/// Shared memory of the kernels that go through chunks, which take the most.
fn through_bytes([input, own]: [usize; 2]) -> usize {
    2 * (2 * input * TILE + own * (2 * SQUARE + STATE + 2 * PANEL))
}

/// The rule's inputs on its GPU.
struct Prepared<'a> {
    heads: DeltaHeads,
    rows: usize,
    convolved: &'a Tensor,
    /// [chunks, value heads, 64, 8], f32.
    factors: Tensor,
    /// Keys and queries, [chunks, key heads, ..], bf16.
    tiles: Tensor,
    /// Two matrices of tokens by tokens, [chunks, value heads, ..], bf16.
    squares: Tensor,
    /// [rows, value heads, 4], f32.
    gates: Tensor,
    segments: [&'a Tensor; 2],
    chunks: [&'a Tensor; 2],
    segment_count: usize,
    chunk_count: usize,
    device: &'a CudaDevice,
    dtype: DType,
    parts: [usize; 2],
}

fn sizes(heads: DeltaHeads) -> [Argument; 4] {
    [
        heads.key,
        heads.value,
        heads.key_dimension,
        heads.value_dimension,
    ]
    .map(int)
}

fn slices(heads: DeltaHeads) -> usize {
    heads.value_dimension.div_ceil(SLICE)
}

/// [`DeltaRule`] and its convolved rows as kernel arguments.
fn inputs(convolved: &Tensor, rule: DeltaRule<'_>) -> Result<[Argument; 6]> {
    let DeltaRule {
        heads,
        packed,
        column,
        decay,
        bias,
    } = rule;
    let (rows, width) = convolved.dims2()?;
    let (packed_rows, stride) = packed.dims2()?;
    let dtype = convolved.dtype();
    let alike = [packed, decay, bias]
        .iter()
        .all(|tensor| tensor.dtype() == dtype);
    let fits =
        width == heads.row_width() && packed_rows == rows && column + 2 * heads.value <= stride;
    let most = heads.key_dimension.max(heads.value_dimension);
    if !alike
        || !fits
        || decay.dims() != [heads.value]
        || bias.dims() != [heads.value]
        || most > MOST
    {
        bail!("rows of {convolved:?} and {packed:?} for {heads:?}")
    }
    Ok(arguments!(at convolved, packed, decay, bias; int stride, column))
}

fn all_at<const N: usize>(tensors: [&Tensor; N]) -> Result<Vec<Argument>> {
    tensors.into_iter().map(at).collect()
}

impl<'a> Prepared<'a> {
    fn new(convolved: &'a Tensor, rule: DeltaRule<'_>, segments: &'a Segments) -> Result<Self> {
        let (heads, rows, dtype) = (rule.heads, convolved.dims2()?.0, convolved.dtype());
        let device = device(convolved)?;
        let capability = capability(device)?;
        let parts @ [input, own] = parts(dtype, capability);
        if through_bytes(parts) > capability.shared_bytes {
            bail!(
                "the gated delta rule in f32 takes more shared memory than the {} KiB of this GPU: compute in bf16 here",
                capability.shared_bytes >> 10
            )
        }
        let [chunks, first_chunks] = segments.chunks()?;
        let chunk_count = chunks.dims2()?.0;
        let factors = empty((chunk_count, heads.value, CHUNK, 8), DType::F32, device)?;
        let tiles = empty(
            (chunk_count, heads.key, 2 * input * TILE),
            DType::BF16,
            device,
        )?;
        let squares = empty(
            (chunk_count, heads.value, 2 * own * SQUARE),
            DType::BF16,
            device,
        )?;
        let gates = empty((rows, heads.value, 4), DType::F32, device)?;
        let tables = segments.tables()?;
        let mut arguments = inputs(convolved, rule)?.to_vec();
        arguments.extend(all_at([
            tables[0], chunks, &factors, &tiles, &squares, &gates,
        ])?);
        arguments.extend(sizes(heads));
        let shared_bytes = 2 * 2 * input * TILE + 4 * CHUNK * (CHUNK + 4);
        let grid = Grid {
            blocks: (chunk_count, heads.value, 1),
            threads: 256,
            shared_bytes,
        };
        CHUNKS
            .typed("delta_rule_chunks", dtype)
            .launch(device, grid, &arguments)?;
        Ok(Self {
            heads,
            rows,
            convolved,
            factors,
            tiles,
            squares,
            gates,
            segments: tables,
            chunks: [chunks, first_chunks],
            segment_count: segments.list().len(),
            chunk_count,
            device,
            dtype,
            parts,
        })
    }

    fn numbers(&self, width: usize) -> Result<Tensor> {
        empty((self.rows, width), DType::F32, self.device)
    }

    fn states(&self) -> Result<Tensor> {
        empty(
            (self.segment_count, self.heads.state_width()),
            DType::F32,
            self.device,
        )
    }

    /// Inputs of kernels that go through chunks of segments.
    fn prepared(&self) -> [&Tensor; 3] {
        [&self.factors, &self.tiles, &self.squares]
    }

    /// Launches such a kernel for prompts (0) or completions (1).
    fn through(
        &self,
        name: &'static str,
        arguments: &[Argument],
        order: [usize; 2],
        last: &[Argument],
    ) -> Result<()> {
        let shared_bytes = through_bytes(self.parts);
        let blocks = (slices(self.heads), self.heads.value, self.segment_count);
        let grid = Grid {
            blocks,
            threads: 256,
            shared_bytes,
        };
        for completions in order {
            let arguments = [arguments, &sizes(self.heads), &[int(completions)], last].concat();
            CHUNKS
                .typed(name, self.dtype)
                .launch(self.device, grid, &arguments)?;
        }
        Ok(())
    }

    /// Launches a kernel with a block per chunk and head.
    fn by_chunk(
        &self,
        name: &'static str,
        heads: usize,
        threads: usize,
        arguments: &[Argument],
    ) -> Result<()> {
        let shared_bytes = match self.parts[0] {
            _ if name != "delta_rule_gradients" => 0,
            1 => 2 * (2 * TILE + 2 * RECORD), // two alternating records
            input => 2 * input * (2 * TILE + RECORD),
        };
        let grid = Grid {
            blocks: (self.chunk_count, heads, 1),
            threads,
            shared_bytes,
        };
        let arguments = [arguments, &sizes(self.heads)].concat();
        GRADIENTS
            .typed(name, self.dtype)
            .launch(self.device, grid, &arguments)
    }
}

/// [rows, value_width], and states, [segments, state_width], f32: after each segment if
/// `keeps_states`, else only after prefixes.
pub(super) fn forward(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &Segments,
    keeps_states: bool,
) -> Result<(Tensor, Tensor)> {
    let prepared = Prepared::new(convolved, rule, segments)?;
    let output = empty(
        (prepared.rows, rule.heads.value_width()),
        prepared.dtype,
        prepared.device,
    )?;
    let (states, [factors, tiles, squares]) = (prepared.states()?, prepared.prepared());
    let ([segments, owners], [_, first_chunks]) = (prepared.segments, prepared.chunks);
    let arguments = all_at([
        convolved,
        factors,
        tiles,
        squares,
        segments,
        owners,
        first_chunks,
        &states,
        &output,
    ])?;
    prepared.through(
        "delta_rule_forward",
        &arguments,
        [0, 1],
        &[int(usize::from(keeps_states))],
    )?;
    Ok((output, states))
}

pub(super) fn backward(
    gradient: &Tensor,
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &Segments,
) -> Result<DeltaGradients> {
    let prepared = Prepared::new(convolved, rule, segments)?;
    let Prepared {
        heads,
        rows,
        ref gates,
        chunk_count,
        device,
        dtype,
        ..
    } = prepared;
    let (width, [factors, tiles, squares]) = (heads.value_width(), prepared.prepared());
    let ([segments, owners], [chunks, first_chunks]) = (prepared.segments, prepared.chunks);
    if gradient.dims2()? != (rows, width) || gradient.dtype() != dtype {
        bail!("a gradient of {gradient:?} for {rows} rows of {heads:?}")
    }
    let of_slices = |numbers: usize, dtype| {
        empty(
            (chunk_count, heads.value * slices(heads), numbers),
            dtype,
            device,
        )
    };
    let records = of_slices(prepared.parts[0] * RECORD, DType::BF16)?;
    let (ends, along) = (of_slices(STATE, DType::F32)?, of_slices(1, DType::F32)?);
    let outputs = prepared.numbers(width)?;
    let updates = prepared.numbers(width)?;
    let values = prepared.numbers(width)?;
    let (states, state_gradients) = (prepared.states()?, prepared.states()?);
    let read = [
        prepared.convolved,
        factors,
        tiles,
        squares,
        segments,
        owners,
        first_chunks,
    ];
    let arguments = [
        all_at(read)?,
        all_at([&states, &outputs, &updates, &records, &ends])?,
    ]
    .concat();
    prepared.through("delta_rule_recorded", &arguments, [0, 1], &[])?;
    let read = [gradient, factors, tiles, squares, segments, first_chunks];
    let arguments = [
        all_at(read)?,
        all_at([&state_gradients, &values, &records, &ends, &along])?,
    ]
    .concat();
    prepared.through("delta_rule_backward", &arguments, [1, 0], &[])?;

    let convolved_gradient = empty((rows, heads.row_width()), dtype, device)?;
    let arguments = all_at([
        factors,
        tiles,
        segments,
        chunks,
        &records,
        &convolved_gradient,
    ])?;
    prepared.by_chunk("delta_rule_gradients", heads.key, 512, &arguments)?;

    let strengths = prepared.numbers(heads.value)?;
    let falls = prepared.numbers(heads.value)?;
    let tensors = [
        gradient,
        convolved,
        &outputs,
        &updates,
        &values,
        gates,
        &convolved_gradient,
        &strengths,
        &falls,
    ];
    let mut arguments = all_at(tensors)?;
    arguments.extend(sizes(heads));
    arguments.push(int(rows));
    let grid = Grid::rows((rows * heads.value).div_ceil(8), 256);
    GRADIENTS
        .typed("delta_rule_finish_values", dtype)
        .launch(device, grid, &arguments)?;

    let packed = empty((rows, 2 * heads.value), dtype, device)?;
    let of_rows = prepared.numbers(2 * heads.value)?;
    let arguments = all_at([
        segments, chunks, gates, &strengths, &falls, &along, rule.decay, &packed, &of_rows,
    ])?;
    prepared.by_chunk("delta_rule_finish_gates", heads.value, 32, &arguments)?;
    let sums = sum_parts(&GRADIENTS, "delta_rule_gate_sums", &of_rows)?;
    Ok(DeltaGradients {
        convolved: convolved_gradient,
        gates: packed,
        bias: sums.narrow(0, 0, heads.value)?,
        decay: sums.narrow(0, heads.value, heads.value)?,
    })
}

/// `slots`: [rows, 2], u32.
pub(super) fn step(
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    states: &Tensor,
    slots: &Tensor,
) -> Result<Tensor> {
    let (heads, (rows, _)) = (rule.heads, convolved.dims2()?);
    if states.dims2()?.1 != heads.state_width()
        || states.dtype() != DType::F32
        || slots.dims2()? != (rows, 2)
    {
        bail!("states {states:?} and {slots:?} for {rows} rows")
    }
    let (device, dtype) = (device(convolved)?, convolved.dtype());
    let output = empty((rows, heads.value_width()), dtype, device)?;
    let mut arguments = inputs(convolved, rule)?.to_vec();
    arguments.extend(arguments!(at slots, states, &output));
    arguments.extend(sizes(heads));
    arguments.push(int(rows));
    let grid = Grid::blocks((slices(heads), heads.value, rows), MOST);
    STEP.typed("delta_rule_step", dtype)
        .early()
        .launch(device, grid, &arguments)?;
    Ok(output)
}
