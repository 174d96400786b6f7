//! A tool call: its arguments, and what the client is told while it is under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::cli::output::print_json;
use crate::format::shortened;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A tool call under way.
pub(super) struct Call {
    progress_token: Option<Value>,
    /// Time of the last progress notification.
    last_progress: Mutex<Option<Instant>>,
    begun: Instant,
    is_cancelled: AtomicBool,
}

impl Call {
    pub(super) fn new(progress_token: Option<Value>) -> Self {
        Self {
            progress_token: progress_token.filter(|token| token.is_string() || token.is_number()),
            last_progress: Mutex::default(),
            begun: Instant::now(),
            is_cancelled: AtomicBool::new(false),
        }
    }

    /// For work that is not to be ended halfway.
    pub(super) fn uncancelled() -> Self {
        Self::new(None)
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Also once the client has gone.
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Tells the client what happens, at most once a second, if it asked to be told. The progress is seconds, of `total`
    /// if that is known.
    pub(super) fn progress(&self, message: &str, total: Option<Duration>) {
        let Some(token) = &self.progress_token else {
            return;
        };
        let mut last = self.last_progress.lock();
        if last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) || self.is_cancelled() {
            return;
        }
        *last = Some(Instant::now());
        let mut parameters = json!({"progressToken": token, "progress": self.begun.elapsed().as_secs_f64(), "message": shortened(message, 300)});
        if let Some(total) = total {
            parameters["total"] = total.as_secs_f64().into();
        }
        write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": parameters}));
    }
}

/// A whole line at a time. A client that does not read makes the server wait; one that has gone ends it at its next read.
pub(super) fn write(message: &Value) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let _whole = OUTPUT.lock();
    let _ = print_json(message);
}

/// Checked arguments of a call.
pub(super) struct Arguments(pub(super) Map<String, Value>);

impl Arguments {
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// Of a required argument.
    pub(super) fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.value(name)?.as_f64()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).and_then(Value::as_bool) == Some(true)
    }

    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        let texts = self.value(name).and_then(Value::as_array);
        texts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }
}
