//! The threads that score: every core, or as many as `RAYON_NUM_THREADS` allows.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The variable that programs with rayon obey.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// As deep a stack as the main thread's: schemas recurse.
const STACK_BYTES: usize = 8 << 20;

static USER_THREADS: OnceLock<OsString> = OnceLock::new();

/// Takes the variable out of this process, where candle would read it at every matmul; [`given_threads`] still has it.
///
/// # Safety
/// No other thread of the process may read or write the environment meanwhile.
pub unsafe fn take_threads_from_environment() {
    if let Some(threads) = std::env::var_os(VARIABLE) {
        let _ = USER_THREADS.set(threads);
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(VARIABLE) };
    }
}

/// The environment variable that gives a child the user's thread limit.
pub fn given_threads() -> Option<(&'static str, &'static OsStr)> {
    USER_THREADS
        .get()
        .map(|threads| (VARIABLE, threads.as_os_str()))
}

/// Runs `work` such that its parallel iterators use every core.
pub fn on_every_core<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let allowed = || {
        USER_THREADS
            .get()
            .and_then(|threads| threads.to_str()?.parse().ok())
            .unwrap_or(0)
    };
    let build = || {
        let pool = ThreadPoolBuilder::new()
            .num_threads(allowed())
            .stack_size(STACK_BYTES);
        pool.thread_name(|number| format!("score-{number}"))
            .build()
            .ok()
    };
    match POOL.get_or_init(build) {
        Some(pool) => pool.install(work),
        // No threads to be had: the caller's does it.
        None => work(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// In a process of its own, since the environment is one for all tests of this one.
    #[test]
    fn the_threads_of_the_user_are_taken_out_and_kept() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "--ignored",
            "--test-threads=1",
            "score::threads::tests::in_a_process_of_its_own",
        ]);
        let output = child.env(VARIABLE, "7").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }

    #[test]
    #[ignore = "run by the test above"]
    fn in_a_process_of_its_own() {
        // SAFETY: one test alone, on one thread.
        unsafe { take_threads_from_environment() };
        assert_eq!(std::env::var_os(VARIABLE), None);
        assert_eq!(given_threads(), Some((VARIABLE, "7".as_ref())));
    }
}
