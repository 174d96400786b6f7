//! What is not as it was written in the files that every reader of a run uses.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::worker_state::{State, is_state_damaged};
use crate::facts::Status;
use crate::files::Checked;
use crate::run::checkpoints::{CHECKPOINT_MARK, checkpoint_folder, list_checkpoints};
use crate::run::record::history::RunState;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::lock::RunLock;
use crate::run::storage::pulled::Pulled;

pub(in crate::run) const RUN_FILE: &str = "run.toml";
pub(in crate::run) const STATE_FILE: &str = "state.json";
const LOG_FILE: &str = "events.jsonl";

/// What is wrong with `run.toml`, `state.json` and the log, each with the file. `history`: of the log, read after `state`,
/// the worker's words.
pub fn damage_of(
    run: &RunDirectory,
    state: Option<&State>,
    history: &RunState,
) -> Vec<(&'static str, String)> {
    let (path, mut found) = (run.path(), Vec::new());
    if run.checked() == Checked::Damaged {
        found.push((RUN_FILE, "run.toml does not match its checksum".to_owned()));
    }
    if is_state_damaged(path) {
        let problem = "state.json is unreadable or does not match its checksum";
        found.push((STATE_FILE, problem.to_owned()));
    }
    let of_log = |problem| (LOG_FILE, problem);
    found.extend(history.damage().map(of_log));
    // While a worker writes, here or on another host, the rest is about to change.
    let is_active = State::observe(path).is_some_and(|state| !state.status.is_ended());
    if RunLock::is_held(path) || is_active {
        return found;
    }
    let torn = torn_bytes(&run.events_path());
    found.extend(gone_checkpoints(path, history).into_iter().map(of_log));
    if torn > 0 {
        found.push(of_log(format!(
            "events.jsonl: {torn} bytes of a torn last line"
        )));
    }
    // The log is written before the state.
    let Some(state) = state else { return found };
    if state.step > history.last_step {
        found.push(of_log(format!(
            "events.jsonl ends at step {}, and state.json says step {}: what is between is lost",
            history.last_step, state.step
        )));
    } else if state.status == Status::Finished && history.end.is_none() {
        // A worker that fails before it begins, or crashes, writes the state alone.
        let problem = "events.jsonl has no end, and state.json says that the run ended";
        found.push(of_log(problem.to_owned()));
    }
    found
}

/// The recorded checkpoints that are neither there nor removed by the keep rules.
fn gone_checkpoints(run: &Path, history: &RunState) -> Vec<String> {
    let there = list_checkpoints(run).unwrap_or_default();
    let is_pulled = Pulled::for_run(run).is_some();
    let gone = history.checkpoints.keys();
    gone.filter(|step| !there.contains(step) && !is_pulled)
        .map(|step| {
            let mark = format!("{}/{CHECKPOINT_MARK}", checkpoint_folder(*step));
            format!("{mark}, which events.jsonl names, is gone")
        })
        .collect()
}

fn torn_bytes(path: &Path) -> u64 {
    const TAIL_BYTES: u64 = 1 << 16;
    let tail = || {
        let mut file = crate::files::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        std::io::Result::Ok(tail)
    };
    let tail = tail().unwrap_or_default();
    let end = tail.iter().rposition(|byte| *byte == b'\n');
    (tail.len() - end.map_or(0, |end| end + 1)) as u64
}
