//! Following a run on a thread of its own: its log as it stands, then what comes, and what its worker says of itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::message::RunNews;
use crate::run::{Follower, State};

/// How long is waited for news before the worker's state is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A run that is followed until this is dropped.
#[derive(Debug)]
pub(super) struct Following(Arc<AtomicBool>);

impl Following {
    /// Follow a run; `tell` is called from the thread.
    pub(super) fn start(run: PathBuf, tell: impl Fn(RunNews) + Send + 'static) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&wanted);
        // Without a thread the run stays unread, which the screen shows as loading.
        let _ = std::thread::Builder::new().name("follow".to_owned()).spawn(move || {
            let followed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| follow(&run, &still, &tell)));
            if followed.is_err() {
                let text = format!("{} is not followed any more: a bug, see the reports in the data folder", run.display());
                tell(RunNews::Unreadable(text));
            }
        });
        Self(wanted)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn follow(run: &std::path::Path, wanted: &AtomicBool, tell: &dyn Fn(RunNews)) {
    let mut said = None;
    let mut follower = None;
    while wanted.load(Ordering::Relaxed) {
        let state = State::observe(run);
        if said.as_ref() != Some(&state) {
            tell(RunNews::State(state.clone()));
            said = Some(state);
        }
        let Some(open) = &mut follower else {
            match Follower::open(run) {
                Ok((history, opened)) => {
                    tell(RunNews::Opened(Box::new(history)));
                    follower = Some(opened);
                }
                Err(error) => {
                    tell(RunNews::Unreadable(error.to_string()));
                    std::thread::sleep(PATIENCE);
                }
            }
            continue;
        };
        match open.next(PATIENCE) {
            Ok(batch) if batch.is_empty() => {}
            Ok(batch) => tell(RunNews::Events(batch)),
            Err(error) => {
                tell(RunNews::Unreadable(error.to_string()));
                follower = None;
                std::thread::sleep(PATIENCE);
            }
        }
    }
}
