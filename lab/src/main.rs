//! The binary of the lab; nothing of it is shipped.

use std::process::ExitCode;

fn main() -> ExitCode {
    grpo_tui_core::sandbox::launch_if_asked();
    // SAFETY: the process begins here; no other thread exists that could read the environment.
    unsafe {
        grpo_tui_core::score::take_threads_from_environment();
        grpo_tui_engine::kernels::threads::configure_candle();
    }
    match grpo_tui_lab::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
