//! Disables candle's threads, and backtraces in its errors. The engine runs micro-batches on the
//! cores instead (`rollout::ThreadPool`).

/// Variables that set candle's thread count besides `RAYON_NUM_THREADS`. If unset, it parses
/// /proc/cpuinfo at every matrix product and keeps a spinning thread pool. The last one adds
/// backtraces to errors, as RUST_BACKTRACE does where it is unset; only panics should have them.
const VARIABLES: [&str; 3] = [
    "CANDLE_CPU_MASK",
    "CANDLE_NUM_THREADS",
    "RUST_LIB_BACKTRACE",
];

/// Makes candle compute on the calling thread, with errors without backtraces, for the life of the
/// process. Restores the environment. `RAYON_NUM_THREADS` must be unset: candle would read it at
/// every matrix product.
///
/// # Safety
/// No other thread of the process may access the environment during the call: call before starting
/// threads.
pub unsafe fn configure_candle() {
    let saved = VARIABLES.map(|name| (name, std::env::var_os(name)));
    // SAFETY: the caller's promise.
    unsafe {
        std::env::set_var(VARIABLES[0], "0");
        std::env::remove_var(VARIABLES[1]);
        if saved[2].1.is_none() {
            std::env::set_var(VARIABLES[2], "0");
        }
    }
    // The standard library reads it once.
    let _ = std::backtrace::Backtrace::capture();
    // candle reads the mask once and derives its thread count; its pool is created here, without
    // threads.
    let _ = candle_core::utils::get_num_threads();
    let _ = candle_core::utils::barrier_pool();
    for (name, value) in saved {
        // SAFETY: the caller's promise.
        unsafe {
            match value {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Runs in a separate process, since tests of this one share the environment.
    #[test]
    fn candle_has_no_threads_and_no_backtraces_and_the_environment_is_the_users() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "--ignored",
            "--test-threads=1",
            "threads::tests::in_a_process_of_its_own",
        ]);
        let output = child
            .env_remove("RAYON_NUM_THREADS")
            .env("CANDLE_NUM_THREADS", "5")
            .env("RUST_BACKTRACE", "1")
            .env_remove("RUST_LIB_BACKTRACE")
            .env_remove("CANDLE_CPU_MASK")
            .output()
            .unwrap();
        let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && output_text.contains("1 passed"),
            "{output_text}"
        );
    }

    #[test]
    #[ignore = "run by the test above"]
    fn in_a_process_of_its_own() {
        // SAFETY: one test alone, on one thread.
        unsafe { configure_candle() };
        assert_eq!(candle_core::utils::get_num_threads(), 1);
        assert_eq!(
            candle_core::Error::msg("no such tensor").bt().to_string(),
            "no such tensor"
        );
        let of = |name| std::env::var(name).ok();
        assert_eq!(of("RUST_LIB_BACKTRACE"), None);
        assert_eq!(
            (of("CANDLE_CPU_MASK"), of("CANDLE_NUM_THREADS").as_deref()),
            (None, Some("5"))
        );
        // Large enough for candle to parallelise.
        let large = candle_core::Tensor::ones(
            (1024, 1024),
            candle_core::DType::F32,
            &candle_core::Device::Cpu,
        )
        .unwrap();
        large.matmul(&large.sqrt().unwrap()).unwrap();
        let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names: Vec<String> = names
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .collect();
        assert!(
            !names.iter().any(|name| name.starts_with("candle")),
            "{names:?}"
        );
    }
}
