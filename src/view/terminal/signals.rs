//! Signals as the view takes them: end, stop, continue, another size.

use std::io;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

/// What a signal asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Leave, with this exit code.
    End(u8),
    /// Ctrl-C while another program has the terminal, else leave.
    Interrupt,
    /// Stop as a job of the shell.
    Stop,
    /// Was stopped and continues: the terminal may hold anything.
    GoOn,
    /// The terminal has another size.
    Size,
}

/// Tell of signals from a thread of their own.
///
/// # Errors
/// Where the system takes no handler.
pub(super) fn listen(tell: impl Fn(Asked) -> bool + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGCONT, SIGWINCH])?;
    let listening = move || {
        for signal in signals.forever() {
            let asked = match signal {
                SIGINT => Asked::Interrupt,
                SIGTSTP => Asked::Stop,
                SIGCONT => Asked::GoOn,
                SIGWINCH => Asked::Size,
                // As a shell tells it: 128 and the signal's number.
                other => Asked::End(u8::try_from(128 + other).unwrap_or(1)),
            };
            if !tell(asked) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listening).map(drop)
}
