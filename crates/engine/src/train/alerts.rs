//! Alerts: rules over a run's metrics and evals. Each is raised once and cleared when it is resolved.

mod advice;
mod collapsed;
mod diverged;
mod drift;
mod fallbacks;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) use self::advice::TaskFacts;
use self::collapsed::{description, has_collapsed};
use self::diverged::BestWindows;
use self::drift::{Drift, Level};
use self::fallbacks::Fallbacks;
pub(super) use self::steps::WINDOW;
use self::steps::{Metrics, get, mean};
use crate::config::{ThinkingEnd, TrainConfig};
use crate::format::percent_short;
use crate::report::alert_name;
use crate::run::RunState;
use crate::run::events::{Alert, Eval, Guard};
use crate::statistics::Interval;

/// Consecutive steps without a mixed group.
const EQUAL_STEPS: usize = 3;
/// The share of truncated completions above which the limit decides rewards.
const MAX_TRUNCATED: f64 = 0.05;
/// The share of zero-variance groups above which a KL term dominates; a warning above nine in ten.
const MANY_EQUAL: f64 = 0.5;
const NEARLY_ALL_EQUAL: f64 = 0.9;
/// The share of completions whose reasoning reaches the scorer.
const MAX_THINK_LEAKS: f64 = 0.05;
/// The share of exact answers that counts as all.
const ALL_EXACT: f64 = 0.995;
/// The tokens of the rank with the most, over those of an even share, from which on the others wait long.
const MAX_IMBALANCE: f64 = 1.5;
/// The time of a rank over that of the others for as many tokens, in each step of a window.
const SLOW: f64 = 1.25;

/// Nats a token that guard prompts may lose, about 5% of a token's probability.
const FORGOTTEN: f64 = 0.05;

const COLLAPSED: &str = "collapsed";
pub(super) const DIVERGED: &str = "diverged";
const VALUE_DRIFT: &str = "value_drift";

/// The last steps, the drift of exact match, and the open alerts: a fold over steps and evals, so that a resumed run
/// agrees.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    task: TaskFacts,
    history: VecDeque<Metrics>,
    /// Of the first step, nats/token.
    first_entropy: Option<f64>,
    /// What a GPU refused.
    pub(super) fallbacks: Fallbacks,
    /// The most frequent answer of the last step.
    pub(super) frequent_answer: Option<String>,
    /// On the eval set, from the base on.
    evals: Drift,
    /// On training completions, if no eval measures exact match during the run.
    windows: Drift,
    /// Of training completions, whose rates a diverged policy has lost.
    best_windows: BestWindows,
    /// The guard prompts of the base.
    guard: Option<Guard>,
    /// Their latest change, nats/token.
    guard_change: Option<Interval>,
    /// Open alerts: rule -> what raises it again if it changes.
    standing: BTreeMap<&'static str, Grade>,
}

/// The level of an alert, and of value drift the reported exact rate.
type Grade = (&'static str, Option<f64>);

/// A violated rule.
#[derive(Debug, PartialEq)]
struct Finding {
    rule: &'static str,
    level: &'static str,
    value: f64,
    sentence: String,
    suggestion: String,
}

impl Finding {
    fn warning(
        rule: &'static str,
        value: f64,
        sentence: String,
        suggestion: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            level: "warning",
            value,
            sentence,
            suggestion: suggestion.into(),
        }
    }

    fn grade(&self) -> Grade {
        (self.level, (self.rule == VALUE_DRIFT).then_some(self.value))
    }
}

impl Alerts {
    pub(super) fn of_task(task: TaskFacts) -> Self {
        Self {
            task,
            ..Self::default()
        }
    }

    pub(super) fn task(&self) -> &TaskFacts {
        &self.task
    }

    /// The state after step `last`: the run's events observed once more, so that open alerts are not raised again and can
    /// still be cleared.
    pub(super) fn resumed(
        task: TaskFacts,
        state: &RunState,
        last: u64,
        config: &TrainConfig,
    ) -> Self {
        let mut alerts = Self::of_task(task);
        let recovered: BTreeSet<u64> = state.collapses.iter().map(|it| it.step).collect();
        let mut evals = state.evals.values().peekable();
        for step in 0..=last {
            let values = state.metrics.iter().filter(|(name, _)| *name != "seconds");
            let metrics: Metrics = values
                .filter_map(|(name, series)| Some((name.clone(), series.at(step)?)))
                .collect();
            if !metrics.is_empty() {
                alerts.observe(step, &metrics, config);
            }
            while let Some(eval) = evals.next_if(|eval| eval.step <= step) {
                alerts.observe_eval(eval, config);
            }
            if let Some(guard) = state.guards.get(&step) {
                alerts.observe_guard(guard, config);
            }
            if recovered.contains(&step) {
                alerts.recovered(step, config);
            }
        }
        alerts
    }

    /// Adds a step's metrics; returns the alerts that are raised, escalated or cleared.
    pub(super) fn observe(
        &mut self,
        step: u64,
        metrics: &Metrics,
        config: &TrainConfig,
    ) -> Vec<Alert> {
        self.take_step(metrics.clone(), config);
        self.changes(step, config)
    }

    /// The same for an eval.
    pub(super) fn observe_eval(&mut self, eval: &Eval, config: &TrainConfig) -> Vec<Alert> {
        self.take_eval(eval);
        self.changes(eval.step, config)
    }

    /// The same for the guard prompts.
    pub(super) fn observe_guard(&mut self, guard: &Guard, config: &TrainConfig) -> Vec<Alert> {
        self.take_guard(guard);
        self.changes(guard.step, config)
    }

    fn take_guard(&mut self, guard: &Guard) {
        match &self.guard {
            Some(base) => self.guard_change = guard.change(base),
            None => self.guard = Some(guard.clone()),
        }
    }

    /// How the policy is lost: `collapsed` or `diverged`.
    pub(super) fn ruin(&self) -> Option<&'static str> {
        [COLLAPSED, DIVERGED]
            .into_iter()
            .find(|rule| self.standing.contains_key(rule))
    }

    /// Forgets the steps of a policy that was replaced; returns the alerts that are cleared.
    pub(super) fn recovered(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        self.history.clear();
        self.changes(step, config)
    }

    fn take_step(&mut self, metrics: Metrics, config: &TrainConfig) {
        self.first_entropy = self
            .first_entropy
            .or(metrics.get("completions/entropy").copied());
        self.history.push_back(metrics);
        while self.history.len() > WINDOW {
            self.history.pop_front();
        }
        let share = self.task.share;
        self.best_windows.see(&mut self.history, share, config);
        self.windows.see(Level::of_window(
            self.history.make_contiguous(),
            share,
            config,
        ));
    }

    fn take_eval(&mut self, eval: &Eval) {
        // At step 0, base and trained are the same weights.
        if eval.set == "eval" && (eval.target == "trained" || eval.step == 0) {
            self.evals.see(Level::of_eval(eval));
        }
    }

    fn findings(&mut self, config: &TrainConfig) -> Vec<Finding> {
        self.history.make_contiguous();
        let history: &[Metrics] = self.history.as_slices().0;
        // With the first eval and the last alone, the windows between them tell more, until the last one drifts.
        let is_evaluated =
            (config.eval_every > 0 && self.evals.best.is_some()) || self.evals.reported.is_some();
        let drift = if is_evaluated {
            &self.evals
        } else {
            &self.windows
        };
        let drifted = drift.reported.and(drift.latest);
        let findings = [
            self.collapsed(history, config)
                .filter(|_| !config.is_distilled()),
            self.diverged(history, config),
            not_finite(history, config),
            zero_variance_with_kl(history, config),
            all_max(history, drifted, &self.task),
            all_below_max(history, &self.task).filter(|_| !config.is_distilled()),
            clipped(history, config),
            think_leaks(history, config),
            drift
                .best
                .zip(drift.reported)
                .map(|(best, reported)| value_drift(best, reported, &self.task)),
            imbalanced_ranks(history),
            slow_rank(history),
            ignored_sampling(history),
            self.guard_change.and_then(forgetting),
        ];
        findings.into_iter().flatten().collect()
    }

    fn collapsed(&self, history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
        let (is_active, first) = (self.standing.contains_key(COLLAPSED), self.first_entropy);
        let has_collapsed = history.len() == WINDOW
            && history
                .iter()
                .all(|step| has_collapsed(step, first, is_active));
        let now = history.last().filter(|_| has_collapsed)?;
        let described = description(now, first, self.frequent_answer.as_deref());
        let sentence = format!(
            "The policy collapsed: {described}; few groups of the last {WINDOW} steps had a gradient."
        );
        Some(Finding::warning(
            COLLAPSED,
            get(now, "reward"),
            sentence,
            self.task.collapsed(config),
        ))
    }

    fn diverged(&self, history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
        let is_active = self.standing.contains_key(DIVERGED);
        let loss = self
            .best_windows
            .loss(history, is_active, self.task.share, config)?;
        let described = loss.description(history, self.first_entropy);
        let sentence = format!("The policy diverged: in the last {WINDOW} steps {described}.");
        Some(Finding::warning(
            DIVERGED,
            mean(history, "reward"),
            sentence,
            advice::diverged(config),
        ))
    }

    fn changes(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        let findings = self.findings(config);
        let mut alerts = Vec::new();
        let violated: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
        let passed: Vec<&str> = self
            .standing
            .keys()
            .copied()
            .filter(|rule| !violated.contains(rule))
            .collect();
        for rule in passed {
            let level = self
                .standing
                .remove(rule)
                .map_or("info", |(level, _)| level)
                .to_owned();
            let sentence = format!("{} resolved.", alert_name(rule));
            alerts.push(Alert {
                rule: rule.to_owned(),
                level,
                step,
                sentence,
                cleared: true,
                ..Alert::default()
            });
        }
        for finding in findings {
            let grade = finding.grade();
            let Finding {
                rule,
                level,
                value,
                sentence,
                suggestion,
            } = finding;
            if self.standing.insert(rule, grade) != Some(grade) {
                let (rule, level) = (rule.to_owned(), level.to_owned());
                alerts.push(Alert {
                    rule,
                    level,
                    step,
                    value: Some(value),
                    sentence,
                    suggestion,
                    cleared: false,
                });
            }
        }
        alerts
    }
}

fn latest(history: &[Metrics], steps: usize) -> &[Metrics] {
    &history[history.len().saturating_sub(steps)..]
}

fn not_finite(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let step = history.last()?;
    let (name, value) = step.iter().find(|(_, value)| !value.is_finite())?;
    let (effect, suggestion) = match step.get("grad_norm").is_some_and(|norm| !norm.is_finite()) {
        true => (
            ": the step changed nothing",
            advice::gradient_not_finite(config),
        ),
        false => (
            "",
            "Read the completions of the step, and why scorers failed (failures/scorer_error)."
                .to_owned(),
        ),
    };
    let sentence = format!("{name} is not finite{effect}.");
    Some(Finding {
        rule: "not_finite",
        level: "error",
        value: *value,
        sentence,
        suggestion,
    })
}

fn zero_variance_with_kl(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let value = mean(latest(history, WINDOW), "frac_reward_zero_std");
    if config.kl_beta <= 0.0 || value <= MANY_EQUAL || history.len() < WINDOW {
        return None;
    }
    let (share, kl_beta) = (percent_short(value), config.kl_beta);
    let sentence = format!(
        "{share} of the groups have zero variance, and kl_beta = {kl_beta} still forwards them: they contribute KL only."
    );
    let suggestion = advice::zero_variance(config);
    let level = if value >= NEARLY_ALL_EQUAL {
        "warning"
    } else {
        "info"
    };
    Some(Finding {
        rule: "dead_groups_with_kl",
        level,
        value,
        sentence,
        suggestion,
    })
}

fn in_a_row(history: &[Metrics], name: &str) -> bool {
    let steps = latest(history, EQUAL_STEPS);
    steps.len() == EQUAL_STEPS && steps.iter().all(|metrics| get(metrics, name) >= 1.0)
}

/// A maximal reward means that nothing is left to learn only if it includes the values.
fn all_max(history: &[Metrics], drifted: Option<Level>, task: &TaskFacts) -> Option<Finding> {
    let exact = latest(history, EQUAL_STEPS)
        .iter()
        .filter_map(|metrics| metrics.get("exact"))
        .copied()
        .fold(1.0, f64::min);
    let exact = drifted.map_or(exact, |now| exact.min(now.exact));
    let (sentence, suggestion) = if exact < ALL_EXACT {
        (
            format!(
                "only {} of completions are exact: the reward no longer separates right values from wrong ones.",
                percent_short(exact)
            ),
            task.all_max(),
        )
    } else {
        (
            "there is nothing left to learn from these prompts.".to_owned(),
            "Stop here, or add harder prompts.".to_owned(),
        )
    };
    let sentence =
        format!("All groups earn the full reward in the last {EQUAL_STEPS} steps: {sentence}");
    let finding = Finding {
        rule: "all_best",
        level: "info",
        value: 1.0,
        sentence,
        suggestion,
    };
    in_a_row(history, "groups/frac_all_best").then_some(finding)
}

fn all_below_max(history: &[Metrics], task: &TaskFacts) -> Option<Finding> {
    // A guided answer is a gradient.
    let is_guided = latest(history, EQUAL_STEPS)
        .iter()
        .any(|step| get(step, "groups/frac_guided") > 0.0);
    let sentence = format!(
        "All groups of the last {EQUAL_STEPS} steps have equal rewards below the maximum: zero variance, so no gradient."
    );
    (!is_guided && in_a_row(history, "groups/frac_all_worst"))
        .then(|| Finding::warning("all_worst", 1.0, sentence, task.all_worst()))
}

fn clipped(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let truncated = mean(latest(history, WINDOW), "completions/clipped_ratio");
    let thinking = config
        .thinking_budget()
        .filter(|budget| budget.end == ThinkingEnd::Truncate);
    let thinking = thinking.map_or_else(String::new, |budget| {
        format!(", or {} of thinking,", budget.max_tokens)
    });
    let (share, limit) = (percent_short(truncated), config.max_completion_tokens);
    let sentence = format!(
        "{share} of the completions are truncated at {limit} tokens{thinking} and scored as they are."
    );
    let suggestion = advice::truncated(config);
    (truncated > MAX_TRUNCATED)
        .then(|| Finding::warning("clipped_completions", truncated, sentence, suggestion))
}

fn think_leaks(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let leaks = mean(latest(history, WINDOW), "failures/think_leak");
    let share = percent_short(leaks);
    let sentence = format!(
        "{share} of the completions pass unfinished reasoning to the scorer: their reward says nothing about the answer."
    );
    let suggestion = advice::think_leaks(config);
    (leaks > MAX_THINK_LEAKS).then(|| Finding::warning("think_leak", leaks, sentence, suggestion))
}

fn imbalanced_ranks(history: &[Metrics]) -> Option<Finding> {
    let steps = latest(history, WINDOW);
    let is_known = steps.len() == WINDOW
        && steps
            .iter()
            .all(|metrics| metrics.contains_key("ranks/imbalance"));
    let imbalance = mean(steps, "ranks/imbalance");
    let sentence = format!(
        "In the last {WINDOW} steps one rank had {imbalance:.1} times an even share of the tokens: the others waited for it."
    );
    let suggestion = "Raise prompt_groups_per_step or completions_per_prompt, or resume with fewer ranks (--ranks).";
    (is_known && imbalance > MAX_IMBALANCE)
        .then(|| Finding::warning("rank_imbalance", imbalance, sentence, suggestion))
}

fn slow_rank(history: &[Metrics]) -> Option<Finding> {
    let steps = latest(history, WINDOW);
    let rank = *steps.last()?.get("ranks/slowest")?;
    let is_slow = |metrics: &Metrics| {
        metrics.get("ranks/slowest") == Some(&rank) && metrics.get("ranks/slowdown") >= Some(&SLOW)
    };
    let slowdown = mean(steps, "ranks/slowdown");
    let sentence = format!(
        "Rank {rank} took {slowdown:.2} times as long as the others for as many tokens in the last {WINDOW} steps, and all wait for it."
    );
    let suggestion = "Look for other processes on its device, and at its clocks and temperature (nvidia-smi); resume without that GPU or node.";
    (steps.len() == WINDOW && steps.iter().all(is_slow))
        .then(|| Finding::warning("slow_rank", slowdown, sentence, suggestion))
}

fn ignored_sampling(history: &[Metrics]) -> Option<Finding> {
    let value = *history.last()?.get("agent/frac_ignored")?;
    let sentence = "The agent asks for a temperature, top_p, penalties or a seed other than the run's: they have no effect.";
    let suggestion = "Leave them out of its requests, or set temperature of the run.";
    let (rule, level, sentence) = ("agent_sampling", "info", sentence.to_owned());
    (value > 0.0).then_some(Finding {
        rule,
        level,
        value,
        sentence,
        suggestion: suggestion.to_owned(),
    })
}

/// The references of the guard prompts became less likely, by more than chance.
fn forgetting(change: Interval) -> Option<Finding> {
    let Interval {
        estimate,
        low,
        high,
    } = change;
    let sentence = format!(
        "The guard prompts lost {:.3} nats/token [{:.3}, {:.3}] since step 0: the model forgets what they ask.",
        -estimate, -high, -low
    );
    let suggestion = "Lower learning_rate, raise kl_beta, or take an earlier checkpoint.";
    (high < -FORGOTTEN).then(|| Finding::warning("forgetting", estimate, sentence, suggestion))
}

/// The classic hack of a format reward: answers keep their form and lose their values.
fn value_drift(best: Level, now: Level, task: &TaskFacts) -> Finding {
    let [from, to, valid] = [best.exact, now.exact, now.valid].map(percent_short);
    let sentence = format!(
        "Exact match fell from {from} at its best to {to} while {valid} of completions are valid: the model learns the form at the expense of the \
         values."
    );
    Finding::warning(VALUE_DRIFT, now.exact, sentence, task.value_drift())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
