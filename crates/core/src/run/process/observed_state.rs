//! A run's state for viewers: `state.json`, corrected by the lock, the log, and what Slurm says of the run's job.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::liveness::{SILENCE, remote_heartbeat};
use super::worker_state::State;
use crate::facts::Status;
use crate::run::record::events::{End, Event, EventBody};
use crate::run::slurm::SlurmJob;
use crate::run::storage::folder::FileSystem;
use crate::run::storage::lock::RunLock;
use crate::run::storage::pulled::Pulled;

/// The size of the log's end that is searched for an end event, which only a few requests can follow.
const TAIL_BYTES: u64 = 1 << 16;

impl State {
    /// Reads a run's state: an active status without a worker becomes `Interrupted`, or what the run's Slurm job is.
    /// `None` before any worker has started, and while a worker with an unreadable file is alive.
    pub fn observe(run: &Path) -> Option<Self> {
        // The lock comes first: a worker that exits in between has already written its end event.
        let locked = RunLock::is_held(run);
        let Some(mut state) = Self::written(run) else {
            return if locked {
                None
            } else {
                slurm_state(run, from_log(run), false)
            };
        };
        let mut died = false;
        if let Some(copy) = Pulled::for_run(run).filter(|_| !state.status.is_ended()) {
            state.cause = Some(copy.standing().into());
            return Some(state);
        }
        if !locked && !state.status.is_ended() && remote_heartbeat(run, &state).is_none() {
            let gone = || format!("the worker (process {} on {}) died", state.pid, state.host);
            (state.status, state.step, state.cause) = match last_word(run) {
                // The worker died between its end event and the state. Such a run is never resumed.
                LastEvent::End(end) if end.status == Status::Finished => {
                    (Status::Finished, end.step, Some(end.cause))
                }
                _ => (Status::Interrupted, state.step, Some(gone().into())),
            };
            died = state.status == Status::Interrupted;
            state.eval = None;
        }
        if locked || !state.status.is_ended() {
            Some(state)
        } else {
            slurm_state(run, Some(state), died)
        }
    }
}

fn slurm_state(run: &Path, state: Option<State>, died: bool) -> Option<State> {
    match SlurmJob::read(run) {
        Some(job) => job.observed(state, died),
        None => state,
    }
}

/// The state by the log alone, without a worker and a readable `state.json`.
fn from_log(run: &Path) -> Option<State> {
    let (status, step, cause) = match last_word(run) {
        LastEvent::Nothing => return None,
        LastEvent::End(end) => (end.status, end.step, end.cause),
        LastEvent::Other(_) if is_written_from_afar(run) => return None,
        LastEvent::Other(step) => {
            let cause = "the worker died, and its state.json is missing or unreadable";
            (Status::Interrupted, step, cause.into())
        }
    };
    Some(State {
        cause: Some(cause),
        ..State::without_worker(status, step)
    })
}

/// Whether another host may be writing the log, so that a free lock proves nothing.
fn is_written_from_afar(run: &Path) -> bool {
    let written = std::fs::metadata(run.join("events.jsonl")).and_then(|log| log.modified());
    FileSystem::for_path(run).is_network()
        && written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < SILENCE))
}

/// The last event of the latest worker that matters.
enum LastEvent {
    Nothing,
    End(End),
    /// No end; the step it had reached.
    Other(u64),
}

fn last_word(run: &Path) -> LastEvent {
    let tail = || {
        let log = crate::files::open(&run.join("events.jsonl")).ok()?;
        let length = log.metadata().ok()?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        let mut tail = vec![0u8; usize::try_from(length - start).ok()?];
        log.read_exact_at(&mut tail, start).ok()?;
        Some(tail)
    };
    let tail = tail().unwrap_or_default();
    if tail.is_empty() {
        return LastEvent::Nothing;
    }
    let (mut reached, mut worked) = (0, false);
    for event in tail
        .split(|byte| *byte == b'\n')
        .rev()
        .filter_map(|line| Event::from_line(std::str::from_utf8(line).ok()?).ok())
    {
        // A note may come before the first worker.
        worked |= !matches!(event.body, EventBody::Control(_) | EventBody::Note(_));
        match event.body {
            EventBody::End(end) => return LastEvent::End(end),
            // An earlier end is an earlier worker's.
            EventBody::Run(_) => break,
            EventBody::Step(step) => reached = reached.max(step.step),
            _ => {}
        }
    }
    if worked || tail.len() as u64 == TAIL_BYTES {
        LastEvent::Other(reached)
    } else {
        LastEvent::Nothing
    }
}
