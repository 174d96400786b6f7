//! Per-task records of a run of several tasks, and the rates over all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::events::Eval;
use super::history::RunState;
use crate::config::BestBy;
use crate::facts::Target;
use crate::statistics::wilson;
use crate::task::{PromptSet, TASK_METRIC, split_task_metric};

#[derive(Debug, Clone, PartialEq)]
pub struct StepEvals<'a> {
    pub step: u64,
    /// At least one eval, ordered by task.
    pub evals: Vec<&'a Eval>,
}

impl StepEvals<'_> {
    pub fn valid(&self) -> f64 {
        self.evals
            .iter()
            .map(|eval| eval.summary.valid)
            .sum::<f64>()
            / self.evals.len() as f64
    }

    pub fn lowest_valid(&self) -> f64 {
        self.evals
            .iter()
            .map(|eval| eval.summary.valid)
            .fold(f64::INFINITY, f64::min)
    }

    pub fn exact(&self) -> Option<f64> {
        let known: Vec<f64> = self
            .evals
            .iter()
            .filter_map(|eval| eval.summary.exact)
            .collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// Whether the 95% interval of the exact rate reaches this rate, or the rate is unknown.
    fn reaches_exact(&self, rate: f64) -> bool {
        let n = self.evals.iter().map(|eval| eval.summary.with_expected);
        let n = n.sum::<u32>() as usize;
        let found = self.exact().unwrap_or(1.0) * n as f64;
        wilson(found.round() as usize, n).1 >= rate
    }
}

impl RunState {
    /// Sorted names of the tasks; one empty name in a run of one task.
    pub fn task_names(&self) -> Vec<&str> {
        let of_evals = self.evals.keys().map(|key| key.set.task());
        let of_metrics = self
            .metrics
            .range(TASK_METRIC.to_owned()..)
            .map_while(|(name, _)| split_task_metric(name));
        let names: BTreeSet<&str> = of_evals.chain(of_metrics.map(|(task, _)| task)).collect();
        let named: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        if named.is_empty() { vec![""] } else { named }
    }

    /// One task's evals, named as in a run of one task, with checkpoints and the end, and nothing
    /// else.
    pub fn evals_of_task(&self, task: &str) -> Self {
        let of_task = self.evals.values().filter(|eval| eval.set.task() == task);
        let own = of_task.map(|eval| Eval {
            set: eval.set.in_task(""),
            ..eval.clone()
        });
        Self {
            run: self.run.clone(),
            last_step: self.last_step,
            checkpoints: self.checkpoints.clone(),
            collapses: self.collapses.clone(),
            end: self.end.clone(),
            evals: own.map(|eval| (eval.key(), eval)).collect(),
            ..Self::default()
        }
    }

    /// [`Self::evals_of_task`] plus the task's metrics and step times.
    pub fn of_task(&self, task: &str) -> Self {
        let own = self
            .metrics
            .iter()
            .filter_map(|(name, series)| match split_task_metric(name) {
                Some((of_task, metric)) if of_task == task => {
                    Some((metric.to_owned(), series.clone()))
                }
                None if name == "seconds" => Some((name.clone(), series.clone())),
                _ => None,
            });
        Self {
            metrics: own.collect(),
            ..self.evals_of_task(task)
        }
    }

    /// The step of `candidates` with the highest rate on the eval set (with several tasks the
    /// highest mean rate), by the run's `keep_best_by`: by default of those that hold the base's exact
    /// match and whose own may be as high as the highest. Ties are broken by the other rate, then in
    /// favour of the checkpoint evaluated on the test set as the best of a finished run, then of
    /// the latest, since a small eval set may not show what it has learned. The base wins if
    /// nothing is better. An unknown comparison with the base does not count as worse. `None`
    /// without such an eval.
    pub fn best_step_by(&self, candidates: &[u64], by: BestBy) -> Option<u64> {
        let rates = |evals: &StepEvals<'_>| {
            let (valid, exact) = (evals.valid(), evals.exact().unwrap_or(0.0));
            match by {
                BestBy::Valid | BestBy::ValidIfExactHolds => (valid, exact),
                BestBy::Exact => (exact, valid),
            }
        };
        let evals: Vec<StepEvals<'_>> = self
            .step_evals()
            .into_iter()
            .filter(|evals| candidates.contains(&evals.step))
            .collect();
        let is_test = |eval: &Eval| eval.is_on(PromptSet::Test) && eval.target == Target::Trained;
        let is_tested = |step: u64| {
            self.evals
                .values()
                .any(|eval| eval.step == step && is_test(eval))
        };
        let best = |evals: &mut dyn Iterator<Item = &StepEvals<'_>>| {
            evals
                .fold(None, |best: Option<&StepEvals<'_>>, eval| match best {
                    Some(best) if rates(best) > rates(eval) => Some(best),
                    Some(tested) if rates(tested) == rates(eval) && is_tested(tested.step) => {
                        Some(tested)
                    }
                    Some(base) if base.step == 0 && rates(base) == rates(eval) => Some(base),
                    _ => Some(eval),
                })
                .map(|eval| eval.step)
        };
        let loses = |eval: &&Eval| {
            eval.against_base
                .as_ref()
                .is_some_and(|comparison| comparison.loses_exact())
        };
        let holds = |evals: &&StepEvals<'_>| !evals.evals.iter().any(loses);
        let held: Vec<&StepEvals<'_>> = evals.iter().filter(holds).collect();
        let most_exact = held.iter().filter_map(|evals| evals.exact());
        let most_exact = most_exact.fold(0.0, f64::max);
        let has_values = |evals: &&&StepEvals<'_>| evals.reaches_exact(most_exact);
        let held = (by == BestBy::ValidIfExactHolds)
            .then(|| best(&mut held.iter().filter(has_values).copied()))
            .flatten();
        // If no candidate, not even the base, holds exact match, the rates alone decide.
        held.or_else(|| best(&mut evals.iter()))
    }

    /// What belongs to no single task: other metrics, guard prompts and collapses.
    pub fn of_no_task(&self) -> Self {
        let of_tasks: BTreeSet<&str> = self
            .metrics
            .keys()
            .filter_map(|name| split_task_metric(name))
            .map(|(_, metric)| metric)
            .collect();
        let is_other = |name: &str| split_task_metric(name).is_none() && !of_tasks.contains(name);
        let metrics = self.metrics.iter().filter(|(name, _)| is_other(name));
        Self {
            metrics: metrics
                .map(|(name, series)| (name.clone(), series.clone()))
                .collect(),
            guards: self.guards.clone(),
            collapses: self.collapses.clone(),
            ..Self::default()
        }
    }

    /// Evals of the base and the trained model on the eval set, by step; omits steps not evaluated
    /// on all tasks.
    pub fn step_evals(&self) -> Vec<StepEvals<'_>> {
        let mut found: BTreeMap<u64, Vec<&Eval>> = BTreeMap::new();
        for eval in self.evals.values() {
            // At step 0, base and trained weights are equal.
            let is_counted = (eval.target == Target::Trained) != (eval.step == 0);
            if is_counted && eval.is_on(PromptSet::Eval) {
                found.entry(eval.step).or_default().push(eval);
            }
        }
        let tasks = found.values().map(Vec::len).max().unwrap_or(0);
        let whole = found.into_iter().filter(|(_, evals)| evals.len() == tasks);
        whole
            .map(|(step, evals)| StepEvals { step, evals })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{EvalSummary, Event};
    use crate::task::SetName;

    /// `evals`: step, set, valid rate, exact rate.
    fn history(evals: &[(u64, &str, f64, Option<f64>)]) -> RunState {
        let mut history = RunState::default();
        for (seq, &(step, set, valid, exact)) in (1..).zip(evals) {
            let summary = EvalSummary {
                n: 10,
                valid,
                exact,
                ..EvalSummary::default()
            };
            let target = if step == 0 {
                Target::Base
            } else {
                Target::Trained
            };
            let body = Eval {
                step,
                set: set.into(),
                target,
                summary,
                ..Eval::default()
            }
            .into();
            history.fold(Event {
                seq,
                time_ms: 0,
                body,
            });
        }
        history
    }

    #[test]
    fn the_best_checkpoint_has_the_highest_mean_of_the_tasks_rates() {
        let check = |evals: &[(u64, &str, f64, Option<f64>)], expected: Option<u64>| {
            assert_eq!(
                history(evals).best_step_by(&[0, 5, 10], BestBy::Valid),
                expected,
                "{evals:?}"
            );
        };
        let start = [(0, "eval:a", 0.5, None), (0, "eval:b", 0.5, None)];
        let with =
            |more: &[(u64, &'static str, f64, Option<f64>)]| [start.as_slice(), more].concat();
        check(
            &with(&[(5, "eval:a", 1.0, None), (5, "eval:b", 0.1, None)]),
            Some(5),
        );
        check(
            &with(&[(5, "eval:a", 1.0, None), (5, "eval:b", 0.0, None)]),
            Some(0),
        );
        // A worker that died between two evals left a step without a complete result.
        check(
            &with(&[
                (5, "eval:a", 0.9, None),
                (5, "eval:b", 0.9, None),
                (10, "eval:b", 1.0, None),
            ]),
            Some(5),
        );
        check(
            &[
                (0, "eval", 0.5, None),
                (5, "eval", 0.6, None),
                (10, "eval", 0.4, None),
            ],
            Some(5),
        );
    }

    #[test]
    fn a_task_has_its_own_names() {
        let history = history(&[
            (0, "test:b", 0.5, Some(0.25)),
            (0, "eval:a", 0.5, None),
            (5, "test:b", 0.75, None),
        ]);
        assert_eq!(history.task_names(), ["a", "b"]);
        let own = history.evals_of_task("b");
        let sets: Vec<(u64, SetName, f64)> = own
            .evals
            .into_values()
            .map(|eval| (eval.step, eval.set, eval.summary.valid))
            .collect();
        let test = || SetName::from(PromptSet::Test);
        assert_eq!(sets, [(0, test(), 0.5), (5, test(), 0.75)]);
        assert_eq!(RunState::default().task_names(), [""]);
    }

    #[test]
    fn exact_rates_are_of_the_tasks_that_have_expected_answers() {
        let history = history(&[(0, "eval:a", 0.5, Some(0.25)), (0, "eval:b", 1.0, None)]);
        let evals = history.step_evals();
        assert_eq!((evals[0].valid(), evals[0].exact()), (0.75, Some(0.25)));
    }
}
