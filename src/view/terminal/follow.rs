//! Following a run on a thread of its own: its log as it stands, then what comes, and what its worker says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{Follower, State};
use crate::view::message::RunNews;

/// How long is waited for news before the worker's state is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follow a run until `tell`, which is called from the thread, says that nobody listens.
pub(super) fn start(run: PathBuf, tell: impl Fn(RunNews) -> bool + Send + 'static) {
    // Without a thread the run stays unread, which the screen shows as loading.
    let _ = std::thread::Builder::new().name("follow".to_owned()).spawn(move || {
        let followed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| follow(&run, &tell)));
        if followed.is_err() {
            let text = format!("{} is not followed any more: a bug, see the reports in the data folder", run.display());
            tell(RunNews::Unreadable(text));
        }
    });
}

fn follow(run: &Path, tell: &dyn Fn(RunNews) -> bool) {
    let mut said = None;
    let mut follower = None;
    loop {
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
            Some(open) => open.next(PATIENCE).map(|batch| (!batch.is_empty()).then_some(RunNews::Events(batch))),
        };
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
