//! Work spread over the processor's cores, with results in the order of the work: the same numbers on one core and on sixteen.

use candle_core::{Error, Result};
use rayon::prelude::*;

use crate::kernels::device::Engine;

/// A pool of worker threads for shards of a rollout and micro-batches of an update. Each piece of work runs on one thread from start to end.
#[derive(Debug)]
pub struct Threads {
    /// None: everything on the calling thread.
    pool: Option<rayon::ThreadPool>,
}

/// A deep model's drop and recursion are modest, but tapes in tests are not.
const STACK_BYTES: usize = 64 << 20;

impl Threads {
    /// `count` threads; 0 takes as many as the process may use.
    pub fn new(count: usize) -> Result<Self> {
        let count = if count == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { count };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK_BYTES).build().map_err(Error::wrap)?;
        Ok(Self { pool: Some(pool) })
    }

    /// For an engine: a GPU's work is started by the calling thread alone, one piece after the other.
    pub fn of_engine(engine: &Engine, count: usize) -> Result<Self> {
        if engine.device.is_cpu() { Self::new(count) } else { Ok(Self { pool: None }) }
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// `work` on every item; the results in the items' order, or the first error.
    pub fn map<I: Sync, R: Send>(&self, items: &[I], work: impl Fn(&I) -> Result<R> + Sync + Send) -> Result<Vec<R>> {
        match &self.pool {
            Some(pool) => pool.install(|| items.par_iter().with_max_len(1).map(work).collect()),
            None => items.iter().map(work).collect(),
        }
    }
}
