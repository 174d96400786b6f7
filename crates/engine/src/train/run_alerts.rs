//! Alerts of a run: with several tasks, rules about rates apply to each separately.

use std::collections::BTreeMap;

use super::alerts::{Alerts, TaskFacts};
use super::groups::{GroupTurn, StepRollout};
use super::metrics::frequent_answer;
use super::run_task::RunTask;
use super::trainer::Trainer;
use crate::config::TrainConfig;
use crate::facts::Ruin;
use crate::run::RunState;
use crate::run::events::{Alert, Eval, Guard};
use crate::task::{AlertRule, split_task_metric};

/// Alerts of a run and its tasks.
#[derive(Debug, Default)]
pub(super) struct RunAlerts {
    /// Alerts about what several tasks share: gradient, ranks, guard prompts.
    pub(super) run: Alerts,
    /// Alerts by task name; empty for one task.
    tasks: Vec<(String, Alerts)>,
}

/// Names the task in its alert, if there are several.
pub(super) fn task_alert(task: &str, alert: Alert) -> Alert {
    let task = task.to_owned();
    let rule = AlertRule { task, ..alert.rule };
    Alert { rule, ..alert }
}

fn task_alerts(task: &str, alerts: Vec<Alert>) -> impl Iterator<Item = Alert> {
    alerts.into_iter().map(move |alert| task_alert(task, alert))
}

impl RunAlerts {
    pub(super) fn new(tasks: &[RunTask]) -> Self {
        let whole: usize = tasks.iter().map(|task| task.part.weight).sum();
        let alerts = |task: &RunTask| {
            let share = task.part.weight as f64 / whole.max(1) as f64;
            Alerts::of_task(TaskFacts::new(&task.part.task, share))
        };
        match tasks {
            [only] if only.part.name.is_empty() => Self {
                run: alerts(only),
                tasks: Vec::new(),
            },
            _ => Self {
                run: Alerts::default(),
                tasks: tasks
                    .iter()
                    .map(|task| (task.part.name.clone(), alerts(task)))
                    .collect(),
            },
        }
    }

    /// State after step `last`; see [`Alerts::resumed`].
    pub(super) fn resume(&mut self, state: &RunState, last: u64, config: &TrainConfig) {
        if self.tasks.is_empty() {
            self.run = Alerts::resumed(self.run.task().clone(), state, last, config);
            return;
        }
        for (name, alerts) in &mut self.tasks {
            *alerts = Alerts::resumed(alerts.task().clone(), &state.of_task(name), last, config);
        }
        self.run = Alerts::resumed(TaskFacts::default(), &state.of_no_task(), last, config);
    }

    /// Sets a step's answers for the collapse alert.
    pub(super) fn see_answers(&mut self, trainer: &Trainer, rollout: &StepRollout) {
        let turns = rollout.sampled_turns();
        self.run.see_answer(frequent_answer(&turns));
        for (index, (_, alerts)) in self.tasks.iter_mut().enumerate() {
            let is_its =
                |turn: &GroupTurn<'_>| trainer.prompts.train[turn.group.prompt].task == index;
            let turns: Vec<_> = turns.iter().copied().filter(is_its).collect();
            alerts.see_answer(frequent_answer(&turns));
        }
    }

    /// Adds a step's metrics; returns alerts raised, escalated or cleared.
    pub(super) fn observe(
        &mut self,
        step: u64,
        metrics: &BTreeMap<String, f64>,
        config: &TrainConfig,
    ) -> Vec<Alert> {
        if self.tasks.is_empty() {
            return self.run.observe(step, metrics, config);
        }
        let (mut all, mut of_run) = (Vec::new(), metrics.clone());
        for (name, alerts) in &mut self.tasks {
            let own = |(key, value): (&String, &f64)| match split_task_metric(key) {
                Some((task, metric)) if task == name => Some((metric.to_owned(), *value)),
                _ => None,
            };
            let own: BTreeMap<String, f64> = metrics.iter().filter_map(own).collect();
            of_run.retain(|key, _| split_task_metric(key).is_none() && !own.contains_key(key));
            // A step of few groups may have none of a task.
            if !own.is_empty() {
                all.extend(task_alerts(name, alerts.observe(step, &own, config)));
            }
        }
        all.extend(self.run.observe(step, &of_run, config));
        all
    }

    /// As [`Self::observe`] for an eval.
    pub(super) fn observe_eval(&mut self, eval: &Eval, config: &TrainConfig) -> Vec<Alert> {
        let task = eval.set.task();
        match self.tasks.iter_mut().find(|(name, _)| name == task) {
            None => self.run.observe_eval(eval, config),
            Some((_, alerts)) => task_alerts(task, alerts.observe_eval(eval, config)).collect(),
        }
    }

    /// As [`Self::observe`] for guard prompts.
    pub(super) fn observe_guard(&mut self, guard: &Guard, config: &TrainConfig) -> Vec<Alert> {
        self.run.observe_guard(guard, config)
    }

    /// On any task.
    pub(super) fn ruin(&self) -> Option<Ruin> {
        let of_tasks = self.tasks.iter().map(|(_, alerts)| alerts);
        std::iter::once(&self.run)
            .chain(of_tasks)
            .find_map(Alerts::ruin)
    }

    /// Forgets the steps of a replaced policy; returns cleared alerts.
    pub(super) fn recovered(&mut self, step: u64, config: &TrainConfig) -> Vec<Alert> {
        let mut all = self.run.recovered(step, config);
        for (name, alerts) in &mut self.tasks {
            all.extend(task_alerts(name, alerts.recovered(step, config)));
        }
        all
    }
}
