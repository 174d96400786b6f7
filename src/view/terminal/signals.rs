//! What ends or stops the view from outside: signals, and a lost terminal, which ends the process within a second.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

/// The exit code of a process that lost its terminal, as after SIGHUP.
pub(super) const LOST: u8 = 129;

/// How long the loop may take to save its files. crossterm would read from the dead terminal for ever, at the cost of a
/// core.
const LAST_WORD: Duration = Duration::from_millis(400);

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

/// Watch standard input from a thread that costs nothing; `tell` is called when the terminal is gone, and the process
/// ends soon after.
pub(super) fn watch_terminal(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let watching = move || {
        wait_until_gone();
        tell();
        end_after(LAST_WORD, LOST);
    };
    std::thread::Builder::new().name("hangup".to_owned()).spawn(watching).map(drop)
}

/// Blocks until standard input hangs up or is closed.
fn wait_until_gone() {
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    loop {
        let input = io::stdin();
        // No events are asked for: only what cannot be masked is told.
        let mut asked = [PollFd::new(&input, PollFlags::empty())];
        match poll(&mut asked, None) {
            Ok(_) if asked[0].revents().intersects(gone) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// End the process after a while, without running anything more of it.
pub(super) fn end_after(patience: Duration, code: u8) {
    std::thread::sleep(patience);
    // SAFETY: `_exit` ends the process without running anything more of it; what must last is on the disk at every
    // moment.
    unsafe { libc::_exit(i32::from(code)) };
}
