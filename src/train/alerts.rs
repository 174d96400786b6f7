//! Alerts of a run: rules over its metrics and evals, each raised once, and cleared once it is resolved.

use std::collections::{BTreeMap, VecDeque};

use crate::config::TrainConfig;
use crate::format::percent_short;
use crate::report::alert_name;
use crate::run::RunState;
use crate::run::events::{Alert, Eval};
use crate::statistics::wilson;

/// One step's metrics, by name.
type Metrics = BTreeMap<String, f64>;

/// Steps that a rule averages over, so that one odd step raises nothing.
const WINDOW: usize = 5;
/// Metrics of a training window's [`Level`].
const WINDOWED: [&str; 2] = ["tiers/valid", "exact"];
/// Steps in a row without a mixed group.
const EQUAL_STEPS: usize = 3;
/// Share of truncated completions above which the limit decides rewards.
const MOST_CLIPPED: f64 = 0.05;
/// Share of zero-variance groups above which a KL term is the larger part of the work. A grade up from a warning at nine in ten.
const MANY_EQUAL: f64 = 0.5;
const NEARLY_ALL_EQUAL: f64 = 0.9;
/// Share of completions whose reasoning reaches the scorer.
const MOST_THINK_LEAKS: f64 = 0.05;
/// Share of exact answers from which on they count as all.
const ALL_EXACT: f64 = 0.995;
/// Values drift when exact match loses at least this much while valid answers with wrong values gain as much.
const DRIFT: f64 = 0.02;

/// The last steps, what became of exact match, and the alerts that stand. A fold over the run's steps and evals, so a resumed run has the same.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    history: VecDeque<Metrics>,
    /// On the eval set, the base first.
    evals: Drift,
    /// On training completions, by windows of steps: where no eval measures exact match during the run.
    windows: Drift,
    /// Rule -> level.
    standing: BTreeMap<&'static str, &'static str>,
}

/// Valid and exact rates of some completions.
#[derive(Clone, Copy, Debug)]
struct Level {
    valid: f64,
    exact: f64,
    /// Where exact match surely was, for a comparison with later levels.
    low: f64,
    /// Where it surely is, for a comparison with earlier ones.
    high: f64,
}

/// The first level with the highest exact rate, and what came after it.
#[derive(Debug, Default)]
struct Drift {
    best: Option<Level>,
    latest: Option<Level>,
    /// Largest share of valid answers with wrong values since the best level.
    most_wrong: f64,
}

impl Level {
    /// A greedy eval of the same prompts each time: only the later rate is uncertain.
    fn of_eval(eval: &Eval) -> Option<Self> {
        let (valid, exact) = (eval.summary.valid, eval.summary.exact?);
        let rows = eval.summary.rows_of("exact");
        Some(Self { valid, exact, low: exact, high: wilson((exact * rows as f64).round() as usize, rows).1 })
    }

    /// A full window of steps, with other prompts each time; a prompt's completions are alike, so prompts are counted.
    fn of_window(steps: &[Metrics], config: &TrainConfig) -> Option<Self> {
        if steps.len() < WINDOW || steps.iter().any(|metrics| !metrics.contains_key("exact")) {
            return None;
        }
        let (valid, exact) = (mean(steps, "tiers/valid"), mean(steps, "exact"));
        let prompts = WINDOW * config.prompt_groups_per_step;
        let (low, high) = wilson((exact * prompts as f64).round() as usize, prompts);
        Some(Self { valid, exact, low, high })
    }

    /// Share of valid answers with wrong values.
    fn wrong(&self) -> f64 {
        self.valid - self.exact
    }
}

impl Drift {
    fn see(&mut self, level: Option<Level>) {
        let Some(level) = level else { return };
        if self.best.is_none_or(|best| level.exact > best.exact) {
            (self.best, self.most_wrong) = (Some(level), level.wrong());
        }
        self.most_wrong = self.most_wrong.max(level.wrong());
        self.latest = Some(level);
    }

    /// The best level and the latest, while the latest has lost exact matches and answers became valid with wrong values on the way. That validity
    /// falls too, or rises no more, resolves nothing.
    fn standing(&self) -> Option<(Level, Level)> {
        let (best, now) = (self.best?, self.latest?);
        let is_lost = now.high < best.low && best.exact - now.exact >= DRIFT;
        (is_lost && self.most_wrong - best.wrong() >= DRIFT).then_some((best, now))
    }
}

/// A rule that is violated now.
#[derive(Debug, PartialEq)]
struct Finding {
    rule: &'static str,
    level: &'static str,
    value: f64,
    sentence: String,
    suggestion: String,
}

impl Alerts {
    /// As they stood after step `last`, from what a run's events say: what was raised then is not raised again, and can still clear.
    pub(super) fn resumed(state: &RunState, last: u64, config: &TrainConfig) -> Self {
        let mut alerts = Self::default();
        for step in 1..=last {
            // Of early steps only what the windows are made of.
            let is_late = step + WINDOW as u64 > last;
            let values =
                state.metrics.iter().filter(|(name, _)| if is_late { *name != "seconds" } else { WINDOWED.contains(&name.as_str()) });
            let metrics: Metrics = values.filter_map(|(name, series)| Some((name.clone(), series.at(step)?))).collect();
            if !metrics.is_empty() {
                alerts.take_step(metrics, config);
            }
        }
        state.evals.values().filter(|eval| eval.step <= last).for_each(|eval| alerts.take_eval(eval));
        // Exactly the rules that are violated then are open.
        alerts.standing = alerts.findings(config).into_iter().map(|finding| (finding.rule, finding.level)).collect();
        alerts
    }

    /// Takes a step's metrics in; the alerts that rise, worsen or clear with it.
    pub(super) fn observe(&mut self, step: u64, metrics: &Metrics, config: &TrainConfig) -> Vec<Alert> {
        self.take_step(metrics.clone(), config);
        self.changes(step, config)
    }

    /// The same for an eval.
    pub(super) fn observe_eval(&mut self, eval: &Eval, config: &TrainConfig) -> Vec<Alert> {
        self.take_eval(eval);
        self.changes(eval.step, config)
    }

    fn take_step(&mut self, metrics: Metrics, config: &TrainConfig) {
        self.history.push_back(metrics);
        while self.history.len() > WINDOW {
            self.history.pop_front();
        }
        self.windows.see(Level::of_window(self.history.make_contiguous(), config));
    }

    fn take_eval(&mut self, eval: &Eval) {
        // At step 0 base and trained are the same weights.
        if eval.set == "eval" && (eval.target == "trained" || eval.step == 0) {
            self.evals.see(Level::of_eval(eval));
        }
    }

    /// Every rule that is violated now.
    fn findings(&mut self, config: &TrainConfig) -> Vec<Finding> {
        let is_evaluated = config.eval_every > 0 && self.evals.best.is_some();
        let drift = if is_evaluated { self.evals.standing() } else { self.windows.standing() };
        let history: &[Metrics] = self.history.make_contiguous();
        [not_finite(history), zero_variance_with_kl(history, config), all_max(history, drift), all_below_max(history)]
            .into_iter()
            .chain([clipped(history, config), think_leaks(history), drift.map(value_drift)])
            .flatten()
            .collect()
    }

    fn changes(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        let findings = self.findings(config);
        let mut alerts = Vec::new();
        let passed: Vec<&'static str> =
            self.standing.keys().copied().filter(|rule| findings.iter().all(|finding| finding.rule != *rule)).collect();
        for rule in passed {
            let level = self.standing.remove(rule).unwrap_or("info").to_owned();
            let sentence = format!("{} resolved.", alert_name(rule));
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

fn not_finite(history: &[Metrics]) -> Option<Finding> {
    let (name, value) = history.last()?.iter().find(|(_, value)| !value.is_finite())?;
    Some(Finding {
        rule: "not_finite",
        level: "error",
        value: *value,
        sentence: format!("{name} is not finite: the step changed nothing."),
        suggestion: "If it happens again, lower learning_rate or set grad_clip_norm; three consecutive steps stop the run.".to_owned(),
    })
}

fn zero_variance_with_kl(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let share = mean(latest(history, WINDOW), "frac_reward_zero_std");
    if config.kl_beta <= 0.0 || share <= MANY_EQUAL || history.len() < WINDOW {
        return None;
    }
    Some(Finding {
        rule: "dead_groups_with_kl",
        level: if share >= NEARLY_ALL_EQUAL { "warning" } else { "info" },
        value: share,
        sentence: format!(
            "{} of the groups have zero variance, and kl_beta = {} still forwards them: they contribute KL only.",
            percent_short(share),
            config.kl_beta
        ),
        suggestion: "Set kl_beta = 0, or dynamic_sampling = true.".to_owned(),
    })
}

fn in_a_row(history: &[Metrics], name: &str) -> bool {
    let steps = latest(history, EQUAL_STEPS);
    steps.len() == EQUAL_STEPS && steps.iter().all(|metrics| get(metrics, name) >= 1.0)
}

/// A reward at its maximum says that nothing is left to learn only where it sees the values too.
fn all_max(history: &[Metrics], drift: Option<(Level, Level)>) -> Option<Finding> {
    let exact = latest(history, EQUAL_STEPS).iter().filter_map(|metrics| metrics.get("exact")).copied().fold(1.0, f64::min);
    let exact = drift.map_or(exact, |(_, now)| exact.min(now.exact));
    let (sentence, suggestion) = if exact < ALL_EXACT {
        (
            format!("only {} of the answers are exact: the reward no longer separates right values from wrong ones.", percent_short(exact)),
            "Give values a weight: [[reward]] part = \"fields\".",
        )
    } else {
        ("there is nothing left to learn from these prompts.".to_owned(), "Stop here, or add harder prompts.")
    };
    in_a_row(history, "groups/frac_all_best").then(|| Finding {
        rule: "all_best",
        level: "info",
        value: 1.0,
        sentence: format!("All groups earn the full reward in the last {EQUAL_STEPS} steps: {sentence}"),
        suggestion: suggestion.to_owned(),
    })
}

fn all_below_max(history: &[Metrics]) -> Option<Finding> {
    in_a_row(history, "groups/frac_all_worst").then(|| Finding {
        rule: "all_worst",
        level: "warning",
        value: 1.0,
        sentence: format!(
            "All groups of the last {EQUAL_STEPS} steps have equal rewards below the maximum: zero variance, so no gradient."
        ),
        suggestion: "Find the cause with `train --plan --sample`; raise completions_per_prompt, set graded = true, or improve the prompt."
            .to_owned(),
    })
}

fn clipped(history: &[Metrics], config: &TrainConfig) -> Option<Finding> {
    let truncated = mean(latest(history, WINDOW), "completions/clipped_ratio");
    (truncated > MOST_CLIPPED).then(|| Finding {
        rule: "clipped_completions",
        level: "warning",
        value: truncated,
        sentence: format!(
            "{} of the completions are truncated at {} tokens and scored as they are.",
            percent_short(truncated),
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
            "{} of the completions pass unfinished reasoning to the scorer: their reward says nothing about the answer.",
            percent_short(leaks)
        ),
        suggestion: "Set thinking = false in task.toml, or raise max_completion_tokens until the block closes.".to_owned(),
    })
}

/// The classic hack of a format reward: answers keep their form and lose their values.
fn value_drift((best, now): (Level, Level)) -> Finding {
    Finding {
        rule: "value_drift",
        level: "warning",
        value: now.exact,
        sentence: format!(
            "Exact match fell from {} at its best to {} while {} of the answers are valid: the model learns the form at the expense of the values.",
            percent_short(best.exact),
            percent_short(now.exact),
            percent_short(now.valid)
        ),
        suggestion: "Give values a weight: [[reward]] part = \"fields\"; or lower learning_rate and start from an earlier checkpoint (--model RUN@STEP)."
            .to_owned(),
    }
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
        let truncated: &[(&str, f64)] = &[("completions/clipped_ratio", 0.06)];
        expect(&run(&[], &[truncated, &[]]), &[(1, "clipped_completions", "warning", false), (2, "clipped_completions", "warning", true)]);
        expect(&run(&[], &[&[("completions/clipped_ratio", 0.05)]]), &[]);
        let leak: &[(&str, f64)] = &[("failures/think_leak", 0.2)];
        expect(&run(&[], &[leak, leak]), &[(1, "think_leak", "warning", false)]);
        let broken: &[(&str, f64)] = &[("grad_norm", f64::NAN)];
        expect(&run(&[], &[broken, broken, &[]]), &[(1, "not_finite", "error", false), (3, "not_finite", "error", true)]);
    }

    #[test]
    fn a_resumed_run_goes_on_with_what_stood() {
        let truncated = |share: f64| Metrics::from([("completions/clipped_ratio".to_owned(), share), ("grad_norm".to_owned(), 1.0)]);
        let steps = [
            truncated(0.0),
            truncated(0.3),
            truncated(0.3),
            truncated(0.0),
            truncated(0.0),
            truncated(0.0),
            truncated(0.0),
            truncated(0.0),
            truncated(0.9),
        ];
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
    fn zero_variance_groups_matter_with_a_kl_and_by_grade() {
        let equal: &[(&str, f64)] = &[("frac_reward_zero_std", 0.75)];
        let all: &[(&str, f64)] = &[("frac_reward_zero_std", 1.0)];
        expect(&run(&[], &[equal; 9]), &[]);
        expect(&run(&["kl_beta=0.01"], &[equal; 4]), &[]);
        let steps = [[equal; 6].as_slice(), &[all; 5]].concat();
        let rule = "dead_groups_with_kl";
        expect(&run(&["kl_beta=0.01"], &steps), &[(5, rule, "info", false), (9, rule, "warning", false)]);
    }

    /// Training completions tell of drift where no eval does; prompts differ from window to window, so a loss within both intervals is none.
    #[test]
    fn training_completions_show_drift_without_evals() {
        let early: &[(&str, f64)] = &[("tiers/valid", 0.6), ("exact", 0.5)];
        let later: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.1)];
        expect(&run(&[], &[[early; 5], [later; 5]].concat()), &[(9, "value_drift", "warning", false)]);
        let less: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.4)];
        expect(&run(&[], &[[early; 5], [less; 5]].concat()), &[]);
        let both: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.6)];
        expect(&run(&[], &[[early; 5], [both; 5]].concat()), &[]);
        let unknown: &[(&str, f64)] = &[("tiers/valid", 0.9)];
        expect(&run(&[], &[[early; 5], [unknown; 5]].concat()), &[]);
    }

    fn eval(step: u64, valid: f64, exact: f64) -> Eval {
        let summary = crate::run::EvalSummary { n: 100, valid, exact: Some(exact), with_expected: 100, ..Default::default() };
        let target = if step == 0 { "base" } else { "trained" }.to_owned();
        Eval { step, set: "eval".to_owned(), target, summary, ..Eval::default() }
    }

    /// Alerts of a run with an eval after each step; `(valid, exact)` of the base and of each eval.
    fn evaluated(evals: &[(f64, f64)]) -> Vec<(u64, String, bool)> {
        let (config, mut state, mut alerts) = (config(&["eval_every=1"]), RunState::default(), Alerts::default());
        let mut found = Vec::new();
        for (step, &(valid, exact)) in (0..).zip(evals) {
            let mut now = Vec::new();
            if step > 0 {
                let metrics =
                    Metrics::from([("exact".to_owned(), exact), ("groups/frac_all_best".to_owned(), f64::from(u8::from(valid >= 1.0)))]);
                now.extend(alerts.observe(step, &metrics, &config));
                let body = crate::run::events::Step { step, seconds: 1.0, metrics }.into();
                state.fold(crate::run::Event { seq: 2 * step, time_ms: 0, body });
            }
            let eval = eval(step, valid, exact);
            now.extend(alerts.observe_eval(&eval, &config));
            state.fold(crate::run::Event { seq: 2 * step + 1, time_ms: 0, body: eval.into() });
            found.extend(now.into_iter().map(|alert| (alert.step, format!("{}: {}", alert.rule, alert.sentence), alert.cleared)));
            let resumed = Alerts::resumed(&state, step, &config);
            assert_eq!(resumed.standing, alerts.standing, "after step {step}");
            assert_eq!(resumed.evals.standing().is_some(), alerts.evals.standing().is_some(), "after step {step}");
        }
        found
    }

    #[test]
    fn drift_stands_until_exact_match_is_back() {
        // (evals, steps at which value_drift rises and clears).
        let check = |evals: &[(f64, f64)], expected: &[(u64, bool)]| {
            let found = evaluated(evals);
            let drift: Vec<_> = found.iter().filter(|(_, text, _)| text.starts_with("value_drift")).collect();
            assert_eq!(drift.iter().map(|(step, _, cleared)| (*step, *cleared)).collect::<Vec<_>>(), expected, "{found:?}");
        };
        // Against the best so far, not the last window: it neither passes at a plateau nor at the bottom, nor when validity falls too.
        check(&[(0.92, 0.90), (0.95, 0.71), (0.99, 0.51), (1.0, 0.07), (1.0, 0.03), (1.0, 0.03), (0.4, 0.03)], &[(1, false)]);
        check(&[(0.6, 0.5), (0.8, 0.7), (0.9, 0.4), (0.9, 0.68)], &[(2, false), (3, true)]);
        // Slowly, a little each time.
        let slow: Vec<(f64, f64)> = (0..20).map(|step| (0.95, 0.9 - 0.01 * f64::from(step))).collect();
        check(&slow, &[(6, false)]);
        // Within the interval of 100 prompts.
        check(&[(0.92, 0.90), (0.95, 0.86), (0.95, 0.85)], &[]);
        // Validity and values fall together: a collapse, and no drift.
        check(&[(0.92, 0.90), (0.5, 0.48), (0.1, 0.1)], &[]);
        check(&[(0.6, 0.5), (0.9, 0.8), (1.0, 1.0)], &[]);
    }

    #[test]
    fn nothing_is_left_to_learn_only_where_values_are_right() {
        let said =
            |evals: &[(f64, f64)]| evaluated(evals).into_iter().filter(|(_, text, _)| text.starts_with("all_best")).collect::<Vec<_>>();
        let wrong = said(&[(0.9, 0.9), (1.0, 0.1), (1.0, 0.03), (1.0, 0.03)]);
        assert!(matches!(&wrong[..], [(3, text, false)] if text.contains("only 3%") && !text.contains("nothing left")), "{wrong:?}");
        let right = said(&[(0.9, 0.9), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]);
        assert!(matches!(&right[..], [(3, text, false)] if text.contains("nothing left to learn")), "{right:?}");
    }
}
