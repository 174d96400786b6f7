//! Value drift: exact match falls while answers stay or become valid. An alert requires
//! significance.

use super::steps::{Metrics, WINDOW, mean};
use crate::config::TrainConfig;
use crate::run::events::Eval;
use crate::statistics::{Verdict, wilson};

/// Minimum loss of exact match, and gain of valid answers with wrong values.
const DRIFT: f64 = 0.02;
/// Further loss of exact match after which drift is reported again.
const WORSE: f64 = 0.1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) valid: f64,
    pub(super) exact: f64,
    /// Exact match from which a drift from this level is resolved.
    resolved: f64,
    /// 95% interval of the exact rate.
    low: f64,
    high: f64,
    /// Paired test against the best level; `None` for different prompts.
    against_best: Option<Verdict>,
}

/// The best level by exact rate, and what followed.
#[derive(Debug, Default)]
pub(super) struct Drift {
    pub(super) best: Option<Level>,
    pub(super) latest: Option<Level>,
    /// Largest share of valid answers with wrong values since the best level.
    most_wrong: f64,
    /// The reported level, until exact match has recovered. A plateau, a rise that ends
    /// significance, or a fall in validity do not resolve the drift.
    pub(super) reported: Option<Level>,
}

impl Level {
    /// Reads a greedy eval of the same prompts each time.
    pub(super) fn of_eval(eval: &Eval) -> Option<Self> {
        let [low, high] = eval.summary.interval("exact");
        let (valid, exact) = (eval.summary.valid, eval.summary.exact?);
        Some(Self {
            valid,
            exact,
            resolved: exact - DRIFT,
            low,
            high,
            against_best: eval
                .exact_against_best
                .as_ref()
                .map(|paired| paired.verdict()),
        })
    }

    /// Reads a full window of steps with different prompts; counts prompts, as a prompt's
    /// completions are correlated. `share`: the task's share of a step's prompts.
    pub(super) fn of_window(steps: &[Metrics], share: f64, config: &TrainConfig) -> Option<Self> {
        if steps.len() < WINDOW || steps.iter().any(|metrics| !metrics.contains_key("exact")) {
            return None;
        }
        let (valid, exact) = (mean(steps, "tiers/valid"), mean(steps, "exact"));
        let (low, high) = window_interval(exact, WINDOW, share, config);
        Some(Self {
            valid,
            exact,
            resolved: low - DRIFT,
            low,
            high,
            against_best: None,
        })
    }

    /// Share of valid answers with wrong values.
    fn wrong(&self) -> f64 {
        self.valid - self.exact
    }

    fn is_below(&self, best: &Self) -> bool {
        match self.against_best {
            Some(verdict) => verdict == Verdict::Worse,
            None => self.high < best.low,
        }
    }
}

/// 95% interval of a rate over the prompts of `steps` steps.
pub(super) fn window_interval(
    rate: f64,
    steps: usize,
    share: f64,
    config: &TrainConfig,
) -> (f64, f64) {
    let prompts = (steps * config.prompt_groups_per_step) as f64 * share;
    let prompts = (prompts.round() as usize).max(1);
    wilson((rate * prompts as f64).round() as usize, prompts)
}

impl Drift {
    pub(super) fn see(&mut self, level: Option<Level>) {
        let Some(level) = level else { return };
        if self.best.is_none_or(|best| level.exact > best.exact) {
            (self.best, self.most_wrong) = (Some(level), level.wrong());
        }
        self.most_wrong = self.most_wrong.max(level.wrong());
        self.latest = Some(level);
        self.reported = self.best.and_then(|best| match self.reported {
            _ if level.exact >= best.resolved => None,
            Some(reported) if level.exact > reported.exact - WORSE => Some(reported),
            Some(_) => Some(level),
            None => self.begins(best, level).then_some(level),
        });
    }

    /// Whether exact match is significantly lower, while answers became valid with wrong values.
    fn begins(&self, best: Level, now: Level) -> bool {
        now.is_below(&best)
            && best.exact - now.exact >= DRIFT
            && self.most_wrong - best.wrong() >= DRIFT
    }
}
