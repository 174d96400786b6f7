//! Bytes that a run leaves on disk: checkpoints by the keep rules, rollouts, evals.

use serde::{Deserialize, Serialize};

use super::time::evals;
use super::{DataShape, trainable_parameters};
use crate::config::TrainConfig;
use crate::hub::ModelConfig;

/// What a run leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// One checkpoint: trained numbers and two moments, f32.
    pub checkpoint_bytes: u64,
    /// Checkpoints at the most that the keep rules leave at once, one being written included.
    pub checkpoints: u64,
    /// All of them.
    pub checkpoints_bytes: u64,
    /// Texts, ids, log-probs and scores of every completion, and the events.
    pub rollouts_bytes: u64,
    /// Completions and scores of every held-out pass.
    pub evals_bytes: u64,
    /// The sum.
    pub total_bytes: u64,
    /// Free where the run would be made; None where the system does not say.
    pub free_bytes: Option<u64>,
}

/// A token in a rollout file: its text, its id and its log-prob as JSON. Measured on runs of the embedded model.
const BYTES_PER_ROLLOUT_TOKEN: f64 = 24.0;
/// A completion's score and keys there, and its part of the group's event. Measured likewise.
const BYTES_PER_COMPLETION: f64 = 350.0;
/// A token of text.
const BYTES_PER_TEXT_TOKEN: f64 = 4.0;

/// The disk of a run.
pub fn disk(model: &ModelConfig, config: &TrainConfig, data: &DataShape, steps: u64, free_bytes: Option<u64>) -> Disk {
    let checkpoint_bytes = 12 * trainable_parameters(model, config) as u64;
    let checkpoints = checkpoints(config, steps);
    let groups = steps as f64 * config.prompt_groups_per_step as f64;
    let completion = data.mean_completion_tokens * BYTES_PER_ROLLOUT_TOKEN + BYTES_PER_COMPLETION;
    let rollouts = groups * (data.mean_prompt_tokens * BYTES_PER_TEXT_TOKEN + config.completions_per_prompt as f64 * completion);
    let records = evals(config, steps) as f64 * data.eval_rows as f64 + 2.0 * data.proof_rows as f64;
    let (rollouts_bytes, evals_bytes) =
        (rollouts as u64, (records * (data.mean_completion_tokens * BYTES_PER_TEXT_TOKEN + BYTES_PER_COMPLETION)) as u64);
    let checkpoints_bytes = checkpoints * checkpoint_bytes;
    let total_bytes = checkpoints_bytes + rollouts_bytes + evals_bytes;
    Disk { checkpoint_bytes, checkpoints, checkpoints_bytes, rollouts_bytes, evals_bytes, total_bytes, free_bytes }
}

/// Step 0, the best, the end and the latest; never more than are made. Every eval makes one too.
fn checkpoints(config: &TrainConfig, steps: u64) -> u64 {
    let due = |step: u64| [config.eval_every, config.checkpoint_every].iter().any(|&every| every > 0 && step.is_multiple_of(every));
    // Beyond what is kept, counting further says nothing.
    let most = if config.keep_checkpoints == 0 { u64::MAX } else { config.keep_checkpoints as u64 + 3 };
    let between = (1..steps).filter(|step| due(*step)).take(usize::try_from(most).unwrap_or(usize::MAX)).count() as u64;
    (2 + between).min(most)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::qwen3_8b;
    use super::*;
    use crate::config::Layers;

    #[test]
    fn checkpoints_follow_the_keep_rules() {
        let check = |set: &[&str], steps, expected| {
            let layers = Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() };
            assert_eq!(checkpoints(&layers.resolve().unwrap().config, steps), expected, "{set:?} {steps}");
        };
        check(&["eval_every=5", "checkpoint_every=10"], 10, 3);
        check(&["eval_every=5", "checkpoint_every=10"], 100, 6);
        check(&["eval_every=5", "checkpoint_every=10", "keep_checkpoints=0"], 100, 21);
        check(&["eval_every=0", "checkpoint_every=0"], 100, 2);
    }

    #[test]
    fn adapters_are_small_and_all_weights_are_not() {
        let data = DataShape {
            train_rows: 200,
            mean_prompt_tokens: 100.0,
            longest_prompt_tokens: 100,
            eval_rows: 50,
            proof_rows: 500,
            mean_completion_tokens: 50.0,
        };
        let bytes = |rank: &str| {
            let config = Layers { set: vec![rank.to_owned()], ..Layers::default() }.resolve().unwrap().config;
            disk(&qwen3_8b(), &config, &data, 25, None)
        };
        // 43.6 M and 8.19 G numbers, 12 bytes each.
        assert!((bytes("lora_rank=16").checkpoint_bytes as f64 / 0.524e9 - 1.0).abs() < 0.01);
        assert!((bytes("lora_rank=0").checkpoint_bytes as f64 / 98.3e9 - 1.0).abs() < 0.01);
        let found = bytes("lora_rank=16");
        assert_eq!(found.total_bytes, found.checkpoints_bytes + found.rollouts_bytes + found.evals_bytes);
        // 25 steps x 8 groups x (400 + 8 x 1,550) bytes.
        assert_eq!(found.rollouts_bytes, 2_560_000);
    }
}
