//! Data of the rules: last steps, and changes in exact match and guard prompts.

use super::advice::TaskFacts;
use super::diverged::BestWindows;
use super::drift::{Drift, Level};
use super::steps::{Metrics, WINDOW};
use crate::config::TrainConfig;
use crate::format::percent_short;
use crate::run::events::{Eval, Guard};
use crate::statistics::Interval;
use crate::task::PromptSet;

#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) task: TaskFacts,
    /// Last steps, at most [`WINDOW`].
    pub(super) steps: Vec<Metrics>,
    /// Entropy of the first step, nats/token.
    pub(super) first_entropy: Option<f64>,
    /// Most frequent answer of the last step, or of the next to be observed.
    pub(super) frequent_answer: Option<String>,
    /// Drift of exact match on the eval set, from the base on.
    pub(super) evals: Drift,
    /// The last eval, if its answers are valid and wrong.
    pub(super) wrong_values: Option<WrongValues>,
    /// Drift on training completions, if no eval measures exact match during the run.
    pub(super) windows: Drift,
    /// Best windows of training completions, for divergence.
    pub(super) best_windows: BestWindows,
    /// Guard prompts of the base.
    guard: Option<Guard>,
    /// Latest change of guard prompts, nats/token.
    pub(super) guard_change: Option<Interval>,
}

/// Rates from which and up to which validity hides wrong values, and prompts that it takes.
const HIDING_VALID: f64 = 0.9;
const HIDDEN_EXACT: f64 = 0.1;
const MIN_LABELLED: u32 = 5;

/// Answers of an eval that are nearly all valid and nearly all wrong.
#[derive(Debug, Clone)]
pub(super) struct WrongValues {
    pub(super) exact: f64,
    valid: f64,
    /// The field that is right least often: its name, right values, expected values.
    worst: Option<(String, u32, u32)>,
}

impl WrongValues {
    fn of_eval(eval: &Eval) -> Option<Self> {
        let summary = &eval.summary;
        let (valid, exact) = (summary.valid, summary.exact?);
        let hides = valid >= HIDING_VALID && exact <= HIDDEN_EXACT;
        if eval.step == 0 || !hides || summary.with_expected < MIN_LABELLED {
            return None;
        }
        let fields = summary.fields.iter().map(|(path, field)| {
            let counts = &field.counts;
            let expected = counts.right + counts.wrong + counts.missed;
            (
                path.trim_start_matches('.').to_owned(),
                counts.right,
                expected,
            )
        });
        let share =
            |(_, right, expected): &(String, u32, u32)| f64::from(*right) / f64::from(*expected);
        let worst = fields
            .filter(|(.., expected)| *expected > 0)
            .min_by(|left, right| share(left).total_cmp(&share(right)));
        Some(Self {
            exact,
            valid,
            worst,
        })
    }

    pub(super) fn sentence(&self) -> String {
        let [valid, exact] = [self.valid, self.exact].map(percent_short);
        let worst = self
            .worst
            .as_ref()
            .map(|(field, right, expected)| format!(": {field} {right} of {expected} right"));
        format!(
            "Valid {valid}, exact {exact} on eval{}.",
            worst.unwrap_or_default()
        )
    }
}

impl Evidence {
    pub(super) fn add_step(&mut self, metrics: Metrics, config: &TrainConfig) {
        self.first_entropy = self
            .first_entropy
            .or(metrics.get("completions/entropy").copied());
        self.steps.push(metrics);
        if self.steps.len() > WINDOW {
            self.steps.remove(0);
        }
        let share = self.task.share;
        self.best_windows.see(&self.steps, share, config);
        self.windows
            .see(Level::of_window(&self.steps, share, config));
    }

    pub(super) fn add_eval(&mut self, eval: &Eval) {
        // At step 0, base and trained weights are equal.
        if eval.is_on(PromptSet::Eval) && eval.is_of_trained() {
            self.evals.see(Level::of_eval(eval));
            self.wrong_values = WrongValues::of_eval(eval);
        }
    }

    pub(super) fn add_guard(&mut self, guard: &Guard) {
        match &self.guard {
            Some(base) => self.guard_change = guard.change(base),
            None => self.guard = Some(guard.clone()),
        }
    }

    /// Selects the evidence: with only a first and a last eval, the windows between are more
    /// informative, until the last eval drifts.
    pub(super) fn drift(&self, config: &TrainConfig) -> &Drift {
        let is_evaluated = config.eval_every > 0 && self.evals.best.is_some();
        if is_evaluated || self.evals.reported.is_some() {
            &self.evals
        } else {
            &self.windows
        }
    }
}
