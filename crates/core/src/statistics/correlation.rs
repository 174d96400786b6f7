//! The correlation of two measures.

use super::Interval;
use super::rates::Z;

/// Pearson's correlation with its 95% interval by Fisher's z; `None` for fewer than four pairs or a
/// constant measure.
pub fn correlation(pairs: &[(f64, f64)]) -> Option<Interval> {
    let n = pairs.len() as f64;
    let (sum_x, sum_y) = pairs
        .iter()
        .fold((0.0, 0.0), |(x, y), pair| (x + pair.0, y + pair.1));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let sum = |of: fn(f64, f64) -> f64| {
        pairs
            .iter()
            .map(|pair| of(pair.0 - mean_x, pair.1 - mean_y))
            .sum::<f64>()
    };
    let (xy, xx, yy) = (sum(|x, y| x * y), sum(|x, _| x * x), sum(|_, y| y * y));
    if pairs.len() < 4 || xx < 1e-12 || yy < 1e-12 {
        return None;
    }
    let estimate = (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0);
    let (z, half) = (estimate.atanh(), Z / (n - 3.0).sqrt());
    Some(Interval {
        estimate,
        low: (z - half).tanh(),
        high: (z + half).tanh(),
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::excessive_precision,
    clippy::unreadable_literal
)]
mod tests {
    use super::*;

    fn near(found: Interval, expected: [f64; 3], what: &str) {
        for (found, expected) in [found.estimate, found.low, found.high]
            .into_iter()
            .zip(expected)
        {
            assert!(
                (found - expected).abs() < 1e-9,
                "{what}: {found}, expected {expected}"
            );
        }
    }

    #[rustfmt::skip]
    const CORRELATION: &[(&[f64], &[f64], [f64; 3])] = &[
        (&[-1.004, 0.212, -0.418, 0.57], &[-1.01, -0.112, -2.024, 0.567], [0.745335556449684, -0.7605786048856917, 0.9942262136354243]),
        (&[-2.342, 0.024, -0.081, 0.888, -1.725, 0.858, -0.19, 0.554, -0.355, 0.065, 1.427, -0.248, 0.556, -0.315, 0.11, 1.136, -0.26, -0.058, 1.171, 0.457], &[-1.648, -0.059, -1.175, -0.165, -2.217, 0.554, 0.334, -1.584, 0.819, 0.396, 0.035, -0.952, -0.737, -0.493, -0.089, 1.407, 2.197, 0.142, 1.214, -1.083], [0.47398401945862556, 0.03981417131360208, 0.7575999042990433]),
        (&[-0.141, 0.694, 0.457, -1.389, 1.154, 0.411, -1.443, 0.722, -1.039, -1.426, -1.219, -0.249, 1.387, 0.578, -0.558, 1.384, 0.303, 0.894, -1.535, 0.503, -0.292, -1.383, 0.713, 0.11, 0.17, -0.507, -1.159, 1.157, -0.055, 0.714, 0.002, 0.241, -0.686, 0.275, -0.084, -0.591, -0.266, 0.223, 0.395, -0.048, -1.024, 0.507, -0.515, -2.34, -1.356, 0.297, -0.581, 0.387, 0.441, 1.751], &[0.756, -3.817, -0.972, -2.09, -0.444, -0.343, 1.051, 0.426, 1.145, -0.289, -0.571, 0.263, -0.747, -0.774, 1.3, -0.646, -0.48, 0.177, 0.021, 0.817, 1.205, -0.499, 0.491, 0.731, 0.396, -0.564, 2.743, 0.082, 0.609, -0.851, 1.969, -0.574, -0.938, -1.24, -0.272, -1.412, -0.289, -0.112, 0.845, 1.035, 1.157, 0.905, 2.346, 0.692, 1.539, 0.748, 0.562, -1.75, -0.167, 1.237], [-0.2006812493349407, -0.4536864218496867, 0.08226152979864748]),
    ];

    #[test]
    fn the_correlation_is_that_of_scipy() {
        for (one, other, expected) in CORRELATION {
            let pairs: Vec<(f64, f64)> = one.iter().copied().zip(other.iter().copied()).collect();
            near(correlation(&pairs).unwrap(), *expected, "correlation");
        }
        assert_eq!(
            correlation(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)]),
            None
        );
        assert_eq!(correlation(&[(1.0, 2.0), (2.0, 3.0), (3.0, 1.0)]), None);
    }
}
