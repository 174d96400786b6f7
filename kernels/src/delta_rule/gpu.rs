//! Launches of the gated delta rule on a GPU. Its backward computes the updates again and keeps no states: those of the
//! segments' ends are enough, since queries' and keys' gradients are sums along one more run forwards and one backwards,
//! and the decay's follows from `<S, dS>`, which falls by `<o, do> - <v, dv>` at each token.

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::{DeltaGradients, DeltaHeads, DeltaRule};
use crate::attention::Segments;
use crate::cuda::{Argument, Grid, Module, at, device, empty, int, launch, module};

static MODULE: Module = module!("delta_rule");

/// Columns or rows of a state that a block has.
const SLICE: usize = 32;
/// Threads of a block: the most numbers of a head.
const THREADS: usize = 128;

/// What the rule reads, on its GPU.
struct Prepared<'a> {
    heads: DeltaHeads,
    rows: usize,
    convolved: &'a Tensor,
    /// [rows, 2 * key_width], f32: queries and keys of unit length.
    unit: Tensor,
    /// [rows, value heads, 4], f32.
    gates: Tensor,
    segments: [&'a Tensor; 2],
    /// How many.
    count: usize,
    device: &'a CudaDevice,
    dtype: DType,
}

fn sizes(heads: DeltaHeads) -> [Argument; 4] {
    [heads.key, heads.value, heads.key_dimension, heads.value_dimension].map(int)
}

/// What [`DeltaRule`] and the rows that it convolves are to a kernel.
fn inputs(convolved: &Tensor, rule: DeltaRule<'_>) -> Result<[Argument; 6]> {
    let DeltaRule { heads, packed, column, decay, bias } = rule;
    let ((rows, width), (packed_rows, stride), dtype) = (convolved.dims2()?, packed.dims2()?, convolved.dtype());
    let alike = [packed, decay, bias].iter().all(|tensor| tensor.dtype() == dtype);
    let fits = width == heads.row_width() && packed_rows == rows && column + 2 * heads.value <= stride;
    let most = heads.key_dimension.max(heads.value_dimension);
    if !alike || !fits || decay.dims() != [heads.value] || bias.dims() != [heads.value] || most > THREADS {
        bail!("rows of {:?} {dtype:?} and {:?} for {heads:?}", convolved.shape(), packed.shape())
    }
    Ok([at(convolved)?, at(packed)?, at(decay)?, at(bias)?, int(stride), int(column)])
}

impl<'a> Prepared<'a> {
    fn new(convolved: &'a Tensor, rule: DeltaRule<'_>, segments: &'a Segments) -> Result<Self> {
        let (heads, rows, dtype) = (rule.heads, convolved.dims2()?.0, convolved.dtype());
        let device = device(convolved)?;
        let unit = empty((rows, 2 * heads.key_width()), DType::F32, device)?;
        let gates = empty((rows, heads.value, 4), DType::F32, device)?;
        let mut arguments = inputs(convolved, rule)?.to_vec();
        arguments.extend([at(&unit)?, at(&gates)?]);
        arguments.extend(sizes(heads));
        let grid = Grid { blocks: (rows, heads.value, 1), threads: THREADS, shared_bytes: 0 };
        launch(device, &MODULE, "delta_rule_prepare", Some(dtype), grid, &arguments)?;
        let count = segments.list().len();
        Ok(Self { heads, rows, convolved, unit, gates, segments: segments.tables()?, count, device, dtype })
    }

    fn numbers(&self, width: usize) -> Result<Tensor> {
        empty((self.rows, width), DType::F32, self.device)
    }

    fn states(&self) -> Result<Tensor> {
        empty((self.count, self.heads.state_width()), DType::F32, self.device)
    }

    /// A kernel that has a block for so many numbers of each state, `arguments` and those of the heads.
    fn start(&self, name: &'static str, lines: usize, arguments: &[Argument], last: &[Argument]) -> Result<()> {
        let blocks = (lines.div_ceil(SLICE), self.heads.value, self.count);
        let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
        let arguments = [arguments, &sizes(self.heads), last].concat();
        launch(self.device, &MODULE, name, Some(self.dtype), grid, &arguments)
    }

    /// The states after each segment; `name` writes to `outputs` too.
    fn forward(&self, name: &'static str, outputs: &[&Tensor]) -> Result<Tensor> {
        let states = self.states()?;
        let [segments, owners] = self.segments;
        let mut arguments =
            vec![at(self.convolved)?, at(&self.unit)?, at(&self.gates)?, at(segments)?, at(owners)?, at(&states)?];
        for output in outputs {
            arguments.push(at(output)?);
        }
        for completions in 0..2 {
            self.start(name, self.heads.value_dimension, &arguments, &[int(completions)])?;
        }
        Ok(states)
    }
}

/// [rows, value_width], and the states after each segment, [segments, state_width], f32.
pub(super) fn forward(convolved: &Tensor, rule: DeltaRule<'_>, segments: &Segments) -> Result<(Tensor, Tensor)> {
    let prepared = Prepared::new(convolved, rule, segments)?;
    let output = empty((prepared.rows, rule.heads.value_width()), prepared.dtype, prepared.device)?;
    let states = prepared.forward("delta_rule", &[&output])?;
    Ok((output, states))
}

pub(super) fn backward(
    gradient: &Tensor,
    convolved: &Tensor,
    rule: DeltaRule<'_>,
    segments: &Segments,
) -> Result<DeltaGradients> {
    let prepared = Prepared::new(convolved, rule, segments)?;
    let Prepared { heads, rows, ref unit, ref gates, device, dtype, .. } = prepared;
    let (width, [segments, owners]) = (heads.value_width(), prepared.segments);
    if gradient.dims2()? != (rows, width) || gradient.dtype() != dtype {
        bail!("a gradient of {:?} {:?} for {rows} rows of {heads:?}", gradient.dtype(), gradient.shape())
    }
    let (outputs, updates) = (prepared.numbers(width)?, prepared.numbers(width)?);
    let states = prepared.forward("delta_rule_again", &[&outputs, &updates])?;
    let (values, state_gradients) = (prepared.numbers(width)?, prepared.states()?);
    let of_columns = [at(gradient)?, at(unit)?, at(gates)?, at(segments)?, at(&state_gradients)?, at(&values)?];
    for completions in [1, 0] {
        prepared.start("delta_rule_columns", heads.value_dimension, &of_columns, &[int(completions)])?;
    }
    let of_keys = heads.value * heads.key_dimension;
    let (queries, keys) = (prepared.numbers(of_keys)?, prepared.numbers(of_keys)?);
    // The second adds to the keys of the first.
    for (name, states) in [("delta_rule_rows_back", &state_gradients), ("delta_rule_rows", &states)] {
        let read = [at(gradient)?, at(&updates)?, at(&values)?, at(unit)?, at(gates)?, at(segments)?, at(owners)?];
        let arguments = [read.as_slice(), &[at(states)?, at(&queries)?, at(&keys)?]].concat();
        prepared.start(name, heads.key_dimension, &arguments, &[])?;
    }

    let convolved_gradient = empty((rows, heads.row_width()), dtype, device)?;
    let (strengths, falls) = (prepared.numbers(heads.value)?, prepared.numbers(heads.value)?);
    let warps = |count: usize| Grid::rows(count.div_ceil(8), 256);
    let tensors = [gradient, convolved, &outputs, &updates, &values, gates, &convolved_gradient, &strengths, &falls];
    let mut arguments = tensors.into_iter().map(at).collect::<Result<Vec<_>>>()?;
    arguments.extend(sizes(heads));
    arguments.push(int(rows));
    let grid = warps(rows * heads.value);
    launch(device, &MODULE, "delta_rule_finish_values", Some(dtype), grid, &arguments)?;

    let (packed, of_rows) = (empty((rows, 2 * heads.value), dtype, device)?, prepared.numbers(2 * heads.value)?);
    let tensors = [segments, gates, &strengths, &falls, rule.decay, &packed, &of_rows];
    let mut arguments = tensors.into_iter().map(at).collect::<Result<Vec<_>>>()?;
    arguments.extend(sizes(heads));
    let grid = Grid { blocks: (prepared.count, heads.value, 1), threads: 32, shared_bytes: 0 };
    launch(device, &MODULE, "delta_rule_finish_gates", Some(dtype), grid, &arguments)?;
    let sums = empty(2 * heads.value, DType::F32, device)?;
    let arguments = [at(&of_rows)?, at(&sums)?, int(rows), int(2 * heads.value)];
    let grid = Grid::rows((2 * heads.value).div_ceil(32), 256);
    launch(device, &MODULE, "delta_rule_gate_sums", None, grid, &arguments)?;

    let mut arguments = vec![at(convolved)?, at(&queries)?, at(&keys)?, at(&convolved_gradient)?];
    arguments.extend(sizes(heads));
    arguments.push(int(rows));
    let grid = warps(rows * 2 * heads.key);
    launch(device, &MODULE, "delta_rule_finish_keys", Some(dtype), grid, &arguments)?;
    Ok(DeltaGradients {
        convolved: convolved_gradient,
        gates: packed,
        bias: sums.narrow(0, 0, heads.value)?,
        decay: sums.narrow(0, heads.value, heads.value)?,
    })
}

/// `slots`: [rows, 2], u32.
pub(super) fn step(convolved: &Tensor, rule: DeltaRule<'_>, states: &Tensor, slots: &Tensor) -> Result<Tensor> {
    let (heads, (rows, _)) = (rule.heads, convolved.dims2()?);
    if states.dims2()?.1 != heads.state_width() || states.dtype() != DType::F32 || slots.dims2()? != (rows, 2) {
        bail!("states {:?} {:?} and {:?} for {rows} rows", states.dtype(), states.shape(), slots.shape())
    }
    let (device, dtype) = (device(convolved)?, convolved.dtype());
    let output = empty((rows, heads.value_width()), dtype, device)?;
    let mut arguments = inputs(convolved, rule)?.to_vec();
    arguments.extend([at(slots)?, at(states)?, at(&output)?]);
    arguments.extend(sizes(heads));
    arguments.push(int(rows));
    let blocks = (heads.value_dimension.div_ceil(SLICE), heads.value, rows);
    let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
    launch(device, &MODULE, "delta_rule_step", Some(dtype), grid, &arguments)?;
    Ok(output)
}
