//! What Ctrl-C and SIGTERM mean to a training: stop after the step, twice at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Failure;

/// A flag that the first signal sets. A second one ends the process at once with code 130: the last checkpoint is whole.
pub(super) fn stop_after_step() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
