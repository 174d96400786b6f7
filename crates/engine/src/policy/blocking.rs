//! What waits or computes for long, on threads of its own, while conversations go on.

use std::thread::Scope;

use candle_core::Result;
use tokio::sync::{Semaphore, oneshot};

use crate::rollout::ThreadPool;

/// Conversations whose tools are called at the same time. The threads wait for tools most of the time.
const MAX_TOOL_THREADS: usize = 64;

/// Threads that end with their scope.
pub(super) struct Blocking<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    tools: Semaphore,
}

impl<'s, 'e> Blocking<'s, 'e> {
    pub(super) fn new(scope: &'s Scope<'s, 'e>) -> Self {
        Self {
            scope,
            tools: Semaphore::new(MAX_TOOL_THREADS),
        }
    }

    /// The result of some work; its panic continues where the scope ends.
    pub(super) async fn run<R: Send + 's>(
        &self,
        work: impl FnOnce() -> R + Send + 's,
    ) -> Result<R> {
        let (sender, result) = oneshot::channel();
        self.scope.spawn(move || _ = sender.send(work()));
        result.await.map_err(|_| ThreadPool::cancelled())
    }

    /// As [`Self::run`], of work with tools: so many conversations have theirs at a time.
    pub(super) async fn run_tools<R: Send + 's>(
        &self,
        work: impl FnOnce() -> R + Send + 's,
    ) -> Result<R> {
        let _one = self.tools.acquire().await;
        self.run(work).await
    }
}
