//! The definition of a screen: panes, table of actions, keys and drawing.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::{ActionInfo, Scope};
use super::message::{Change, Command};
use super::shared::Shared;

/// An action on a screen with the state `X`.
#[derive(Debug)]
pub struct Action<X> {
    pub info: ActionInfo,
    /// Why it is blocked; `None` if available.
    pub blocked: fn(&X, &Shared) -> Option<String>,
    /// What it does now, for the bottom line; `None`: the usual hint.
    pub hint: fn(&X, &Shared) -> Option<&'static str>,
    pub perform: fn(&mut X, &mut Shared) -> Vec<Command>,
}

impl<X> Action<X> {
    /// An action that is always available.
    pub const fn new(
        id: &'static str,
        title: &'static str,
        hint: &'static str,
        keys: &'static [&'static str],
        scope: Scope,
        perform: fn(&mut X, &mut Shared) -> Vec<Command>,
    ) -> Self {
        Self {
            info: ActionInfo { id, title, hint, keys, scope, aliases: &[], asks: false },
            blocked: |_, _| None,
            hint: |_, _| None,
            perform,
        }
    }

    /// Adds aliases.
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { info: ActionInfo { aliases, ..self.info }, ..self }
    }

    /// Marks it as opening a text field.
    pub const fn asking(self) -> Self {
        Self { info: ActionInfo { asks: true, ..self.info }, ..self }
    }

    /// With another hint while `hint` returns one.
    pub const fn hinting(self, hint: fn(&X, &Shared) -> Option<&'static str>) -> Self {
        Self { hint, ..self }
    }

    /// Blocks it while `why` returns a reason.
    pub const fn unless(self, why: fn(&X, &Shared) -> Option<String>) -> Self {
        Self { blocked: why, ..self }
    }
}

/// A screen with the state `X`.
#[derive(Debug)]
pub struct Definition<X: 'static> {
    /// In the header.
    pub title: &'static str,
    /// What the screen is for, in a sentence or two; the head of its help.
    pub help: &'static str,
    /// Its panes in tab order, by their titles.
    pub panes: &'static [&'static str],
    pub actions: &'static [Action<X>],
    pub pane: fn(&X) -> &'static str,
    pub focus: fn(&mut X, &mut Shared, &'static str),
    /// Whether a text field has the focus, which takes all plain keys.
    pub is_typing: fn(&X) -> bool,
    /// Whether a multi-line editor has the focus: there tab is text.
    pub takes_tab: fn(&X) -> bool,
    /// Handles a key that is not an action.
    pub on_key: fn(&mut X, &mut Shared, KeyEvent) -> Vec<Command>,
    pub on_paste: fn(&mut X, &mut Shared, &str) -> Vec<Command>,
    /// Handles the mouse below the header.
    pub mouse: fn(&mut X, &mut Shared, MouseEvent) -> Vec<Command>,
    /// Whether a double click at a column and row acts as enter.
    pub opens: fn(&X, &Shared, (u16, u16)) -> bool,
    /// Called when the user switches to the screen.
    pub on_show: fn(&mut X, &mut Shared) -> Vec<Command>,
    /// Called after a change of shared state, also while another screen is in front.
    pub on_change: fn(&mut X, &mut Shared, &Change) -> Vec<Command>,
    /// Draws the screen without changing it.
    pub draw: fn(&X, &Shared, &mut Frame<'_>, Rect),
}

impl<X: 'static> Definition<X> {
    /// A screen without panes or text fields; screens override what differs.
    pub const PLAIN: Self = Self {
        title: "",
        help: "",
        panes: &[],
        actions: &[],
        pane: |_| "",
        focus: |_, _, _| {},
        is_typing: |_| false,
        takes_tab: |_| false,
        on_key: |_, _, _| Vec::new(),
        on_paste: |_, _, _| Vec::new(),
        mouse: |_, _, _| Vec::new(),
        opens: |_, _, _| false,
        on_show: |_, _| Vec::new(),
        on_change: |_, _, _| Vec::new(),
        draw: |_, _, _, _| {},
    };
}
