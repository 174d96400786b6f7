//! Prepares queries and keys for attention: head norms (Qwen3), then rotary positions (Su et al.
//! 2021, arXiv 2104.09864; rotating halves, not adjacent pairs).

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::decode_attention::{DecodeRows, append_keys_values};
use super::heads::Heads;
use super::matmul::no_adapter_columns;
use super::open_rows::OpenRows;
use super::real::vectorised;
use super::rms_norm::{inverse_rms, norm_row, norm_row_backward};

/// Cosines and sines by position: two tensors [positions, rotary dimension / 2]. Remaining
/// dimensions of a head are not rotated.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cosines: Tensor,
    sines: Tensor,
}

impl RopeTable {
    /// Angles `position * theta^(-2i / dimension)`, computed in f64.
    pub fn new(
        positions: usize,
        dimension: usize,
        theta: f64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let frequencies: Vec<f64> = (0..dimension / 2)
            .map(|i| theta.powf(-2.0 * i as f64 / dimension as f64))
            .collect();
        Self::from_frequencies(positions, &frequencies, dtype, device)
    }

    /// Angles `position * frequency`, computed in f64; `frequencies`: [dimension / 2], radians a token.
    pub fn from_frequencies(
        positions: usize,
        frequencies: &[f64],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let half = frequencies.len();
        let (mut cosines, mut sines) = (vec![0.0; positions * half], vec![0.0; positions * half]);
        // A long context has millions: use every core.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = positions.div_ceil(cores).max(1024) * half.max(1);
        std::thread::scope(|scope| {
            for (part, (cosines, sines)) in cosines
                .chunks_mut(share)
                .zip(sines.chunks_mut(share))
                .enumerate()
            {
                scope.spawn(move || {
                    for (n, (cosine, sine)) in (part * share..).zip(cosines.iter_mut().zip(sines)) {
                        (*sine, *cosine) = ((n / half) as f64 * frequencies[n % half]).sin_cos();
                    }
                });
            }
        });
        // Rounded here: candle would have to compile a GPU kernel for it.
        let table = |numbers| {
            Tensor::from_vec(numbers, (positions, half), &Device::Cpu)?
                .to_dtype(dtype)?
                .to_device(device)
        };
        Ok(Self {
            cosines: table(cosines)?,
            sines: table(sines)?,
        })
    }

    fn half(&self) -> usize {
        self.cosines.dims()[1]
    }

    pub fn positions(&self) -> usize {
        self.cosines.dims()[0]
    }
}

/// Inputs besides the packed rows.
#[derive(Clone, Copy, Debug)]
pub struct QueryKeyContext<'a> {
    /// Layout of a packed row.
    pub heads: Heads,
    /// Weights `[dimension]` of query and key norm, in some families.
    pub norms: Option<(&'a Tensor, &'a Tensor)>,
    /// Added to the norms' weights.
    pub norm_offset: f64,
    pub epsilon: f64,
    /// Position of each row: `[rows]`, u32. Not checked against the table on a GPU.
    pub positions: &'a Tensor,
    /// f32 on a GPU.
    pub table: &'a RopeTable,
}

/// `packed`: [rows, row_width] -> same shape, queries and keys normed and rotated, values copied.
pub fn query_key_rope(packed: &Tensor, context: QueryKeyContext<'_>) -> Result<Tensor> {
    on_gpu!(packed => gpu::forward(packed, context));
    by_number_type!(packed, forward(packed, context))
}

/// As [`query_key_rope`] for decoding: adds the adapters' part, and writes each row's newest keys
/// and values to `cache`: [slots, 2 * key_width].
pub fn query_key_rope_open(
    packed: &OpenRows,
    context: QueryKeyContext<'_>,
    cache: &Tensor,
    rows: &DecodeRows,
) -> Result<Tensor> {
    on_gpu!(cache => gpu::decode(packed, context, cache, rows.table()?.0));
    let rotated = query_key_rope(&packed.rows, context)?;
    append_keys_values(cache, &rotated, context.heads, rows.listed()?)?;
    Ok(rotated)
}

/// Gradient of `packed` from that of the result, both [rows, row_width] -> [rows, row_width +
/// adapter_columns], last `adapter_columns` columns unwritten (see [`super::matmul`]).
pub fn query_key_rope_backward(
    gradient: &Tensor,
    packed: &Tensor,
    context: QueryKeyContext<'_>,
    adapter_columns: usize,
) -> Result<Tensor> {
    on_gpu!(packed => gpu::backward(gradient, packed, context, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    Ok(by_number_type!(packed, backward(gradient, packed, context))?.0)
}

/// As [`query_key_rope_backward`], plus gradients `[dimension]` of the norms' weights, f32 on a
/// GPU.
pub fn query_key_rope_backward_all(
    gradient: &Tensor,
    packed: &Tensor,
    context: QueryKeyContext<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    on_gpu!(packed => gpu::backward_all(gradient, packed, context));
    by_number_type!(packed, backward(gradient, packed, context))
}

fn forward<T: Real>(packed: &Tensor, context: QueryKeyContext<'_>) -> Result<Tensor> {
    let (rows, width) = packed.dims2()?;
    numbers!(u32: positions = context.positions);
    check_positions(positions, rows)?;
    let Heads {
        query,
        key_value,
        dimension,
    } = context.heads;
    let table = context.table;
    numbers!(T: numbers = packed, cosines = &table.cosines, sines = &table.sines);
    let norms = norms::<T>(context)?;
    let half = context.table.half();
    let mut output = numbers.to_vec();
    vectorised!(|| {
        for ((row, out), &position) in numbers
            .chunks_exact(width)
            .zip(output.chunks_exact_mut(width))
            .zip(positions)
        {
            let cosine = angles(cosines, position, half)?;
            let sine = angles(sines, position, half)?;
            for head in 0..query + key_value {
                let columns = head * dimension..(head + 1) * dimension;
                let out = &mut out[columns.clone()];
                if let Some([query_norm, key_norm]) = &norms {
                    norm_row(
                        &row[columns],
                        if head < query { query_norm } else { key_norm },
                        (
                            T::constant(context.norm_offset),
                            T::constant(context.epsilon),
                        ),
                        out,
                    );
                }
                rotate(out, cosine, sine, T::one());
            }
        }
        Ok::<_, candle_core::Error>(())
    })?;
    Tensor::from_vec(output, (rows, width), packed.device())
}

fn check_positions(positions: &[u32], rows: usize) -> Result<()> {
    if positions.len() != rows {
        bail!("{} positions for {rows} rows", positions.len())
    }
    Ok(())
}

/// Weights of query and key norm.
fn norms<T: Real>(context: QueryKeyContext<'_>) -> Result<Option<[Vec<T>; 2]>> {
    let Some((query, key)) = context.norms else {
        return Ok(None);
    };
    numbers!(T: query = query, key = key);
    Ok(Some([query.to_vec(), key.to_vec()]))
}

/// The `half` cosines or sines of a position.
#[inline(always)]
fn angles<T>(table: &[T], position: u32, half: usize) -> Result<&[T]> {
    let start = position as usize * half;
    match table.get(start..start + half) {
        Some(angles) => Ok(angles),
        None => bail!(
            "position {position} is beyond the model's {} positions",
            table.len() / half
        ),
    }
}

/// Rotates each pair (i, i + half) of the first `2 * half` elements; `direction` -1 inverts, which
/// is also the gradient.
#[inline(always)]
fn rotate<T: Real>(head: &mut [T], cosine: &[T], sine: &[T], direction: T) {
    let (low, high) = head[..2 * cosine.len()].split_at_mut(cosine.len());
    for i in 0..cosine.len() {
        let (x, y, s) = (low[i], high[i], sine[i] * direction);
        low[i] = x * cosine[i] - y * s;
        high[i] = y * cosine[i] + x * s;
    }
}

fn backward<T: Real>(
    gradient: &Tensor,
    packed: &Tensor,
    context: QueryKeyContext<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (rows, width) = packed.dims2()?;
    numbers!(u32: positions = context.positions);
    check_positions(positions, rows)?;
    let Heads {
        query,
        key_value,
        dimension,
    } = context.heads;
    let table = context.table;
    numbers!(T: gradients = gradient, numbers = packed, cosines = &table.cosines, sines = &table.sines);
    let norms = norms::<T>(context)?;
    let half = context.table.half();
    let mut output = gradients.to_vec();
    let mut weight_gradients = [vec![T::zero(); dimension], vec![T::zero(); dimension]];
    let mut turned = vec![T::zero(); dimension];
    vectorised!(|| {
        let rows = gradients
            .chunks_exact(width)
            .zip(numbers.chunks_exact(width))
            .zip(output.chunks_exact_mut(width));
        for (((g, row), out), &position) in rows.zip(positions) {
            let cosine = angles(cosines, position, half)?;
            let sine = angles(sines, position, half)?;
            for head in 0..query + key_value {
                let columns = head * dimension..(head + 1) * dimension;
                turned.copy_from_slice(&g[columns.clone()]);
                rotate(&mut turned, cosine, sine, T::constant(-1.0));
                let out = &mut out[columns.clone()];
                let Some([query_norm, key_norm]) = &norms else {
                    out.copy_from_slice(&turned);
                    continue;
                };
                let (weight, weight_gradient) = if head < query {
                    (query_norm, &mut weight_gradients[0])
                } else {
                    (key_norm, &mut weight_gradients[1])
                };
                let row = &row[columns];
                norm_row_backward(
                    &turned,
                    row,
                    weight,
                    (
                        T::constant(context.norm_offset),
                        T::constant(context.epsilon),
                    ),
                    out,
                );
                let inverse = inverse_rms(row, T::constant(context.epsilon));
                for i in 0..dimension {
                    weight_gradient[i] += turned[i] * row[i] * inverse;
                }
            }
        }
        Ok::<_, candle_core::Error>(())
    })?;
    let [query_gradient, key_gradient] = weight_gradients;
    let device = packed.device();
    Ok((
        Tensor::from_vec(output, (rows, width), device)?,
        Tensor::from_vec(query_gradient, dimension, device)?,
        Tensor::from_vec(key_gradient, dimension, device)?,
    ))
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{Heads, OpenRows, QueryKeyContext};
    use crate::cuda::{
        Argument, Grid, Module, arguments, at, device, empty, float, module, sum_parts,
    };
    use crate::decode_attention::gpu as decode_attention;

    static MODULE: Module = module!("rope");

    const WARPS: usize = 8;

    /// Arguments common to these kernels: positions, cosines, sines, query heads, key heads,
    /// dimension, half the rotary dimension.
    fn shared_arguments(packed: &Tensor, context: QueryKeyContext<'_>) -> Result<[Argument; 7]> {
        let (rows, width) = packed.dims2()?;
        let Heads {
            query,
            key_value,
            dimension,
        } = context.heads;
        let (table, positions) = (context.table, context.positions);
        if width != context.heads.row_width()
            || positions.dims() != [rows]
            || positions.dtype() != DType::U32
        {
            bail!(
                "rows {packed:?} with positions {positions:?} for heads {:?}",
                context.heads
            )
        }
        if table.cosines.dtype() != DType::F32
            || table.half() * 2 > dimension
            || !dimension.is_multiple_of(2)
        {
            bail!(
                "on a GPU the table of angles is f32 and at most half a head wide: {:?} {:?}",
                table.cosines.dtype(),
                table.cosines.shape()
            )
        }
        let [cosines, sines] = [at(&table.cosines)?, at(&table.sines)?];
        Ok(arguments!(
            at positions; given cosines, sines; int query, key_value, dimension, table.half()
        ))
    }

    fn norms(dtype: DType, context: QueryKeyContext<'_>) -> Result<[Argument; 2]> {
        let Some((query, key)) = context.norms else {
            return Ok([Argument::Address(0); 2]);
        };
        for norm in [query, key] {
            if norm.dtype() != dtype || norm.dims() != [context.heads.dimension] {
                bail!(
                    "a norm of {norm:?} for heads {:?} in {dtype:?}",
                    context.heads
                )
            }
        }
        Ok([at(query)?, at(key)?])
    }

    /// Heads per warp, as in rope.cu.
    const HEADS: usize = 4;

    /// A warp for some heads of each row, values included.
    fn grid(packed: &Tensor, heads: Heads) -> Result<(Grid, Argument)> {
        if heads.dimension > 512 {
            bail!(
                "heads of {} numbers: a GPU turns up to 512",
                heads.dimension
            )
        }
        let count = packed.dims2()?.0 * (heads.query + 2 * heads.key_value).div_ceil(HEADS);
        Ok((
            Grid::rows(count.div_ceil(WARPS), WARPS * 32),
            Argument::Unsigned(count as u32),
        ))
    }

    pub(super) fn forward(packed: &Tensor, context: QueryKeyContext<'_>) -> Result<Tensor> {
        let (device, dtype) = (device(packed)?, packed.dtype());
        let output = empty(packed.shape(), dtype, device)?;
        let (grid, count) = grid(packed, context.heads)?;
        let [query_norm, key_norm] = norms(dtype, context)?;
        let mut arguments = vec![at(packed)?, query_norm, key_norm, at(&output)?];
        arguments.extend(shared_arguments(packed, context)?);
        arguments.extend([count, float(context.norm_offset), float(context.epsilon)]);
        MODULE
            .typed("query_key_rope", dtype)
            .launch(device, grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn decode(
        packed: &OpenRows,
        context: QueryKeyContext<'_>,
        cache: &Tensor,
        table: &Tensor,
    ) -> Result<Tensor> {
        let heads = context.heads;
        if heads.dimension > 512 {
            bail!(
                "heads of {} numbers: a GPU turns up to 512",
                heads.dimension
            )
        }
        let own = packed.own()?;
        decode_attention::check(own.dims2()?, cache, heads, table)?;
        let (rows, _) = own.dims2()?;
        let (device, dtype) = (device(cache)?, cache.dtype());
        if own.dtype() != DType::F32 {
            bail!(
                "queries and keys in {:?}; while decoding they are f32",
                own.dtype()
            )
        }
        let output = empty((rows, heads.row_width()), dtype, device)?;
        let mut arguments = packed.arguments()?.to_vec();
        arguments.extend(norms(dtype, context)?);
        arguments.extend(arguments!(at &output; at cache, table));
        arguments.extend(shared_arguments(&own, context)?);
        arguments.extend(arguments!(int rows; float context.norm_offset, context.epsilon));
        let count = heads.query + 2 * heads.key_value;
        // A warp has a head of sixteen rows.
        let of_sixteen = Grid::blocks((count, rows.div_ceil(16), 1), 32);
        let is_whole = context.table.half() * 2 == heads.dimension;
        let (name, grid) = match heads.dimension {
            64 if dtype == DType::BF16 && is_whole => {
                ("query_key_rope_decode_tensor_64", of_sixteen)
            }
            128 if dtype == DType::BF16 && is_whole => {
                ("query_key_rope_decode_tensor_128", of_sixteen)
            }
            _ => (
                "query_key_rope_decode",
                Grid::rows((rows * count).div_ceil(WARPS), WARPS * 32),
            ),
        };
        MODULE
            .typed(name, dtype)
            .early()
            .launch(device, grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        packed: &Tensor,
        context: QueryKeyContext<'_>,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (device, dtype) = (device(packed)?, packed.dtype());
        check_gradient(gradient, packed)?;
        let (rows, width) = packed.dims2()?;
        let output = empty((rows, width + adapter_columns), dtype, device)?;
        let (grid, count) = grid(packed, context.heads)?;
        let [query_norm, key_norm] = norms(dtype, context)?;
        let mut arguments = arguments!(
            at gradient, packed; given query_norm, key_norm; at &output;
            int width + adapter_columns
        )
        .to_vec();
        arguments.extend(shared_arguments(packed, context)?);
        arguments.extend([count, float(context.norm_offset), float(context.epsilon)]);
        MODULE
            .typed("query_key_rope_backward", dtype)
            .launch(device, grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn backward_all(
        gradient: &Tensor,
        packed: &Tensor,
        context: QueryKeyContext<'_>,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let packed_gradient = backward(gradient, packed, context, 0)?;
        let (device, dtype, dimension) = (device(packed)?, packed.dtype(), context.heads.dimension);
        let rows = packed.dims2()?.0;
        let heads = rows * context.heads.query.max(context.heads.key_value);
        if context.norms.is_none() || heads == 0 {
            let zeros = || Tensor::zeros(dimension, DType::F32, packed.device());
            return Ok((packed_gradient, zeros()?, zeros()?));
        }
        let parts = heads.div_ceil(512).min(256);
        let heads_a_part = heads.div_ceil(parts) as u64;
        let partial = empty((parts, 2 * dimension), DType::F32, device)?;
        let mut arguments = arguments!(at gradient, packed, &partial).to_vec();
        arguments.extend(shared_arguments(packed, context)?);
        arguments.extend([
            Argument::Long(rows as u64),
            Argument::Long(heads_a_part),
            float(context.epsilon),
        ]);
        let grid = Grid {
            blocks: (parts, 2, 1),
            threads: WARPS * 32,
            shared_bytes: WARPS * dimension * size_of::<f32>(),
        };
        MODULE
            .typed("norm_parts", dtype)
            .launch(device, grid, &arguments)?;
        let sums = sum_parts(&MODULE, "norm_sums", &partial)?;
        Ok((
            packed_gradient,
            sums.narrow(0, 0, dimension)?,
            sums.narrow(0, dimension, dimension)?,
        ))
    }

    fn check_gradient(gradient: &Tensor, packed: &Tensor) -> Result<()> {
        if gradient.dtype() != packed.dtype() || gradient.dims() != packed.dims() {
            bail!("a gradient of {gradient:?} for {packed:?}")
        }
        Ok(())
    }
}
