//! Following a run on a thread of its own: its log as it stands, then what comes, and what its worker says of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::run::{Follower, State};
use crate::view::message::RunNews;

/// How long is waited for news before the worker's state is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What comes right after news is taken together for so long: no picture would show it sooner.
const GATHER: Duration = Duration::from_millis(200);

/// Ends the thread that follows a run, and its watch on the folder, when dropped.
#[derive(Debug)]
pub(super) struct Following(Arc<AtomicBool>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follow a run until what comes back is dropped; `tell` is called from the thread.
pub(super) fn start(run: PathBuf, tell: impl Fn(RunNews) + Send + 'static) -> Following {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let tell = move |news| {
        let wanted = !seen.load(Ordering::Relaxed);
        if wanted {
            tell(news);
        }
        wanted
    };
    let is_over = Arc::clone(&over);
    // Without a thread the run stays unread, which the screen shows as loading.
    let _ = std::thread::Builder::new().name("follow".to_owned()).spawn(move || {
        let followed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| follow(&run, &tell, &is_over)));
        if followed.is_err() {
            let text = format!("{} is no longer followed (bug): see the reports in the data folder", run.display());
            tell(RunNews::Unreadable(text));
        }
    });
    Following(over)
}

fn follow(run: &Path, tell: &dyn Fn(RunNews) -> bool, over: &AtomicBool) {
    let mut said = None;
    let mut follower = None;
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let state = State::observe(run);
        if said.as_ref() != Some(&state) {
            if !tell(RunNews::State(state.clone())) {
                return;
            }
            said = Some(state);
        }
        let news = match &mut follower {
            None => Follower::open(run).map(|(history, opened)| {
                follower = Some(opened);
                Some(RunNews::Opened(Box::new(history)))
            }),
            Some(open) => {
                std::thread::sleep(GATHER.saturating_sub(last.elapsed()));
                open.next(PATIENCE).map(|batch| (!batch.is_empty()).then_some(RunNews::Events(batch)))
            }
        };
        if matches!(news, Ok(Some(_))) {
            last = Instant::now();
        }
        let heard = match news {
            Ok(news) => news.is_none_or(tell),
            Err(error) => {
                follower = None;
                let heard = tell(RunNews::Unreadable(error.to_string()));
                std::thread::sleep(PATIENCE);
                heard
            }
        };
        if !heard {
            return;
        }
    }
}
