//! A full disk: the run pauses where it is, says so, and resumes when there is space again or somebody asks it to.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cleanup::RESERVE;
use super::control::RequestQueue;
use super::worker::Worker;
use super::worker_state::{StateWriter, Status};
use crate::format::bytes;
use crate::plan::free_disk_bytes;

/// Bytes that a run sets aside, so that it can still say that the disk is full when it is.
const RESERVE_BYTES: usize = 256 * 1024;
/// How often a run that waits looks at its disk.
const LOOK: Duration = Duration::from_secs(1);
/// After so long it tries again whatever the system says: a quota is not seen in a disk's free bytes.
const TRY_ANYWAY: Duration = Duration::from_secs(30);

/// Watches the disk of a run.
#[derive(Debug)]
pub struct DiskGuard {
    run: PathBuf,
    controls: RequestQueue,
    state: StateWriter,
}

/// How a wait for space ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There is space now, or a retry is worth it.
    Freed,
    /// Somebody asked to resume regardless.
    Resumed,
    /// The run should stop.
    Stop,
}

impl DiskGuard {
    /// For a worker's run. Reserves some space.
    pub fn new(worker: &Worker) -> Self {
        let guard =
            Self { run: worker.lock().run().to_owned(), controls: worker.controls().clone(), state: worker.state() };
        guard.reserve_space();
        guard
    }

    /// Free for this user on the run's disk; `None` where the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        free_disk_bytes(&self.run)
    }

    /// Pauses the run until `needed_bytes` are free, `resume` is asked, or the run should stop. Its state is `paused`
    /// meanwhile, with a cause that tells what is wanted and what there is. `what` needs the space, as in "the
    /// checkpoint of step 4". `retry`: a write has failed already, so free bytes alone prove nothing. `on_wait` is called
    /// once the run can write to its disk again.
    pub fn wait_for_space(&self, what: &str, needed_bytes: u64, retry: bool, on_wait: impl FnOnce()) -> WaitOutcome {
        let (before, at_first, since) = (self.state.now(), self.free_bytes(), Instant::now());
        let _ = std::fs::remove_file(reserve(&self.run));
        self.controls.block();
        // What cannot be written is still in the answer to `status`.
        let _ = self.state.turn(Status::Paused, Some(cause(&self.run, what, needed_bytes, at_first)));
        on_wait();
        let fits = |free: Option<u64>| match free {
            // With the reserve, which was given up for this.
            Some(free) => {
                free >= needed_bytes.saturating_add(RESERVE_BYTES as u64) && (!retry || Some(free) > at_first)
            }
            None => false,
        };
        let outcome = loop {
            if self.controls.stop_requested().is_some() {
                break WaitOutcome::Stop;
            }
            if !self.controls.wait_while_blocked(LOOK) {
                break WaitOutcome::Resumed;
            }
            let free = self.free_bytes();
            if fits(free) || (retry && since.elapsed() >= TRY_ANYWAY) {
                break WaitOutcome::Freed;
            }
        };
        if outcome == WaitOutcome::Stop {
            // The reserve stays free for the end event.
            return outcome;
        }
        self.controls.unblock();
        self.reserve_space();
        let _ = self.state.turn(before.status, before.cause);
        outcome
    }

    /// The work has ended; nothing is set aside any more.
    pub fn release_reserve(&self) {
        let _ = std::fs::remove_file(reserve(&self.run));
    }

    /// Without space for it, there is no reserve.
    fn reserve_space(&self) {
        let path = reserve(&self.run);
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES as u64) {
            return;
        }
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            // Numbers that no file system packs away.
            .and_then(|mut file| {
                file.write_all(
                    &(0..RESERVE_BYTES as u32)
                        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
                        .collect::<Vec<u8>>(),
                )
            });
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn reserve(run: &Path) -> PathBuf {
    run.join(RESERVE)
}

fn cause(run: &Path, what: &str, needed_bytes: u64, free: Option<u64>) -> String {
    let free = free.map_or_else(|| "an unknown amount".to_owned(), bytes);
    let id = run.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "the disk is full: {what} needs {}, and {free} are free on the disk of {}; free some space there. The run resumes by itself once there is space, or \
         with `grpo-tui runs resume {id}`",
        bytes(needed_bytes),
        run.display()
    )
}
