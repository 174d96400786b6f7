//! Notices for the user: the latest is shown in the bottom line for a while, all of them in the log of messages; and the
//! log of commands.

use super::message::Command;
use super::popup::{Pick, PickEntry};
use super::style_role::Role;

/// How long a notice stays in the bottom line, milliseconds; a warning or an error stays until the next key.
const SHOWN_MS: u64 = 5_000;
const KEPT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Done,
    Warning,
    Complaint,
}

impl Level {
    pub fn look(self) -> (&'static str, Role) {
        match self {
            Self::Done => ("✓", Role::Good),
            Self::Warning => ("▲", Role::Warning),
            Self::Complaint => ("✗", Role::Bad),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub text: String,
    pub level: Level,
}

#[derive(Debug, Default)]
pub struct Notices {
    all: Vec<Notice>,
    /// How many there were so far.
    total: usize,
    /// The same when they were dismissed.
    dismissed: usize,
}

impl Notices {
    pub fn add(&mut self, time_ms: u64, level: Level, text: String) {
        if self.all.len() == KEPT {
            self.all.remove(0);
        }
        self.total += 1;
        self.all.push(Notice {
            time_ms,
            text,
            level,
        });
    }

    pub fn shown(&self, now_ms: u64) -> Option<&Notice> {
        let last = self.all.last().filter(|_| self.dismissed < self.total)?;
        (last.level != Level::Done || now_ms.saturating_sub(last.time_ms) < SHOWN_MS)
            .then_some(last)
    }

    /// How many warnings and errors came since the last key.
    pub fn unread(&self) -> usize {
        self.since(self.dismissed)
            .iter()
            .filter(|notice| notice.level != Level::Done)
            .count()
    }

    pub fn dismiss(&mut self) {
        self.dismissed = self.total;
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn since(&self, total: usize) -> &[Notice] {
        let new = self.total.saturating_sub(total).min(self.all.len());
        &self.all[self.all.len() - new..]
    }

    pub fn all(&self) -> &[Notice] {
        &self.all
    }
}

pub fn log(title: &str, notices: &Notices) -> Pick {
    let entry = |notice: &Notice| {
        let (mark, role) = match notice.level {
            Level::Done => (String::new(), Role::Text),
            level => (format!("{} ", level.look().0), level.look().1),
        };
        let time = crate::format::clock(notice.time_ms);
        let (label, detail) = (
            format!("{time}  {mark}{}", notice.text),
            notice.text.clone(),
        );
        PickEntry {
            label,
            detail,
            role: Some(role),
            ..PickEntry::default()
        }
    };
    let texts: Vec<String> = notices
        .all
        .iter()
        .rev()
        .map(|notice| notice.text.clone())
        .collect();
    let copy = move |_: &mut (), _: &mut _, index: usize| {
        texts
            .get(index)
            .cloned()
            .map(Command::Copy)
            .into_iter()
            .collect()
    };
    Pick::new(
        format!("{title}: enter copies"),
        notices.all.iter().rev().map(entry).collect(),
        0,
        copy,
    )
}
