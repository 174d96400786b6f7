//! What is told of an action: its name, title, keys and place. Keys, help, hints, palette, manual and documentation come from it.

use super::app::Model;
use super::message::Command;
use super::screens::Screen;

/// One thing that a user can do.
#[derive(Debug)]
pub struct ActionInfo {
    /// Its name in keymap files, such as `runs.pause`; unique.
    pub id: &'static str,
    /// In words, as the imperative: `Pause the run after its step`.
    pub title: &'static str,
    /// One or two words for the bottom line; empty: it is not shown there.
    pub hint: &'static str,
    /// The keys of the table; a keymap file may give others.
    pub keys: &'static [&'static str],
    /// Where it works.
    pub place: Place,
    /// Other words for it, which find it in the palette before anything else.
    pub aliases: &'static [&'static str],
    /// Whether text is typed once it has begun. Where it cannot begin, the keys that follow must not be taken for commands.
    pub asks: bool,
}

/// Where an action works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On every screen.
    Everywhere,
    On(Screen),
    /// In one pane of a screen, while it has the focus.
    In(Screen, &'static str),
}

/// An action on the whole model.
#[derive(Debug)]
pub struct Action {
    pub info: ActionInfo,
    /// Why it cannot be done now.
    pub blocked: fn(&Model) -> Option<String>,
    /// Does it.
    pub perform: fn(&mut Model) -> Vec<Command>,
}

impl Action {
    /// An action that can always be done.
    pub const fn new(
        id: &'static str,
        title: &'static str,
        hint: &'static str,
        keys: &'static [&'static str],
        place: Place,
        perform: fn(&mut Model) -> Vec<Command>,
    ) -> Self {
        Self { info: ActionInfo { id, title, hint, keys, place, aliases: &[], asks: false }, blocked: |_| None, perform }
    }

    /// The same, found by other words too.
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { info: ActionInfo { aliases, ..self.info }, ..self }
    }

    /// The same, with text typed into it.
    pub const fn asking(self) -> Self {
        Self { info: ActionInfo { asks: true, ..self.info }, ..self }
    }

    /// The same, blocked where `why` says a sentence.
    pub const fn unless(self, why: fn(&Model) -> Option<String>) -> Self {
        Self { blocked: why, ..self }
    }
}
