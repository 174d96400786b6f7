//! The binary: configure candle, parse the command line, run one subcommand, exit with its code.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "engine")]
    // SAFETY: this is the first statement of the process; no other thread exists that could read the environment.
    unsafe {
        grpo_tui::score::take_threads_from_environment();
        grpo_tui::kernels::threads::configure_candle();
        #[cfg(feature = "cuda")]
        grpo_tui::kernels::nccl::leave_multicast_off();
    }
    grpo_tui::cli::main()
}
