//! Several samples a prompt: pass@j, intervals of a mean over prompts by the bootstrap.

use super::{Interval, wilson};
use crate::dataset::CounterRandom;

/// The chance that one of `j` samples at least passes, of a prompt of whose `n` samples `passed` do, without bias:
/// 1 - C(n - passed, j) / C(n, j) (Chen et al. 2021, arXiv 2107.03374). `None` where `j` > `n`.
pub fn pass_at(j: usize, n: usize, passed: usize) -> Option<f64> {
    let failed = n.checked_sub(passed)?;
    // As a product, since the binomials overflow.
    (j <= n).then(|| 1.0 - (failed + 1..=n).map(|rest| 1.0 - j as f64 / rest as f64).product::<f64>())
}

/// The mean with its 95% interval by the percentile bootstrap: 10,000 resamples of the values (one a prompt, in [0, 1]),
/// the same ones for the same number of values. Where all values are equal no resample differs, and it is Wilson's.
pub fn bootstrap_mean(values: &[f64]) -> Interval {
    const RESAMPLES: usize = 10_000;
    let count = values.len();
    let estimate = values.iter().sum::<f64>() / count.max(1) as f64;
    if values.iter().all(|value| *value == values[0]) {
        let (low, high) = wilson((estimate * count as f64).round() as usize, count);
        return Interval { estimate, low, high };
    }
    let mut random = CounterRandom::new(&[count as u64]);
    let mut resample = || (0..count).map(|_| values[random.below(count as u64) as usize]).sum::<f64>() / count as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
    means.sort_unstable_by(f64::total_cmp);
    // Between neighbours, as numpy.percentile.
    let percentile = |share: f64| {
        let place = share * (RESAMPLES - 1) as f64;
        let below = place as usize;
        means[below] + (place - place.floor()) * (means[below + 1] - means[below])
    };
    Interval { estimate, low: percentile(0.025), high: percentile(0.975) }
}
