//! Handles signals, and a lost terminal, which ends the process within a second.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::run::stop_signals;

/// The exit code after the terminal is lost, as for SIGHUP.
pub(super) const LOST: u8 = 129;

/// How long the loop may take to save its files. crossterm would spin on the dead terminal.
const SAVE_TIMEOUT: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalEvent {
    Exit(u8),
    /// Ctrl-C: quits, unless another program has the terminal.
    Interrupt,
    /// SIGTSTP: suspends the view as a job of the shell.
    Suspend,
    /// SIGCONT: resumed; the terminal's contents are unknown.
    Continue,
    Resize,
}

/// Calls `on_signal` from a thread of its own until it returns false.
pub(super) fn listen(on_signal: impl Fn(SignalEvent) -> bool + Send + 'static) -> io::Result<()> {
    let own = [SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH];
    let mut signals = Signals::new(stop_signals().iter().chain(&own))?;
    let listening = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGINT => SignalEvent::Interrupt,
                SIGTSTP => SignalEvent::Suspend,
                SIGCONT => SignalEvent::Continue,
                SIGWINCH => SignalEvent::Resize,
                // Shells do the same: 128 plus the signal's number.
                other => SignalEvent::Exit(u8::try_from(128 + other).unwrap_or(1)),
            };
            if !on_signal(event) {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listening)
        .map(drop)
}

/// Calls `on_hangup` from a thread of its own when the terminal is gone; the process ends soon after.
pub(super) fn watch_terminal(on_hangup: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let watching = move || {
        wait_until_gone();
        on_hangup();
        end_after(SAVE_TIMEOUT, LOST);
    };
    std::thread::Builder::new()
        .name("hangup".to_owned())
        .spawn(watching)
        .map(drop)
}

/// Blocks until standard input hangs up or is closed.
fn wait_until_gone() {
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    loop {
        let input = io::stdin();
        // No events are requested: poll reports only those that cannot be masked.
        let mut polled = [PollFd::new(&input, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) if polled[0].revents().intersects(gone) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Ends the process after a delay without running destructors.
pub(super) fn end_after(patience: Duration, code: u8) {
    std::thread::sleep(patience);
    // SAFETY: `_exit` runs no more code of the process; what must last is on disk at any moment.
    unsafe { libc::_exit(i32::from(code)) };
}
