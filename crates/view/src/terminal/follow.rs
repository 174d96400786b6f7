//! Follows a run on its own thread: the log so far, new events, and the state of its worker or of its Slurm job.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::message::RunNews;
use crate::run::{Follower, State, ask_slurm};

/// How long to wait for events before the worker's state is checked again.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// The minimum time between two queries to Slurm about a waiting run.
const SLURM_INTERVAL: Duration = Duration::from_secs(10);

/// Events within this time are sent as one batch: no frame would show them sooner.
const BATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Stops following the run when dropped.
#[derive(Debug)]
pub(super) struct FollowGuard(Arc<AtomicBool>);

impl Drop for FollowGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follows a run until the handle is dropped; `on_news` is called from the thread.
pub(super) fn start(run: PathBuf, on_news: impl Fn(RunNews) + Send + 'static) -> FollowGuard {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let on_news = move |news| {
        let is_followed = !seen.load(Ordering::Relaxed);
        if is_followed {
            on_news(news);
        }
        is_followed
    };
    let is_over = Arc::clone(&over);
    // If the thread cannot start, the screen shows the run as loading.
    let _ = std::thread::Builder::new()
        .name("follow".to_owned())
        .spawn(move || {
            let followed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                follow(&run, &on_news, &is_over)
            }));
            if followed.is_err() {
                let text = format!(
                    "{} is no longer followed (bug): see the reports in the data folder",
                    run.display()
                );
                on_news(RunNews::Unreadable(text));
            }
        });
    FollowGuard(over)
}

fn follow(run: &Path, on_news: &dyn Fn(RunNews) -> bool, over: &AtomicBool) {
    let mut reported = None;
    let mut follower = None;
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        // If Slurm does not answer, its last answer is shown with its time.
        let _ = ask_slurm([run.to_owned()], SLURM_INTERVAL);
        let state = State::observe(run);
        let mut is_new = reported.as_ref() != Some(&state);
        let mut report = |is_new: &mut bool| {
            let is_followed = !std::mem::take(is_new) || on_news(RunNews::State(state.clone()));
            reported = Some(state.clone());
            is_followed
        };
        if follower.is_none() && !report(&mut is_new) {
            return;
        }
        let news = match &mut follower {
            None => Follower::open(run).map(|(history, opened)| {
                follower = Some(opened);
                Some(RunNews::Opened(Box::new(history)))
            }),
            Some(open) => {
                std::thread::sleep(BATCH_INTERVAL.saturating_sub(last.elapsed()));
                // Events come before the state: the result of a run before its end.
                open.next(if is_new {
                    Duration::ZERO
                } else {
                    STATE_INTERVAL
                })
                .map(|batch| (!batch.is_empty()).then_some(RunNews::Events(batch)))
            }
        };
        if matches!(news, Ok(Some(_))) {
            last = Instant::now();
        }
        let is_followed = match news {
            Ok(news) => news.is_none_or(on_news),
            Err(error) => {
                follower = None;
                let is_followed = on_news(RunNews::Unreadable(error.to_string()));
                std::thread::sleep(STATE_INTERVAL);
                is_followed
            }
        };
        if !is_followed || !report(&mut is_new) {
            return;
        }
    }
}
