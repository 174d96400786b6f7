//! Stated probabilities against what came true: reliability, calibration error, temperature,
//! thresholds.

use serde::{Deserialize, Serialize};

use super::compare::Interval;
use super::rates::{wilson, wilson_by_prompt};
use crate::dataset::{GOLDEN, mix};

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
/// 2^53, of uniform numbers.
const UNIT: f64 = 9_007_199_254_740_992.0;
/// Temperatures that are tried, as natural logarithms: 1/20 to 20.
const MAX_LOG_TEMPERATURE: f64 = 2.995_732_273_553_991;
/// Distance from the bounds at which there is no minimum between them.
const AT_BOUND: f64 = 1e-3;
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
        forecasts.iter().for_each(|one| gaps.count(one));
        gaps
    }

    fn count(&mut self, one: &Forecast) {
        self.by_bin[bin_of(one.confidence)] += one.confidence - f64::from(u8::from(one.is_right));
        self.n += 1.0;
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
/// the basic bootstrap over documents. Its low end is 0 if outcomes drawn by the confidences have
/// such an error, too, as the estimate is never negative; its high end is at least the largest
/// distance of the mean confidence from Wilson's interval of the share that is right, so that
/// answers without a fault do not seem certain. Coverage: `scripts/golden/calibration.py coverage`.
/// `None` without forecasts.
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
    // SplitMix64 from the state GOLDEN.
    let mut random = (2_u64..).map(|count| mix(GOLDEN.wrapping_mul(count)));
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sum = Gaps::default();
            for bits in random.by_ref().take(gaps.len()) {
                sum.add(&gaps[bits as usize % gaps.len()]);
            }
            sum.error()
        })
        .collect();
    let drawn = |_| {
        let mut sum = Gaps::default();
        for (one, bits) in documents.iter().flatten().zip(random.by_ref()) {
            let is_right = (bits >> 11) as f64 / UNIT < one.confidence;
            sum.count(&Forecast { is_right, ..*one });
        }
        sum.error()
    };
    let mut by_chance: Vec<f64> = (0..RESAMPLES).map(drawn).collect();
    for sorted in [&mut resampled, &mut by_chance] {
        sorted.sort_by(f64::total_cmp);
    }
    let at = |share: f64| ((RESAMPLES - 1) as f64 * share).round() as usize;
    let low = match estimate <= by_chance[at(0.975)] {
        true => 0.0,
        false => 2.0 * estimate - resampled[at(0.975)],
    };
    let counts: Vec<(usize, usize)> = documents
        .iter()
        .map(|document| {
            let right = document.iter().filter(|one| one.is_right).count();
            (right, document.len())
        })
        .collect();
    let (least, most) = wilson_by_prompt(&counts);
    let sum: f64 = documents.iter().flatten().map(|one| one.confidence).sum();
    let mean = sum / all.n;
    let farthest = (mean - least).abs().max((mean - most).abs());
    Some(Interval {
        estimate,
        low: low.clamp(0.0, estimate),
        high: (2.0 * estimate - resampled[at(0.025)])
            .max(farthest)
            .clamp(estimate, 1.0),
    })
}

/// The confidence at a temperature: its logit, divided. 1 changes nothing.
pub fn at_temperature(confidence: f64, temperature: f64) -> f64 {
    let bounded = confidence.clamp(LEAST, 1.0 - LEAST);
    let logit = (bounded / (1.0 - bounded)).ln();
    1.0 / (1.0 + (-logit / temperature).exp())
}

/// The temperature that makes outcomes likeliest, in (1/20, 20). `None` if there is none: outcomes
/// are equal, or a threshold tells them apart without a fault.
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
    let fitted = 0.5 * (low + high);
    (fitted.abs() < MAX_LOG_TEMPERATURE - AT_BOUND).then(|| fitted.exp())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Confidences, outcomes, and calibration error, Brier score and temperature
    /// (`scripts/golden/calibration.py`).
    type Golden = (&'static [f64], &'static str, [f64; 3]);

    #[rustfmt::skip]
    const GOLDEN: &[Golden] = &[
        (&[0.751, 0.593, 0.972, 0.991, 0.713], "01111", [0.18159999999999998, 0.16257680000000002, 1.2707826570047258]),
        (&[0.64, 0.501, 0.952, 0.592, 0.553, 0.94, 0.267, 0.485, 0.89, 0.992, 0.762, 0.692, 0.932, 0.867, 0.757, 0.775, 0.673, 0.328, 0.213, 0.745, 0.689, 0.637, 0.746, 0.84, 0.627, 0.62, 0.781, 0.231, 0.758, 0.993, 0.486, 0.746, 0.796, 0.842, 0.715, 0.51, 0.686, 0.816, 0.477, 0.749], "0110000011111000100110100110110000111110", [0.18252500000000002, 0.25798817500000004, 2.8122871665937264]),
        (&[0.677, 0.499, 0.168, 0.407, 0.93, 0.555, 0.353, 0.372, 0.519, 0.182, 0.922, 0.576, 0.606, 0.847, 0.309, 0.808, 0.77, 0.638, 0.213, 0.901, 0.786, 0.88, 0.707, 0.586, 0.565, 0.765, 0.529, 0.791, 0.774, 0.107, 0.21, 0.744, 0.414, 0.361, 0.429, 0.937, 0.578, 0.401, 0.129, 0.621, 0.489, 0.422, 0.655, 0.919, 0.82, 0.902, 0.901, 0.607, 0.591, 0.981, 0.992, 0.844, 0.904, 0.537, 0.553, 0.807, 0.74, 0.587, 0.809, 0.643, 0.329, 0.348, 0.706, 0.411, 0.511, 0.846, 0.63, 0.889, 0.768, 0.834, 0.379, 0.385, 0.782, 0.693, 0.787, 0.922, 0.938, 0.717, 0.932, 0.457, 0.736, 0.827, 0.926, 0.774, 0.291, 0.501, 0.429, 0.594, 0.932, 0.332, 0.884, 0.962, 0.952, 0.789, 0.499, 0.891, 0.474, 0.64, 0.904, 0.512, 0.849, 0.961, 0.901, 0.809, 0.963, 0.862, 0.345, 0.663, 0.162, 0.908, 0.809, 0.352, 0.844, 0.926, 0.262, 0.898, 0.334, 0.919, 0.58, 0.98, 0.999, 0.89, 0.952, 0.721, 0.833, 0.724, 0.546, 0.472, 0.533, 0.764, 0.771, 0.919, 0.734, 0.601, 0.863, 0.997, 0.709, 0.845, 0.475, 0.476, 0.737, 0.788, 0.857, 0.401, 0.587, 0.444, 0.854, 0.91, 0.798, 0.714, 0.623, 0.832, 0.436, 0.799, 0.55, 0.657, 0.127, 0.761, 0.426, 0.671, 0.874, 0.613, 0.894, 0.58, 0.399, 0.846, 0.098, 0.927, 0.91, 0.76, 0.22, 0.388, 0.019, 0.726, 0.715, 0.62, 0.719, 0.648, 0.372, 0.431, 0.741, 0.795, 0.769, 0.81, 0.482, 0.913, 0.601, 0.529, 0.486, 0.431, 0.177, 0.912, 0.315, 0.229, 0.787, 0.033, 0.59, 0.46, 0.451, 0.908], "01011100101111111101110010011001000110000011111111111111111110111111010010111011111100101011111100101111111101101101011111111110111111011101101011110101011101111110010111000111110001111101000100101001", [0.0966050000000001, 0.131647855, 0.5643920251254327]),
        (&[0.889, 0.479, 0.737, 0.958, 0.567, 0.833, 0.388, 0.764, 0.715, 0.289, 0.896, 0.915, 0.083, 0.933, 0.429, 0.648, 0.852, 0.585, 0.606, 0.951, 0.861, 0.951, 0.41, 0.368, 0.58, 0.244, 0.437, 0.555, 0.206, 0.889], "011101010110011101010110111011", [0.301, 0.2841707333333333, 3.643483135544098]),
    ];

    fn forecasts(confidences: &[f64], outcomes: &str) -> Vec<Forecast> {
        let pairs = confidences.iter().zip(outcomes.bytes());
        let forecast = |(confidence, outcome): (&f64, u8)| Forecast {
            confidence: *confidence,
            is_right: outcome == b'1',
        };
        pairs.map(forecast).collect()
    }

    #[test]
    fn errors_and_temperatures_are_those_of_scikit_learn_and_scipy() {
        for (confidences, outcomes, [error, score, temperature]) in GOLDEN {
            let all = forecasts(confidences, outcomes);
            assert_eq!(all.len(), outcomes.len());
            let documents: Vec<Vec<Forecast>> = all.iter().map(|one| vec![*one]).collect();
            let found = calibration_error(&documents).unwrap();
            assert!((found.estimate - error).abs() < 1e-9, "{found:?} {error}");
            assert!(found.low <= found.estimate && found.estimate <= found.high);
            assert!((brier(&all).unwrap() - score).abs() < 1e-9);
            let fitted = fitted_temperature(&all).unwrap();
            assert!(
                (fitted / temperature - 1.0).abs() < 1e-4,
                "{fitted} {temperature}"
            );
            // Bins say the same as the error.
            let sum: f64 = reliability(&all)
                .iter()
                .map(|bin| bin.n as f64 * (bin.mean_confidence - bin.right).abs())
                .sum();
            assert!((sum / all.len() as f64 - error).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_is_unknown_and_one_forecast_says_little() {
        assert_eq!(calibration_error(&[]), None);
        assert_eq!(calibration_error(&[Vec::new()]), None);
        assert_eq!(
            (brier(&[]), fitted_temperature(&[]), threshold(&[], 0.9)),
            (None, None, None)
        );
        assert!(reliability(&[]).is_empty());
        let one = forecasts(&[1.0], "1");
        let error = calibration_error(std::slice::from_ref(&one)).unwrap();
        assert!(
            error.estimate == 0.0 && error.low == 0.0 && error.high > 0.7,
            "{error:?}"
        );
        assert_eq!((brier(&one), fitted_temperature(&one)), (Some(0.0), None));
        assert_eq!(
            fitted_temperature(&forecasts(&[0.9, 0.1], "10")),
            None,
            "told apart"
        );
        assert_eq!(threshold(&one, 0.99), Some(1.0));
        assert_eq!(reliability(&one)[0].low, 0.9);
        let wrong = forecasts(&[1.0], "0");
        let error = calibration_error(std::slice::from_ref(&wrong)).unwrap();
        assert!(
            error.estimate == 1.0 && error.high == 1.0 && error.low > 0.0,
            "{error:?}"
        );
        assert_eq!(threshold(&wrong, 0.99), None);
    }

    /// An error that chance alone explains may be none; one of many forecasts is seen.
    #[test]
    fn the_interval_of_the_error_has_zero_where_chance_explains_it() {
        let of = |confidence: f64, right: usize, n: usize| -> Vec<Vec<Forecast>> {
            let one = |place| Forecast {
                confidence,
                is_right: place < right,
            };
            (0..n).map(|place| vec![one(place)]).collect()
        };
        let close = calibration_error(&of(0.95, 94, 100)).unwrap();
        assert!(
            close.estimate > 0.005 && close.low == 0.0 && close.high < 0.1,
            "{close:?}"
        );
        let far = calibration_error(&of(0.95, 500, 1000)).unwrap();
        assert!(far.low > 0.4 && far.high < 0.5, "{far:?}");
        assert_eq!(far, calibration_error(&of(0.95, 500, 1000)).unwrap());
    }

    #[test]
    fn a_threshold_accepts_the_most_at_the_precision() {
        let check = |confidences: &[f64], outcomes: &str, precision, expected| {
            assert_eq!(
                threshold(&forecasts(confidences, outcomes), precision),
                expected,
                "{outcomes}"
            );
        };
        check(&[0.9, 0.8, 0.7, 0.6], "1101", 0.99, Some(0.8));
        check(&[0.9, 0.8, 0.7, 0.6], "1101", 0.75, Some(0.6));
        // A dip in between does not end it.
        check(&[0.9, 0.8, 0.7, 0.6], "1011", 0.75, Some(0.6));
        // Equals are accepted together, in whatever order.
        check(&[0.9, 0.9, 0.8], "101", 0.6, Some(0.8));
        check(&[0.9, 0.9], "10", 0.99, None);
        check(&[0.9, 0.9, 0.95], "101", 0.99, Some(0.95));
    }

    #[test]
    fn a_temperature_moves_probabilities_towards_a_half() {
        assert!((at_temperature(0.9, 1.0) - 0.9).abs() < 1e-12);
        assert!((at_temperature(0.9, 2.0) - 0.75).abs() < 1e-12);
        assert!((at_temperature(0.5, 7.0) - 0.5).abs() < 1e-12);
        assert!(at_temperature(1.0, 1.0) < 1.0 && at_temperature(0.0, 1.0) > 0.0);
    }
}
