//! Frozen matrices in e4m3: four bits of exponent, three of mantissa, up to 448 (Micikevicius et
//! al. 2022, arXiv 2209.05433). Scales per output are powers of two, so bf16 holds every weight
//! exactly: sampling, which widens weights on reading, and training, which widens a matrix at a
//! time, use the same values. Activations stay in bf16: quantizing them increased the
//! sampler/trainer difference tenfold (docs/measurements/h100.md).

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::second_stream::SeenFrom;

/// Largest e4m3 number.
const LARGEST: f32 = 448.0;
/// Biased f32 exponent of the smallest scale, 2^-117, so that the smallest weight, 2^-9 of it, is
/// normal.
const LEAST_EXPONENT: u32 = 10;

/// `weight`: [outputs, inputs] -> the nearest e4m3 numbers with a scale per output, in its dtype:
/// f32 or f64 on the CPU, f32 or bf16 on a GPU; f16 and bf16 on the CPU through f32.
///
/// # Errors
/// A non-finite weight.
pub fn rounded(weight: &Tensor) -> Result<Tensor> {
    if weight.device().is_cuda() {
        return Fp8Matrix::quantize(weight)?.numbers(weight.dtype());
    }
    check_finite(weight)?;
    let weight = weight.contiguous()?;
    match weight.dtype() {
        dtype @ (DType::BF16 | DType::F16) => {
            let weight = weight.to_dtype(DType::F32)?;
            round_rows::<f32>(&weight)?.to_dtype(dtype)
        }
        _ => by_number_type!(weight, round_rows(&weight)),
    }
}

fn round_rows<T: Real>(weight: &Tensor) -> Result<Tensor> {
    let (_, columns) = weight.dims2()?;
    let weight_read = read(weight)?;
    let mut numbers = weight_read.numbers::<T>()?.to_vec();
    for row in numbers.chunks_exact_mut(columns.max(1)) {
        let largest = row
            .iter()
            .fold(0.0_f32, |most, x| most.max(x.double().abs() as f32));
        let scale = scale(largest);
        for x in row {
            *x = T::constant(f64::from(nearest(x.double() as f32 / scale) * scale));
        }
    }
    Tensor::from_vec(numbers, weight.shape(), weight.device())
}

fn check_finite(weight: &Tensor) -> Result<()> {
    if weight
        .sum_all()?
        .to_dtype(DType::F64)?
        .to_scalar::<f64>()?
        .is_finite()
    {
        return Ok(());
    }
    bail!("a weight is not a finite number")
}

/// Smallest power of two that brings a row within 448.
fn scale(largest: f32) -> f32 {
    let bits = (largest / LARGEST).to_bits();
    let exponent = (bits >> 23) + u32::from(bits & 0x7f_ffff > 0);
    if largest > 0.0 {
        f32::from_bits(exponent.max(LEAST_EXPONENT) << 23)
    } else {
        1.0
    }
}

/// Nearest e4m3 number, ties to even; `x`: finite.
fn nearest(x: f32) -> f32 {
    /// Adding this puts the last bit at 2^-9, the smallest number.
    const SUBNORMAL: f32 = 1.5 * 16_384.0;
    let (magnitude, bits) = (x.abs(), x.abs().to_bits());
    let normal = f32::from_bits((bits + 0x7_ffff + ((bits >> 20) & 1)) & !0xf_ffff);
    let small = (magnitude + SUBNORMAL) - SUBNORMAL;
    let found = if magnitude < 1.0 / 64.0 {
        small
    } else {
        normal
    };
    found.min(LARGEST).copysign(x)
}

/// A matrix on a GPU.
#[derive(Clone, Debug)]
pub struct Fp8Matrix {
    /// [outputs, inputs], a byte each, in the layout read by the decode kernel (`fp8.cu`).
    codes: Tensor,
    /// `[outputs]`, f32.
    scales: Tensor,
}

impl SeenFrom for Fp8Matrix {
    fn seen_from(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            codes: self.codes.seen_from(device)?,
            scales: self.scales.seen_from(device)?,
        })
    }
}

impl Fp8Matrix {
    /// `weight`: [outputs, inputs].
    ///
    /// # Errors
    /// A non-finite weight, or inputs not a multiple of 64.
    pub fn quantize(weight: &Tensor) -> Result<Self> {
        check_finite(weight)?;
        #[cfg(feature = "cuda")]
        return gpu::quantize(weight);
        #[cfg(not(feature = "cuda"))]
        bail!("a matrix in fp8 is for a GPU")
    }

    /// Stacks matrices with the same input.
    pub fn stacked(parts: &[Self]) -> Result<Self> {
        let codes: Vec<&Tensor> = parts.iter().map(|part| &part.codes).collect();
        let scales: Vec<&Tensor> = parts.iter().map(|part| &part.scales).collect();
        Ok(Self {
            codes: Tensor::cat(&codes, 0)?,
            scales: Tensor::cat(&scales, 0)?,
        })
    }

    /// (outputs, inputs).
    pub fn dims2(&self) -> Result<(usize, usize)> {
        self.codes.dims2()
    }

    /// `[[W, beside], [below, 0]]` in `below`'s dtype, with rows `adapter_columns` longer than W's.
    /// `beside`: [outputs, at most adapter_columns], `below`: [rank, inputs].
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU has no use for it")
    )]
    pub fn joined(
        &self,
        beside: &Tensor,
        below: &Tensor,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return gpu::joined(self, beside, below, adapter_columns);
        #[cfg(not(feature = "cuda"))]
        bail!("a matrix in fp8 is for a GPU")
    }

    /// Dequantized, [outputs, inputs].
    pub fn numbers(&self, dtype: DType) -> Result<Tensor> {
        let (outputs, inputs) = self.dims2()?;
        let none = |rows: usize, columns: usize| {
            Tensor::zeros((rows, columns), dtype, self.codes.device())
        };
        self.joined(&none(outputs, 0)?, &none(0, inputs)?, 0)
    }

    /// Decoding: `x`: [rows, inputs] in bf16 -> products with this matrix and with `a`, [rank,
    /// inputs], side by side: [rows, outputs + rank] in f32.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU has no use for it")
    )]
    pub fn decode(&self, x: &Tensor, a: Option<&Tensor>) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return gpu::decode(self, x, a);
        #[cfg(not(feature = "cuda"))]
        bail!("a matrix in fp8 is for a GPU")
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::mem::MaybeUninit;

    use candle_core::cuda_backend::cudarc::driver::sys;
    use candle_core::{DType, Result, Tensor, bail};

    use super::Fp8Matrix;
    use crate::cuda::{
        Argument, Grid, Module, address, arguments, at, capability, device, empty, failed, int,
        module, rows_at,
    };
    use crate::matmul::matmul_f32;

    static MODULE: Module = module!("fp8");
    /// Hopper's, and that of others.
    static DECODE: Module = module!("fp8_decode");
    static DECODE_BY_WARPS: Module = module!("fp8_decode_warps");

    /// Inner dimension per pipeline stage.
    const CHUNK: usize = 64;
    /// Rows per product.
    const MOST_ROWS: usize = 256;
    /// Chunks of activations in shared memory.
    const STAGES: usize = 4;

    pub(super) fn quantize(weight: &Tensor) -> Result<Fp8Matrix> {
        let (outputs, inputs) = weight.dims2()?;
        if !inputs.is_multiple_of(CHUNK) || !outputs.is_multiple_of(4) {
            bail!(
                "its shape is [{outputs}, {inputs}], and a GPU takes outputs in multiples of 4 and inputs in multiples of {CHUNK}: set base_precision = bf16"
            )
        }
        let device = device(weight)?;
        let codes = empty((outputs, inputs), DType::U8, device)?;
        let scales = empty(outputs, DType::F32, device)?;
        let arguments = arguments!(at weight, &codes, &scales; int inputs);
        MODULE.typed("quantize", weight.dtype()).launch(
            device,
            Grid::rows(outputs, 256),
            &arguments,
        )?;
        Ok(Fp8Matrix { codes, scales })
    }

    pub(super) fn joined(
        matrix: &Fp8Matrix,
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
        let arguments = arguments!(
            at &matrix.codes, &matrix.scales, beside, below, &target;
            int inputs, outputs, used, adapter_columns
        );
        MODULE.typed("widen", below.dtype()).launch(
            gpu,
            Grid::rows(outputs + rank, 256),
            &arguments,
        )?;
        Ok(target)
    }

    pub(super) fn decode(matrix: &Fp8Matrix, x: &Tensor, a: Option<&Tensor>) -> Result<Tensor> {
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
    fn kernels(room: usize) -> [&'static str; 2] {
        match room {
            8 => ["decode_fp8_8", "decode_fp8_warps_8"],
            16 => ["decode_fp8_16", "decode_fp8_warps_16"],
            32 => ["decode_fp8_32", "decode_fp8_warps_32"],
            64 => ["decode_fp8_64", "decode_fp8_warps_64"],
            128 => ["decode_fp8_128", "decode_fp8_warps_128"],
            _ => ["decode_fp8_256", "decode_fp8_warps_256"],
        }
    }

    /// Outputs of a block.
    fn block_outputs(room: usize) -> usize {
        if room > 64 { 128 } else { 64 }
    }

    /// Split-K factor: measured on an H200 at the shapes of Qwen3-8B.
    fn splits(room: usize, tiles: usize, chunks: usize) -> usize {
        let best = if room > 64 {
            (100 / tiles).clamp(2, 6)
        } else {
            (400 / tiles).clamp(1, 6)
        };
        best.min(chunks)
    }

    fn run(matrix: &Fp8Matrix, x: &Tensor, a: Option<&Tensor>, target: &Tensor) -> Result<()> {
        let ((rows, inputs), (outputs, _)) = (x.dims2()?, matrix.dims2()?);
        let (gpu, room) = (device(x)?, room(rows));
        let block = block_outputs(room);
        let tiles = outputs.div_ceil(block);
        let splits = splits(room, tiles, inputs / CHUNK);
        let (beside, rank) = match a {
            Some(a) => (at(a)?, a.dims2()?.0),
            None => (Argument::Address(0), 0),
        };
        let [to, stride] = rows_at(target)?;
        let [hopper, by_warps] = kernels(room);
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
                at x, &matrix.codes, &matrix.scales; given beside, into;
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
            return DECODE_BY_WARPS.kernel("decode_fp8_sum").early().launch(
                gpu,
                Grid::elements(rows * width),
                &arguments,
            );
        }
        // Activations, later reused for sums or the warps' A products.
        let sums = ((room + splits) * (block + 4)).max(block / 16 * 20 * room) * size_of::<f32>();
        let map = rows_map(x, room)?;
        let arguments = arguments!(
            given Argument::Struct(std::ptr::from_ref(&map).cast());
            at x, &matrix.codes, &matrix.scales; given beside, to;
            int rows, inputs, outputs, rank; given stride; int STAGES
        );
        DECODE.kernel(hopper).early().clusters(splits).launch(
            gpu,
            grid((STAGES * room * CHUNK * 2).max(sums)),
            &arguments,
        )
    }

    /// Tensor map for bulk copies of `x`, [rows, inputs]: 64 columns of `room` rows at once,
    /// zero-filled, 16-byte pieces swizzled for wgmma.
    fn rows_map(x: &Tensor, room: usize) -> Result<[u64; 16]> {
        let (rows, inputs) = x.dims2()?;
        let (sizes, stride) = ([inputs as u64, rows as u64], [2 * inputs as u64]);
        let (piece, steps) = ([CHUNK as u32, room as u32], [1_u32; 2]);
        let mut map = MaybeUninit::<sys::CUtensorMap>::uninit();
        // SAFETY: the arrays have two sizes, one stride and two steps, as a matrix needs; `map` is written where the call
        // succeeds, and is 128 bytes without padding.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address(x)? as *mut _,
                sizes.as_ptr(),
                stride.as_ptr(),
                piece.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()
            .map_err(|error| failed("the map of activations", error))?;
            Ok(std::mem::transmute::<sys::CUtensorMap, [u64; 16]>(
                map.assume_init(),
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// All finite non-negative e4m3 numbers, by bits.
    fn all() -> Vec<f32> {
        (0..0x7f_u32)
            .map(|code| match (code >> 3, code & 7) {
                (0, mantissa) => mantissa as f32 / 512.0,
                (exponent, mantissa) => {
                    (1.0 + mantissa as f32 / 8.0) * 2f32.powi(exponent as i32 - 7)
                }
            })
            .collect()
    }

    #[test]
    fn numbers_of_e4m3_stay_and_others_go_to_the_nearest() {
        let all = all();
        assert_eq!((all.len(), all[126]), (127, LARGEST));
        for (index, pair) in all.windows(2).enumerate() {
            let (low, high) = (pair[0], pair[1]);
            assert_eq!((nearest(low), nearest(-high)), (low, -high));
            let middle = f32::midpoint(low, high);
            // The even of two codes.
            assert_eq!(
                nearest(middle),
                if index % 2 == 0 { low } else { high },
                "{middle}"
            );
            assert_eq!(
                (nearest(middle.next_down()), nearest(middle.next_up())),
                (low, high)
            );
        }
        assert_eq!((nearest(1e9), nearest(-1e9)), (LARGEST, -LARGEST));
    }

    #[test]
    fn scales_are_the_powers_of_two_that_bring_a_row_below_448() {
        let check = |largest: f32, expected: f32| assert_eq!(scale(largest), expected, "{largest}");
        check(448.0, 1.0);
        check(448.0_f32.next_up(), 2.0);
        check(224.0, 0.5);
        check(0.1, 1.0 / 4096.0);
        check(0.0, 1.0);
        check(f32::MIN_POSITIVE, 2f32.powi(-117));
    }

    #[test]
    fn rounded_rows_are_near_and_bf16_holds_them() {
        let value =
            |i: usize| ((i * 7919 % 2003) as f32 / 1001.0 - 1.0) * if i < 64 { 1e-3 } else { 30.0 };
        let weight = Tensor::from_vec(
            (0..192).map(value).collect::<Vec<_>>(),
            (3, 64),
            &Device::Cpu,
        )
        .unwrap();
        let found = rounded(&weight).unwrap();
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (row, (found, weight)) in numbers(&found)
            .chunks(64)
            .zip(numbers(&weight).chunks(64))
            .enumerate()
        {
            let largest = weight.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            for (found, weight) in found.iter().zip(weight) {
                // Half of the last of three bits, or of the smallest number.
                assert!(
                    (found - weight).abs() <= (weight.abs() / 16.0).max(largest / 448.0 / 512.0),
                    "row {row}"
                );
            }
        }
        let through = found
            .to_dtype(DType::BF16)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        assert_eq!(numbers(&found), numbers(&through));
        assert_eq!(
            numbers(&rounded(&found).unwrap()),
            numbers(&found),
            "rounded numbers stay"
        );
        for bad in [f32::NAN, f32::INFINITY] {
            let numbers: Vec<f32> = (0..64).map(|i| if i == 7 { bad } else { 1.0 }).collect();
            let message =
                rounded(&Tensor::from_vec(numbers, (1, 64), &Device::Cpu).unwrap()).unwrap_err();
            assert!(message.to_string().contains("not a finite number"));
        }
    }
}
