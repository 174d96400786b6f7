//! A run's state as whoever watches should see it: what `state.json` says, unless the lock or the log know better.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::events::{End, Event, EventBody};
use super::liveness::heard_from_afar;
use super::lock::RunLock;
use super::state::{State, Status};

/// As much of a log's end is looked at for a last word; behind it come at most some requests.
const TAIL_BYTES: u64 = 1 << 16;

impl State {
    /// Read a run's state as a viewer should see it: a status that claims a live worker although nobody holds the lock becomes `Interrupted`. `None`
    /// before any worker has spoken, or where the file cannot be understood.
    pub fn observe(run: &Path) -> Option<Self> {
        // The lock is asked first: a worker that ends in between has then already written its last word.
        let held = RunLock::is_held(run);
        let mut state = Self::read(run)?;
        if !held && !state.status.is_ended() && heard_from_afar(run, &state).is_none() {
            let gone = || format!("the worker (process {} on {}) is gone without a last word", state.pid, state.host);
            (state.status, state.step, state.cause) = match finished(run) {
                // The log has its last word, which comes first; the worker died before it could say the same here.
                Some(end) => (Status::Finished, end.step, Some(end.cause)),
                None => (Status::Interrupted, state.step, Some(gone())),
            };
        }
        Some(state)
    }
}

/// The end of a run that is all done, from the last lines of its log. Nothing can begin such a run again, so it holds whatever else is said.
fn finished(run: &Path) -> Option<End> {
    let log = crate::files::open(&run.join("events.jsonl")).ok()?;
    let length = log.metadata().ok()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0u8; usize::try_from(length - start).ok()?];
    log.read_exact_at(&mut tail, start).ok()?;
    let ends = tail.split(|byte| *byte == b'\n').rev().filter_map(|line| Event::from_line(std::str::from_utf8(line).ok()?).ok());
    let mut ends = ends.filter_map(|event| if let EventBody::End(end) = event.body { Some(end) } else { None });
    ends.next().filter(|end| end.status == Status::Finished.name())
}
