//! Scoring threads: one per core, or `RAYON_NUM_THREADS`.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Obeyed by all programs that use rayon.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Size of the main thread's stack: schemas recurse.
const STACK_BYTES: usize = 8 << 20;

static USER_THREADS: OnceLock<OsString> = OnceLock::new();

/// Removes the variable from this process, where candle would read it at every matmul;
/// [`given_threads`] keeps its value.
///
/// # Safety
/// No other thread of the process may access the environment during the call.
pub unsafe fn take_threads_from_environment() {
    if let Some(threads) = std::env::var_os(VARIABLE) {
        let _ = USER_THREADS.set(threads);
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(VARIABLE) };
    }
}

/// The variable that passes the user's thread limit to a child.
pub fn given_threads() -> Option<(&'static str, &'static OsStr)> {
    USER_THREADS
        .get()
        .map(|threads| (VARIABLE, threads.as_os_str()))
}

/// Runs `work` with parallel iterators on every core.
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
        // No threads available: use the caller's.
        None => work(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Runs in a separate process, since tests of this one share the environment.
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
