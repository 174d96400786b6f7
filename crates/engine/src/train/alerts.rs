//! Alerts: rules over a run's metrics and evals. Each is raised once, again if its grade changes,
//! and cleared when resolved.

mod advice;
mod collapsed;
mod diverged;
mod drift;
mod evidence;
mod fallbacks;
mod rules;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::advice::TaskFacts;
use self::evidence::Evidence;
use self::fallbacks::Fallbacks;
use self::rules::{Seen, VALUE_DRIFT, violated};
use self::steps::Metrics;
pub(super) use self::steps::WINDOW;
use crate::config::TrainConfig;
use crate::facts::{AlertLevel, Ruin};
use crate::report::alert_name;
use crate::run::RunState;
use crate::run::events::{Alert, Eval, Guard};
use crate::task::AlertRule;

/// State of the rules and open alerts: a fold over steps and evals, so that a resumed run agrees.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    evidence: Evidence,
    /// Fallbacks of a GPU.
    pub(super) fallbacks: Fallbacks,
    /// Open alerts by rule.
    active: BTreeMap<AlertRule, Alert>,
}

/// Raises an open alert again if it changes: the level, for value drift also the exact rate.
fn grade(alert: &Alert) -> (AlertLevel, Option<f64>) {
    let reported = alert.value.filter(|_| alert.rule.name == VALUE_DRIFT);
    (alert.level, reported)
}

impl Alerts {
    pub(super) fn of_task(task: TaskFacts) -> Self {
        let mut alerts = Self::default();
        alerts.evidence.task = task;
        alerts
    }

    pub(super) fn task(&self) -> &TaskFacts {
        &self.evidence.task
    }

    /// State after step `last`, replayed from the run's events, so that open alerts are not raised
    /// again and can be cleared.
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

    /// Adds a step's metrics; returns alerts raised, escalated or cleared.
    pub(super) fn observe(
        &mut self,
        step: u64,
        metrics: &Metrics,
        config: &TrainConfig,
    ) -> Vec<Alert> {
        self.evidence.add_step(metrics.clone(), config);
        self.changes(step, config)
    }

    /// As [`Self::observe`] for an eval.
    pub(super) fn observe_eval(&mut self, eval: &Eval, config: &TrainConfig) -> Vec<Alert> {
        self.evidence.add_eval(eval);
        self.changes(eval.step, config)
    }

    /// As [`Self::observe`] for guard prompts.
    pub(super) fn observe_guard(&mut self, guard: &Guard, config: &TrainConfig) -> Vec<Alert> {
        self.evidence.add_guard(guard);
        self.changes(guard.step, config)
    }

    /// Sets the most frequent answer of the next observed step.
    pub(super) fn see_answer(&mut self, frequent: Option<String>) {
        self.evidence.frequent_answer = frequent;
    }

    pub(super) fn ruin(&self) -> Option<Ruin> {
        Ruin::ALL.into_iter().find(|ruin| self.has(*ruin))
    }

    fn has(&self, ruin: Ruin) -> bool {
        self.active.contains_key(&ruin.name().into())
    }

    /// Forgets the steps of a replaced policy; returns cleared alerts.
    pub(super) fn recovered(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        self.evidence.steps.clear();
        self.changes(step, config)
    }

    fn changes(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        let seen = Seen {
            evidence: &self.evidence,
            config,
            is_active: &|ruin| self.has(ruin),
        };
        let violated = violated(&seen, step);
        let is_resolved =
            |rule: &AlertRule, _: &mut Alert| violated.iter().all(|it| it.rule != *rule);
        let resolved = self.active.extract_if(.., is_resolved);
        let mut changes: Vec<Alert> = resolved
            .map(|(rule, alert)| Alert {
                cleared: true,
                step,
                value: None,
                sentence: format!("{} resolved.", alert_name(&rule)),
                suggestion: String::new(),
                ..alert
            })
            .collect();
        for alert in violated {
            let before = self.active.insert(alert.rule.clone(), alert.clone());
            if before.is_none_or(|before| grade(&before) != grade(&alert)) {
                changes.push(alert);
            }
        }
        changes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
