//! What Ctrl-C and SIGTERM mean to a worker: stop after the step, twice at once, three times whatever it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Failure;

/// What signals have been heard.
#[derive(Debug, Default)]
pub(super) struct SignalFlags {
    /// Set by the first one.
    pub(super) once: Arc<AtomicBool>,
    /// Set by the second one.
    pub(super) twice: Arc<AtomicBool>,
}

/// From now on signals are heard. The third one ends the process with code 130: the last checkpoint is whole.
pub(super) fn hear() -> Result<SignalFlags, Failure> {
    let heard = SignalFlags::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&heard.twice))?;
        let (once, twice) = (Arc::clone(&heard.once), Arc::clone(&heard.twice));
        let count = move || {
            if once.swap(true, Ordering::SeqCst) {
                twice.store(true, Ordering::SeqCst);
            }
        };
        // SAFETY: the action only changes two atomic flags, which a signal handler may do.
        unsafe { signal_hook::low_level::register(signal, count)? };
    }
    Ok(heard)
}
