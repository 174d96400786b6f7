//! What a screen is: its table of actions, its keys and its drawing.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::{ActionInfo, Scope};
use super::message::{Change, Command};
use super::pane::content::{Content, Hit, Place};
use super::pane::draw::draw;
use super::pane::lines::{PaneLines, lines};
use super::shared::Shared;
use super::widgets::editor::{Editor, Effect};
use super::widgets::filter::TextField;
use super::widgets::list_cursor::{Cursor, Motion};

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
    pub const fn new(
        id: &'static str,
        title: &'static str,
        hint: &'static str,
        keys: &'static [&'static str],
        scope: Scope,
        perform: fn(&mut X, &mut Shared) -> Vec<Command>,
    ) -> Self {
        Self {
            info: ActionInfo {
                id,
                title,
                hint,
                keys,
                scope,
                aliases: &[],
                asks: false,
            },
            blocked: |_, _| None,
            hint: |_, _| None,
            perform,
        }
    }

    pub const fn hint(self, hint: &'static str) -> Self {
        Self {
            info: ActionInfo { hint, ..self.info },
            ..self
        }
    }

    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self {
            info: ActionInfo {
                aliases,
                ..self.info
            },
            ..self
        }
    }

    pub const fn asking(self) -> Self {
        Self {
            info: ActionInfo {
                asks: true,
                ..self.info
            },
            ..self
        }
    }

    pub const fn hinting(self, hint: fn(&X, &Shared) -> Option<&'static str>) -> Self {
        Self { hint, ..self }
    }

    pub const fn unless(self, why: fn(&X, &Shared) -> Option<String>) -> Self {
        Self {
            blocked: why,
            ..self
        }
    }
}

/// What is known of a screen without its state.
#[derive(Debug)]
pub struct About {
    pub title: &'static str,
    /// What the screen is for, in a sentence or two; the head of its help.
    pub help: &'static str,
    /// Its panes in tab order, by their titles.
    pub panes: &'static [&'static str],
}

pub trait Described: Sized + 'static {
    const ABOUT: &'static About;
    const TABLE: &'static [Action<Self>];
}

/// What follows from a screen's constants.
pub trait Actions {
    fn about(&self) -> &'static About;
    fn blocked(&self, shared: &Shared, id: &str) -> Option<String>;
    /// What an action does now, for the bottom line; `None`: the usual hint.
    fn hint(&self, shared: &Shared, id: &str) -> Option<&'static str>;
    /// Executes an action without checking whether it is blocked.
    fn perform(&mut self, shared: &mut Shared, id: &str) -> Vec<Command>;
}

fn action<X: Described>(id: &str) -> Option<&'static Action<X>> {
    X::TABLE.iter().find(|action| action.info.id == id)
}

impl<X: Described> Actions for X {
    fn about(&self) -> &'static About {
        X::ABOUT
    }

    fn blocked(&self, shared: &Shared, id: &str) -> Option<String> {
        (action::<X>(id)?.blocked)(self, shared)
    }

    fn hint(&self, shared: &Shared, id: &str) -> Option<&'static str> {
        (action::<X>(id)?.hint)(self, shared)
    }

    fn perform(&mut self, shared: &mut Shared, id: &str) -> Vec<Command> {
        action(id).map_or_else(Vec::new, |action| (action.perform)(self, shared))
    }
}

/// A screen: its state, and what the rest of the view asks of it.
pub trait Screen: Actions {
    fn pane(&self) -> &'static str;
    fn focus(&mut self, shared: &mut Shared, pane: &'static str);

    /// What the header names in place of the open run and its task, the longest version first; `None`: those.
    fn shown_instead(&self) -> Option<Vec<String>> {
        None
    }

    fn places(&self, _: &Shared, _: Rect) -> Vec<Place> {
        Vec::new()
    }

    fn content<'a>(&'a self, _: &'a Shared, _: &Place) -> Content<'a> {
        Content::default()
    }

    /// The cursor of a list, or the first visible line of a text.
    fn cursor(&mut self, _: &str) -> Option<&mut Cursor> {
        None
    }

    /// A movement in a pane where it does something else than to move a cursor.
    fn on_motion(&mut self, _: &mut Shared, _: &str, _: Motion) -> Option<Vec<Command>> {
        None
    }

    /// After a pane's cursor moved.
    fn moved(&mut self, _: &mut Shared, _: &str) -> Vec<Command> {
        Vec::new()
    }

    /// After a click on the title of a column, by its number.
    fn sort_by(&mut self, _: &mut Shared, _: &Place, _: usize) -> Vec<Command> {
        Vec::new()
    }

    /// The mouse where it does something else than to focus, select, sort and scroll.
    fn pointed(&mut self, _: &mut Shared, _: &Hit, _: MouseEvent) -> Option<Vec<Command>> {
        None
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        None
    }

    /// After its text changed.
    fn typed(&mut self, _: &mut Shared) -> Vec<Command> {
        Vec::new()
    }

    fn editor(&mut self, _: &Shared) -> Option<&mut Editor> {
        None
    }

    /// After its text changed, or its cursor moved.
    fn edited(&mut self, _: &mut Shared, _: Effect) -> Vec<Command> {
        Vec::new()
    }

    fn draw(&self, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
        for place in self.places(shared, area) {
            let content = self.content(shared, &place);
            draw(
                &shared.theme,
                frame,
                &place,
                self.has_focus(&place),
                content,
            );
        }
    }

    /// The visible lines of each pane in reading order, after the text without a frame.
    fn lines(&self, shared: &Shared, area: Rect) -> Vec<PaneLines> {
        let mut places = self.places(shared, area);
        places.sort_by_key(|place| (place.is_framed, place.area.y, place.area.x));
        let lines = |place: &Place| {
            lines(
                &shared.theme,
                place,
                self.has_focus(place),
                &self.content(shared, place),
            )
        };
        places.iter().map(lines).collect()
    }

    fn has_focus(&self, place: &Place) -> bool {
        place.id == self.pane() && place.part == 0
    }

    /// Whether a text field has the focus, which takes all plain keys.
    fn is_typing(&self) -> bool {
        false
    }

    /// Ends typing where that is a mode of a pane, as another screen is shown. What is open stays open.
    fn stop_typing(&mut self) {}

    /// Whether a multi-line editor has the focus: there tab is text.
    fn takes_tab(&self) -> bool {
        false
    }

    /// Whether `backtab` goes to the field before, in a form.
    fn takes_backtab(&self) -> bool {
        false
    }

    /// A key without an action, before the field and the editor get it; `None` if they are to have it.
    fn on_key(&mut self, _: &mut Shared, _: KeyEvent) -> Option<Vec<Command>> {
        None
    }

    /// Text from the clipboard, where nothing is typed.
    fn on_paste(&mut self, _: &mut Shared, _: &str) -> Vec<Command> {
        Vec::new()
    }

    /// Called after a change of shared state, also while another screen is in front.
    fn on_change(&mut self, _: &mut Shared, _: &Change) -> Vec<Command> {
        Vec::new()
    }
}
