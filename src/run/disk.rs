//! The disk of a run: what it takes now, what it will take at its end, and whether that fits.

use std::path::Path;

use serde::Serialize;

use super::checkpoints::{checkpoint_path, list_checkpoints};
use super::history::RunState;
use super::rollouts::{STEPS_PER_FILE, rollout_segments};
use crate::config::TrainConfig;

/// Bytes by part of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiskUse {
    /// `events.jsonl` and its index.
    pub events_bytes: u64,
    /// Full records of what was sampled.
    pub rollouts_bytes: u64,
    /// Held-out passes.
    pub evals_bytes: u64,
    /// Checkpoints.
    pub checkpoints_bytes: u64,
    /// All of the folder.
    pub total_bytes: u64,
}

/// What a run will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskForecast {
    /// Now.
    #[serde(flatten)]
    pub now: DiskUse,
    /// At its end; `None` before the first step.
    pub at_end_bytes: Option<u64>,
    /// The most that is needed from now on at once, what is being written included; `None` before the first step.
    pub needed_bytes: Option<u64>,
    /// Free on its disk for this user; `None` where the system does not say.
    pub free_bytes: Option<u64>,
}

impl DiskForecast {
    /// Whether the rest of the run fits; true where nothing speaks against it.
    pub fn fits(&self) -> bool {
        self.needed_bytes.zip(self.free_bytes).is_none_or(|(needed, free)| needed <= free)
    }
}

/// What a run takes. Files that vanish meanwhile count nothing.
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

/// What a run will take, judged by what its steps took so far and by its keep rules.
pub fn disk_forecast(run: &Path, state: &RunState, config: &TrainConfig) -> DiskForecast {
    let now = disk_use(run);
    let free_bytes = rustix::fs::statvfs(run).ok().map(|found| found.f_frsize.max(1).saturating_mul(found.f_bavail));
    let total_steps = state.run.as_ref().map_or(0, |run| run.total_steps);
    let rest = total_steps.saturating_sub(state.last_step);
    if state.last_step == 0 || total_steps == 0 {
        return DiskForecast { now, at_end_bytes: None, needed_bytes: None, free_bytes };
    }
    let events = per_step(now.events_bytes, state.last_step) * rest as f64;
    let (rollouts, being_written) = rollouts(run, state.last_step, rest, config);
    let passes = state.evals.values().filter(|eval| eval.step > 0).count().max(1) as u64;
    let evals = if rest == 0 { 0.0 } else { per_step(now.evals_bytes, passes) * evals_to_come(state.last_step, total_steps, config) };
    let (checkpoints, one) = checkpoints(run, state.last_step, total_steps, config);
    let more = events + rollouts + evals + checkpoints;
    DiskForecast {
        now,
        at_end_bytes: Some(now.total_bytes + more as u64),
        needed_bytes: Some(if rest == 0 { 0 } else { (more + being_written + one) as u64 }),
        free_bytes,
    }
}

/// More bytes of rollouts at the end, and besides them while the last file is still plain.
fn rollouts(run: &Path, last_step: u64, rest: u64, config: &TrainConfig) -> (f64, f64) {
    let segments = rollout_segments(run).unwrap_or_default();
    let packed: Vec<_> = segments.iter().filter(|segment| segment.compressed).collect();
    let plain = segments.iter().rfind(|segment| !segment.compressed);
    let plain_step = plain.map_or(0.0, |segment| {
        let first = segment.last_step - STEPS_PER_FILE;
        per_step(segment.bytes, last_step.min(segment.last_step).saturating_sub(first))
    });
    // Before the first file is compressed, texts and numbers as JSON shrink to about a third.
    let packed_step = match packed.len() as u64 {
        0 => plain_step / 3.0,
        count => per_step(packed.iter().map(|segment| segment.bytes).sum(), count * STEPS_PER_FILE),
    };
    let steps = match config.keep_rollouts {
        0 => rest,
        keep => rest.min(keep.next_multiple_of(STEPS_PER_FILE).saturating_sub(packed.len() as u64 * STEPS_PER_FILE)),
    };
    let file = if plain_step > 0.0 { plain_step } else { 3.0 * packed_step } * STEPS_PER_FILE as f64;
    (packed_step * steps as f64, if rest == 0 { 0.0 } else { file })
}

/// Passes of the eval set between the steps, and the last ones over both sets, of which the proof set is the larger: it counts as three.
fn evals_to_come(last_step: u64, total_steps: u64, config: &TrainConfig) -> f64 {
    let passes = |step: u64| step.checked_div(config.eval_every).unwrap_or(0);
    let between = passes(total_steps) - passes(last_step);
    between as f64 + 3.0
}

/// More bytes of checkpoints at the end, and one, since a new one is written before an old one goes.
fn checkpoints(run: &Path, last_step: u64, total_steps: u64, config: &TrainConfig) -> (f64, f64) {
    let steps = list_checkpoints(run).unwrap_or_default();
    let Some(latest) = steps.iter().rfind(|step| **step > 0).or(steps.last()) else { return (0.0, 0.0) };
    let one = bytes_below(&checkpoint_path(run, *latest)) as f64;
    let due = |step: u64| [config.eval_every, config.checkpoint_every].iter().any(|every| *every > 0 && step.is_multiple_of(*every));
    // Beyond what is kept, counting further says nothing.
    let most = if config.keep_checkpoints == 0 { usize::MAX } else { config.keep_checkpoints + 3 };
    let new = (last_step + 1..=total_steps).filter(|step| due(*step) || *step == total_steps).take(most).count();
    let at_end = (steps.len() + new).min(most.max(steps.len()));
    ((at_end - steps.len()) as f64 * one, one)
}

fn per_step(bytes: u64, steps: u64) -> f64 {
    bytes as f64 / steps.max(1) as f64
}

/// Links are not followed: they count as themselves.
fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_below(&entry.path())).sum()
}
