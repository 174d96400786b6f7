//! Frozen matrices in e4m3: four bits of exponent, three of mantissa, up to 448 (Micikevicius et
//! al. 2022, arXiv 2209.05433). Scales per output are powers of two, so bf16 holds every weight
//! exactly: sampling, which widens weights on reading, and training, which widens a matrix at a
//! time, use the same values. Activations stay in bf16: quantizing them increased the
//! sampler/trainer difference tenfold (docs/measurements/h100.md).

/// Largest e4m3 number.
const LARGEST: f32 = 448.0;
/// Biased f32 exponent of the smallest scale, 2^-117, so that the smallest weight, 2^-9 of it, is
/// normal.
const LEAST_EXPONENT: u32 = 10;

/// Rounds rows of `columns` finite numbers to the nearest e4m3 numbers with a scale each.
pub(crate) fn round(numbers: &mut [f32], columns: usize) {
    for row in numbers.chunks_exact_mut(columns.max(1)) {
        let largest = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = scale(largest);
        for x in row {
            *x = nearest(*x / scale) * scale;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let weight: Vec<f32> = (0..192).map(value).collect();
        let mut found = weight.clone();
        round(&mut found, 64);
        for (row, (found, weight)) in found.chunks(64).zip(weight.chunks(64)).enumerate() {
            let largest = weight.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            for (found, weight) in found.iter().zip(weight) {
                // Half of the last of three bits, or of the smallest number.
                assert!(
                    (found - weight).abs() <= (weight.abs() / 16.0).max(largest / 448.0 / 512.0),
                    "row {row}"
                );
            }
        }
        let through: Vec<f32> = (found.iter())
            .map(|&x| half::bf16::from_f32(x).to_f32())
            .collect();
        assert_eq!(found, through);
        let mut again = found.clone();
        round(&mut again, 64);
        assert_eq!(again, found, "rounded numbers stay");
    }
}
