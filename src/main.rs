//! The binary: settle candle's threads, parse the command line, run one subcommand, exit with its code.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "engine")]
    // SAFETY: this is the first statement of the process; no other thread exists that could read the environment.
    unsafe {
        grpo_tui::kernels::threads::one_thread_an_operation();
    }
    grpo_tui::cli::main()
}
