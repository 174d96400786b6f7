//! Quantizes to llama.cpp's k-quants, as its `quantize_row_q{4,5,6}_K_ref` do. candle's own for
//! these types search less: their error is larger. Each SIMD lane is one sub-block, so that sums
//! keep llama.cpp's order.

use candle_core::quantized::GgmlDType;
use half::f16;

/// Elements of a block.
pub const BLOCK: usize = 256;
/// Added to and subtracted from a number below 2^22: rounds it, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The blocks of finite `numbers`, whole blocks, on all cores; `None` for types other than `Q4K`,
/// `Q5K` and `Q6K`.
pub fn quantize(numbers: &[f32], dtype: GgmlDType) -> Option<Vec<u8>> {
    use GgmlDType::{Q4K, Q5K, Q6K};
    if !matches!(dtype, Q4K | Q5K | Q6K) {
        return None;
    }
    let (blocks, rest) = numbers.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "{} numbers are no blocks", numbers.len());
    let bytes = dtype.type_size();
    let mut out = vec![0; blocks.len() * bytes];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = blocks.len().div_ceil(cores).max(64);
    std::thread::scope(|scope| {
        for (blocks, out) in blocks.chunks(share).zip(out.chunks_mut(share * bytes)) {
            let share = Share { dtype, blocks, out };
            scope.spawn(|| pulp::Arch::new().dispatch(share));
        }
    });
    Some(out)
}

/// A thread's blocks. A closure of this size would not be compiled for wide vectors.
struct Share<'a> {
    dtype: GgmlDType,
    blocks: &'a [[f32; BLOCK]],
    out: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let out = self.out.chunks_exact_mut(self.dtype.type_size());
        for (x, block) in self.blocks.iter().zip(out) {
            match self.dtype {
                GgmlDType::Q4K => with_minima::<15>(x, (-1.0, 20), block),
                GgmlDType::Q5K => with_minima::<31>(x, (-0.5, 15), block),
                _ => of_six_bits(x, block),
            }
        }
    }
}

/// Q4_K (`MOST` = 15): d, dmin, 12 bytes of scales and minima (6 bits each, of sub-blocks of 32), 128
/// of low bits. Q5_K (31): 32 bytes of high bits before these.
#[inline(always)]
fn with_minima<const MOST: u8>(x: &[f32; BLOCK], search: (f32, usize), block: &mut [u8]) {
    let (scales, minima) = scales_and_minima(x, f32::from(MOST), search);
    let largest = |of: &[f32; 8]| of.iter().fold(0.0_f32, |most, &one| most.max(one));
    let (d, dmin) = (
        f16::from_f32(largest(&scales) / 63.0),
        f16::from_f32(largest(&minima) / 63.0),
    );
    let six_bits = |of: [f32; 8]| {
        let most = largest(&of);
        let inverse = if most > 0.0 { 63.0 / most } else { 0.0 };
        of.map(|one| round(inverse * one).min(63.0) as u8)
    };
    let (scales, minima) = (six_bits(scales), six_bits(minima));
    let (head, quants) = block.split_at_mut(16);
    head[..2].copy_from_slice(&d.to_le_bytes());
    head[2..4].copy_from_slice(&dmin.to_le_bytes());
    for j in 0..4 {
        let (scale, minimum) = (scales[j + 4], minima[j + 4]);
        head[4 + j] = scales[j] | (scale >> 4 << 6);
        head[8 + j] = minima[j] | (minimum >> 4 << 6);
        head[12 + j] = (scale & 15) | (minimum << 4);
    }
    let mut quantized = [0; BLOCK];
    for (j, (x, quantized)) in x.chunks(32).zip(quantized.chunks_mut(32)).enumerate() {
        let (d, dmin) = (
            d.to_f32() * f32::from(scales[j]),
            dmin.to_f32() * f32::from(minima[j]),
        );
        for (x, quantized) in x.iter().zip(quantized).filter(|_| d != 0.0) {
            *quantized = round(clamp((x + dmin) / d, 0.0, f32::from(MOST))) as u8;
        }
    }
    let high = usize::from(MOST > 15) * 32;
    for (pair, of_pair) in quantized.chunks(64).enumerate() {
        let (first, second) = of_pair.split_at(32);
        for (l, (first, second)) in first.iter().zip(second).enumerate() {
            quants[high + 32 * pair + l] = (first & 15) | (second << 4);
            if high > 0 {
                quants[l] |= ((first >> 4) | (second >> 4 << 1)) << (2 * pair);
            }
        }
    }
}

/// [element][sub-block].
type Transposed = [[f32; 8]; 32];

/// `make_qkx2_quants` of eight sub-blocks: of the candidates for scale and minimum those with the
/// least error, weighted by size. The minima are negated. `search`: least step added to `most`, and
/// number of steps of 0.1.
#[inline(always)]
fn scales_and_minima(
    x: &[f32; BLOCK],
    most: f32,
    (first, steps): (f32, usize),
) -> ([f32; 8], [f32; 8]) {
    let x: Transposed = std::array::from_fn(|i| std::array::from_fn(|j| x[32 * j + i]));
    let mut squares = [0.0; 8];
    for row in &x {
        (0..8).for_each(|j| squares[j] += row[j] * row[j]);
    }
    let mean = squares.map(|sum: f32| (sum / 32.0).sqrt());
    let (mut least, mut largest) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = ([0.0; 8], [0.0; 8]);
    let mut weights = [[0.0; 8]; 32];
    for (row, weights) in x.iter().zip(&mut weights) {
        for j in 0..8 {
            weights[j] = mean[j] + row[j].abs();
            least[j] = if row[j] < least[j] { row[j] } else { least[j] };
            largest[j] = if row[j] > largest[j] {
                row[j]
            } else {
                largest[j]
            };
            sum_w[j] += weights[j];
            sum_x[j] += weights[j] * row[j];
        }
    }
    let mut minimum = least.map(|least| least.min(0.0));
    let start = minimum;
    let inverse: [f32; 8] = std::array::from_fn(|j| most / (largest[j] - minimum[j]));
    let mut scale = inverse.map(|inverse| 1.0 / inverse);
    let mut best = errors(
        (&x, &weights),
        (&scale, &minimum),
        (&inverse, &minimum),
        most,
    );
    for step in 0..=steps {
        let inverse: [f32; 8] =
            std::array::from_fn(|j| (first + 0.1 * step as f32 + most) / (largest[j] - minimum[j]));
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; 8], [0.0; 8], [0.0; 8]);
        for (row, weights) in x.iter().zip(&weights) {
            for j in 0..8 {
                let quantized = round(clamp(inverse[j] * (row[j] - minimum[j]), 0.0, most));
                let weighted = weights[j] * quantized;
                sum_l[j] += weighted;
                sum_l2[j] += weighted * quantized;
                sum_xl[j] += weighted * row[j];
            }
        }
        let (mut new_scale, mut new_minimum) = (scale, minimum);
        let mut is_valid = [false; 8];
        for j in 0..8 {
            let determinant = sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j];
            is_valid[j] = determinant > 0.0;
            new_scale[j] = (sum_w[j] * sum_xl[j] - sum_x[j] * sum_l[j]) / determinant;
            new_minimum[j] = (sum_l2[j] * sum_x[j] - sum_l[j] * sum_xl[j]) / determinant;
            if new_minimum[j] > 0.0 {
                new_minimum[j] = 0.0;
                new_scale[j] = sum_xl[j] / sum_l2[j];
            }
        }
        let error = errors(
            (&x, &weights),
            (&new_scale, &new_minimum),
            (&inverse, &minimum),
            most,
        );
        for j in 0..8 {
            if is_valid[j] && error[j] < best[j] {
                (best[j], scale[j], minimum[j]) = (error[j], new_scale[j], new_minimum[j]);
            }
        }
    }
    for j in (0..8).filter(|&j| largest[j] == start[j]) {
        (scale[j], minimum[j]) = (0.0, start[j]);
    }
    (scale, minimum.map(|minimum| -minimum))
}

/// Weighted squared errors of `scale` and `minimum`, with what the candidates `inverse` and `from`
/// round to.
#[inline(always)]
fn errors(
    (x, weights): (&Transposed, &Transposed),
    (scale, minimum): (&[f32; 8], &[f32; 8]),
    (inverse, from): (&[f32; 8], &[f32; 8]),
    most: f32,
) -> [f32; 8] {
    let mut errors = [0.0; 8];
    for (row, weights) in x.iter().zip(weights) {
        for j in 0..8 {
            let quantized = round(clamp(inverse[j] * (row[j] - from[j]), 0.0, most));
            let difference = scale[j] * quantized + minimum[j] - row[j];
            errors[j] += weights[j] * (difference * difference);
        }
    }
    errors
}

/// Q6_K: 128 bytes of low bits, 64 of high ones, scales of 16 sub-blocks, d.
#[inline(always)]
fn of_six_bits(x: &[f32; BLOCK], block: &mut [u8]) {
    let scales = scales(x);
    let largest = scales
        .iter()
        .fold(0.0_f32, |most, &one| match one.abs() > most.abs() {
            true => one,
            false => most,
        });
    if largest.abs() < TINY {
        block.fill(0);
        return;
    }
    let inverse = -128.0 / largest;
    let d = f16::from_f32(1.0 / inverse);
    let scales = scales.map(|scale| round(inverse * scale).min(127.0) as i8);
    let mut quantized = [0_u8; BLOCK];
    for (j, (x, quantized)) in x.chunks(16).zip(quantized.chunks_mut(16)).enumerate() {
        let d = d.to_f32() * f32::from(scales[j]);
        for (x, quantized) in x.iter().zip(quantized).filter(|_| d != 0.0) {
            *quantized = (round(clamp(x / d, -32.0, 31.0)) + 32.0) as u8;
        }
    }
    let (low, rest) = block.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    for (half, of_half) in quantized.chunks(128).enumerate() {
        for l in 0..32 {
            let [a, b, c, d] = [0, 32, 64, 96].map(|at| of_half[at + l]);
            low[64 * half + l] = (a & 15) | (c << 4);
            low[64 * half + 32 + l] = (b & 15) | (d << 4);
            high[32 * half + l] = (a >> 4) | (b >> 4 << 2) | (c >> 4 << 4) | (d >> 4 << 6);
        }
    }
    let bytes = scales.map(|scale| scale.to_le_bytes()[0]);
    rest[..16].copy_from_slice(&bytes);
    rest[16..].copy_from_slice(&d.to_le_bytes());
}

/// Below it llama.cpp takes a sub-block for zeros.
const TINY: f32 = 1e-15;

/// `make_qx_quants` of sixteen sub-blocks: of nineteen candidates the scale with the least error,
/// weighted by the square.
#[inline(always)]
fn scales(x: &[f32; BLOCK]) -> [f32; 16] {
    let x: [[f32; 16]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| x[16 * j + i]));
    let mut largest = [0.0_f32; 16];
    for row in &x {
        for j in 0..16 {
            let is_larger = row[j].abs() > largest[j].abs();
            largest[j] = if is_larger { row[j] } else { largest[j] };
        }
    }
    let (mut scale, mut best) = ([0.0; 16], [0.0; 16]);
    let steps = std::iter::once(0).chain((-9..=9).filter(|&step| step != 0));
    for step in steps {
        let inverse = largest.map(|largest| -(32.0 + 0.1 * step as f32) / largest);
        let (mut sum_xl, mut sum_l2) = ([0.0; 16], [0.0; 16]);
        for row in &x {
            for j in 0..16 {
                let quantized = round(clamp(inverse[j] * row[j], -32.0, 31.0));
                let weight = row[j] * row[j];
                sum_xl[j] += weight * row[j] * quantized;
                sum_l2[j] += weight * quantized * quantized;
            }
        }
        for j in 0..16 {
            let is_better = step == 0 || sum_xl[j] * sum_xl[j] > best[j] * sum_l2[j];
            if sum_l2[j] > 0.0 && is_better {
                scale[j] = sum_xl[j] / sum_l2[j];
                best[j] = scale[j] * sum_xl[j];
            }
        }
    }
    std::array::from_fn(|j| {
        if largest[j].abs() < TINY {
            0.0
        } else {
            scale[j]
        }
    })
}

#[inline(always)]
fn round(number: f32) -> f32 {
    (number + ROUND) - ROUND
}

/// Unlike `f32::clamp` one instruction a bound: NaN becomes `least`.
#[inline(always)]
fn clamp(number: f32, least: f32, most: f32) -> f32 {
    let number = if number > least { number } else { least };
    if number < most { number } else { most }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::quantized::{QStorage, QTensor};
    use candle_core::{Device, Result};

    use super::*;

    const TYPES: [(&str, GgmlDType); 3] = [
        ("Q4", GgmlDType::Q4K),
        ("Q5", GgmlDType::Q5K),
        ("Q6", GgmlDType::Q6K),
    ];

    /// As in scripts/golden/k_quants.py.
    fn numbers() -> Vec<f32> {
        let mut state = 1_u32;
        let number = |index: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            number * number * number * if index.is_multiple_of(37) { 8.0 } else { 1.0 }
        };
        (0..512).map(number).collect()
    }

    fn read_back(numbers: &[f32], dtype: GgmlDType) -> Result<Vec<f32>> {
        let blocks = quantize(numbers, dtype).unwrap();
        let storage = QStorage::from_data(blocks.into(), &Device::Cpu, dtype)?;
        QTensor::new(storage, numbers.len())?
            .dequantize(&Device::Cpu)?
            .to_vec1()
    }

    #[test]
    fn blocks_are_llama_cpps_bit_for_bit() {
        let golden = include_str!("../../tests/parity/k_quants.txt");
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for (name, dtype) in TYPES {
            let (_, expected) = golden
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(known, _)| *known == name)
                .unwrap();
            let found: String = hex(quantize(&numbers(), dtype).unwrap());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn zeros_constants_and_outliers_come_back() {
        let mut outlier = [0.01; BLOCK];
        outlier[77] = 1000.0;
        let tiny: Vec<f32> = numbers()[..BLOCK].iter().map(|x| x * 1e-30).collect();
        let cases: [(&[f32], f32); 5] = [
            (&[0.0; BLOCK], 0.0),
            (&[0.5; BLOCK], 0.0005),
            (&[-0.5; BLOCK], 0.0005),
            (&outlier, 0.5),
            (&tiny, 1e-30),
        ];
        for (numbers, most) in cases {
            for (name, dtype) in TYPES {
                let found = read_back(numbers, dtype).unwrap();
                let is_near = |(found, number): (&f32, &f32)| (found - number).abs() <= most;
                assert!(
                    found.iter().zip(numbers).all(is_near),
                    "{name}: {found:?} of {}",
                    numbers[0]
                );
            }
        }
    }
}
