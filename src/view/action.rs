//! The description of an action: its name, title, keys and scope. Keys, help, hints, palette, manual and documentation
//! come from it.

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
    pub scope: Scope,
    /// Other words for it, which find it in the palette before anything else.
    pub aliases: &'static [&'static str],
    /// Whether text is typed once it has begun. Where it cannot begin, the keys that follow must not be taken for
    /// commands.
    pub asks: bool,
}

/// Where an action works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On every screen.
    Global,
    Screen(Screen),
    /// In one pane of a screen, while it has the focus.
    Pane(Screen, &'static str),
}
