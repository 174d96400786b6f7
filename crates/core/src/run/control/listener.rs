//! The worker's control thread: polls the request folder, writes the heartbeat, and enforces a stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::handler::RequestHandler;
use super::queue::{RequestQueue, Stop};
use super::request_folder::RequestFolder;
use crate::facts::{Cause, Status};
use crate::run::error::RunError;
use crate::run::process::liveness::HEARTBEAT;
use crate::run::process::worker_state::StateWriter;
use crate::run::record::writer::{is_gone, lost_log};
use crate::run::storage::lock::{FolderIdentity, RunLock};

/// The polling interval of requests (for file systems without notifications), the run's folder and the stop flag.
const ROUND: Duration = Duration::from_millis(500);
/// How long the loop may take to react to a stop at once before the process is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Accepts requests until it is dropped, which refuses those that still wait.
#[derive(Debug)]
pub(in crate::run) struct RequestListener {
    controls: RequestQueue,
    closing: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
    notes: Vec<String>,
}

impl RequestListener {
    /// Starts the control thread for the run whose lock this process holds. While the request folder is not private to
    /// this user, requests are not accepted, and [`Self::notes`] says so.
    ///
    /// # Errors
    /// [`RunError::Io`] if no thread can be started.
    pub(in crate::run) fn start(
        lock: &RunLock,
        state: StateWriter,
        controls: RequestQueue,
    ) -> Result<Self, RunError> {
        let (folder, refusal) = RequestFolder::open(lock.run());
        let (closing, wake) = (Arc::new(AtomicBool::new(false)), folder.watch.waker());
        let mut thread = ListenerThread {
            identity: lock.identity(),
            log: Some(lock.run().join("events.jsonl")).filter(|log| log.exists()),
            handler: RequestHandler {
                controls: controls.clone(),
                state,
            },
            folder,
            stop_since: None,
        };
        let closes = Arc::clone(&closing);
        let listen = move || {
            while !closes.load(Ordering::Relaxed) {
                thread.round();
                thread.folder.watch.wait(ROUND);
            }
        };
        let failed = |error| RunError::io("listen for requests in", lock.run())(error);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(listen)
            .map_err(failed)?;
        let notes = refusal
            .err()
            .map(|error| format!("cannot accept requests: {error}"))
            .into_iter()
            .collect();
        Ok(Self {
            controls,
            closing,
            wake,
            thread: Some(thread),
            notes,
        })
    }

    pub(in crate::run) fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Drop for RequestListener {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.controls.close();
        // Fails if a wake-up is already queued.
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct ListenerThread {
    identity: FolderIdentity,
    /// `None` if the worker has no log.
    log: Option<PathBuf>,
    handler: RequestHandler,
    folder: RequestFolder,
    /// When the loop was first asked to stop at once.
    stop_since: Option<Instant>,
}

impl ListenerThread {
    fn round(&mut self) {
        if let Err(error) = self.check() {
            self.handler.controls.mark_lost(error.to_string());
            return self.handle_stop(Stop::Now);
        }
        self.folder.poll(&self.handler);
        let _ = self.handler.state.beat(HEARTBEAT);
        if let Some(stop) = self.handler.controls.stop_requested() {
            self.handle_stop(stop);
        }
    }

    /// Checks that the worker still has its folder and its log.
    fn check(&self) -> Result<(), RunError> {
        self.identity.check()?;
        self.log
            .as_ref()
            .filter(|log| is_gone(log))
            .map_or(Ok(()), |log| Err(lost_log(log)))
    }

    fn handle_stop(&mut self, stop: Stop) {
        let (state, lost) = (&self.handler.state, self.handler.controls.lost());
        if !matches!(state.now().status, Status::Stopping) {
            let _ = state.turn(
                Status::Stopping,
                Some(
                    lost.clone()
                        .map_or_else(|| "stop requested".into(), Cause::from),
                ),
            );
        }
        if stop == Stop::Now && self.stop_since.get_or_insert_with(Instant::now).elapsed() >= GRACE
        {
            if let Some(why) = &lost {
                // To `worker.log`, before `_exit`.
                eprintln!("error: {}", crate::secrets::visible(why));
                state.follow(why);
            }
            // Accepted requests are on disk; the next worker records them.
            let why = lost.map_or_else(
                || {
                    Cause::requested(
                        "stopped now, at your request; resume continues from the last checkpoint",
                    )
                },
                Cause::from,
            );
            let _ = state.turn(Status::Interrupted, Some(why));
            // SAFETY: `_exit` runs no more code of the process; everything that must survive is on disk at any time,
            // and the kernel releases the run's lock. `std::process::exit` would run a driver's exit handlers while the
            // loop still computes.
            unsafe { libc::_exit(130) };
        }
    }
}
