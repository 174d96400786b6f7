//! Sentences for the user: the latest is shown in the bottom line for a while, all of them are kept.

use ratatui::text::{Line, Span};

use super::style_role::Role;
use super::theme::Theme;

/// How long a sentence stays in the bottom line, milliseconds; a warning and a complaint stay until the next key.
const SHOWN_MS: u64 = 5_000;
const KEPT: usize = 200;

/// What a sentence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something went as it should.
    Done,
    /// Something to look at.
    Warning,
    /// Something went wrong.
    Complaint,
}

impl Level {
    /// How it is told apart, with and without colour.
    pub fn look(self, theme: &Theme) -> (&'static str, Role) {
        match self {
            Self::Done => (theme.glyph("✓", "."), Role::Good),
            Self::Warning => (theme.glyph("▲", "!"), Role::Warning),
            Self::Complaint => (theme.glyph("✗", "x"), Role::Bad),
        }
    }
}

/// One sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The sentence.
    pub text: String,
    pub level: Level,
}

/// All of this session's.
#[derive(Debug, Default)]
pub struct Notices {
    all: Vec<Notice>,
    dismissed: usize,
}

impl Notices {
    pub fn add(&mut self, time_ms: u64, level: Level, text: String) {
        if self.all.len() == KEPT {
            self.all.remove(0);
            self.dismissed = self.dismissed.saturating_sub(1);
        }
        self.all.push(Notice { time_ms, text, level });
    }

    /// What the bottom line shows at this time.
    pub fn shown(&self, now_ms: u64) -> Option<&Notice> {
        let last = self.all.last().filter(|_| self.dismissed < self.all.len())?;
        (last.level != Level::Done || now_ms.saturating_sub(last.time_ms) < SHOWN_MS).then_some(last)
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
    let (mark, role) = match notice.level {
        Level::Done => (String::new(), Role::Text),
        level => (format!("{} ", level.look(theme).0), level.look(theme).1),
    };
    Line::from(vec![
        Span::styled(crate::format::clock(notice.time_ms), theme.style(Role::Faint)),
        Span::styled(format!("  {mark}{}", notice.text), theme.style(role)),
    ])
}
