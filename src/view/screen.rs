//! What a screen gives to the view: its panes, its table of actions, what it does with keys, and how it is drawn.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::{ActionInfo, Scope};
use super::message::{Change, Command};
use super::shared::Shared;

/// Something that can be done on a screen whose own part of the model is an `X`.
#[derive(Debug)]
pub struct Action<X> {
    /// Its description.
    pub info: ActionInfo,
    /// Why it cannot be done now.
    pub blocked: fn(&X, &Shared) -> Option<String>,
    /// Does it.
    pub perform: fn(&mut X, &mut Shared) -> Vec<Command>,
}

impl<X> Action<X> {
    /// An action that can always be done.
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
            perform,
        }
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
    pub const fn unless(self, why: fn(&X, &Shared) -> Option<String>) -> Self {
        Self { blocked: why, ..self }
    }
}

/// A screen whose own part of the model is an `X`.
#[derive(Debug)]
pub struct Definition<X: 'static> {
    /// In the header.
    pub title: &'static str,
    /// What the screen is for, in a sentence or two; the head of its help.
    pub help: &'static str,
    /// Its panes, in the order of the tab key; names for people.
    pub panes: &'static [&'static str],
    /// Its part of the table of actions.
    pub actions: &'static [Action<X>],
    /// Which of its panes has the focus.
    pub pane: fn(&X) -> &'static str,
    /// Give a pane the focus.
    pub focus: fn(&mut X, &mut Shared, &'static str),
    /// Whether a text field has the focus, which takes all plain keys.
    pub is_typing: fn(&X) -> bool,
    /// Whether an editor of several lines has it: there the tab key, too, is text.
    pub takes_tab: fn(&X) -> bool,
    /// A key that is no action here.
    pub typed: fn(&mut X, &mut Shared, KeyEvent) -> Vec<Command>,
    /// Pasted text.
    pub pasted: fn(&mut X, &mut Shared, &str) -> Vec<Command>,
    /// The mouse below the header.
    pub mouse: fn(&mut X, &mut Shared, MouseEvent) -> Vec<Command>,
    /// Whether a double click at a column and row opens what is under it, as enter does.
    pub opens: fn(&X, &Shared, (u16, u16)) -> bool,
    /// The user came to the screen.
    pub entered: fn(&mut X, &mut Shared) -> Vec<Command>,
    /// Something that screens share has changed; also told while another screen is in front.
    pub changed: fn(&mut X, &mut Shared, &Change) -> Vec<Command>,
    /// Draws the screen. Only reads.
    pub draw: fn(&X, &Shared, &mut Frame<'_>, Rect),
}

impl<X: 'static> Definition<X> {
    /// A screen without panes, text fields or anything of its own; screens name what differs.
    pub const PLAIN: Self = Self {
        title: "",
        help: "",
        panes: &[],
        actions: &[],
        pane: |_| "",
        focus: |_, _, _| {},
        is_typing: |_| false,
        takes_tab: |_| false,
        typed: |_, _, _| Vec::new(),
        pasted: |_, _, _| Vec::new(),
        mouse: |_, _, _| Vec::new(),
        opens: |_, _, _| false,
        entered: |_, _| Vec::new(),
        changed: |_, _, _| Vec::new(),
        draw: |_, _, _, _| {},
    };
}
