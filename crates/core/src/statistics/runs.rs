//! Mean and spread of a metric over runs that differ only in seed.

use super::samples::student_mean;

/// Meaning of the bounds of a mean over runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// One run: no bounds.
    OneRun,
    /// Min and max of two runs; a t interval with one degree of freedom is 25 times as wide.
    Range,
    /// 95% interval by Student's t, three runs or more.
    Interval,
}

impl Spread {
    /// `run`: what a value is of.
    pub fn described(self, run: &str) -> String {
        match self {
            Self::OneRun => format!("one {run}"),
            Self::Range => format!("range of two {run}s"),
            Self::Interval => format!("95% t interval over {run}s"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OverRuns {
    pub n: usize,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    pub spread: Spread,
}

/// Mean over runs with its [`Spread`]; every run has the same weight. `None` without a finite
/// value.
pub fn over_runs(values: &[f64]) -> Option<OverRuns> {
    let values: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    let n = values.len();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Rounding must not change the mean of equal values.
    let mean = if least == most {
        least
    } else {
        values.iter().sum::<f64>() / n as f64
    };
    let (spread, low, high) = match n {
        0 => return None,
        1 => (Spread::OneRun, least, most),
        2 => (Spread::Range, least, most),
        _ => {
            let interval = student_mean(&values)?;
            (Spread::Interval, interval.low, interval.high)
        }
    };
    Some(OverRuns {
        n,
        mean,
        low,
        high,
        spread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_once() {
        // Student's t: 4.302653 at 2 degrees of freedom, 2.776445 at 4.
        let check = |values: &[f64], expected: Option<(usize, Spread, [f64; 3])>| {
            let found = over_runs(values);
            assert_eq!(
                found.map(|found| (found.n, found.spread)),
                expected.map(|(n, spread, _)| (n, spread))
            );
            for (a, b) in found
                .map(|found| [found.mean, found.low, found.high])
                .iter()
                .flatten()
                .zip(expected.map(|(_, _, numbers)| numbers).iter().flatten())
            {
                assert!((a - b).abs() < 1e-6, "{values:?}: {found:?}");
            }
        };
        check(&[], None);
        check(&[f64::NAN], None);
        check(&[0.5], Some((1, Spread::OneRun, [0.5, 0.5, 0.5])));
        check(&[0.5, 0.7], Some((2, Spread::Range, [0.6, 0.5, 0.7])));
        // Standard error 1 / sqrt(3).
        check(
            &[1.0, 2.0, 3.0],
            Some((3, Spread::Interval, [2.0, 2.0 - 2.484_138, 2.0 + 2.484_138])),
        );
        // Standard error sqrt(2.5 / 5).
        check(
            &[1.0, 2.0, 3.0, 4.0, 5.0, f64::NAN],
            Some((5, Spread::Interval, [3.0, 3.0 - 1.963_243, 3.0 + 1.963_243])),
        );
        check(&[0.1; 7], Some((7, Spread::Interval, [0.1, 0.1, 0.1])));
    }
}
