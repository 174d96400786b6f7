//! The modes of the terminal: raw mode and the alternate screen while the view runs, restored whenever it exits. In
//! linear mode raw mode only, and nothing where standard input is not a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, style};
use rustix::process::{Signal, getpid, getsid, kill_current_process_group};

/// Presses, drags and the wheel, with positions beyond column 223. Plain movement is not reported: over a slow link it
/// only costs bandwidth.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1002h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1002l\x1b[?1000l";

/// Ends a synchronized update that was interrupted, so that the terminal shows what follows.
const END_OF_FRAME: &str = "\x1b[?2026l";

static SCREEN: AtomicBool = AtomicBool::new(false);
static RAW: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminalMode {
    /// The screen, and the mouse if wanted.
    Screen {
        mouse: bool,
    },
    Keys,
}

#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Enters raw mode and the alternate screen.
    ///
    /// # Errors
    /// Standard input or output is not a terminal, and that is not linear mode.
    pub(super) fn enter(what: TerminalMode) -> io::Result<Self> {
        if matches!(what, TerminalMode::Screen { .. })
            && !(has_keys() && io::stdout().is_terminal())
        {
            return Err(io::Error::other(
                "standard input and output must be a terminal",
            ));
        }
        enter(what)?;
        Ok(Self(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Raw mode, the alternate screen, mouse and bracketed paste.
pub(super) fn enter(what: TerminalMode) -> io::Result<()> {
    if has_keys() {
        enable_raw_mode()?;
        RAW.store(true, Ordering::SeqCst);
    }
    let TerminalMode::Screen { mouse } = what else {
        return Ok(());
    };
    SCREEN.store(true, Ordering::SeqCst);
    execute!(
        io::stdout(),
        EnterAlternateScreen,
        EnableBracketedPaste,
        cursor::Hide
    )?;
    io::stdout().write_all(self::mouse(mouse).as_bytes())?;
    io::stdout().flush()
}

/// The sequence that turns mouse reporting on or off.
pub(super) fn mouse(on: bool) -> &'static str {
    if on { MOUSE_ON } else { MOUSE_OFF }
}

/// Restores the terminal as far as possible. Only the first call has an effect.
pub(super) fn leave() {
    if SCREEN.swap(false, Ordering::SeqCst) {
        let restored = [END_OF_FRAME, MOUSE_OFF]
            .iter()
            .try_for_each(|text| io::stdout().write_all(text.as_bytes()));
        let _ = restored.and_then(|()| {
            execute!(
                io::stdout(),
                style::ResetColor,
                DisableBracketedPaste,
                LeaveAlternateScreen,
                cursor::Show
            )
        });
    }
    if RAW.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// The terminal is gone: nothing more is written to it.
pub(super) fn restore_now() {
    SCREEN.store(false, Ordering::SeqCst);
    RAW.store(false, Ordering::SeqCst);
}

/// Columns and rows; `None` if unknown.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

pub(super) fn has_keys() -> bool {
    io::stdin().is_terminal()
}

/// The line ending: in raw mode a line feed alone does not return to the first column.
pub(super) fn line_end() -> &'static str {
    if RAW.load(Ordering::SeqCst) && io::stdout().is_terminal() {
        "\r\n"
    } else {
        "\n"
    }
}

/// The reason if this process cannot be suspended: no shell could resume it.
pub(super) fn cannot_be_suspended() -> Option<&'static str> {
    // A session leader has no shell above it: stopped, the terminal would be dead.
    let first = getsid(None).is_ok_and(|session| session == getpid());
    first.then_some("cannot suspend: not started from a shell with job control")
}

/// Stops the whole job (a wrapper such as `cargo run` would continue otherwise). Returns when continued.
pub(super) fn stop() {
    let _ = kill_current_process_group(Signal::STOP);
}
