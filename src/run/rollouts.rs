//! Full records of what was sampled: `rollouts/000100.jsonl` holds the groups of steps 1 to 100, one a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable::{append_line, open_append, seal, sync_folder};
use super::error::RunError;
use super::lock::RunLock;

/// Steps in one file.
pub const STEPS_PER_FILE: u64 = 100;

/// One group: a line of a rollout file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutGroup {
    /// The step that it fed, from 1.
    pub step: u64,
    /// The prompt row's id.
    pub prompt_id: String,
    /// The prompt as the model read it.
    pub prompt: String,
    /// What the model wrote.
    pub completions: Vec<RolloutCompletion>,
}

/// One completion of a group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutCompletion {
    /// The raw text.
    pub text: String,
    /// The sampled tokens, the stop token included.
    pub token_ids: Vec<u32>,
    /// The sampler's log-probability of each token, nats.
    pub log_probs: Vec<f32>,
    /// Why it ended: `stop` or `length`.
    pub stop_reason: String,
    /// Its reward; null where it could not be scored.
    pub reward: Option<f64>,
    /// The whole score, as the scorer writes it.
    pub score: serde_json::Value,
    /// Its advantage in the group.
    pub advantage: f64,
}

/// Where a group stands; goes into its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the run.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
}

/// The file of a step's groups, relative to the run; step 0 counts to the first.
pub fn rollout_file(step: u64) -> String {
    format!("rollouts/{:06}.jsonl", last_step_of_file(step))
}

fn last_step_of_file(step: u64) -> u64 {
    step.max(1).div_ceil(STEPS_PER_FILE) * STEPS_PER_FILE
}

/// Appends groups in the order of their steps.
#[derive(Debug)]
pub struct RolloutWriter {
    run: PathBuf,
    open: Option<Open>,
    last_step: u64,
}

#[derive(Debug)]
struct Open {
    name: String,
    path: PathBuf,
    file: File,
    lines: u64,
}

impl RolloutWriter {
    /// Go on after `step`, the last one that is done (0 at the beginning): groups of later steps are dropped, and a torn tail with them. Touches the
    /// file of that step and removes later ones.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn resume(lock: &RunLock, step: u64) -> Result<Self, RunError> {
        let folder = lock.run().join("rollouts");
        super::durable::ensure_folder(&folder)?;
        let first = rollout_file(step);
        let mut removed = false;
        for entry in std::fs::read_dir(&folder).map_err(RunError::io("read", &folder))? {
            let path = entry.map_err(RunError::io("read", &folder))?.path();
            let block = path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
                .then(|| path.file_stem()?.to_str()?.parse::<u64>().ok())
                .flatten();
            if block.is_some_and(|block| block > last_step_of_file(step)) {
                std::fs::remove_file(&path).map_err(RunError::io("remove", &path))?;
                removed = true;
            }
        }
        if removed {
            sync_folder(&folder)?;
        }
        let path = lock.run().join(&first);
        if path.exists() {
            let file = open_append(&path)?;
            seal(&file, &path)?;
            let keep = length_through(&path, step)?;
            file.set_len(keep).and_then(|()| file.sync_all()).map_err(RunError::io("shorten", &path))?;
        }
        Ok(Self { run: lock.run().to_owned(), open: None, last_step: step })
    }

    /// Append one group and say where it stands.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file; [`RunError::Malformed`] where the step lies before the last one written.
    pub fn append(&mut self, group: &RolloutGroup) -> Result<Place, RunError> {
        let name = rollout_file(group.step);
        let path = self.run.join(&name);
        let malformed = |message: String| RunError::Malformed { path: path.clone(), line: None, message };
        if group.step < self.last_step {
            return Err(malformed(format!("a group of step {} cannot follow step {}", group.step, self.last_step)));
        }
        let mut line = serde_json::to_vec(group).map_err(|error| malformed(error.to_string()))?;
        line.push(b'\n');
        let open = match self.open.take() {
            Some(open) if open.name == name => self.open.insert(open),
            previous => {
                if let Some(previous) = previous {
                    previous.file.sync_data().map_err(RunError::io("sync", &previous.path))?;
                }
                let file = open_append(&path)?;
                let lines = count_lines(&path)?;
                self.open.insert(Open { name, path, file, lines })
            }
        };
        append_line(&open.file, &open.path, &line)?;
        open.lines += 1;
        self.last_step = group.step;
        Ok(Place { file: open.name.clone(), line: open.lines })
    }

    /// Make everything written so far durable; called before a checkpoint.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn sync(&mut self) -> Result<(), RunError> {
        match &self.open {
            Some(open) => open.file.sync_data().map_err(RunError::io("sync", &open.path)),
            None => Ok(()),
        }
    }
}

/// Read the groups of one step. Lines of other steps are skipped unread; a torn tail is left out.
///
/// # Errors
/// [`RunError`] with file and line.
pub fn read_step(run: &Path, step: u64) -> Result<Vec<RolloutGroup>, RunError> {
    let path = run.join(rollout_file(step));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunError::io("read", &path)(error)),
    };
    let mut groups = Vec::new();
    for_each_line(file, &path, |index, line| {
        if step_of(line) == Some(step) {
            let parsed = serde_json::from_slice(line);
            groups.push(parsed.map_err(|error| RunError::Malformed {
                path: path.clone(),
                line: Some(index + 1),
                message: error.to_string(),
            })?);
        }
        Ok(true)
    })?;
    Ok(groups)
}

/// Bytes of the leading lines whose step is at most `step`.
fn length_through(path: &Path, step: u64) -> Result<u64, RunError> {
    let mut length = 0;
    let file = File::open(path).map_err(RunError::io("read", path))?;
    for_each_line(file, path, |_, line| {
        let keep = step_of(line).is_some_and(|found| found <= step);
        length += if keep { line.len() as u64 + 1 } else { 0 };
        Ok(keep)
    })?;
    Ok(length)
}

fn count_lines(path: &Path) -> Result<u64, RunError> {
    let mut lines = 0;
    let file = File::open(path).map_err(RunError::io("read", path))?;
    for_each_line(file, path, |_, _| {
        lines += 1;
        Ok(true)
    })?;
    Ok(lines)
}

/// Whole lines without their newline, until `take` says false.
fn for_each_line(file: File, path: &Path, mut take: impl FnMut(usize, &[u8]) -> Result<bool, RunError>) -> Result<(), RunError> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    for index in 0.. {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(RunError::io("read", path))?;
        match line.split_last() {
            Some((b'\n', content)) if take(index, content)? => {}
            _ => break,
        }
    }
    Ok(())
}

fn step_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Head {
        step: u64,
    }
    serde_json::from_slice::<Head>(line).ok().map(|head| head.step)
}
