//! The disk usage of a run: now, at its end, and whether that fits.

use std::path::Path;

use serde::Serialize;

use crate::config::TrainConfig;
use crate::plan::{BYTES_PER_TRAINED_NUMBER, COMPRESSED_SHARE, Retention, free_disk_bytes};
use crate::run::checkpoints::{base_parameter_count, checkpoint_path, list_checkpoints};
use crate::run::record::history::RunState;
use crate::run::record::rollouts::{STEPS_PER_FILE, rollout_segments};
use crate::task::PromptSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiskUse {
    /// `events.jsonl` and its index.
    pub events_bytes: u64,
    pub rollouts_bytes: u64,
    pub evals_bytes: u64,
    pub checkpoints_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskForecast {
    #[serde(flatten)]
    pub now: DiskUse,
    /// `None` before the first step.
    pub at_end_bytes: Option<u64>,
    /// The most that is needed at once from now on, including files being written; `None` before the first step.
    pub needed_bytes: Option<u64>,
    /// Available to this user; `None` if the system does not say.
    pub free_bytes: Option<u64>,
}

impl DiskForecast {
    pub fn fits(&self) -> bool {
        self.needed_bytes
            .zip(self.free_bytes)
            .is_none_or(|(needed, free)| needed <= free)
    }
}

pub fn disk_use(run: &Path) -> DiskUse {
    let of = |name: &str| bytes_below(&run.join(name));
    DiskUse {
        events_bytes: of("events.jsonl") + of("events.index"),
        rollouts_bytes: of("rollouts"),
        evals_bytes: of("evals"),
        checkpoints_bytes: of("checkpoints"),
        total_bytes: bytes_below(run),
    }
}

/// Extrapolates from the usage so far, by the counts of [`Retention`].
pub fn disk_forecast(run: &Path, state: &RunState, config: &TrainConfig) -> DiskForecast {
    let (now, free_bytes) = (disk_use(run), free_disk_bytes(run));
    let total_steps = state.run.as_ref().map_or(0, |run| run.total_steps);
    if state.last_step == 0 || total_steps == 0 {
        return DiskForecast {
            now,
            at_end_bytes: None,
            needed_bytes: None,
            free_bytes,
        };
    }
    let rest = total_steps.saturating_sub(state.last_step);
    if rest == 0 {
        return DiskForecast {
            now,
            at_end_bytes: Some(now.total_bytes),
            needed_bytes: Some(0),
            free_bytes,
        };
    }
    let retention = Retention::for_config(config, total_steps);
    let (packed_step, plain_step) = rollout_steps(run, state.last_step);
    let rollouts_at_end = packed_step * retention.rollout_steps_at_end as f64;
    let (checkpoints, checkpoint) = checkpoints(run);
    let more_checkpoints = |wanted: u64| wanted.saturating_sub(checkpoints) as f64 * checkpoint;
    let more = per_step(now.events_bytes, state.last_step) * rest as f64
        + evals_to_come(run, state, config, total_steps);
    let rollouts = rollouts_at_end - now.rollouts_bytes as f64;
    let at_end =
        now.total_bytes as f64 + more + rollouts + more_checkpoints(retention.checkpoints_at_end);
    // While the last file is still plain.
    let rollouts_at_once = (rollouts + plain_step * retention.plain_rollout_steps as f64).max(0.0);
    let needed = more + rollouts_at_once + more_checkpoints(retention.checkpoints_at_once);
    DiskForecast {
        now,
        at_end_bytes: Some(at_end.max(0.0) as u64),
        needed_bytes: Some(needed as u64),
        free_bytes,
    }
}

fn rollout_steps(run: &Path, last_step: u64) -> (f64, f64) {
    let segments = rollout_segments(run).unwrap_or_default();
    let packed: Vec<_> = segments
        .iter()
        .filter(|segment| segment.compressed)
        .collect();
    let plain = segments
        .iter()
        .rfind(|segment| !segment.compressed)
        .map(|segment| {
            let first = segment.last_step - STEPS_PER_FILE;
            per_step(
                segment.bytes,
                last_step.min(segment.last_step).saturating_sub(first),
            )
        });
    let packed = match packed.len() as u64 {
        0 => None,
        count => Some(per_step(
            packed.iter().map(|segment| segment.bytes).sum(),
            count * STEPS_PER_FILE,
        )),
    };
    match (packed, plain) {
        (Some(packed), Some(plain)) => (packed, plain),
        (Some(packed), None) => (packed, packed / COMPRESSED_SHARE),
        (None, plain) => (
            COMPRESSED_SHARE * plain.unwrap_or(0.0),
            plain.unwrap_or(0.0),
        ),
    }
}

/// Bytes of the remaining evals: on the eval set by schedule, on the test set once.
fn evals_to_come(run: &Path, state: &RunState, config: &TrainConfig, total_steps: u64) -> f64 {
    let of_set = |set| {
        let evals: Vec<u64> = state
            .evals
            .values()
            .filter(|eval| eval.is_on(set))
            .map(|eval| bytes_below(&run.join(&eval.file)))
            .collect();
        per_step(
            evals.iter().sum(),
            (evals.len() / state.task_names().len()) as u64,
        )
    };
    let to_come = Retention::for_config(config, total_steps)
        .evals
        .saturating_sub(Retention::for_config(config, state.last_step + 1).evals - 1);
    of_set(PromptSet::Eval) * to_come as f64 + of_set(PromptSet::Test)
}

fn checkpoints(run: &Path) -> (u64, f64) {
    let steps = list_checkpoints(run).unwrap_or_default();
    let latest = steps.iter().rfind(|step| **step > 0).or(steps.last());
    let size = latest.map_or(0, |step| {
        let folder = checkpoint_path(run, *step);
        base_parameter_count(&folder).map_or_else(
            || bytes_below(&folder),
            |numbers| numbers * BYTES_PER_TRAINED_NUMBER,
        )
    });
    (steps.len() as u64, size as f64)
}

fn per_step(bytes: u64, steps: u64) -> f64 {
    bytes as f64 / steps.max(1) as f64
}

/// Links count as themselves.
fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_below(&entry.path())).sum()
}
