//! Detects divergence: nearly all of a rate is lost, or a policy that had none decays to noise.
//! Unlike in a collapse, answers may vary and entropy may rise.

use super::drift::window_interval;
use super::steps::{Metrics, WINDOW, entropy_change, get, mean};
use crate::config::TrainConfig;
use crate::format::percent_short;

/// Lost if at most this share of the best window is left.
const LOST: f64 = 0.1;
/// Recovered once this share is back.
const RECOVERED: f64 = 0.5;

/// Noise: at least this share of a step's groups has zero variance below the maximum, guided or not,
/// and the entropy is at least this multiple of the first step's, and this many nats/token above it.
const FAILED_GROUPS: f64 = 0.9;
const RISEN: f64 = 2.0;
const RISEN_NATS: f64 = 1.0;

/// Whether a step's own completions earn nothing and are noise. `is_active`: diverged before.
pub(super) fn is_noise(metrics: &Metrics, first_entropy: Option<f64>, is_active: bool) -> bool {
    let failed = get(metrics, "groups/frac_all_worst");
    let least = if is_active { RECOVERED } else { FAILED_GROUPS };
    let entropy = first_entropy.zip(metrics.get("completions/entropy"));
    let has_risen =
        entropy.is_some_and(|(first, now)| *now >= (RISEN * first).max(first + RISEN_NATS));
    failed >= least && has_risen
}

/// Rates of a step's completions: parsable, valid.
pub(super) const RATES: [&str; 2] = ["parse", "valid"];

/// Best window of each rate; the first windows are shorter.
#[derive(Debug, Default)]
pub(super) struct BestWindows([Option<BestWindow>; 2]);

#[derive(Clone, Copy, Debug)]
struct BestWindow {
    rate: f64,
    /// Lower end of its 95% interval.
    low: f64,
    reward: f64,
}

/// A lost rate.
#[derive(Debug)]
pub(super) struct Loss {
    name: &'static str,
    rates: [f64; 2],
    /// Mean rewards.
    rewards: [f64; 2],
}

fn rate(steps: &[Metrics], name: &str) -> Option<f64> {
    let is_known = steps
        .iter()
        .all(|step| step.contains_key("tiers/unparsable") && step.contains_key("tiers/valid"));
    let unparsable = mean(steps, "tiers/unparsable");
    (is_known && !steps.is_empty()).then(|| match name {
        "parse" => 1.0 - unparsable,
        _ => mean(steps, "tiers/valid"),
    })
}

impl BestWindows {
    pub(super) fn see(&mut self, steps: &[Metrics], share: f64, config: &TrainConfig) {
        for (best, name) in self.0.iter_mut().zip(RATES) {
            let Some(rate) = rate(steps, name) else {
                continue;
            };
            let low = window_interval(rate, steps.len(), share, config).0;
            if best.is_none_or(|best| low > best.low) {
                let reward = mean(steps, "reward");
                *best = Some(BestWindow { rate, low, reward });
            }
        }
    }

    /// Significant loss over the last steps. `is_active`: diverged before.
    pub(super) fn loss(
        &self,
        history: &[Metrics],
        is_active: bool,
        share: f64,
        config: &TrainConfig,
    ) -> Option<Loss> {
        let left = if is_active { RECOVERED } else { LOST };
        let lost = |(best, name): (&Option<BestWindow>, &'static str)| {
            let (best, now) = ((*best)?, rate(history, name)?);
            let high = window_interval(now, WINDOW, share, config).1;
            let is_lost = now <= left * best.rate && (is_active || high < best.low);
            is_lost.then(|| Loss {
                name,
                rates: [best.rate, now],
                rewards: [best.reward, mean(history, "reward")],
            })
        };
        (history.len() == WINDOW)
            .then(|| self.0.iter().zip(RATES).find_map(lost))
            .flatten()
    }
}

impl Loss {
    /// `parse fell from 83% to 0%, mean reward 0.27 to 0.00, entropy 0.47 -> 1.50 nats/token`.
    pub(super) fn description(&self, last: &Metrics, first_entropy: Option<f64>) -> String {
        let ([from, to], [reward_before, reward]) = (self.rates.map(percent_short), self.rewards);
        let entropy = entropy_change(first_entropy, last);
        let name = self.name;
        format!(
            "{name} fell from {from} at its best to {to}, mean reward from {reward_before:.2} to {reward:.2}{entropy}"
        )
    }
}
