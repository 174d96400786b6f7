//! An axis: its range, its ticks and their labels.

use crate::format::amount;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
}

impl Axis {
    /// An axis that contains these values, with round ends. A logarithmic axis takes only values above 0.
    pub(super) fn around(
        values: impl Iterator<Item = f64>,
        log: bool,
        ticks: usize,
    ) -> Option<Self> {
        let fits = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let (low, high) = fits.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return None;
        }
        if log {
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            return Some(Self {
                low: 10f64.powf(low),
                high: 10f64.powf(if high > low { high } else { low + 1.0 }),
                log,
            });
        }
        // A range within rounding error is one value.
        let margin = if high - low > (low.abs().max(high.abs()) * 1e-12).max(1e-12) {
            0.0
        } else if low.abs() > 1e-12 {
            low.abs() * 0.1
        } else {
            0.05
        };
        let (low, high) = (low - margin, high + margin);
        let step = round_step(high - low, ticks);
        let ends = ((low / step).floor() * step, (high / step).ceil() * step);
        // Beyond a double's precision there are no round numbers.
        let (low, high) = if ends.0 < ends.1 && ends.0.is_finite() && ends.1.is_finite() {
            ends
        } else {
            (low, high)
        };
        Some(Self { low, high, log })
    }

    /// The position of a value between the lower end (0) and the upper (1), clamped.
    pub(super) fn share(&self, value: f64) -> f64 {
        let at = |value: f64| {
            if self.log {
                value.max(f64::MIN_POSITIVE).log10()
            } else {
                value
            }
        };
        let width = at(self.high) - at(self.low);
        if width > 0.0 && width.is_finite() {
            ((at(value) - at(self.low)) / width).clamp(0.0, 1.0)
        } else {
            0.5
        }
    }

    /// Tick values with their labels, from below; at most about `most`.
    pub(super) fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        if most == 0 {
            return Vec::new();
        }
        if self.log {
            let (low, high) = (
                self.low.log10().round() as i32,
                self.high.log10().round() as i32,
            );
            let step = ((high - low) as usize).div_ceil(most).max(1);
            return (low..=high)
                .step_by(step)
                .map(|power| 10f64.powi(power))
                .map(|value| (value, amount(value)))
                .collect();
        }
        let step = round_step(self.high - self.low, most);
        let count = ((self.high - self.low) / step + 1e-6).floor();
        if !count.is_finite() || count > 1000.0 {
            return Vec::new();
        }
        let first = (self.low / step - 1e-6).ceil();
        let values = (0..=count as u32).map(|index| (first + f64::from(index)) * step);
        values
            .filter(|value| *value <= self.high + step * 1e-6)
            .map(|value| (value, label(value, step)))
            .collect()
    }
}

/// The smallest of 1, 2, 5 times a power of ten with at most `most` steps in a width; at least one.
pub(super) fn round_step(width: f64, most: usize) -> f64 {
    let rough = (width / most.max(1) as f64).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * (1.0 - 1e-9));
    step.filter(|step| step.is_finite() && *step > 0.0)
        .unwrap_or(1.0)
}

fn label(value: f64, step: f64) -> String {
    let value = if value.abs() < step * 1e-6 {
        0.0
    } else {
        value
    };
    if value.abs() >= 1e5 || step < 1e-4 {
        return amount(value);
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ticks_are_round_numbers_around_the_values() {
        let check = |values: &[f64], log: bool, most: usize, expected: &[&str]| {
            let axis = Axis::around(values.iter().copied(), log, most).unwrap();
            let found: Vec<String> = axis
                .ticks(most)
                .into_iter()
                .map(|(_, label)| label)
                .collect();
            assert_eq!(found, expected, "{values:?}");
        };
        check(
            &[0.0, 1.0],
            false,
            5,
            &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"],
        );
        check(
            &[0.61, 0.98],
            false,
            4,
            &["0.6", "0.7", "0.8", "0.9", "1.0"],
        );
        check(&[-3.0, 12.0], false, 4, &["-5", "0", "5", "10", "15"]);
        check(&[5.0], false, 2, &["4.5", "5.0", "5.5"]);
        check(&[0.0], false, 2, &["-0.05", "0.00", "0.05"]);
        check(&[-1e-17, 3e-17], false, 2, &["-0.1", "0.0", "0.1"]);
        check(&[0.0, 2e-6], false, 2, &["0", "1e-6", "2e-6"]);
        check(
            &[0.0, f64::NAN, f64::INFINITY, 200_000.0],
            false,
            2,
            &["0", "100000", "200000"],
        );
        check(
            &[0.003, 40.0, -1.0, 0.0],
            true,
            9,
            &["0.001", "0.01", "0.1", "1", "10", "100"],
        );
        check(&[1.0], true, 9, &["1", "10"]);
    }

    #[test]
    fn no_value_no_axis_and_no_width_no_trouble() {
        assert!(Axis::around([f64::NAN].into_iter(), false, 3).is_none());
        assert!(Axis::around([-1.0].into_iter(), true, 3).is_none());
        for value in [0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e300] {
            for log in [false, true] {
                if let Some(axis) = Axis::around([value, -value].into_iter(), log, 4) {
                    let share = axis.share(value);
                    assert!((0.0..=1.0).contains(&share), "{value} {axis:?}");
                    assert!(axis.ticks(4).len() < 400, "{value} {axis:?}");
                }
            }
        }
    }
}
