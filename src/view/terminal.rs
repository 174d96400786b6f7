//! The terminal: raw mode and the other screen while the view runs, and as it was before whenever it leaves, however that comes about.

use std::io::{self, Write};

use crossterm::event::{DisableBracketedPaste, DisableFocusChange, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};

/// The terminal in the view's hands until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Take the terminal; a panic gives it back before it is told.
    ///
    /// # Errors
    /// Where standard output is no terminal.
    pub(super) fn take() -> io::Result<Self> {
        enter()?;
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            told(panic);
        }));
        Ok(Self(()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Raw mode, the other screen, mouse and pasting.
pub(super) fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture, EnableBracketedPaste, cursor::Hide)
}

/// Everything as it was; what cannot be restored is let be.
pub(super) fn leave() {
    let _ = execute!(io::stdout(), DisableFocusChange, DisableBracketedPaste, DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
}
