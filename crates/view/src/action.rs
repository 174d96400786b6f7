//! The description of an action, from which keys, help, hints, palette, manual and documentation are made.

use super::screens::Screen;

#[derive(Debug)]
pub struct ActionInfo {
    /// The name in keymap files, such as `runs.pause`; unique.
    pub id: &'static str,
    /// The title, an imperative such as `Pause run`.
    pub title: &'static str,
    /// One or two words for the bottom line; empty if it is not shown there.
    pub hint: &'static str,
    /// The default keys; a keymap file may replace them.
    pub keys: &'static [&'static str],
    pub scope: Scope,
    /// Aliases that find it in the palette before anything else.
    pub aliases: &'static [&'static str],
    /// Whether it opens a text field. If it is blocked, the keys that follow must not be taken for commands.
    pub asks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Global,
    /// Works in the focused pane, whichever that is. Any other action may use its keys.
    Movement,
    Screen(Screen),
    /// Works while that pane of the screen has the focus.
    Pane(Screen, &'static str),
}
