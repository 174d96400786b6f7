//! The schema screen as the rest of the view sees it.

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::actions::{changed, focus, on_change};
use super::completion::Completion;
use super::{COMPLETIONS, EDITOR, PANES, Schema, draw, layout};
use crate::interaction;
use crate::message::{Change, Command};
use crate::pane::content::{Content, Hit, Place, Spot};
use crate::screen::Screen;
use crate::shared::Shared;
use crate::widgets::editor::{Editor, Effect};
use crate::widgets::list_cursor::Cursor;

impl Screen for Schema {
    fn pane(&self) -> &'static str {
        self.pane
    }

    fn focus(&mut self, shared: &mut Shared, pane: &'static str) {
        if PANES.contains(&pane) && pane != self.pane {
            focus(self, shared, pane);
        }
    }

    fn is_typing(&self) -> bool {
        self.typing && self.pane == EDITOR
    }

    fn stop_typing(&mut self) {
        (self.typing, self.completion) = (false, None);
    }

    fn takes_tab(&self) -> bool {
        self.is_typing()
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        layout::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            COMPLETIONS => self
                .completion
                .as_mut()
                .map(|completion| &mut completion.cursor),
            _ => self
                .tops
                .get_mut(PANES.iter().position(|other| *other == pane)?),
        }
    }

    /// A click on a completion takes it; anywhere else it closes the list.
    fn pointed(
        &mut self,
        shared: &mut Shared,
        hit: &Hit,
        event: MouseEvent,
    ) -> Option<Vec<Command>> {
        if !matches!(event.kind, MouseEventKind::Down(MouseButton::Left)) {
            return None;
        }
        let mut completion = self.completion.take()?;
        let Spot::Item(item) = hit.spot else {
            return None;
        };
        (hit.place.id == COMPLETIONS).then(|| {
            completion.cursor.index = item;
            accept(self, shared, completion)
        })
    }

    fn editor(&mut self, _: &Shared) -> Option<&mut Editor> {
        Some(&mut self.editor)
    }

    /// Typing opens the list of completions, and moving closes it.
    fn edited(&mut self, shared: &mut Shared, effect: Effect) -> Vec<Command> {
        let commands = changed(self, shared, effect);
        let is_open = self.typing && effect == Effect::Edited;
        self.completion = is_open
            .then(|| Completion::at_cursor(&self.editor, &self.structure, false))
            .flatten();
        commands
    }

    fn on_key(&mut self, shared: &mut Shared, event: KeyEvent) -> Option<Vec<Command>> {
        if self.is_typing() {
            type_key(self, shared, event)
        } else {
            Some(read_key(self, shared, event))
        }
    }

    fn on_paste(&mut self, shared: &mut Shared, _: &str) -> Vec<Command> {
        shared.complain(format!(
            "press {} to edit, then paste",
            shared.key_of("schema.type")
        ))
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

/// Handles a key that selects from the open list of completions.
fn type_key(schema: &mut Schema, shared: &mut Shared, event: KeyEvent) -> Option<Vec<Command>> {
    let mut completion = schema.completion.take()?;
    if completion.moves(event) {
        schema.completion = Some(completion);
        return Some(Vec::new());
    }
    let is_taken =
        matches!(event.code, KeyCode::Tab | KeyCode::Enter) && event.modifiers.is_empty();
    is_taken.then(|| accept(schema, shared, completion))
}

fn accept(schema: &mut Schema, shared: &mut Shared, completion: Completion) -> Vec<Command> {
    completion.accept(&mut schema.editor);
    interaction::edited(schema, shared, Effect::Edited)
}

/// Outside of typing keys that move select with shift, and nothing changes the text.
fn read_key(schema: &mut Schema, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let moves = [
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
    ];
    if moves.contains(&event.code) {
        interaction::edit(schema, shared, event)
    } else {
        Vec::new()
    }
}
