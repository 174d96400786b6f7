//! Disk usage of a run: checkpoints and rollouts by the keep rules, evals.

use serde::{Deserialize, Serialize};

use super::time::evals;
use super::{DataShape, trainable_parameters};
use crate::config::TrainConfig;
use crate::hub::ModelConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Trained numbers and two moments, f32.
    pub checkpoint_bytes: u64,
    /// The maximum at once, including one being written; in full training without the start, whose weights are the base's.
    pub checkpoints: u64,
    pub checkpoints_bytes: u64,
    /// Rollouts that the keep rules leave (compressed, except for the last file), and events.
    pub rollouts_bytes: u64,
    pub evals_bytes: u64,
    pub total_bytes: u64,
    /// `None` if the system does not say.
    pub free_bytes: Option<u64>,
}

/// A token in a rollout file: text, id and log-prob as JSON. Measured on runs of the embedded model.
const BYTES_PER_ROLLOUT_TOKEN: f64 = 24.0;
/// A completion's score and keys in a rollout file. Measured likewise.
const BYTES_PER_COMPLETION: f64 = 280.0;
/// A completion's part of its group's event. Measured likewise.
const BYTES_PER_COMPLETION_EVENT: f64 = 70.0;
const BYTES_PER_TEXT_TOKEN: f64 = 4.0;
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

pub fn disk(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    steps: u64,
    free_bytes: Option<u64>,
) -> Disk {
    let checkpoint_bytes = BYTES_PER_TRAINED_NUMBER * trainable_parameters(model, config) as u64;
    let retention = Retention::for_config(config, steps);
    let completion = data.mean_completion_tokens * BYTES_PER_ROLLOUT_TOKEN + BYTES_PER_COMPLETION;
    let group = data.mean_prompt_tokens * BYTES_PER_TEXT_TOKEN
        + config.completions_per_prompt as f64 * completion;
    let step = (config.prompt_groups_per_step * data.turns) as f64 * group;
    let events = steps as f64
        * (config.prompt_groups_per_step * config.completions_per_prompt) as f64
        * BYTES_PER_COMPLETION_EVENT;
    let rollouts = step
        * (COMPRESSED_SHARE * retention.rollout_steps_at_end as f64
            + retention.plain_rollout_steps as f64)
        + events;
    let records = retention.evals as f64 * data.eval_rows as f64 + 2.0 * data.test_rows as f64;
    let (rollouts_bytes, evals_bytes) = (
        rollouts as u64,
        (records * (data.mean_completion_tokens * BYTES_PER_TEXT_TOKEN + BYTES_PER_COMPLETION))
            as u64,
    );
    let checkpoints = retention.checkpoints_at_once - u64::from(config.lora_rank == 0);
    let checkpoints_bytes = checkpoints * checkpoint_bytes;
    let total_bytes = checkpoints_bytes + rollouts_bytes + evals_bytes;
    Disk {
        checkpoint_bytes,
        checkpoints,
        checkpoints_bytes,
        rollouts_bytes,
        evals_bytes,
        total_bytes,
        free_bytes,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::{DATA, config, qwen3_8b};
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

    #[test]
    fn adapters_are_small_and_all_weights_are_not() {
        let data = DataShape {
            mean_prompt_tokens: 100.0,
            mean_completion_tokens: 50.0,
            ..DATA
        };
        let bytes = |rank: &str| disk(&qwen3_8b(), &config(&[rank]), &data, 25, None);
        // 43.6 M and 8.19 G numbers, 12 bytes each.
        assert!((bytes("lora_rank=16").checkpoint_bytes as f64 / 0.524e9 - 1.0).abs() < 0.01);
        assert!((bytes("lora_rank=0").checkpoint_bytes as f64 / 98.3e9 - 1.0).abs() < 0.01);
        let found = bytes("lora_rank=16");
        assert_eq!(
            found.total_bytes,
            found.checkpoints_bytes + found.rollouts_bytes + found.evals_bytes
        );
        // 25 steps x 8 groups x (400 + 8 x 1,480) bytes, plain and again compressed, and 70 bytes of the log each.
        let plain = 25.0 * 8.0 * (400.0 + 8.0 * 1480.0);
        assert_eq!(
            found.rollouts_bytes,
            (plain * (1.0 + COMPRESSED_SHARE) + 25.0 * 64.0 * 70.0) as u64
        );
    }
}
