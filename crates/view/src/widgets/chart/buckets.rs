//! Splits a series into the columns of a chart: first, last, minimum and maximum of each, in one pass and without a
//! copy of the series.

use crate::run::Series;
use crate::statistics::Smoothing;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    pub(super) first_step: u64,
    pub(super) last_step: u64,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) largest: f64,
    smallest: f64,
    smallest_above_zero: f64,
    pub(super) not_finite: bool,
    /// Whether a value is not positive on a logarithmic axis.
    pub(super) has_unfit: bool,
}

impl Bucket {
    fn new(step: u64) -> Self {
        let nothing = f64::NAN;
        Self {
            first_step: step,
            last_step: step,
            first: nothing,
            last: nothing,
            largest: f64::NEG_INFINITY,
            smallest: f64::INFINITY,
            smallest_above_zero: f64::INFINITY,
            not_finite: false,
            has_unfit: false,
        }
    }

    fn add(&mut self, step: u64, value: f64) {
        self.last_step = step;
        if !value.is_finite() {
            self.not_finite = true;
            return;
        }
        if self.first.is_nan() {
            (self.first, self.first_step) = (value, step);
        }
        self.last = value;
        self.largest = self.largest.max(value);
        self.smallest = self.smallest.min(value);
        if value > 0.0 {
            self.smallest_above_zero = self.smallest_above_zero.min(value);
        } else {
            self.has_unfit = true;
        }
    }

    /// The smallest value that the axis can show.
    pub(super) fn smallest(&self, log: bool) -> f64 {
        if log {
            self.smallest_above_zero
        } else {
            self.smallest
        }
    }

    pub(super) fn is_empty(&self, log: bool) -> bool {
        self.smallest(log) > self.largest
    }
}

pub(super) fn place(step: u64, steps: (u64, u64), columns: usize) -> usize {
    let width = steps.1.saturating_sub(steps.0);
    if width == 0 {
        return columns / 2;
    }
    let share = step.saturating_sub(steps.0) as f64 / width as f64;
    ((share * columns.saturating_sub(1) as f64).round() as usize).min(columns.saturating_sub(1))
}

/// The step in the middle of a column, for clicks.
pub(super) fn step_at(column: usize, steps: (u64, u64), columns: usize) -> u64 {
    let each = steps.1.saturating_sub(steps.0) as f64 / columns.saturating_sub(1).max(1) as f64;
    steps
        .0
        .saturating_add((column as f64 * each).round() as u64)
        .min(steps.1)
}

fn last_step_of(column: usize, steps: (u64, u64), columns: usize) -> u64 {
    let each = steps.1.saturating_sub(steps.0) as f64 / columns.saturating_sub(1).max(1) as f64;
    let next = (column as f64 + 0.5) * each;
    steps
        .0
        .saturating_add((next.ceil() as u64).saturating_sub(1))
}

/// The series between two steps in `columns` buckets: raw, and smoothed; the second list is empty without smoothing.
pub(super) fn buckets(
    series: &Series,
    steps: (u64, u64),
    columns: usize,
    smoothing: f64,
) -> [Vec<Option<Bucket>>; 2] {
    let mut raw = vec![None; columns];
    let mut smooth = if smoothing > 0.0 {
        vec![None; columns]
    } else {
        Vec::new()
    };
    if columns == 0 {
        return [raw, smooth];
    }
    let mut average = Smoothing::new(smoothing);
    // Older values weigh less than a millionth.
    let lead = if smoothing > 0.0 {
        (14.0 / (1.0 - smoothing.min(0.9999))).ceil() as u64
    } else {
        0
    };
    // One lookup per column: a long run has thousands of steps in each.
    let (mut column, mut until) = (0, None);
    for (step, value) in series.between(steps.0.saturating_sub(lead), steps.1) {
        let averaged = if smoothing > 0.0 {
            average.next(value)
        } else {
            value
        };
        if step < steps.0 {
            continue;
        }
        if until.is_none_or(|until| step > until) {
            column = place(step, steps, columns);
            until = Some(last_step_of(column, steps, columns).max(step));
        }
        raw[column]
            .get_or_insert_with(|| Bucket::new(step))
            .add(step, value);
        // A smoothed curve does not bridge missing values.
        if smoothing > 0.0 && value.is_finite() {
            smooth[column]
                .get_or_insert_with(|| Bucket::new(step))
                .add(step, averaged);
        }
    }
    [raw, smooth]
}

pub(super) fn smoothed_at(series: &Series, step: u64, smoothing: f64) -> Option<f64> {
    let mut average = Smoothing::new(smoothing);
    let lead = (14.0 / (1.0 - smoothing.clamp(0.0, 0.9999))).ceil() as u64;
    series.at(step)?;
    series
        .between(step.saturating_sub(lead), step)
        .map(|(_, value)| average.next(value))
        .last()
        .filter(|value| value.is_finite())
}
