//! Sentences for the user: the latest is shown in the bottom line for a while, all of them are kept.

use ratatui::text::{Line, Span};

use super::role::Role;
use super::theme::Theme;

/// How long a sentence stays in the bottom line, milliseconds; a complaint stays until the next key.
const SHOWN_MS: u64 = 5_000;
const KEPT: usize = 200;

/// One sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The sentence.
    pub text: String,
    /// Whether something went wrong.
    pub is_complaint: bool,
}

/// All of this session's.
#[derive(Debug, Default)]
pub struct Notices {
    all: Vec<Notice>,
    dismissed: usize,
}

impl Notices {
    /// Something that went as it should.
    pub fn say(&mut self, time_ms: u64, text: String) {
        self.push(Notice { time_ms, text, is_complaint: false });
    }

    /// Something that went wrong.
    pub fn complain(&mut self, time_ms: u64, text: String) {
        self.push(Notice { time_ms, text, is_complaint: true });
    }

    fn push(&mut self, notice: Notice) {
        if self.all.len() == KEPT {
            self.all.remove(0);
            self.dismissed = self.dismissed.saturating_sub(1);
        }
        self.all.push(notice);
    }

    /// What the bottom line shows at this time.
    pub fn shown(&self, now_ms: u64) -> Option<&Notice> {
        let last = self.all.last().filter(|_| self.dismissed < self.all.len())?;
        (last.is_complaint || now_ms.saturating_sub(last.time_ms) < SHOWN_MS).then_some(last)
    }

    /// The user has seen it.
    pub fn dismiss(&mut self) {
        self.dismissed = self.all.len();
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> &[Notice] {
        &self.all
    }
}

/// A sentence as a line: with its time of day, and a mark where something went wrong.
pub fn line(theme: &Theme, notice: &Notice) -> Line<'static> {
    let role = if notice.is_complaint { Role::Bad } else { Role::Text };
    let mark = if notice.is_complaint { theme.glyph("✗ ", "x ") } else { "" };
    Line::from(vec![
        Span::styled(super::clock(notice.time_ms), theme.style(Role::Faint)),
        Span::styled(format!("  {mark}{}", notice.text), theme.style(role)),
    ])
}
