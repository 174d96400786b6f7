//! Two models on the same prompts: exact McNemar, paired bootstrap, and how many prompts a claim needs.

use super::rates::normal_quantile;

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// The estimate itself.
    pub estimate: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
}

/// Two-sided exact McNemar test. `fixed`: prompts that only the second model passes; `broken`: prompts that only the first passes. Returns the chance,
/// in (0, 1], that so uneven a split arises when both models are equally good: the binomial tail of min(fixed, broken) in fixed + broken fair throws,
/// doubled, at most 1. With no disagreement it is 1.
pub fn mcnemar_exact(fixed: usize, broken: usize) -> f64 {
    let (fewer, total) = (fixed.min(broken), fixed + broken);
    if fixed == broken {
        return 1.0;
    }
    // The largest term of the tail is its last; the others follow from it by ratios below 1.
    let mut relative = 1.0;
    let mut sum = 1.0;
    for successes in (1..=fewer).rev() {
        relative *= successes as f64 / (total - successes + 1) as f64;
        sum += relative;
        if relative < 1e-18 * sum {
            break;
        }
    }
    let log_tail = log_choose(total, fewer) - total as f64 * std::f64::consts::LN_2 + sum.ln();
    (log_tail + std::f64::consts::LN_2).exp().min(1.0)
}

/// Mean of paired differences with a 95 % percentile bootstrap interval. `differences`: second minus first, one a prompt. The result is a function of
/// its arguments. Without differences all three numbers are 0.
pub fn paired_bootstrap(differences: &[f64], resamples: usize, seed: u64) -> Interval {
    let count = differences.len();
    if count == 0 {
        return Interval { estimate: 0.0, low: 0.0, high: 0.0 };
    }
    let estimate = differences.iter().sum::<f64>() / count as f64;
    let mut state = seed;
    let mut means: Vec<f64> =
        (0..resamples.max(1)).map(|_| (0..count).map(|_| differences[below(&mut state, count)]).sum::<f64>() / count as f64).collect();
    means.sort_by(f64::total_cmp);
    let at = |quantile: f64| means[((means.len() - 1) as f64 * quantile).round() as usize];
    Interval { estimate, low: at(0.025), high: at(0.975) }
}

/// Prompts needed so that a two-sided McNemar test at 5 % sees a true difference with chance `power`. `fixed` and `broken`: the shares of prompts that
/// the second model would fix and break, in [0, 1] (Connor 1987). `None` where the shares are equal or impossible, since then no n suffices.
pub fn required_n(fixed: f64, broken: f64, power: f64) -> Option<usize> {
    let (discordant, difference) = (fixed + broken, fixed - broken);
    let possible = fixed >= 0.0 && broken >= 0.0 && discordant <= 1.0 && power > 0.0 && power < 1.0;
    if !possible || difference == 0.0 {
        return None;
    }
    let spread =
        normal_quantile(0.975) * discordant.sqrt() + normal_quantile(power) * (discordant - difference * difference).max(0.0).sqrt();
    let needed = ((spread / difference).powi(2)).ceil();
    (needed.is_finite() && needed < 1e15).then_some((needed as usize).max(1))
}

/// Natural logarithm of "n choose k".
fn log_choose(n: usize, k: usize) -> f64 {
    log_gamma(n as f64 + 1.0) - log_gamma(k as f64 + 1.0) - log_gamma((n - k) as f64 + 1.0)
}

/// Natural logarithm of the gamma function for x >= 1: Stirling's series after shifting x to 12 and beyond; absolute error below 1e-12 there.
fn log_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

/// A uniform index below `bound` from SplitMix64 (Steele 2014), by the high half of a 128-bit product.
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((u128::from(z) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mcnemar_reference_values() {
        // scipy.stats.binomtest(min, n, 0.5).pvalue
        let check = |fixed, broken, expected: f64| {
            let found = mcnemar_exact(fixed, broken);
            assert!((found / expected - 1.0).abs() < 1e-9, "{fixed} {broken}: {found:e}, expected {expected:e}");
            assert_eq!(found, mcnemar_exact(broken, fixed));
        };
        check(0, 0, 1.0);
        check(1, 0, 1.0);
        check(5, 0, 0.0625);
        check(10, 0, 0.001953125);
        check(10, 2, 0.03857421875);
        check(12, 2, 0.012939453125);
        check(7, 7, 1.0);
        check(180, 0, 2.0 / 2f64.powi(180));
    }

    #[test]
    fn mcnemar_large_counts_agree_with_exact_sums() {
        for (fixed, broken) in [(30usize, 20usize), (45, 12), (60, 57)] {
            let total = fixed + broken;
            let mut term = 1.0f64; // n choose 0
            let mut sum = 0.0;
            for k in 0..=fixed.min(broken) {
                sum += term;
                term = term * (total - k) as f64 / (k + 1) as f64;
            }
            let expected = (2.0 * sum / 2f64.powi(total as i32)).min(1.0);
            assert!((mcnemar_exact(fixed, broken) / expected - 1.0).abs() < 1e-10);
        }
        // 2^-9999 underflows to 0 but must not be NaN; near balance at large n the normal approximation is close.
        assert_eq!(mcnemar_exact(10_000, 0), 0.0);
        let found = mcnemar_exact(500_500, 499_500);
        assert!((found - 0.31775).abs() < 2e-4, "{found}"); // z = (1000 - 1) / 1000 with continuity correction
    }

    #[test]
    fn bootstrap_is_seeded_and_brackets_the_estimate() {
        let differences: Vec<f64> = (0..200).map(|index| if index % 4 == 0 { 1.0 } else { 0.0 }).collect();
        let first = paired_bootstrap(&differences, 2000, 7);
        assert_eq!(first, paired_bootstrap(&differences, 2000, 7));
        let uneven: Vec<f64> = (0..97).map(|index| f64::from(index).sqrt()).collect();
        assert_ne!(paired_bootstrap(&uneven, 100, 7), paired_bootstrap(&uneven, 100, 8));
        assert_eq!(first.estimate, 0.25);
        // Normal approximation: 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 200) = [0.19, 0.31]
        assert!((first.low - 0.19).abs() < 0.012 && (first.high - 0.31).abs() < 0.012, "{first:?}");
        assert_eq!(paired_bootstrap(&[], 100, 0).estimate, 0.0);
        let one = paired_bootstrap(&[0.5], 10, 0);
        assert_eq!((one.low, one.high), (0.5, 0.5));
    }

    #[test]
    fn required_prompts() {
        // Connor's formula by hand: fixed 0.25, broken 0.05, power 0.8: (1.95996 sqrt(0.3) + 0.84162 sqrt(0.26))^2 / 0.04 = 56.3
        assert_eq!(required_n(0.25, 0.05, 0.8), Some(57));
        assert_eq!(required_n(0.05, 0.25, 0.8), Some(57));
        assert_eq!(required_n(0.1, 0.1, 0.8), None);
        assert_eq!(required_n(0.9, 0.2, 0.8), None);
        assert!(required_n(0.02, 0.01, 0.8).unwrap() > 2000);
    }
}
