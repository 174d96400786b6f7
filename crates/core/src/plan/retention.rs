//! The files that a run keeps: checkpoints and rollouts by the keep rules, evals.

use crate::config::TrainConfig;

/// In a checkpoint: the number and its two moments, f32.
pub const BYTES_PER_TRAINED_NUMBER: u64 = 12;

pub const STEPS_PER_ROLLOUT_FILE: u64 = 100;
/// An upper bound: 0.05 to 0.09 on runs of the embedded model.
pub const COMPRESSED_SHARE: f64 = 0.1;

/// The number of files that a run's retention rules keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Step 0, the best, the end and the latest.
    pub checkpoints_at_end: u64,
    /// The maximum, including one being written: the old one is removed after the new one is there.
    pub checkpoints_at_once: u64,
    pub rollout_steps_at_end: u64,
    /// The maximum number of steps whose rollouts are uncompressed.
    pub plain_rollout_steps: u64,
    /// On the eval set, including the first and the last.
    pub evals: u64,
}

impl Retention {
    pub fn for_config(config: &TrainConfig, steps: u64) -> Self {
        let keep = config.keep_checkpoints as u64;
        // More are never kept at once.
        let most = if keep == 0 { u64::MAX } else { keep + 3 };
        let made = 2
            + (1..steps)
                .filter(|step| has_checkpoint(config, *step))
                .take(usize::try_from(most).unwrap_or(usize::MAX))
                .count() as u64;
        Self {
            checkpoints_at_end: made.min(most.saturating_sub(1)),
            checkpoints_at_once: made.min(most),
            rollout_steps_at_end: rollout_steps(config, steps),
            plain_rollout_steps: steps.min(STEPS_PER_ROLLOUT_FILE),
            evals: evals(config, steps),
        }
    }
}

/// Whether a step between the first and the last has a checkpoint: every eval does.
fn has_checkpoint(config: &TrainConfig, step: u64) -> bool {
    [config.eval_every, config.checkpoint_every]
        .iter()
        .any(|&every| every > 0 && step.is_multiple_of(every))
}

/// The steps whose rollouts exist at the end: all, or the files of the last `keep_rollouts` steps and those around kept
/// checkpoints.
fn rollout_steps(config: &TrainConfig, steps: u64) -> u64 {
    if config.keep_rollouts == 0 || config.keep_rollouts >= steps {
        return steps;
    }
    let file = |step: u64| step.max(1).div_ceil(STEPS_PER_ROLLOUT_FILE);
    let (first_kept, last) = (file(steps + 1 - config.keep_rollouts), file(steps));
    let keep = if config.keep_checkpoints == 0 {
        usize::MAX
    } else {
        config.keep_checkpoints
    };
    let latest = (1..=steps)
        .rev()
        .filter(|step| *step == steps || has_checkpoint(config, *step))
        .take(keep);
    // Step 0, and the best one, which is unknown and therefore counted as kept by nothing else.
    let around: std::collections::BTreeSet<u64> = latest
        .chain([0])
        .flat_map(|step| [file(step), file(step + 1)])
        .filter(|number| *number < first_kept)
        .collect();
    let best = u64::from(around.len() as u64 + 1 < first_kept);
    let files = last + 1 - first_kept + around.len() as u64 + best;
    // The last file may be partial.
    (files.saturating_sub(1) * STEPS_PER_ROLLOUT_FILE
        + (steps - (last - 1) * STEPS_PER_ROLLOUT_FILE))
        .min(steps)
}

/// Before the first step, every `eval_every`, and at the end.
fn evals(config: &TrainConfig, steps: u64) -> u64 {
    2 + steps
        .saturating_sub(1)
        .checked_div(config.eval_every)
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::config;
    use super::*;

    #[test]
    fn checkpoints_follow_the_keep_rules() {
        let check = |set: &[&str], steps, expected| {
            assert_eq!(
                Retention::for_config(&config(set), steps).checkpoints_at_once,
                expected,
                "{set:?} {steps}"
            )
        };
        check(&["eval_every=5", "checkpoint_every=10"], 10, 3);
        check(&["eval_every=5", "checkpoint_every=10"], 100, 6);
        check(
            &["eval_every=5", "checkpoint_every=10", "keep_checkpoints=0"],
            100,
            21,
        );
        check(&["eval_every=0", "checkpoint_every=0"], 100, 2);
    }

    #[test]
    fn rollouts_follow_their_keep_rule() {
        let check = |set: &[&str], steps, expected| {
            assert_eq!(
                Retention::for_config(&config(set), steps).rollout_steps_at_end,
                expected,
                "{set:?} {steps}"
            )
        };
        check(&["keep_rollouts=0"], 1000, 1000);
        check(&["keep_rollouts=500"], 450, 450);
        // The last two files, that of step 0, the best one.
        let few = [
            "keep_rollouts=150",
            "keep_checkpoints=1",
            "eval_every=0",
            "checkpoint_every=100",
        ];
        check(&few, 1000, 400);
        // The last file is partial.
        check(&few, 950, 350);
        // The latest three checkpoints, of steps 1000, 750 and 500; the steps after the last two are in other files.
        check(
            &[
                "keep_rollouts=100",
                "keep_checkpoints=3",
                "eval_every=0",
                "checkpoint_every=250",
            ],
            1000,
            600,
        );
        check(
            &[
                "keep_rollouts=100",
                "keep_checkpoints=0",
                "eval_every=0",
                "checkpoint_every=10",
            ],
            1000,
            1000,
        );
    }
}
