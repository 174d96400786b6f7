//! The table of actions: what can be done, by which key, where, and why not now. Keys, help, hints, palette, manual and documentation come from it.

use super::message::Command;
use super::model::{Model, Screen};
use super::screens;

/// One thing that a user can do.
#[derive(Debug)]
pub struct Action {
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
    /// Why it cannot be done now.
    pub blocked: fn(&Model) -> Option<String>,
    /// Does it.
    pub perform: fn(&mut Model) -> Vec<Command>,
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
        Self { id, title, hint, keys, place, blocked: |_| None, perform, aliases: &[], asks: false }
    }

    /// The same, found by other words too.
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// The same, with text typed into it.
    pub const fn asking(self) -> Self {
        Self { asks: true, ..self }
    }

    /// The same, blocked where `why` says a sentence.
    pub const fn unless(self, why: fn(&Model) -> Option<String>) -> Self {
        Self { blocked: why, ..self }
    }

    /// Whether its keys count now, where the focus is.
    pub fn is_here(&self, model: &Model) -> bool {
        match self.place {
            Place::Everywhere => true,
            Place::On(screen) => screen == model.shared.screen,
            Place::In(screen, pane) => screen == model.shared.screen && pane == screens::of(screen).pane_of(model),
        }
    }
}

/// Every action: those of the focused pane first, then the screen's, then the program's.
pub fn all() -> impl Iterator<Item = &'static Action> {
    screens::ALL.iter().flat_map(|screen| screen.actions.iter()).chain(super::global_actions::ACTIONS)
}

/// The action of that name.
pub fn find(id: &str) -> Option<&'static Action> {
    all().find(|action| action.id == id)
}

/// What can be done here, the nearest first: pane, screen, everywhere.
pub fn here(model: &Model) -> Vec<&'static Action> {
    let mut found: Vec<&Action> = all().filter(|action| action.is_here(model)).collect();
    found.sort_by_key(|action| match action.place {
        Place::In(..) => 0,
        Place::On(_) => 1,
        Place::Everywhere => 2,
    });
    found
}
