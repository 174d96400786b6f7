//! How far `eval` is, on stderr; Ctrl-C ends it at once and says what was answered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use signal_hook::flag;

use super::Failure;
use super::output::{eprint_line, is_captured};
use super::status_line::StatusLine;
use crate::report::eval_progress_text;
use crate::run::{EvalProgress, stop_signals};

/// How soon a signal is answered.
const LOOK: Duration = Duration::from_millis(50);

/// The status line of an eval. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct EvalStatus(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    line: StatusLine,
    progress: Option<EvalProgress>,
    /// Where answers are kept.
    out: Option<PathBuf>,
}

impl EvalStatus {
    /// From now on the first signal ends the process with code 130: whatever was answered is in the folder `out` already.
    pub(super) fn start(out: Option<&Path>) -> Result<Self, Failure> {
        let shown = Shown {
            line: StatusLine::new(),
            progress: None,
            out: out.map(Path::to_owned),
        };
        let status = Self(Arc::new(Mutex::new(shown)));
        let stopped = Arc::new(AtomicBool::new(false));
        if is_captured() {
            return Ok(status);
        }
        for signal in stop_signals() {
            // A second one need not wait for the message.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&stopped))?;
            flag::register(signal, Arc::clone(&stopped))?;
        }
        let watched = status.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(LOOK);
                }
                let mut shown = watched.shown();
                shown.line.clear();
                eprint_line(&stop_text(shown.progress.as_ref(), shown.out.as_deref()));
                // The other threads compute on, with a GPU maybe: nothing of theirs is torn down.
                signal_hook::low_level::exit(130);
            })?;
        Ok(status)
    }

    pub(super) fn show(&self, progress: &EvalProgress) {
        let mut shown = self.shown();
        shown.line.show(|| eval_progress_text(progress));
        shown.progress = Some(progress.clone());
    }

    /// Ends one model's eval; another may follow.
    pub(super) fn end(&self) {
        let mut shown = self.shown();
        shown.line.end();
        shown.progress = None;
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock()
    }
}

fn stop_text(progress: Option<&EvalProgress>, out: Option<&Path>) -> String {
    let done = progress.map_or_else(
        || "stopped".to_owned(),
        |progress| format!("stopped: {}", eval_progress_text(progress)),
    );
    match out {
        Some(out) => format!(
            "{done}; answers of endpoints are in {}: the same command asks for the rest",
            out.display()
        ),
        None => format!("{done}; nothing is saved without --out DIR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_says_what_is_kept() {
        let progress = EvalProgress {
            set: "test".into(),
            target: "base".into(),
            answers: 3,
            total: 8,
            ..EvalProgress::default()
        };
        let check = |progress, out: Option<&str>, expected: &str| {
            assert_eq!(stop_text(progress, out.map(Path::new)), expected);
        };
        check(
            Some(&progress),
            Some("out"),
            "stopped: base on test: 3 of 8; answers of endpoints are in out: the same command asks for the rest",
        );
        check(None, None, "stopped; nothing is saved without --out DIR");
    }
}
