//! Full records of rollouts. `rollouts/000100.jsonl` has the groups of steps 1 to 100, one per
//! line, and is compressed once complete.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::rollout_zst::{compress, compressed_path, expand, open_step};
use crate::environment::ToolChain;
use crate::facts::StopReason;
use crate::files::{self, Checked};
use crate::run::checkpoints::list_checkpoints;
use crate::run::error::{RunError, is_full_disk};
use crate::run::storage::durable::{
    append_line, ensure_one_folder, entries, open_append, remove_if_there, seal, sync_folder,
};
use crate::run::storage::lock::RunLock;

pub use crate::plan::STEPS_PER_ROLLOUT_FILE as STEPS_PER_FILE;

/// A group: one line of a rollout file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutGroup {
    pub step: u64,
    /// Task name in a run of several tasks, else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    pub prompt_id: String,
    /// The rendered prompt; empty for a later turn.
    pub prompt: String,
    /// Whether dynamic sampling replaced the group; it is then not trained on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    pub completions: Vec<RolloutCompletion>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutCompletion {
    /// The prompt of a later turn, which differs between samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The tool calls that led to this answer, and why the turn ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ToolChain>,
    pub text: String,
    /// Completion tokens, including the stop token.
    pub token_ids: Vec<u32>,
    /// The sampler's log-prob of each token, nats.
    pub log_probs: Vec<f32>,
    /// Tokens inserted to close a think block at its limit: not sampled, and not trained on.
    #[serde(default, skip_serializing_if = "Range::is_empty")]
    pub forced: Range<usize>,
    /// `stop`, `length`, `thinking` (a think block reached its limit), or `guided` (expected or
    /// constrained rather than freely sampled, without log-probs).
    pub stop_reason: StopReason,
    /// `None` (null) if scoring failed.
    pub reward: Option<f64>,
    pub score: serde_json::Value,
    pub advantage: f64,
}

impl RolloutCompletion {
    /// All sampled tokens, in order: completions that call tools, then the answer.
    pub fn sampled(&self) -> impl Iterator<Item = &[u32]> {
        let steps = self
            .chain
            .iter()
            .flat_map(|chain| &chain.steps)
            .map(|step| step.token_ids.as_slice());
        steps.chain([self.token_ids.as_slice()])
    }

    pub fn sampled_tokens(&self) -> usize {
        self.chain.as_ref().map_or(0, ToolChain::tokens) + self.token_ids.len()
    }
}

/// The location of a group in the rollout files, recorded in its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLocation {
    pub file: String,
    pub line: u64,
}

/// The file of a step's groups, relative to the run; step 0 belongs to the first file.
pub fn rollout_file(step: u64) -> String {
    format!("rollouts/{:06}.jsonl", last_step_of_file(step))
}

pub(in crate::run) fn last_step_of_file(step: u64) -> u64 {
    step.max(1).div_ceil(STEPS_PER_FILE) * STEPS_PER_FILE
}

/// Appends groups in step order.
#[derive(Debug)]
pub struct RolloutWriter {
    run: PathBuf,
    open: Option<SegmentFile>,
    last_step: u64,
    keep_steps: u64,
}

#[derive(Debug)]
struct SegmentFile {
    name: String,
    path: PathBuf,
    file: File,
    lines: u64,
}

impl RolloutWriter {
    /// Opens for appending after `step`, the last complete step: drops groups of later steps and a
    /// torn tail, compresses complete files, and decompresses the file of `step` if more will be
    /// appended to it.
    pub fn resume(lock: &RunLock, step: u64) -> Result<Self, RunError> {
        let folder = lock.run().join("rollouts");
        ensure_one_folder(&folder)?;
        for entry in entries(&folder)? {
            let path = entry.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let later =
                segment_of(&name).is_some_and(|(segment, _)| segment > last_step_of_file(step));
            if later || name.ends_with(".tmp") {
                std::fs::remove_file(&path).map_err(RunError::io("remove", &path))?;
            }
        }
        sync_folder(&folder)?;
        let path = lock.run().join(rollout_file(step));
        if step < last_step_of_file(step) && !path.exists() && compressed_path(&path).exists() {
            expand(&path, step)?;
        }
        if path.exists() {
            let _ = std::fs::remove_file(compressed_path(&path));
            let file = open_append(&path)?;
            seal(&file, &path)?;
            let keep = length_through(&path, step)?;
            file.set_len(keep)
                .and_then(|()| file.sync_all())
                .map_err(RunError::io("shorten", &path))?;
        }
        let writer = Self {
            run: lock.run().to_owned(),
            open: None,
            last_step: step,
            keep_steps: 0,
        };
        writer.compress_complete(step)?;
        Ok(writer)
    }

    /// Applies [`rollouts_to_delete`] to complete files whenever a new file is started; 0, the
    /// default, keeps all.
    #[must_use]
    pub fn with_retention(mut self, keep_steps: u64) -> Self {
        self.keep_steps = keep_steps;
        self
    }

    pub fn finish(mut self) -> Result<(), RunError> {
        self.sync()?;
        self.open = None;
        self.compress_complete(u64::MAX)?;
        self.keep()
    }

    /// Compresses files whose last step is at most `step`. If the disk is full, the plain file
    /// stays.
    fn compress_complete(&self, step: u64) -> Result<(), RunError> {
        for segment in rollout_segments(&self.run)?
            .into_iter()
            .filter(|segment| !segment.compressed && segment.last_step <= step)
        {
            let path = self.run.join(rollout_file(segment.last_step));
            match compress(&path, intact_step_of) {
                Err(RunError::Io { source, .. }) if is_full_disk(&source) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn keep(&self) -> Result<(), RunError> {
        let segments: Vec<u64> = rollout_segments(&self.run)?
            .into_iter()
            .map(|segment| segment.last_step)
            .collect();
        for segment in rollouts_to_delete(
            &segments,
            self.last_step,
            self.keep_steps,
            &list_checkpoints(&self.run)?,
        ) {
            let plain = self.run.join(rollout_file(segment));
            for path in [compressed_path(&plain), plain] {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Appends a group.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file; [`RunError::Malformed`] if its step is before the last one
    /// written.
    pub fn append(&mut self, group: &RolloutGroup) -> Result<GroupLocation, RunError> {
        let name = rollout_file(group.step);
        let path = self.run.join(&name);
        if group.step < self.last_step {
            let message = format!(
                "a group of step {} cannot follow step {}",
                group.step, self.last_step
            );
            return Err(RunError::malformed(&path, message));
        }
        let mut line =
            serde_json::to_vec(group).map_err(|error| RunError::malformed(&path, error))?;
        files::seal_line(&mut line);
        line.push(b'\n');
        let open = match self.open.take() {
            Some(open) if open.name == name => self.open.insert(open),
            previous => {
                if let Some(previous) = previous {
                    previous
                        .file
                        .sync_data()
                        .map_err(RunError::io("sync", &previous.path))?;
                    self.compress_complete(group.step - 1)?;
                    self.keep()?;
                }
                let file = open_append(&path)?;
                let lines = count_lines(&path)?;
                self.open.insert(SegmentFile {
                    name,
                    path,
                    file,
                    lines,
                })
            }
        };
        append_line(&open.file, &open.path, &line, "rollout")?;
        open.lines += 1;
        self.last_step = group.step;
        Ok(GroupLocation {
            file: open.name.clone(),
            line: open.lines,
        })
    }

    /// Makes everything written so far durable.
    pub fn sync(&mut self) -> Result<(), RunError> {
        match &self.open {
            Some(open) => open
                .file
                .sync_data()
                .map_err(RunError::io("sync", &open.path)),
            None => Ok(()),
        }
    }
}

/// Reads the groups of a step from a plain or a compressed file, without a torn tail. Empty if the
/// step has none or the keep rule has deleted them.
pub fn read_step(run: &Path, step: u64) -> Result<Vec<RolloutGroup>, RunError> {
    read_checked_step(run, step).map(|(groups, _)| groups)
}

/// Like [`read_step`]; also returns whether all lines have a checksum.
pub(in crate::run) fn read_checked_step(
    run: &Path,
    step: u64,
) -> Result<(Vec<RolloutGroup>, bool), RunError> {
    let plain = run.join(rollout_file(step));
    let packed = compressed_path(&plain);
    // A worker may replace the plain file by the compressed one during the search.
    for path in [&plain, &packed, &plain] {
        let opened = match path == &plain {
            true => files::open(path)
                .map(|file| Box::new(BufReader::with_capacity(1 << 18, file)) as Box<dyn BufRead>),
            false => open_step(path, step),
        };
        match opened {
            Ok(lines) => return groups_of(lines, path, step),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(RunError::io("read", path)(error)),
        }
    }
    Ok((Vec::new(), true))
}

fn groups_of(
    lines: impl BufRead,
    path: &Path,
    step: u64,
) -> Result<(Vec<RolloutGroup>, bool), RunError> {
    let (mut groups, mut has_checksums, mut before) = (Vec::new(), false, 0);
    let mut all_checked = true;
    // A damaged line may belong to an adjacent step.
    let mut damaged = None;
    let malformed = |index: usize, message: String| RunError::Malformed {
        path: path.to_owned(),
        line: Some(index + 1),
        message: format!("{message}: a group of step {step} may be lost"),
    };
    for_each_line(lines, path, |index, line| {
        let why = match (files::check(line), step_of(line)) {
            (Checked::Damaged, _) => "the line does not match its checksum",
            (Checked::Without, _) if has_checksums => {
                "the line has no checksum, though earlier ones have one"
            }
            (_, None) => "the line is not a group",
            (checked, Some(found)) => {
                has_checksums |= checked == Checked::Intact;
                if damaged.is_some() && found >= step {
                    return Ok(false);
                }
                (before, damaged) = (found, None);
                if found == step {
                    all_checked &= checked == Checked::Intact;
                    let group = serde_json::from_slice(line);
                    groups.push(group.map_err(|error| malformed(index, error.to_string()))?);
                }
                return Ok(true);
            }
        };
        if before <= step {
            damaged.get_or_insert((index, why));
        }
        Ok(true)
    })?;
    match damaged {
        Some((index, why)) => Err(malformed(index, why.to_owned())),
        None => Ok((groups, all_checked)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The last step in the file; the first is [`STEPS_PER_FILE`] - 1 before it.
    pub last_step: u64,
    pub compressed: bool,
    pub bytes: u64,
}

/// Lists the rollout files, ascending. If a worker was killed while compressing a file, the plain
/// one counts.
pub fn rollout_segments(run: &Path) -> Result<Vec<Segment>, RunError> {
    let mut segments = Vec::new();
    for entry in entries(&run.join("rollouts"))? {
        if let Some((last_step, compressed)) = segment_of(&entry.file_name().to_string_lossy())
            && let Ok(metadata) = entry.metadata()
        {
            segments.push(Segment {
                last_step,
                compressed,
                bytes: metadata.len(),
            });
        }
    }
    segments.sort_unstable_by_key(|segment| (segment.last_step, segment.compressed));
    segments.dedup_by_key(|segment| segment.last_step);
    Ok(segments)
}

fn segment_of(name: &str) -> Option<(u64, bool)> {
    let (digits, compressed) = match name.strip_suffix(".jsonl.zst") {
        Some(digits) => (digits, true),
        None => (name.strip_suffix(".jsonl")?, false),
    };
    let numeric = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    numeric
        .then(|| digits.parse().ok())
        .flatten()
        .map(|last_step| (last_step, compressed))
}

/// Returns the last steps of the files to delete: all of `segments` except those with any of the
/// last `keep_steps` steps (0 keeps all), or with the step of one of `checkpoints` or the next one.
pub fn rollouts_to_delete(
    segments: &[u64],
    last_step: u64,
    keep_steps: u64,
    checkpoints: &[u64],
) -> Vec<u64> {
    if keep_steps == 0 {
        return Vec::new();
    }
    let oldest = last_step_of_file((last_step + 1).saturating_sub(keep_steps));
    let around = |segment: u64| {
        checkpoints.iter().any(|step| {
            [*step, step + 1]
                .into_iter()
                .any(|step| last_step_of_file(step) == segment)
        })
    };
    segments
        .iter()
        .copied()
        .filter(|segment| *segment < oldest && !around(*segment))
        .collect()
}

/// Length up to the last line whose step is at most `step`; damaged lines before it are kept so
/// that readers can report them.
fn length_through(path: &Path, step: u64) -> Result<u64, RunError> {
    let (mut length, mut read) = (0, 0);
    let file = files::open(path).map_err(RunError::io("read", path))?;
    for_each_line(BufReader::with_capacity(1 << 18, file), path, |_, line| {
        read += line.len() as u64 + 1;
        let found = intact_step_of(line);
        if found.is_some_and(|found| found <= step) {
            length = read;
        }
        Ok(found.is_none_or(|found| found <= step))
    })?;
    Ok(length)
}

/// Returns `None` also if the line does not match its checksum.
fn intact_step_of(line: &[u8]) -> Option<u64> {
    step_of(line).filter(|_| files::check(line) != Checked::Damaged)
}

fn count_lines(path: &Path) -> Result<u64, RunError> {
    let mut lines = 0;
    let file = files::open(path).map_err(RunError::io("read", path))?;
    for_each_line(BufReader::with_capacity(1 << 18, file), path, |_, _| {
        lines += 1;
        Ok(true)
    })?;
    Ok(lines)
}

/// Calls `take` with each whole line, without its newline, until it returns false.
fn for_each_line(
    mut reader: impl BufRead,
    path: &Path,
    mut take: impl FnMut(usize, &[u8]) -> Result<bool, RunError>,
) -> Result<(), RunError> {
    let mut line = Vec::new();
    for index in 0.. {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(RunError::io("read", path))?;
        match line.split_last() {
            Some((b'\n', content)) if take(index, content)? => {}
            _ => break,
        }
    }
    Ok(())
}

pub(in crate::run) fn step_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Head {
        step: u64,
    }
    // Fast path for the layout that this program writes; anything else is parsed in full.
    let digits = line.strip_prefix(b"{\"step\":").map(|rest| {
        rest.split(|byte| !byte.is_ascii_digit())
            .next()
            .unwrap_or_default()
    });
    let quick = digits
        .filter(|digits| !digits.is_empty())
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    quick.or_else(|| {
        serde_json::from_slice::<Head>(line)
            .ok()
            .map(|head| head.step)
    })
}
