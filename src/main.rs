//! The binary: configure candle, parse the command line, run one subcommand, exit with its code.

fn main() -> std::process::ExitCode {
    grpo_tui::sandbox::launch_if_asked();
    #[cfg(feature = "engine")]
    // SAFETY: the process begins here; no other thread exists that could read the environment.
    unsafe {
        grpo_tui::score::take_threads_from_environment();
        grpo_tui::kernels::threads::configure_candle();
        #[cfg(feature = "cuda")]
        grpo_tui::kernels::nccl::leave_multicast_off();
    }
    grpo_tui::cli::main()
}
