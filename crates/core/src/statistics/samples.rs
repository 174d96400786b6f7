//! Several samples per prompt: pass@j, and the interval of a mean over prompts.

use super::Interval;
use super::beta::t_critical;
use super::rates::{wilson, wilson_of};

/// Unbiased pass@j of a prompt with `passed` of `n` samples: 1 - C(n - passed, j) / C(n, j) (Chen
/// et al. 2021, arXiv 2107.03374). `None` if `j` > `n`.
pub fn pass_at(j: usize, n: usize, passed: usize) -> Option<f64> {
    let failed = n.checked_sub(passed)?;
    // A product, since the binomials overflow.
    (j <= n).then(|| {
        1.0 - (failed + 1..=n)
            .map(|rest| 1.0 - j as f64 / rest as f64)
            .product::<f64>()
    })
}

/// Mean of one value in [0, 1] per prompt, each of `samples` samples, with its 95% interval as in
/// [`super::wilson_by_prompt`]. Not the percentile bootstrap: where nearly all prompts have the
/// same value its 95% covered 50 to 85% (`scripts/golden/intervals.py`).
pub fn mean_by_prompt(values: &[f64], samples: usize) -> Interval {
    let count = values.len() as f64;
    let estimate = values.iter().sum::<f64>() / count.max(1.0);
    let (low, high) = match values.len() {
        0 | 1 if samples > 1 => (0.0, 1.0),
        count if samples <= 1 => wilson(values.iter().sum::<f64>().round() as usize, count),
        _ => {
            let squares: f64 = values.iter().map(|value| (value - estimate).powi(2)).sum();
            let variance = squares / (count * (count - 1.0));
            // Without variance each prompt counts once.
            let is_end = estimate <= 0.0 || estimate >= 1.0;
            let most = count * samples as f64;
            let effective = if is_end {
                count
            } else {
                (estimate * (1.0 - estimate) / variance).min(most)
            };
            wilson_of(estimate, effective, t_critical(count - 1.0))
        }
    };
    Interval {
        estimate,
        low,
        high,
    }
}

/// Mean of one number per prompt with Student's 95% interval; `None` for fewer than two.
pub fn student_mean(values: &[f64]) -> Option<Interval> {
    let count = values.len() as f64;
    let estimate = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - estimate).powi(2)).sum();
    let half = (values.len() > 1)
        .then(|| t_critical(count - 1.0) * (squares / (count * (count - 1.0))).sqrt())?;
    Some(Interval {
        estimate,
        low: estimate - half,
        high: estimate + half,
    })
}
