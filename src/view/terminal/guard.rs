//! The modes of the terminal: raw mode and the alternate screen while the view runs, restored whenever it exits.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute, style};
use rustix::process::{Signal, getpid, getsid, kill_current_process_group};

/// Presses, drags and the wheel, with places beyond column 223. Plain movement is not reported: over a slow link it
/// would only cost.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1002h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1002l\x1b[?1000l";

/// Ends a frame that was interrupted, so that a terminal that waits for its end shows what follows.
const END_OF_PICTURE: &str = "\x1b[?2026l";

/// Whether the terminal is in the view's hands.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in the view's hands until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Take the terminal.
    ///
    /// # Errors
    /// Where standard output is no terminal.
    pub(super) fn take(mouse: bool) -> io::Result<Self> {
        enter(mouse)?;
        Ok(Self(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Raw mode, the other screen, mouse and pasting.
pub(super) fn enter(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    io::stdout().write_all(self::mouse(mouse).as_bytes())?;
    io::stdout().flush()
}

/// What tells the terminal to report the mouse, or to do so no longer.
pub(super) fn mouse(wanted: bool) -> &'static str {
    if wanted { MOUSE_ON } else { MOUSE_OFF }
}

/// Everything as it was; what cannot be restored is let be. Done once, however often it is asked for.
pub(super) fn leave() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let restored = [END_OF_PICTURE, MOUSE_OFF].iter().try_for_each(|text| io::stdout().write_all(text.as_bytes()));
    let _ = restored.and_then(|()| {
        execute!(io::stdout(), style::ResetColor, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show)
    });
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
}

/// The terminal is gone: nothing more is written to it.
pub(super) fn restore_now() {
    TAKEN.store(false, Ordering::SeqCst);
}

/// Columns and rows; `None` where nobody knows.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Whether standard input and output are a terminal.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Why this process cannot be suspended: nobody could continue it.
pub(super) fn cannot_be_suspended() -> Option<&'static str> {
    // The first process of a session has no shell above it: stopped, the terminal would be dead.
    let first = getsid(None).is_ok_and(|session| session == getpid());
    first.then_some("cannot suspend: not started from a shell with job control")
}

/// Stop as a job of the shell, with everything that belongs to the job (a wrapper such as `cargo run` would continue
/// otherwise). Returns when continued.
pub(super) fn stop() {
    let _ = kill_current_process_group(Signal::STOP);
}
