//! Compares two models on the same prompts: test, interval of the difference, required number of
//! prompts.

use super::beta::{binomial_cdf, incomplete_beta, log_choose};
use super::rates::{Z, normal_quantile};

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

/// Result of a paired test. `p` decides; near 5% the interval may disagree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTest {
    /// Second minus first, in [-1, 1].
    pub difference: Interval,
    /// Two-sided.
    pub p: f64,
}

/// Significance level of verdicts.
pub const SIGNIFICANT: f64 = 0.05;

/// Significance level of look `look` of a test set, from 1: 5%, then 5% / (k (k - 1)). Over all
/// looks, however many, the levels sum to 10%. Tests are two-sided, so that at most 5% find a gain
/// where there is none (alpha spending by a union bound: looks need not be independent).
pub fn look_level(look: u64) -> f64 {
    let look = look as f64;
    SIGNIFICANT / (look * (look - 1.0)).max(1.0)
}

/// The p-value that compares with [`SIGNIFICANT`] as `p` does with [`look_level`].
pub fn look_adjusted(p: f64, look: u64) -> f64 {
    (p * SIGNIFICANT / look_level(look)).min(1.0)
}

/// The verdict on the second of two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// Does not prove that there is none.
    NoDifference,
}

impl Verdict {
    /// `difference`: second minus first.
    pub fn from_difference(difference: f64, p: f64) -> Self {
        match p < SIGNIFICANT {
            true if difference > 0.0 => Self::Better,
            true => Self::Worse,
            false => Self::NoDifference,
        }
    }
}

/// Two-sided exact McNemar test: `fixed` prompts are passed only by the second model, `broken` only
/// by the first. Returns p in [0, 1]: twice the binomial tail of min(fixed, broken) in fixed +
/// broken fair trials, at most 1; 1 without disagreement.
pub fn mcnemar_exact(fixed: usize, broken: usize) -> f64 {
    if fixed == broken {
        return 1.0;
    }
    (2.0 * binomial_cdf(fixed.min(broken), fixed + broken, 0.5)).min(1.0)
}

/// Adjusts the p-values of a family of tests by Holm's method (1979), in the given order: the
/// chance of any false finding below 5% is at most 5%.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest
            .max((p_values.len() - rank) as f64 * p_values[index])
            .min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

/// One-sided Fisher's exact test of whether failures gather in a group: the chance that at least
/// `found` of `failures` among `all` prompts fall into a random group of `size`.
pub fn over_represented(found: usize, size: usize, failures: usize, all: usize) -> f64 {
    if size > all || failures > all {
        return 1.0;
    }
    let least = found.max((size + failures).saturating_sub(all));
    let ways =
        |count: usize| log_choose(failures, count) + log_choose(all - failures, size - count);
    let total = log_choose(all, size);
    (least..=size.min(failures))
        .map(|count| (ways(count) - total).exp())
        .sum::<f64>()
        .min(1.0)
}

/// Difference of two rates on the same `pairs` prompts, of which only the second model passes
/// `fixed` and only the first `broken`: Bonett and Price's interval of confidence 1 - `level`, p by
/// the exact McNemar test.
pub fn paired_counts(fixed: usize, broken: usize, pairs: usize, level: f64) -> PairedTest {
    let (up, down) = (fixed as f64, broken as f64);
    let sums = ChangeSums {
        prompts: pairs as f64,
        changes: up - down,
        squares: up + down,
    };
    PairedTest {
        difference: sums.bonett_price(1.0, level),
        p: mcnemar_exact(fixed, broken),
    }
}

/// As [`paired_counts`] with several samples per prompt: `differences` holds one value per prompt,
/// second minus first, of its mean rates or pass@j in [0, 1]. The test counts as many changed
/// prompts as give the same variance when all change equally far (Kish's effective size). The
/// interval's two added prompts change equally far, by at least `least_change`, or from 0 to 1 if
/// no prompt changed. Equals [`paired_counts`] for one sample per prompt.
pub fn paired_means(differences: &[f64], least_change: f64, level: f64) -> PairedTest {
    let sum = |of: fn(f64) -> f64| {
        differences
            .iter()
            .map(|difference| of(*difference))
            .sum::<f64>()
    };
    let (moved, squares, up) = (sum(f64::abs), sum(|one| one * one), sum(|one| one.max(0.0)));
    let sums = ChangeSums {
        prompts: differences.len() as f64,
        changes: 2.0 * up - moved,
        squares,
    };
    if moved == 0.0 {
        return PairedTest {
            difference: sums.bonett_price(1.0, level),
            p: 1.0,
        };
    }
    let changed = moved * moved / squares;
    let fixed = changed * up / moved;
    let fewer = fixed.min(changed - fixed);
    let tail = incomplete_beta(changed - fewer, fewer + 1.0, 0.5);
    let difference = sums.bonett_price((squares / moved).max(least_change), level);
    PairedTest {
        difference,
        p: (2.0 * tail).min(1.0),
    }
}

/// Sums over prompts of their change, in [-1, 1].
struct ChangeSums {
    prompts: f64,
    changes: f64,
    squares: f64,
}

impl ChangeSums {
    /// Interval of confidence 1 - `level` of the mean change: adjusted Wald interval of Bonett and
    /// Price (2012, Journal of Educational and Behavioral Statistics 37), which adds a prompt that
    /// changes by `added` and one by -`added`. Without prompts: all of [-1, 1].
    fn bonett_price(&self, added: f64, level: f64) -> Interval {
        if self.prompts <= 0.0 {
            return Interval {
                estimate: 0.0,
                low: -1.0,
                high: 1.0,
            };
        }
        let n = self.prompts + 2.0;
        let mean = self.changes / n;
        let z = match level == SIGNIFICANT {
            true => Z,
            false => normal_quantile(1.0 - level / 2.0),
        };
        let half = z * (((self.squares + 2.0 * added * added) / n - mean * mean) / n).sqrt();
        let [low, high] = [mean - half, mean + half].map(|end| end.clamp(-1.0, 1.0));
        Interval {
            estimate: self.changes / self.prompts,
            low,
            high,
        }
    }
}

/// Prompts needed for power `power` of the exact McNemar test at significance `level`. `fixed`,
/// `broken`: shares in [0, 1] of prompts that the second model fixes and breaks. Where thousands of
/// prompts change: Connor's approximation (1987), within 1%. `None` if the shares are equal or
/// impossible.
pub fn required_n(fixed: f64, broken: f64, power: f64, level: f64) -> Option<usize> {
    const MAX_CHANGED_PAIRS: f64 = 5000.0;
    let changed = fixed + broken;
    if fixed < 0.0 || broken < 0.0 || changed > 1.0 {
        return None;
    }
    let about = connor(changed, fixed - broken, power, level)?;
    if about as f64 * changed > MAX_CHANGED_PAIRS {
        return Some(about);
    }
    let is_enough = |n: usize| mcnemar_power(n, fixed, broken, level) >= power;
    let (mut low, mut high) = (about / 2, about);
    while !is_enough(high) {
        high += high / 4 + 1;
    }
    while low > 0 && is_enough(low) {
        low /= 2;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_enough(middle) {
            high = middle
        } else {
            low = middle
        }
    }
    Some(high)
}

pub fn required_n_of_means(differences: &[f64], power: f64, level: f64) -> Option<usize> {
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    connor(
        differences
            .iter()
            .map(|difference| difference * difference)
            .sum::<f64>()
            / count,
        mean,
        power,
        level,
    )
}

/// Normal approximation of [`required_n`] from mean square and mean of a prompt's difference
/// (Connor 1987).
fn connor(square: f64, mean: f64, power: f64, level: f64) -> Option<usize> {
    if mean == 0.0 || !(power > 0.0 && power < 1.0) {
        return None;
    }
    let spread = normal_quantile(1.0 - level / 2.0) * square.sqrt()
        + normal_quantile(power) * (square - mean * mean).max(0.0).sqrt();
    let needed = (spread / mean).powi(2).ceil();
    (needed.is_finite() && needed < 1e15).then_some((needed as usize).max(1))
}

/// Power of the exact McNemar test on `n` prompts at `level`, given the chances to be fixed and
/// broken.
pub(super) fn mcnemar_power(n: usize, fixed: f64, broken: f64, level: f64) -> f64 {
    let changed = fixed + broken;
    let (mean, deviation) = (
        n as f64 * changed,
        (n as f64 * changed * (1.0 - changed)).max(0.0).sqrt(),
    );
    let first = (mean - 9.0 * deviation - 9.0).max(0.0) as usize;
    let last = ((mean + 9.0 * deviation) as usize + 20).min(n);
    // Number of significant splits, those with the fewest on one side; grows monotonically with the
    // changed prompts.
    let mut significant =
        (first as f64 / 2.0 - 1.5 * (first as f64).sqrt() - 3.0).max(0.0) as usize;
    let mut power = 0.0;
    for count in first..=last {
        while 2 * significant < count && mcnemar_exact(significant, count - significant) < level {
            significant += 1;
        }
        if significant == 0 {
            continue;
        }
        let chance = match count {
            _ if changed < 1.0 => (log_choose(n, count)
                + count as f64 * changed.ln()
                + (n - count) as f64 * (-changed).ln_1p())
            .exp(),
            all if all == n => 1.0,
            _ => 0.0,
        };
        let tail = |share: f64| binomial_cdf(significant - 1, count, share);
        power += chance * (tail(fixed / changed) + tail(broken / changed));
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_reference_values() {
        // scipy.stats.binomtest(min, n, 0.5).pvalue
        let check = |fixed, broken, expected: f64| {
            let found = mcnemar_exact(fixed, broken);
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{fixed} {broken}: {found:e}, expected {expected:e}"
            );
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
    fn failures_that_gather_in_a_group() {
        // Python, in whole numbers: sum(comb(failures, k) * comb(all - failures, size - k)) / comb(all, size)
        let check = |[found, size, failures, all]: [usize; 4], expected: f64| {
            let p = over_represented(found, size, failures, all);
            assert!(
                (p / expected - 1.0).abs() < 1e-9,
                "{found} {size} {failures} {all}: {p:e}, expected {expected:e}"
            );
        };
        check([12, 48, 12, 100], 6.6324389057701e-05);
        check([1, 1, 12, 100], 0.12);
        check([9, 15, 40, 200], 0.0004480803324192018);
        check([50, 60, 300, 500], 3.5620572054559844e-05);
        check([0, 5, 3, 50], 1.0);
        check([3, 5, 3, 4], 1.0);
    }

    /// Python, in whole numbers: Fraction(2 * sum(math.comb(n, k) for k in range(broken + 1)), 2**n)
    const LARGE: &[(usize, usize, f64)] = &[
        (30, 20, 0.20263875106454066),
        (45, 12, 1.3127443164284713e-05),
        (60, 57, 0.853408445895563),
        (501, 500, 1.0),
        (560, 480, 0.014259079095386026),
        (700, 400, 1.1735888055605814e-19),
        (1500, 1480, 0.7278067554827995),
    ];

    #[test]
    fn mcnemar_large_counts_agree_with_whole_number_arithmetic() {
        for (fixed, broken, expected) in LARGE {
            let found = mcnemar_exact(*fixed, *broken);
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{fixed} {broken}: {found:e}, expected {expected:e}"
            );
        }
        // 2^-9999 underflows to 0 but must not be NaN; near balance at large n the normal approximation is close.
        assert_eq!(mcnemar_exact(10_000, 0), 0.0);
        let found = mcnemar_exact(500_500, 499_500);
        assert!((found - 0.31775).abs() < 2e-4, "{found}"); // z = (1000 - 1) / 1000 with continuity correction
    }
}
