//! Work spread over the processor's cores, with results in the order of the work: the same numbers on one core and on sixteen.

use std::fmt;

use candle_core::{Error, Result, bail};
use rayon::prelude::*;

use crate::kernels::device::Engine;

/// A pool of worker threads for shards of a rollout and micro-batches of an update. Each piece of work runs on one thread from start to end. Work that
/// is wanted no more can be called off in the middle.
pub struct ThreadPool {
    /// None: everything on the calling thread.
    pool: Option<rayon::ThreadPool>,
    called_off: Option<CalledOff>,
}

/// Says that the work is wanted no more; asked often, from several threads.
type CalledOff = Box<dyn Fn() -> bool + Send + Sync>;

/// The words of the error that work ends with once it was called off.
const CALLED_OFF: &str = "cancelled";

/// A deep model's drop and recursion are modest, but tapes in tests are not.
const STACK_BYTES: usize = 64 << 20;

impl ThreadPool {
    /// `count` threads; 0 takes as many as the process may use.
    pub fn new(count: usize) -> Result<Self> {
        let count = if count == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { count };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK_BYTES).build().map_err(Error::wrap)?;
        Ok(Self { pool: Some(pool), called_off: None })
    }

    /// For an engine: a GPU's work is started by the calling thread alone, one piece after the other.
    pub fn of_engine(engine: &Engine, count: usize) -> Result<Self> {
        if engine.device.is_cpu() { Self::new(count) } else { Ok(Self { pool: None, called_off: None }) }
    }

    /// Work ends with an error soon after `called_off` says so: within a decode step, a micro-batch or a prompt's prefill.
    #[must_use]
    pub fn until(self, called_off: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { called_off: Some(Box::new(called_off)), ..self }
    }

    /// Whether an error, by its words, is that of work that was called off.
    pub fn is_called_off(error: &str) -> bool {
        error.contains(CALLED_OFF)
    }

    /// An error once the work was called off; to be asked between its pieces.
    pub(crate) fn check(&self) -> Result<()> {
        if self.called_off.as_ref().is_some_and(|called_off| called_off()) {
            bail!("{CALLED_OFF}")
        }
        Ok(())
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// `work` on every item; the results in the items' order, or the first error.
    pub fn map<I: Sync, R: Send>(&self, items: &[I], work: impl Fn(&I) -> Result<R> + Sync + Send) -> Result<Vec<R>> {
        let work = |item: &I| self.check().and_then(|()| work(item));
        match &self.pool {
            Some(pool) => pool.install(|| items.par_iter().with_max_len(1).map(work).collect()),
            None => items.iter().map(work).collect(),
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Threads({}, cancellable: {})", self.count(), self.called_off.is_some())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn work_that_was_called_off_is_not_begun() {
        let begun = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&begun);
        let threads = ThreadPool::new(1).unwrap().until(move || seen.load(Ordering::Relaxed) >= 3);
        let error = threads.map(&[(); 10], |()| Ok(begun.fetch_add(1, Ordering::Relaxed))).unwrap_err().to_string();
        assert!(ThreadPool::is_called_off(&error) && !ThreadPool::is_called_off("out of memory"), "{error}");
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
