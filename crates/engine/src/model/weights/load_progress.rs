//! Progress of loading weights, for the progress bar.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reported after every tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress<'a> {
    pub model: &'a str,
    /// Loaded so far.
    pub done_bytes: u64,
    /// Bytes of all tensors; not reached if a model is loaded partially.
    pub total_bytes: u64,
}

type Watcher = Box<dyn Fn(LoadProgress<'_>) + Send + Sync>;

/// One per process, like the terminal.
static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Registers a watcher for all loading in this process; only the first call counts.
pub fn watch_loading(watcher: impl Fn(LoadProgress<'_>) + Send + Sync + 'static) {
    let _ = WATCHER.set(Box::new(watcher));
}

/// Counts the loaded bytes of a model; restarts for a second copy from the same files.
#[derive(Debug)]
pub(super) struct Counter {
    model: String,
    total_bytes: u64,
    done_bytes: AtomicU64,
}

impl Counter {
    pub(super) fn new(model: &str, total_bytes: u64) -> Self {
        Self {
            model: model.to_owned(),
            total_bytes,
            done_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        let before = self.done_bytes.load(Ordering::Relaxed);
        let done_bytes = if before >= self.total_bytes {
            bytes
        } else {
            before + bytes
        };
        self.done_bytes.store(done_bytes, Ordering::Relaxed);
        if let Some(watcher) = WATCHER.get() {
            watcher(LoadProgress {
                model: &self.model,
                done_bytes,
                total_bytes: self.total_bytes,
            });
        }
    }
}
