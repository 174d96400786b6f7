//! One line on stderr that changes.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::output::{eprint_line, is_captured, redraw_line};

/// How often a terminal's line may change, and how often it is printed elsewhere.
const REDRAWN_EVERY: Duration = Duration::from_millis(100);
const PRINTED_EVERY: Duration = Duration::from_secs(5);

/// One line that changes: redrawn in place on a terminal, else printed every few seconds, if it has changed.
#[derive(Debug)]
pub(super) struct StatusLine {
    on_terminal: bool,
    /// Since when the same work is shown; then when its line was.
    shown: Option<Instant>,
    /// The last line; empty: nothing is drawn.
    drawn: String,
}

impl StatusLine {
    pub(super) fn new() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            on_terminal: !is_captured() && std::io::stderr().is_terminal() && !is_dumb,
            shown: None,
            drawn: String::new(),
        }
    }

    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        let every = if self.on_terminal {
            REDRAWN_EVERY
        } else {
            PRINTED_EVERY
        };
        // Elsewhere the first line comes after the first interval: short work prints none.
        let last = *self.shown.get_or_insert_with(|| {
            if self.on_terminal {
                now.checked_sub(every).unwrap_or(now)
            } else {
                now
            }
        });
        if now - last < every {
            return;
        }
        self.shown = Some(now);
        let text = text();
        if self.drawn != text {
            match self.on_terminal {
                true => redraw_line(&text),
                false => eprint_line(&text),
            }
            self.drawn = text;
        }
    }

    /// Clears what is drawn, before other lines.
    pub(super) fn clear(&mut self) {
        if self.on_terminal && !std::mem::take(&mut self.drawn).is_empty() {
            redraw_line("");
        }
    }

    pub(super) fn end(&mut self) {
        self.clear();
        (self.drawn, self.shown) = (String::new(), None);
    }
}
