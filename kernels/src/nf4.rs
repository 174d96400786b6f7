//! Frozen matrices in NF4: sixteen numbers at the quantiles of a normal distribution, times a scale
//! per block of 64 inner indices (`QLoRA`, Dettmers et al. 2023, arXiv 2305.14314). With double
//! quantization scales are 8-bit codes, too, with a scale per 256 of them and an offset per matrix.
//! Numbers are those of bitsandbytes; sampling and training read the same.

use half::bf16;

/// Weights of a row that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a scale.
pub const GROUP: usize = 256;

/// Numbers of the codes.
pub const NUMBERS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Numbers of the codes of scales: a sign, an exponent of ten and a fraction with as many bits as
/// the exponent leaves (Dettmers 2016, arXiv 1511.04561).
pub fn scale_numbers() -> [f32; 256] {
    let mut numbers = [0.0; 256];
    numbers[255] = 1.0;
    for exponent in 0..7 {
        let fractions = 1 << exponent;
        for fraction in 0..fractions {
            let mean = 0.1 + 0.9 * (f64::from(fraction) + 0.5) / f64::from(fractions);
            let number = (mean * 10_f64.powi(exponent - 6)) as f32;
            let place = (fractions + fraction) as usize;
            numbers[127 + place] = number;
            numbers[127 - place] = -number;
        }
    }
    numbers
}

/// Midpoints of ascending numbers.
fn midpoints(numbers: &[f32]) -> Vec<f32> {
    let middle = |pair: &[f32]| (pair[0] + pair[1]) * 0.5;
    numbers.windows(2).map(middle).collect()
}

/// Code of the nearest number, the lower of two; 0 for NaN.
fn nearest(midpoints: &[f32], x: f32) -> usize {
    midpoints.partition_point(|&middle| x > middle)
}

/// `code`'s number times a scale: a weight.
pub fn weight(number: f32, scale: f32) -> bf16 {
    bf16::from_f32(number * scale)
}

/// Rounds finite numbers of a matrix, row-major; as the kernels of nf4.cu do, in the same order of
/// sums.
pub(crate) fn round(numbers: &mut [f32]) {
    let scale_numbers = scale_numbers();
    let (middles, scale_middles) = (midpoints(&NUMBERS), midpoints(&scale_numbers));
    let largest = |block: &[f32]| block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let maxima: Vec<f32> = numbers.chunks(BLOCK).map(largest).collect();
    let sum = |group: &[f32]| group.iter().fold(0.0, |sum, &x| sum + f64::from(x));
    let total = maxima
        .chunks(GROUP)
        .map(sum)
        .fold(0.0, |all, sum| all + sum);
    let offset = (total / maxima.len() as f64) as f32;
    let blocks = maxima.chunks(GROUP).zip(numbers.chunks_mut(BLOCK * GROUP));
    for (maxima, numbers) in blocks {
        let distances: Vec<f32> = maxima.iter().map(|largest| largest - offset).collect();
        let group_scale = largest(&distances);
        let inverse = 1.0 / group_scale;
        for ((block, &largest), distance) in numbers.chunks_mut(BLOCK).zip(maxima).zip(distances) {
            let code = nearest(&scale_middles, distance * inverse);
            let scale = scale_numbers[code] * group_scale + offset;
            // Zeros, if all are.
            let inverse = if largest >= f32::MIN_POSITIVE {
                1.0 / largest
            } else {
                0.0
            };
            for x in block {
                *x = weight(NUMBERS[nearest(&middles, *x * inverse)], scale).to_f32();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of bitsandbytes 0.50.2 (`create_dynamic_map`), which PyTorch rounds differently by the
    /// last bit on different machines.
    #[test]
    fn scale_numbers_are_those_of_the_dynamic_map() {
        let numbers = scale_numbers();
        assert!(numbers.is_sorted_by(|one, next| one < next));
        for (code, expected) in [
            (0, -0.992_968_74),
            (1, -0.978_906_3),
            (63, -0.107_031_256),
            (64, -0.098_593_75),
            (126, -5.5e-7),
            (127, 0.0),
            (128, 5.5e-7),
            (129, 3.25e-6),
            (254, 0.992_968_74),
            (255, 1.0),
        ] {
            let difference = (numbers[code] - expected).abs();
            assert!(
                difference <= 1.5e-7 * expected.abs(),
                "{code}: {}",
                numbers[code]
            );
        }
    }

    #[test]
    fn codes_are_of_the_nearest_number_and_ties_of_the_lower() {
        let middles = midpoints(&NUMBERS);
        // The first and last of bitsandbytes' thresholds above 0, csrc/kernels.cu.
        for (found, expected) in [(middles[7], 0.039_790_15), (middles[14], 0.861_478_4)] {
            assert!((found - expected).abs() < 1e-7_f32, "{found}");
        }
        for (code, pair) in NUMBERS.windows(2).enumerate() {
            let middle = middles[code];
            assert_eq!(nearest(&middles, pair[0]), code);
            assert_eq!(nearest(&middles, middle), code);
            assert_eq!(nearest(&middles, middle.next_up()), code + 1);
        }
        assert_eq!(
            (nearest(&middles, 9.0), nearest(&middles, f32::NAN)),
            (15, 0)
        );
    }

    #[test]
    fn normal_numbers_lose_as_much_as_the_paper_expects_and_codes_stay() {
        // Sums of twelve uniform numbers are nearly normal.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1_u64 << 24) as f32
        };
        let weight: Vec<f32> = (0..64 * 1000)
            .map(|_| 0.02 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0))
            .collect();
        let mut found = weight.clone();
        round(&mut found);
        let square = |numbers: &mut dyn Iterator<Item = f32>| -> f64 {
            numbers.map(|x| f64::from(x).powi(2)).sum()
        };
        let error = square(&mut found.iter().zip(&weight).map(|(x, y)| x - y));
        let relative = (error / square(&mut weight.iter().copied())).sqrt();
        assert!((0.085..0.1).contains(&relative), "{relative}");
        // Scales are rounded again, by less than half a step of theirs.
        let mut again = found.clone();
        round(&mut again);
        for (one, other) in found.iter().zip(&again) {
            assert!((one - other).abs() <= 0.03 * one.abs(), "{one} {other}");
        }
    }

    #[test]
    fn zeros_stay_among_other_blocks() {
        let mut numbers = vec![0.0; 192];
        numbers[70] = 1.0;
        round(&mut numbers);
        assert!(
            numbers[..64]
                .iter()
                .chain(&numbers[128..])
                .all(|&x| x == 0.0)
        );
        assert!((0.98..1.02).contains(&numbers[70]), "{}", numbers[70]);
    }
}
