//! The watchdog: a terminal that vanishes ends the process within a second, whatever the rest of it is doing.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

/// The exit code of a process that lost its terminal, as after SIGHUP.
pub(super) const LOST: u8 = 129;

/// How long the loop may take to save its files. crossterm would read from the dead terminal for ever, at the cost of a core.
const LAST_WORD: Duration = Duration::from_millis(400);

/// Watch standard input from a thread that costs nothing; `tell` is called when the terminal is gone, and the process ends soon after.
pub(super) fn watch(tell: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
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
        let input = std::io::stdin();
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
    // SAFETY: `_exit` ends the process without running anything more of it; what must last is on the disk at every moment.
    unsafe { libc::_exit(i32::from(code)) };
}
