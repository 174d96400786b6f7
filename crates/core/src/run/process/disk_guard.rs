//! Pauses a run while its disk is full, and resumes it once there is space or on request.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cleanup::RESERVE;
use super::worker::Worker;
use super::worker_state::StateWriter;
use crate::facts::Status;
use crate::format::bytes;
use crate::plan::{free_disk_bytes, has_no_free_files};
use crate::run::control::RequestQueue;

/// Reserved, so that a full disk can still be reported.
const RESERVE_BYTES: usize = 256 * 1024;
const LOOK: Duration = Duration::from_secs(1);
/// After this long a write is retried in any case: a quota does not show in the free bytes.
const TRY_ANYWAY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct DiskGuard {
    run: PathBuf,
    controls: RequestQueue,
    state: StateWriter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There is space, or a retry is worthwhile.
    Freed,
    /// Resumed by request.
    Resumed,
    Stop,
}

impl DiskGuard {
    pub fn new(worker: &Worker) -> Self {
        let guard = Self {
            run: worker.lock().run().to_owned(),
            controls: worker.controls().clone(),
            state: worker.state(),
        };
        guard.reserve_space();
        guard
    }

    /// Available to this user; `None` if the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        free_disk_bytes(&self.run)
    }

    /// Pauses the run for `what`, as in "the checkpoint of step 4", until `needed_bytes` are free, a `resume` arrives,
    /// or the run should stop. `retry`: a write has failed, so free bytes alone prove nothing. `on_wait` is called once
    /// the reserve is released, so that it can write.
    pub fn wait_for_space(
        &self,
        what: &str,
        needed_bytes: u64,
        retry: bool,
        on_wait: impl FnOnce(),
    ) -> WaitOutcome {
        let (before, at_first, since) = (self.state.now(), self.free_bytes(), Instant::now());
        let _ = std::fs::remove_file(reserve(&self.run));
        self.controls.block();
        // If this cannot be written, the answer to `status` still has it.
        let _ = self.state.turn(
            Status::Paused,
            Some(cause(&self.run, what, needed_bytes, at_first).into()),
        );
        on_wait();
        let fits = |free: Option<u64>| match free {
            // Includes the reserve, which was released for this.
            Some(free) => {
                free >= needed_bytes.saturating_add(RESERVE_BYTES as u64)
                    && (!retry || Some(free) > at_first)
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
            // The reserve stays released for the end event.
            return outcome;
        }
        self.controls.unblock();
        self.reserve_space();
        let _ = self.state.turn(before.status, before.cause);
        outcome
    }

    pub fn release_reserve(&self) {
        let _ = std::fs::remove_file(reserve(&self.run));
    }

    /// Without space there is no reserve.
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
            // Incompressible, for file systems that compress.
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
    if has_no_free_files(run) {
        return format!(
            "the disk is full: {what} needs a new file, and no inode is free on the disk of {} ({free} are); delete files there. The run resumes by itself once \
             it can write, or with `grpo-tui runs resume {id}`",
            run.display()
        );
    }
    format!(
        "the disk is full: {what} needs {}, and {free} are free on the disk of {}; free some space there. The run resumes by itself once there is space, or \
         with `grpo-tui runs resume {id}`",
        bytes(needed_bytes),
        run.display()
    )
}
