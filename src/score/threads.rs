//! The threads that score: a pool of its own with every core, or with as many as the user allows by `RAYON_NUM_THREADS`.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The variable that programs with rayon obey.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// As deep a stack as the main thread's: schemas recurse.
const STACK_BYTES: usize = 8 << 20;

static GIVEN: OnceLock<OsString> = OnceLock::new();

/// Takes the variable out of this process, where candle would read it at every product; [`given_threads`] still has it.
///
/// # Safety
/// No other thread of the process may read or write the environment meanwhile.
pub unsafe fn take_threads_from_environment() {
    if let Some(given) = std::env::var_os(VARIABLE) {
        let _ = GIVEN.set(given);
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(VARIABLE) };
    }
}

/// What the environment of a child must have, so that it sees what the user gave this process.
pub fn given_threads() -> Option<(&'static str, &'static OsStr)> {
    GIVEN.get().map(|given| (VARIABLE, given.as_os_str()))
}

/// Runs `work` such that its parallel iterators use every core.
pub fn on_every_core<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let allowed = || GIVEN.get().and_then(|given| given.to_str()?.parse().ok()).unwrap_or(0);
    let build = || {
        let pool = ThreadPoolBuilder::new().num_threads(allowed()).stack_size(STACK_BYTES);
        pool.thread_name(|number| format!("score-{number}")).build().ok()
    };
    match POOL.get_or_init(build) {
        Some(pool) => pool.install(work),
        // No threads to be had: the caller's does it.
        None => work(),
    }
}
