//! Threads for blocking or long work beside conversations.

use std::ops::RangeInclusive;
use std::thread::Scope;

use candle_core::Result;
use tokio::sync::{Semaphore, oneshot};

use crate::rollout::ThreadPool;

/// Conversations with tool calls in parallel, by processor core and in all. The threads mostly wait.
const TOOL_THREADS_A_CORE: usize = 16;
const TOOL_THREADS: RangeInclusive<usize> = 64..=512;

/// Threads that end with their scope.
pub(super) struct Blocking<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    tools: Semaphore,
}

impl<'s, 'e> Blocking<'s, 'e> {
    pub(super) fn new(scope: &'s Scope<'s, 'e>) -> Self {
        let threads = TOOL_THREADS_A_CORE * ThreadPool::count_of(0);
        let threads = threads.clamp(*TOOL_THREADS.start(), *TOOL_THREADS.end());
        Self {
            scope,
            tools: Semaphore::new(threads),
        }
    }

    /// Runs work; a panic propagates when the scope ends.
    pub(super) async fn run<R: Send + 's>(
        &self,
        work: impl FnOnce() -> R + Send + 's,
    ) -> Result<R> {
        let (sender, result) = oneshot::channel();
        self.scope.spawn(move || _ = sender.send(work()));
        result.await.map_err(|_| ThreadPool::cancelled())
    }

    /// As [`Self::run`] for tools, with limited parallelism.
    pub(super) async fn run_tools<R: Send + 's>(
        &self,
        work: impl FnOnce() -> R + Send + 's,
    ) -> Result<R> {
        let _one = self.tools.acquire().await;
        self.run(work).await
    }
}
