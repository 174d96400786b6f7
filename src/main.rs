//! The binary: settle candle's threads, parse the command line, run one subcommand, exit with its code.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "engine")]
    one_thread_an_operation();
    grpo_tui::cli::main()
}

/// candle reads both variables once, at its first operation. Unset, the first costs a parse of /proc/cpuinfo at every matrix product and the second a
/// pool of spinning threads; the engine spreads whole micro-batches over the cores instead (see `rollout::Threads`).
#[cfg(feature = "engine")]
fn one_thread_an_operation() {
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: this is the first statement of the process; no other thread exists that could read the environment.
        unsafe { std::env::set_var(name, "1") };
    }
}
