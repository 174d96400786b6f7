//! A thread pool with ordered results, so that they do not depend on the number of cores.

use std::fmt;

use candle_core::{Error, Result};
use rayon::prelude::*;

use crate::kernels::device::Engine;

/// Runs shards of a rollout and micro-batches of an update: one thread per item, cancellable.
pub struct ThreadPool {
    /// `None`: the calling thread.
    pool: Option<rayon::ThreadPool>,
    is_cancelled: Option<IsCancelled>,
}

/// Called often, from several threads.
type IsCancelled = Box<dyn Fn() -> bool + Send + Sync>;

/// The error of cancelled work.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
struct CancelledError;

/// Tapes in tests recurse deeply.
const STACK_BYTES: usize = 64 << 20;

impl ThreadPool {
    /// `count` threads; 0: all available.
    pub fn new(count: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(Self::count_of(count))
            .stack_size(STACK_BYTES)
            .build()
            .map_err(Error::wrap)?;
        Ok(Self {
            pool: Some(pool),
            is_cancelled: None,
        })
    }

    /// Threads of a pool of `count`; 0: all available.
    pub fn count_of(count: usize) -> usize {
        match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            _ => count,
        }
    }

    /// One for a GPU, whose work is launched by the calling thread.
    pub fn for_engine(engine: &Engine, count: usize) -> Result<Self> {
        match engine.device.is_cpu() {
            true => Self::new(count),
            false => Ok(Self::calling()),
        }
    }

    /// Computes on the calling thread.
    pub fn calling() -> Self {
        Self {
            pool: None,
            is_cancelled: None,
        }
    }

    /// Fails soon after `is_cancelled` returns true: within a decode step, micro-batch or prefill.
    #[must_use]
    pub fn until(self, is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_cancelled: Some(Box::new(is_cancelled)),
            ..self
        }
    }

    pub fn is_cancellation(error: &Error) -> bool {
        match error {
            Error::Io(error) => {
                let cause = error.get_ref();
                cause.is_some_and(|cause| cause.is::<CancelledError>())
            }
            Error::Context { inner, .. } | Error::WithBacktrace { inner, .. } => {
                Self::is_cancellation(inner)
            }
            _ => false,
        }
    }

    /// Fails once cancelled; call between parts of the work.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.is_cancelled {
            Some(is_cancelled) if is_cancelled() => Err(Self::cancelled()),
            _ => Ok(()),
        }
    }

    /// The error of cancelled work.
    pub(crate) fn cancelled() -> Error {
        // candle's only error with a typed cause.
        Error::Io(std::io::Error::other(CancelledError))
    }

    pub fn count(&self) -> usize {
        let threads = rayon::ThreadPool::current_num_threads;
        self.pool.as_ref().map_or(1, threads)
    }

    /// Maps items; returns ordered results, or the first error.
    pub fn map<I: Sync, R: Send>(
        &self,
        items: &[I],
        work: impl Fn(&I) -> Result<R> + Sync + Send,
    ) -> Result<Vec<R>> {
        let work = |item: &I| self.check().and_then(|()| work(item));
        match &self.pool {
            Some(pool) => pool.install(|| items.par_iter().with_max_len(1).map(work).collect()),
            None => items.iter().map(work).collect(),
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, is_cancellable) = (self.count(), self.is_cancelled.is_some());
        write!(formatter, "Threads({count}, cancellable: {is_cancellable})")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn work_that_was_cancelled_is_not_begun() {
        let begun = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&begun);
        let threads = ThreadPool::new(1)
            .unwrap()
            .until(move || seen.load(Ordering::Relaxed) >= 3);
        let error = threads
            .map(&[(); 10], |()| Ok(begun.fetch_add(1, Ordering::Relaxed)))
            .unwrap_err();
        assert!(
            ThreadPool::is_cancellation(&error)
                && !ThreadPool::is_cancellation(&Error::Msg(error.to_string())),
            "{error}"
        );
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
