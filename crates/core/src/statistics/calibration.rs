//! Stated probabilities against what came true: reliability, calibration error, temperature,
//! thresholds.

use serde::{Deserialize, Serialize};

use super::compare::Interval;
use super::rates::{wilson, wilson_by_prompt};

/// A stated probability, and whether it came true.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// In [0, 1].
    pub confidence: f64,
    pub is_right: bool,
}

/// Forecasts with a confidence in [`low`, `high`); the last bin includes 1.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReliabilityBin {
    pub low: f64,
    pub high: f64,
    pub n: usize,
    pub mean_confidence: f64,
    pub right: f64,
    /// 95% interval of `right`, as if forecasts were independent.
    pub interval: [f64; 2],
}

/// Bins of equal width.
const BINS: usize = 10;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;
/// Temperatures that are tried, as natural logarithms: 1/20 to 20.
const MAX_LOG_TEMPERATURE: f64 = 2.995_732_273_553_991;
/// A probability of 0 or 1 has no logit.
const LEAST: f64 = 1e-6;

fn bin_of(confidence: f64) -> usize {
    ((confidence * BINS as f64) as usize).min(BINS - 1)
}

/// Bins with forecasts, ascending.
pub fn reliability(forecasts: &[Forecast]) -> Vec<ReliabilityBin> {
    let mut sums = [(0_usize, 0.0, 0_usize); BINS];
    for forecast in forecasts {
        let sum = &mut sums[bin_of(forecast.confidence)];
        *sum = (
            sum.0 + 1,
            sum.1 + forecast.confidence,
            sum.2 + usize::from(forecast.is_right),
        );
    }
    let bin = |(place, (n, confidence, right)): (usize, (usize, f64, usize))| ReliabilityBin {
        low: place as f64 / BINS as f64,
        high: (place + 1) as f64 / BINS as f64,
        n,
        mean_confidence: confidence / n as f64,
        right: right as f64 / n as f64,
        interval: wilson(right, n).into(),
    };
    let filled = sums.into_iter().enumerate().filter(|(_, sum)| sum.0 > 0);
    filled.map(bin).collect()
}

/// Mean squared difference of confidence and outcome; `None` without forecasts.
pub fn brier(forecasts: &[Forecast]) -> Option<f64> {
    let square = |one: &Forecast| (one.confidence - f64::from(u8::from(one.is_right))).powi(2);
    let sum: f64 = forecasts.iter().map(square).sum();
    (!forecasts.is_empty()).then(|| sum / forecasts.len() as f64)
}

/// Sums of `confidence - outcome` by bin, and the number of forecasts.
#[derive(Clone, Copy, Default)]
struct Gaps {
    by_bin: [f64; BINS],
    n: f64,
}

impl Gaps {
    fn new(forecasts: &[Forecast]) -> Self {
        let mut gaps = Self::default();
        for one in forecasts {
            gaps.by_bin[bin_of(one.confidence)] +=
                one.confidence - f64::from(u8::from(one.is_right));
        }
        gaps.n = forecasts.len() as f64;
        gaps
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.by_bin.iter_mut().zip(other.by_bin) {
            *sum += more;
        }
        self.n += other.n;
    }

    fn error(&self) -> f64 {
        self.by_bin.iter().map(|gap| gap.abs()).sum::<f64>() / self.n.max(1.0)
    }
}

/// Expected calibration error over bins of width 0.1 (Naeini et al. 2015), with its 95% interval:
/// the basic bootstrap over documents, whose high end is at least the largest distance of the mean
/// confidence from Wilson's interval of the share that is right, so that answers without a fault
/// do not seem certain (coverage: `scripts/golden/calibration.py`). `None` without forecasts.
pub fn calibration_error(documents: &[Vec<Forecast>]) -> Option<Interval> {
    let gaps: Vec<Gaps> = documents
        .iter()
        .filter(|document| !document.is_empty())
        .map(|document| Gaps::new(document))
        .collect();
    let mut all = Gaps::default();
    gaps.iter().for_each(|one| all.add(one));
    if gaps.is_empty() {
        return None;
    }
    let estimate = all.error();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sum = Gaps::default();
            for _ in 0..gaps.len() {
                sum.add(&gaps[split_mix(&mut random) as usize % gaps.len()]);
            }
            sum.error()
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let quantile = |share: f64| resampled[((RESAMPLES - 1) as f64 * share).round() as usize];
    let counts: Vec<(usize, usize)> = documents
        .iter()
        .map(|document| {
            let right = document.iter().filter(|one| one.is_right).count();
            (right, document.len())
        })
        .collect();
    let (low, high) = wilson_by_prompt(&counts);
    let sum: f64 = documents.iter().flatten().map(|one| one.confidence).sum();
    let mean = sum / all.n;
    let farthest = (mean - low).abs().max((mean - high).abs());
    Some(Interval {
        estimate,
        low: (2.0 * estimate - quantile(0.975)).clamp(0.0, estimate),
        high: (2.0 * estimate - quantile(0.025))
            .max(farthest)
            .clamp(estimate, 1.0),
    })
}

/// The next number of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The confidence at a temperature: its logit, divided. 1 changes nothing.
pub fn at_temperature(confidence: f64, temperature: f64) -> f64 {
    let bounded = confidence.clamp(LEAST, 1.0 - LEAST);
    let logit = (bounded / (1.0 - bounded)).ln();
    1.0 / (1.0 + (-logit / temperature).exp())
}

/// The temperature that makes outcomes likeliest, in [1/20, 20]. `None` if all outcomes are equal:
/// nothing can be fitted.
pub fn fitted_temperature(forecasts: &[Forecast]) -> Option<f64> {
    let right = forecasts.iter().filter(|one| one.is_right).count();
    if right == 0 || right == forecasts.len() {
        return None;
    }
    let loss = |log_temperature: f64| -> f64 {
        let surprise = |one: &Forecast| {
            let confidence = at_temperature(one.confidence, log_temperature.exp());
            let stated = if one.is_right {
                confidence
            } else {
                1.0 - confidence
            };
            -stated.max(f64::MIN_POSITIVE).ln()
        };
        forecasts.iter().map(surprise).sum()
    };
    // The loss is convex in the inverse temperature: it has one minimum.
    let (mut low, mut high) = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE);
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    for _ in 0..80 {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        if loss(left) <= loss(right) {
            high = right;
        } else {
            low = left;
        }
    }
    Some((0.5 * (low + high)).exp())
}

/// The least confidence at and above which the share that is right is at least `precision`, so
/// that the most forecasts are accepted. `None` if there is none.
pub fn threshold(forecasts: &[Forecast], precision: f64) -> Option<f64> {
    let mut sorted = forecasts.to_vec();
    sorted.sort_by(|one, other| other.confidence.total_cmp(&one.confidence));
    let (mut right, mut found) = (0_usize, None);
    for (place, one) in sorted.iter().enumerate() {
        right += usize::from(one.is_right);
        let next = sorted.get(place + 1);
        // Equal confidences are accepted together.
        let is_last_of_equals = next.is_none_or(|next| next.confidence < one.confidence);
        if is_last_of_equals && right as f64 >= precision * (place + 1) as f64 {
            found = Some(one.confidence);
        }
    }
    found
}
