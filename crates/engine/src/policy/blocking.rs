//! Threads for blocking or long work beside conversations.

use std::thread::Scope;

use candle_core::Result;
use tokio::sync::{Semaphore, oneshot};

use crate::rollout::ThreadPool;

/// Conversations with tool calls in parallel. The threads mostly wait.
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
