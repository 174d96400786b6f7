//! Finds damaged files in a run's folder, for `runs check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::checkpoints::{
    CHECKPOINT_MARK, checkpoint_folder, checkpoint_path, list_checkpoints, verify_checkpoint,
};
use super::error::RunError;
use super::evals::summary::verify_evals;
use super::process::damage::{RUN_FILE, STATE_FILE, damage_of};
use super::process::worker_state::State;
use super::record::events::{Eval, EventBody};
use super::record::history::RunState;
use super::record::reader::{EventReader, LogItem};
use super::record::rollout_zst::frames;
use super::record::rollouts::{
    STEPS_PER_FILE, last_step_of_file, read_checked_step, rollout_file, rollout_segments,
};
use super::storage::directory::{RunDirectory, sha256_file};
use super::storage::pulled::Pulled;
use crate::files::Checked;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Path relative to the run.
    pub file: String,
    pub problem: String,
    pub affects: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RunCheck {
    pub damaged: Vec<Damage>,
    /// Files without a checksum, written by older programs: damage cannot be detected.
    pub unverified: Vec<String>,
    pub verified: usize,
}

const STATE_AFFECTS: &str = "the status of the run, which is read from events.jsonl instead";

pub fn eval_damage(run: &Path, eval: &Eval) -> Option<String> {
    check_eval(run, eval)?.err()
}

/// Whether an eval's answers have checksums, or their damage; `None` without a file of them.
fn check_eval(run: &Path, eval: &Eval) -> Option<Result<bool, String>> {
    let path = run.join(&eval.file);
    if eval.file.is_empty() || (Pulled::for_run(run).is_some() && !path.exists()) {
        return None;
    }
    let summary = &eval.summary;
    let expected = summary.n + summary.scorer_errors as usize + summary.endpoint_errors as usize;
    Some(match verify_evals(&path) {
        Err(error) => Err(error.to_string()),
        Ok(found) if found.records != expected => Err(format!(
            "{}: {} records, and events.jsonl says {expected}",
            path.display(),
            found.records
        )),
        Ok(found) => Ok(found.has_checksums),
    })
}

/// Number of logged groups by step, without those of repeated steps.
pub fn recorded_groups(run: &RunDirectory) -> Result<BTreeMap<u64, usize>, RunError> {
    let mut groups: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    EventReader::new(&run.events_path()).each(|item| match item {
        LogItem::Restarted => groups.clear(),
        LogItem::Event(event) => match event.body {
            EventBody::Group(group) => {
                groups.entry(group.step).or_default().insert(group.line);
            }
            EventBody::Recovered(recovered) => {
                let last = recovered.resumed_from.unwrap_or(u64::MAX);
                groups.retain(|step, _| *step <= last);
            }
            _ => {}
        },
        LogItem::SkippedLine(_) | LogItem::Missing(_) => {}
    })?;
    // The keep rule deletes the files of older steps.
    let (last, keep) = (
        groups.keys().next_back().copied(),
        run.file().config.keep_rollouts,
    );
    let oldest = match (last, keep) {
        (Some(last), keep) if keep > 0 => last_step_of_file((last + 1).saturating_sub(keep)),
        _ => 0,
    };
    let is_pulled = Pulled::for_run(run.path()).is_some();
    groups.retain(|step, _| {
        let is_there = || {
            let segments = rollout_segments(run.path()).unwrap_or_default();
            segments
                .iter()
                .any(|segment| segment.last_step == last_step_of_file(*step))
        };
        last_step_of_file(*step) >= oldest && (!is_pulled || is_there())
    });
    Ok(groups
        .into_iter()
        .map(|(step, lines)| (step, lines.len()))
        .collect())
}

/// The steps that stored files may contain, and those in the log.
pub fn rollout_steps(
    run: &Path,
    recorded: &BTreeMap<u64, usize>,
) -> Result<BTreeSet<u64>, RunError> {
    let stored = rollout_segments(run)?.into_iter().flat_map(|segment| {
        segment.last_step.saturating_sub(STEPS_PER_FILE - 1)..=segment.last_step
    });
    Ok(stored.chain(recorded.keys().copied()).collect())
}

pub fn missing_groups(step: u64, found: usize, expected: usize) -> Option<String> {
    (found < expected).then(|| {
        format!(
            "{}: {found} of {expected} groups of step {step}: the others are lost",
            rollout_file(step)
        )
    })
}

/// Verifies everything stored for a run.
///
/// # Errors
/// [`RunError`] if a log or a folder cannot be read at all.
pub fn check_run(run: &RunDirectory) -> Result<RunCheck, RunError> {
    let mut check = RunCheck::default();
    let (path, state) = (run.path(), State::written(run.path()));
    let (history, all_checked) = RunState::verified(path)?;
    for (file, problem) in damage_of(run, state.as_ref(), &history) {
        let affects = match file {
            RUN_FILE => "the configuration of the run; it cannot be resumed",
            STATE_FILE => STATE_AFFECTS,
            _ => "what the run recorded: charts, exports and comparisons leave it out",
        };
        check.add(file, problem, affects);
    }
    check.settle("run.toml", run.checked() == Checked::Intact);
    check.settle("events.jsonl", all_checked);
    match crate::files::read(&path.join("state.json")) {
        Ok(text) => check.settle("state.json", crate::files::check(&text) == Checked::Intact),
        // A run that no worker has started has no log.
        Err(_) if history.run.is_none() => {}
        Err(error) => {
            let problem = format!("state.json: {error}");
            check.add("state.json", problem, STATE_AFFECTS);
        }
    }
    check.task(run);
    check.checkpoints(path)?;
    for eval in history.evals.values() {
        match check_eval(path, eval) {
            None => {}
            Some(Ok(has_checksums)) => check.settle(&eval.file, has_checksums),
            Some(Err(problem)) => check.add(
                &eval.file,
                problem,
                "answers, comparisons and failures of this eval",
            ),
        }
    }
    check.rollouts(run)?;
    check.tables(run)?;
    // Files that users may edit have no checksum.
    for file in [
        "name.json",
        "tags.json",
        "evals/comments.json",
        "slurm.json",
    ] {
        if path.join(file).exists() {
            check.unverified.push(file.to_owned());
        }
    }
    Ok(check)
}

impl RunCheck {
    fn add(&mut self, file: &str, problem: String, affects: &'static str) {
        self.damaged.push(Damage {
            file: file.to_owned(),
            problem,
            affects,
        });
    }

    /// Counts a file unless it is damaged.
    fn settle(&mut self, file: &str, is_verified: bool) {
        match () {
            () if self.damaged.iter().any(|damage| damage.file == file) => {}
            () if is_verified => self.verified += 1,
            () => self.unverified.push(file.to_owned()),
        }
    }

    fn task(&mut self, run: &RunDirectory) {
        for (name, digest) in &run.file().task_files {
            let (file, path) = (format!("task/{name}"), run.task_path().join(name));
            let problem = match sha256_file(&path) {
                Ok(found) if found == *digest => None,
                Ok(_) => Some(format!("{file} does not match its digest in run.toml")),
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                self.add(
                    &file,
                    problem,
                    "prompts and scorer of the run; it cannot be resumed",
                );
            }
            self.settle(&file, true);
        }
    }

    fn checkpoints(&mut self, run: &Path) -> Result<(), RunError> {
        const AFFECTS: &str = "this checkpoint: resume uses the newest whole one, and what loads it ends with an error";
        // Weights may be missing in a copy from another host.
        let is_pulled = Pulled::for_run(run).is_some();
        for step in list_checkpoints(run)? {
            let file = format!("{}/{CHECKPOINT_MARK}", checkpoint_folder(step));
            let folder = checkpoint_path(run, step);
            match verify_checkpoint(&folder, |name| !is_pulled || folder.join(name).exists()) {
                Ok(has_digests) => self.settle(&file, has_digests),
                Err(error) => self.add(&file, error.to_string(), AFFECTS),
            }
        }
        Ok(())
    }

    /// Checks the tables of compressed rollouts, without which finding a step is slow.
    fn tables(&mut self, run: &RunDirectory) -> Result<(), RunError> {
        let compressed = rollout_segments(run.path())?.into_iter();
        let has_tables = run.checked() != Checked::Without;
        for segment in compressed.filter(|segment| segment.compressed && has_tables) {
            let file = format!("{}.zst", rollout_file(segment.last_step));
            let path = run.path().join(&file);
            if frames(&path)
                .map_err(RunError::io("read", &path))?
                .is_none()
            {
                let problem = format!("{file}: its table of steps is damaged");
                self.add(&file, problem, "nothing but the time to read a step");
            }
        }
        Ok(())
    }

    fn rollouts(&mut self, run: &RunDirectory) -> Result<(), RunError> {
        const AFFECTS: &str = "rollouts of this step: their texts, and exports of them";
        let expected = recorded_groups(run)?;
        let mut files = BTreeMap::new();
        for step in rollout_steps(run.path(), &expected)? {
            let file = rollout_file(step);
            let (problem, all_checked) = match read_checked_step(run.path(), step) {
                Ok((groups, all_checked)) => {
                    let expected = expected.get(&step).copied().unwrap_or(0);
                    (missing_groups(step, groups.len(), expected), all_checked)
                }
                Err(error) => (Some(error.to_string()), true),
            };
            if let Some(problem) = problem {
                self.add(&file, problem, AFFECTS);
            }
            *files.entry(file).or_insert(true) &= all_checked;
        }
        files
            .iter()
            .for_each(|(file, is_checked)| self.settle(file, *is_checked));
        Ok(())
    }
}
