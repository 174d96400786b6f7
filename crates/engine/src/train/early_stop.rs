//! Early stopping: a pure function of log, trainer state and configuration, so that a resumed run
//! decides alike.

use crate::checkpoint::TrainerState;
use crate::config::{StopCondition, TrainConfig};
use crate::format::{counted, percent_short};
use crate::run::RunState;

/// Steps whose groups `stop_when_solved` counts, and the share that counts as all.
const SOLVED_STEPS: u64 = 10;
const SOLVED_SHARE: f64 = 0.99;

/// Whether a multiple of `every` is among the last `steps` steps up to `step`; never if `every`
/// is 0.
pub(super) fn is_due(every: u64, step: u64, steps: u64) -> bool {
    every > 0 && step / every > step.saturating_sub(steps) / every
}

/// Whether `max_minutes` have passed.
pub(super) fn is_out_of_time(state: &TrainerState, config: &TrainConfig) -> bool {
    config.max_minutes > 0.0 && state.seconds >= 60.0 * config.max_minutes
}

/// Why the run stops after `state.step`. Requested evals do not count: a resumed run may lack them.
pub(super) fn should_stop(
    history: &RunState,
    state: &TrainerState,
    config: &TrainConfig,
) -> Option<String> {
    if is_out_of_time(state, config) {
        return Some(format!(
            "stopped early: max_minutes = {} reached",
            config.max_minutes
        ));
    }
    if let Some(cause) = solved(history, state, config) {
        return Some(cause);
    }
    let is_planned =
        |step: u64| step == 0 || is_due(config.eval_every, step, config.weight_sync_interval);
    let (mut best, mut without_gain) = (0.0, 0);
    let evaluated = history
        .step_evals()
        .into_iter()
        .filter(|evals| evals.step <= state.step);
    for evals in evaluated.filter(|evals| is_planned(evals.step)) {
        let (step, valid) = (evals.step, evals.valid());
        without_gain = if step == 0 || valid > best {
            0
        } else {
            without_gain + 1
        };
        best = f64::max(best, valid);
        // A goal applies to every task.
        let is_met = |goal: StopCondition| {
            evals
                .evals
                .iter()
                .all(|eval| goal.is_met(eval.summary.metric(&goal.metric)))
        };
        if step == state.step && step > 0 && config.stop_condition().is_some_and(is_met) {
            return Some(format!(
                "stopped early: {} on the eval set",
                config.stop_when
            ));
        }
    }
    (config.patience > 0 && without_gain >= config.patience).then(|| {
        format!(
            "stopped early: {} without a better valid rate (patience = {})",
            counted(without_gain as usize, "eval"),
            config.patience
        )
    })
}

/// Whether nearly all groups of the last steps are all max, so that no gradient is left.
fn solved(history: &RunState, state: &TrainerState, config: &TrainConfig) -> Option<String> {
    let shares = history
        .metrics
        .get("groups/frac_all_best")
        .filter(|_| config.stop_when_solved)?;
    let first = state.step.checked_sub(SOLVED_STEPS)? + 1;
    let shares: Vec<f64> = shares
        .between(first, state.step)
        .map(|(_, share)| share)
        .collect();
    let share = shares.iter().sum::<f64>() / SOLVED_STEPS as f64;
    (shares.len() as u64 == SOLVED_STEPS && share >= SOLVED_SHARE).then(|| {
        let share = percent_short(share);
        format!("stopped early: nothing is left to learn ({share} of the groups of {SOLVED_STEPS} steps earn the full reward throughout)")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Layers;
    use crate::facts::Target;
    use crate::run::events::Eval;
    use crate::run::{EvalSummary, Event};

    fn config(set: &[&str]) -> TrainConfig {
        let set = ["eval_every=5"]
            .iter()
            .chain(set)
            .map(|text| (*text).to_owned())
            .collect();
        Layers {
            set,
            ..Layers::default()
        }
        .resolve()
        .unwrap()
        .config
    }

    #[test]
    fn a_run_ends_when_nearly_all_groups_earn_the_full_reward() {
        // Share of such groups in steps 1, 2 ...
        let check = |set: &[&str], shares: &[f64], is_solved: bool| {
            let mut history = RunState::default();
            for (step, share) in (1..).zip(shares) {
                let metrics = BTreeMap::from([("groups/frac_all_best".to_owned(), *share)]);
                let body = crate::run::events::Step {
                    step,
                    metrics,
                    ..Default::default()
                }
                .into();
                history.fold(Event {
                    seq: step,
                    time_ms: 0,
                    body,
                });
            }
            let state = TrainerState {
                step: shares.len() as u64,
                ..TrainerState::start()
            };
            let found = should_stop(&history, &state, &config(set));
            assert_eq!(found.is_some(), is_solved, "{set:?} {shares:?}: {found:?}");
            assert!(found.is_none_or(|cause| {
                cause.contains("nothing is left to learn (100% of the groups of 10 steps")
            }));
        };
        check(&[], &[1.0; 10], true);
        check(&[], &[1.0; 9], false);
        check(&["stop_when_solved=false"], &[1.0; 10], false);
        check(&[], &[[0.0; 5], [1.0; 5], [1.0; 5]].concat(), true);
        check(&[], &[[0.0; 5], [1.0; 5]].concat(), false);
        check(&[], &[[1.0; 9].as_slice(), &[0.875]].concat(), false);
    }

    #[test]
    fn a_function_of_log_state_and_configuration() {
        // Evals: (step, valid rate).
        let check = |set: &[&str], evals: &[(u64, f64)], step, seconds, expected: Option<&str>| {
            let mut history = RunState::default();
            for (seq, &(step, valid)) in (1..).zip(evals) {
                let target = if step == 0 {
                    Target::Base
                } else {
                    Target::Trained
                };
                let summary = EvalSummary {
                    n: 10,
                    valid,
                    ..EvalSummary::default()
                };
                let eval = Eval {
                    step,
                    set: "eval".into(),
                    target,
                    summary,
                    ..Eval::default()
                };
                history.fold(Event {
                    seq,
                    time_ms: 0,
                    body: eval.into(),
                });
            }
            let state = TrainerState {
                step,
                seconds,
                ..TrainerState::start()
            };
            let found = should_stop(&history, &state, &config(set));
            let holds = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(
                holds,
                "{set:?} {evals:?} step {step}: {found:?}, expected {expected:?}"
            );
        };
        let goal = "stop_when=valid>=0.9";
        check(
            &[goal],
            &[(0, 0.5), (5, 0.95)],
            5,
            0.0,
            Some("valid>=0.9 on the eval set"),
        );
        check(&[goal], &[(0, 0.5), (5, 0.85)], 5, 0.0, None);
        // Neither the base counts, nor evals of other steps or by request.
        check(&[goal], &[(0, 0.95)], 0, 0.0, None);
        check(&[goal], &[(0, 0.5), (5, 0.95)], 6, 0.0, None);
        check(&[goal], &[(0, 0.5), (7, 0.95)], 7, 0.0, None);
        check(&[], &[(0, 0.5), (5, 0.5), (10, 0.5)], 10, 1e9, None);
        let patience = "patience=2";
        check(&[patience], &[(0, 0.5), (5, 0.6), (10, 0.6)], 10, 0.0, None);
        check(
            &[patience],
            &[(0, 0.5), (5, 0.6), (10, 0.6), (15, 0.4)],
            15,
            0.0,
            Some("2 evals without a better valid rate"),
        );
        // Holds at every later step, also after a resume.
        check(
            &[patience],
            &[(0, 0.5), (5, 0.5), (10, 0.5)],
            12,
            0.0,
            Some("patience = 2"),
        );
        check(
            &[patience],
            &[(0, 0.5), (5, 0.5), (7, 0.9), (10, 0.5)],
            10,
            0.0,
            Some("2 evals"),
        );
        check(
            &[patience],
            &[(0, 0.5), (5, 0.5), (10, 0.7), (15, 0.7)],
            15,
            0.0,
            None,
        );
        check(&["max_minutes=1"], &[], 3, 59.0, None);
        check(
            &["max_minutes=1"],
            &[],
            3,
            60.0,
            Some("max_minutes = 1 reached"),
        );
        // With an interval of 3, evals of every 5 steps fall on steps 6, 12 and 15.
        check(
            &["weight_sync_interval=3", goal],
            &[(0, 0.5), (6, 0.95)],
            6,
            0.0,
            Some("stopped early"),
        );
        check(
            &["weight_sync_interval=3", goal],
            &[(0, 0.5), (9, 0.95)],
            9,
            0.0,
            None,
        );
    }
}
