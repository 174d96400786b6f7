//! Smoothing by an unbiased exponential moving average.

/// Exponential moving average with bias correction (as in Adam): the first value counts fully.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smoothing {
    weight: f64,
    sum: f64,
    mass: f64,
}

impl Smoothing {
    /// `weight` of the past in [0, 1), clamped: 0 shows the values, 0.9 averages about the last
    /// ten.
    pub fn new(weight: f64) -> Self {
        let weight = if weight.is_finite() {
            weight.clamp(0.0, 0.999_999)
        } else {
            0.0
        };
        Self {
            weight,
            sum: 0.0,
            mass: 0.0,
        }
    }

    /// Adds a value and returns the average. Skips values that are not finite; NaN before the first
    /// finite one.
    pub fn next(&mut self, value: f64) -> f64 {
        if value.is_finite() {
            self.sum = self.weight * self.sum + (1.0 - self.weight) * value;
            self.mass = self.weight * self.mass + (1.0 - self.weight);
        }
        if self.mass > 0.0 {
            self.sum / self.mass
        } else {
            f64::NAN
        }
    }
}

pub fn smooth(values: &[f64], weight: f64) -> Vec<f64> {
    let mut smoothing = Smoothing::new(weight);
    values.iter().map(|value| smoothing.next(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], weight: f64, expected: &[f64]) {
        let found = smooth(values, weight);
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() < 1e-12 || (a.is_nan() && b.is_nan()),
                "{found:?}, expected {expected:?}"
            );
        }
        assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn bias_corrected() {
        check(&[3.0, 3.0, 3.0], 0.9, &[3.0, 3.0, 3.0]);
        check(&[1.0, 2.0, 4.0], 0.0, &[1.0, 2.0, 4.0]);
        // weight 0.5: (1/4 * 1 + 1/2 * 2) / (3/4), then (1/8 + 2/4 + 4/2) / (7/8)
        check(&[1.0, 2.0, 4.0], 0.5, &[1.0, 5.0 / 3.0, 3.0]);
        check(
            &[f64::NAN, 2.0, f64::INFINITY, 2.0],
            0.5,
            &[f64::NAN, 2.0, 2.0, 2.0],
        );
        check(&[], 0.5, &[]);
    }
}
