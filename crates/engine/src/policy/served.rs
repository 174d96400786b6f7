//! Conversations with a model loaded by another process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use candle_core::{Error, Result};

use crate::hub::ModelConfig;
use crate::rollout::{Arrivals, Completion, QueuedRequest, Request, SizedSource, ThreadPool};
use crate::text::Tokenizer;

/// Parallel requests, each with a waiting thread; the server queues excess rows.
const MAX_REQUESTS: usize = 256;
/// Interval of polling the source for more requests.
const LOOK: Duration = Duration::from_millis(20);

/// A token-level model in another process: rendering, scoring, tools and agents run here.
pub struct ServedModel<'a> {
    pub tokenizer: Arc<Tokenizer>,
    pub config: ModelConfig,
    pub threads: ThreadPool,
    /// Samples a request's completions; the error is a sentence.
    pub ask: &'a (dyn Fn(&Request) -> std::result::Result<Vec<Completion>, String> + Sync),
}

impl fmt::Debug for ServedModel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServedModel")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ServedModel<'_> {
    /// Samples the requests of a single source.
    pub(super) fn decode(&self, sources: &[SizedSource<'_>]) -> Result<()> {
        let [SizedSource { source, .. }] = sources else {
            return Ok(());
        };
        let mut source = source.lock();
        let (sender, answers) = channel();
        let (mut waiting, mut running) = (VecDeque::new(), 0);
        std::thread::scope(|scope| {
            loop {
                self.threads.check()?;
                let is_idle = running == 0 && waiting.is_empty();
                match source.arrivals(usize::MAX, is_idle) {
                    Arrivals::Closed if is_idle => return Ok(()),
                    Arrivals::Closed => {}
                    Arrivals::Requests(queued) => waiting.extend(queued),
                }
                let free = waiting.len().min(MAX_REQUESTS - running);
                running += free;
                for QueuedRequest { id, request, .. } in waiting.drain(..free) {
                    let sender = sender.clone();
                    // The receiver is gone after a failure.
                    scope.spawn(move || _ = sender.send((id, (self.ask)(&request))));
                }
                let Some((id, completions)) = (running > 0)
                    .then(|| answers.recv_timeout(LOOK).ok())
                    .flatten()
                else {
                    continue;
                };
                running -= 1;
                for (sample, completion) in (0..).zip(completions.map_err(Error::msg)?) {
                    let told =
                        completion.replay(|told| source.on_token(id, sample, told, Vec::new()));
                    source.on_end(id, sample, told);
                }
            }
        })
    }
}
