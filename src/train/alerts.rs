//! What a person should look at while a run goes on: rules over the last steps' metrics, each raised once and cleared when the matter has passed.

use std::collections::{BTreeMap, VecDeque};

use crate::config::TrainConfig;
use crate::run::RunState;
use crate::run::events::Alert;

/// One step's metrics, by name.
type Metrics = BTreeMap<String, f64>;

/// Steps that the rules look back over: two windows to compare.
const REMEMBERED: usize = 2 * WINDOW;
/// Steps that a rule averages over, so that one odd step raises nothing.
const WINDOW: usize = 5;
/// Steps in a row without a mixed group.
const DEAD_STEPS: usize = 3;
/// Share of cut completions above which the limit decides rewards.
const MOST_CLIPPED: f64 = 0.05;
/// Share of dead groups above which a KL term is the larger part of the work. A grade up from a warning at nine in ten.
const MANY_DEAD: f64 = 0.5;
const NEARLY_ALL_DEAD: f64 = 0.9;
/// Share of completions whose reasoning reaches the scorer.
const MOST_THINK_LEAKS: f64 = 0.05;
/// Values drift when validity gains this much from one window to the next ...
const VALIDITY_GAIN: f64 = 0.02;
/// ... while exact matches lose this much.
const EXACT_LOSS: f64 = 0.02;

/// The last steps, and the matters that stand.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    history: VecDeque<Metrics>,
    /// Rule -> level.
    standing: BTreeMap<&'static str, &'static str>,
}

/// A rule that is broken now.
#[derive(Debug, PartialEq)]
struct Finding {
    rule: &'static str,
    level: &'static str,
    value: f64,
    sentence: String,
    suggestion: String,
}

impl Alerts {
    /// As they stood after `step`, from what a run's events say: what was raised then is not raised again, and can still clear.
    pub(super) fn resumed(state: &RunState, step: u64, config: &TrainConfig) -> Self {
        let mut alerts = Self::default();
        let first = (step + 1).saturating_sub(REMEMBERED as u64).max(1);
        for step in first..=step {
            let values = state.metrics.iter().filter(|(name, _)| *name != "seconds");
            let metrics: Metrics = values.filter_map(|(name, series)| Some((name.clone(), series.at(step)?))).collect();
            if !metrics.is_empty() {
                alerts.history.push_back(metrics);
            }
        }
        // After every step exactly the rules that are broken then stand.
        let broken = findings(alerts.history.make_contiguous(), config);
        alerts.standing = broken.into_iter().map(|finding| (finding.rule, finding.level)).collect();
        alerts
    }

    /// Takes a step's metrics in; the alerts that rise, worsen or clear with it.
    pub(super) fn observe(&mut self, step: u64, metrics: &Metrics, config: &TrainConfig) -> Vec<Alert> {
        self.history.push_back(metrics.clone());
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
        let findings = findings(self.history.make_contiguous(), config);
        let mut alerts = Vec::new();
        let passed: Vec<&'static str> =
            self.standing.keys().copied().filter(|rule| findings.iter().all(|finding| finding.rule != *rule)).collect();
        for rule in passed {
            let level = self.standing.remove(rule).unwrap_or("info").to_owned();
            let sentence = format!("{}: the matter has passed.", rule.replace('_', " "));
            alerts.push(Alert { rule: rule.to_owned(), level, step, sentence, cleared: true, ..Alert::default() });
        }
        for Finding { rule, level, value, sentence, suggestion } in findings {
            if self.standing.insert(rule, level) != Some(level) {
                let (rule, level) = (rule.to_owned(), level.to_owned());
                alerts.push(Alert { rule, level, step, value: Some(value), sentence, suggestion, cleared: false });
            }
        }
        alerts
    }
}

/// Every rule that the history, oldest first, breaks at its last step.
fn findings(history: &[Metrics], config: &TrainConfig) -> Vec<Finding> {
    [not_finite(history), dead_groups_with_kl(history, config), all_best(history), all_worst(history), clipped(history, config)]
        .into_iter()
        .chain([think_leaks(history), value_drift(history)])
        .flatten()
        .collect()
}

fn get(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).copied().unwrap_or(0.0)
}

/// Mean over some steps; a metric that a step lacks counts as 0.
fn mean(steps: &[Metrics], name: &str) -> f64 {
    steps.iter().map(|metrics| get(metrics, name)).sum::<f64>() / steps.len().max(1) as f64
}

fn latest(history: &[Metrics], steps: usize) -> &[Metrics] {
    &history[history.len().saturating_sub(steps)..]
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn not_finite(history: &[Metrics]) -> Option<Finding> {
    let (name, value) = history.last()?.iter().find(|(_, value)| !value.is_finite())?;
    Some(Finding {
        rule: "not_finite",
        level: "error",
        value: *value,
        sentence: format!("{name} is not finite: the step changed nothing."),
        suggestion: "If it comes again, lower learning_rate or set grad_clip_norm; three in a row stop the run.".to_owned(),
    })
}

fn dead_groups_with_kl(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let dead = mean(latest(history, WINDOW), "frac_reward_zero_std");
    if config.kl_beta <= 0.0 || dead <= MANY_DEAD || history.len() < WINDOW {
        return None;
    }
    Some(Finding {
        rule: "dead_groups_with_kl",
        level: if dead >= NEARLY_ALL_DEAD { "warning" } else { "info" },
        value: dead,
        sentence: format!(
            "{} of the groups are dead, and kl_beta = {} has them forwarded all the same: that work only pulls towards the start.",
            percent(dead),
            config.kl_beta
        ),
        suggestion: "Set kl_beta = 0, or dynamic_sampling = true.".to_owned(),
    })
}

fn in_a_row(history: &[Metrics], name: &str) -> bool {
    let steps = latest(history, DEAD_STEPS);
    steps.len() == DEAD_STEPS && steps.iter().all(|metrics| get(metrics, name) >= 1.0)
}

fn all_best(history: &[Metrics]) -> Option<Finding> {
    in_a_row(history, "groups/frac_all_best").then(|| Finding {
        rule: "all_best",
        level: "info",
        value: 1.0,
        sentence: format!(
            "Every group of the last {DEAD_STEPS} steps reached the best reward: there is nothing left to learn from these prompts."
        ),
        suggestion: "Stop here, add harder prompts, or score fields too.".to_owned(),
    })
}

fn all_worst(history: &[Metrics]) -> Option<Finding> {
    in_a_row(history, "groups/frac_all_worst").then(|| Finding {
        rule: "all_worst",
        level: "warning",
        value: 1.0,
        sentence: format!("Every group of the last {DEAD_STEPS} steps failed alike: equal rewards teach nothing."),
        suggestion:
            "See why with `train --plan --sample`; more completions a prompt, graded = true, or a better prompt give groups a spread."
                .to_owned(),
    })
}

fn clipped(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let cut = mean(latest(history, WINDOW), "completions/clipped_ratio");
    (cut > MOST_CLIPPED).then(|| Finding {
        rule: "clipped_completions",
        level: "warning",
        value: cut,
        sentence: format!(
            "{} of the completions are cut at {} tokens and score as they stand.",
            percent(cut),
            config.max_completion_tokens
        ),
        suggestion: "Raise max_completion_tokens, or set overlong_masking = true.".to_owned(),
    })
}

fn think_leaks(history: &[Metrics]) -> Option<Finding> {
    let leaks = mean(latest(history, WINDOW), "failures/think_leak");
    (leaks > MOST_THINK_LEAKS).then(|| Finding {
        rule: "think_leak",
        level: "warning",
        value: leaks,
        sentence: format!(
            "{} of the completions hand reasoning to the scorer: their reward says nothing about the answer.",
            percent(leaks)
        ),
        suggestion: "Set thinking = false in task.toml, or raise max_completion_tokens until the block closes.".to_owned(),
    })
}

/// The classic hack of a format reward: ever more valid, ever less right.
fn value_drift(history: &[Metrics]) -> Option<Finding> {
    if history.len() < 2 * WINDOW || history.iter().any(|metrics| !metrics.contains_key("exact")) {
        return None;
    }
    let (before, after) = latest(history, 2 * WINDOW).split_at(WINDOW);
    let change = |name| mean(after, name) - mean(before, name);
    let (valid, exact) = (change("tiers/valid"), change("exact"));
    (valid >= VALIDITY_GAIN && exact <= -EXACT_LOSS).then(|| Finding {
        rule: "value_drift",
        level: "warning",
        value: exact,
        sentence: format!(
            "Over {WINDOW} steps valid completions rose to {} while exact ones fell to {}: the model learns the form at the expense of the values.",
            percent(mean(after, "tiers/valid")),
            percent(mean(after, "exact"))
        ),
        suggestion: "Give values a weight: [[reward]] part = \"fields\"; or go back to an earlier checkpoint.".to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(set: &[&str]) -> TrainConfig {
        Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() }.resolve().unwrap().config
    }

    /// The alerts of every step: (step, rule, level, cleared).
    fn run(set: &[&str], steps: &[&[(&str, f64)]]) -> Vec<(u64, String, String, bool)> {
        let (mut alerts, config) = (Alerts::default(), config(set));
        let mut found = Vec::new();
        for (step, metrics) in (1..).zip(steps) {
            let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            for alert in alerts.observe(step, &metrics, &config) {
                assert!(alert.cleared || (alert.sentence.ends_with('.') && alert.suggestion.ends_with('.')), "{alert:?}");
                found.push((step, alert.rule, alert.level, alert.cleared));
            }
        }
        found
    }

    fn expect(found: &[(u64, String, String, bool)], expected: &[(u64, &str, &str, bool)]) {
        let found: Vec<_> = found.iter().map(|(step, rule, level, cleared)| (*step, rule.as_str(), level.as_str(), *cleared)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_rule_rises_once_and_clears() {
        let best: &[(&str, f64)] = &[("groups/frac_all_best", 1.0)];
        let mixed: &[(&str, f64)] = &[("groups/frac_all_best", 0.5)];
        expect(&run(&[], &[best; 2]), &[]);
        expect(&run(&[], &[best, best, best, best, mixed]), &[(3, "all_best", "info", false), (5, "all_best", "info", true)]);
        let worst: &[(&str, f64)] = &[("groups/frac_all_worst", 1.0)];
        expect(&run(&[], &[worst; 5]), &[(3, "all_worst", "warning", false)]);
        let cut: &[(&str, f64)] = &[("completions/clipped_ratio", 0.06)];
        expect(&run(&[], &[cut, &[]]), &[(1, "clipped_completions", "warning", false), (2, "clipped_completions", "warning", true)]);
        expect(&run(&[], &[&[("completions/clipped_ratio", 0.05)]]), &[]);
        let leak: &[(&str, f64)] = &[("failures/think_leak", 0.2)];
        expect(&run(&[], &[leak, leak]), &[(1, "think_leak", "warning", false)]);
        let broken: &[(&str, f64)] = &[("grad_norm", f64::NAN)];
        expect(&run(&[], &[broken, broken, &[]]), &[(1, "not_finite", "error", false), (3, "not_finite", "error", true)]);
    }

    #[test]
    fn a_resumed_run_goes_on_with_what_stood() {
        let cut = |share: f64| Metrics::from([("completions/clipped_ratio".to_owned(), share), ("grad_norm".to_owned(), 1.0)]);
        let steps = [cut(0.0), cut(0.3), cut(0.3), cut(0.0), cut(0.0), cut(0.0), cut(0.0), cut(0.0), cut(0.9)];
        let config = config(&[]);
        let told = |alerts: &mut Alerts, from: usize| -> Vec<Alert> {
            (from..steps.len()).flat_map(|at| alerts.observe(at as u64 + 1, &steps[at], &config)).collect()
        };
        let whole = told(&mut Alerts::default(), 0);
        let expected: &[(u64, bool)] = &[(2, false), (8, true), (9, false)];
        assert_eq!(whole.iter().map(|alert| (alert.step, alert.cleared)).collect::<Vec<_>>(), expected);
        for stopped in 0..steps.len() {
            let mut state = RunState::default();
            // Steps after the checkpoint are in the log too; they will be redone.
            for (step, metrics) in (1..).zip(&steps) {
                let body = crate::run::events::Step { step, seconds: 1.0, metrics: metrics.clone() }.into();
                state.fold(crate::run::Event { seq: step, time_ms: 0, body });
            }
            let mut alerts = Alerts::resumed(&state, stopped as u64, &config);
            let rest: Vec<Alert> = whole.iter().filter(|alert| alert.step > stopped as u64).cloned().collect();
            assert_eq!(told(&mut alerts, stopped), rest, "after step {stopped}");
        }
    }

    #[test]
    fn dead_groups_matter_with_a_kl_and_by_grade() {
        let dead: &[(&str, f64)] = &[("frac_reward_zero_std", 0.75)];
        let all: &[(&str, f64)] = &[("frac_reward_zero_std", 1.0)];
        expect(&run(&[], &[dead; 9]), &[]);
        expect(&run(&["kl_beta=0.01"], &[dead; 4]), &[]);
        let steps = [[dead; 6].as_slice(), &[all; 5]].concat();
        let rule = "dead_groups_with_kl";
        expect(&run(&["kl_beta=0.01"], &steps), &[(5, rule, "info", false), (9, rule, "warning", false)]);
    }

    #[test]
    fn values_drift_when_validity_rises_and_exactness_falls() {
        let early: &[(&str, f64)] = &[("tiers/valid", 0.6), ("exact", 0.5)];
        let later: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.3)];
        let both: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.6)];
        let drift = run(&[], &[[early; 5], [later; 5]].concat());
        expect(&drift, &[(10, "value_drift", "warning", false)]);
        expect(&run(&[], &[[early; 5], [both; 5]].concat()), &[]);
        let unknown: &[(&str, f64)] = &[("tiers/valid", 0.9)];
        expect(&run(&[], &[[early; 5], [unknown; 5]].concat()), &[]);
    }
}
