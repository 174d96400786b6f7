//! What the schema screen does with keys and the mouse.

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::actions::{after, focus, on_change, on_show};
use super::completion::Completion;
use super::{EDITOR, OUTLINE, PANES, Schema, draw, layout, navigate, outline_pane, side_panes};
use crate::message::{Change, Command};
use crate::screen;
use crate::shared::Shared;
use crate::widgets::editor::Effect;
use crate::widgets::list_cursor::Cursor;

/// Rows of a page in the side panes; the page keys keep one line in view.
const PAGE_ROWS: usize = 11;

impl screen::Screen for Schema {
    fn pane(&self) -> &'static str {
        self.pane
    }

    fn focus(&mut self, shared: &mut Shared, pane: &'static str) {
        focus(self, shared, pane);
    }

    fn draw(&self, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
        draw::draw(self, shared, frame, area);
    }

    fn is_typing(&self) -> bool {
        self.typing && self.pane == EDITOR
    }

    fn takes_tab(&self) -> bool {
        self.is_typing()
    }

    fn on_key(&mut self, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
        on_key(self, shared, event)
    }

    fn on_paste(&mut self, shared: &mut Shared, text: &str) -> Vec<Command> {
        on_paste(self, shared, text)
    }

    fn mouse(&mut self, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
        mouse(self, shared, event)
    }

    fn opens(&self, shared: &Shared, (column, row): (u16, u16)) -> bool {
        layout::pane_at(self, shared, column, row).is_some_and(|(pane, _)| pane == EDITOR || pane == OUTLINE)
    }

    fn on_show(&mut self, shared: &mut Shared) -> Vec<Command> {
        on_show(self, shared)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

fn on_key(schema: &mut Schema, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let window = layout::window(schema, shared);
    if schema.pane != EDITOR {
        let pane = schema.pane;
        scroll(schema, shared, pane, |top, length| _ = top.key(event, PAGE_ROWS, length));
        return Vec::new();
    }
    if schema.typing {
        return type_key(schema, shared, event);
    }
    let editor = &mut schema.editor;
    // Outside of typing letters move, and nothing changes the text.
    let (_, column) = editor.cursor();
    let code = match event.code {
        KeyCode::Char('j') => KeyCode::Down,
        KeyCode::Char('k') => KeyCode::Up,
        KeyCode::Char('h') => KeyCode::Left,
        KeyCode::Char('l') => KeyCode::Right,
        KeyCode::Char('g' | 'G') => {
            let row = if event.code == KeyCode::Char('g') { 0 } else { editor.lines().len().saturating_sub(1) };
            navigate::jump(schema, shared, (row, column));
            return Vec::new();
        }
        code => code,
    };
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
    let effect = if moves.contains(&code) {
        editor.key(KeyEvent::new(code, event.modifiers), window, shared.now_ms)
    } else {
        Effect::None
    };
    after(schema, shared, effect)
}

/// A key while typing: chooses from the open list of completions, else edits, which may open one.
fn type_key(schema: &mut Schema, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    if let Some(mut completion) = schema.completion.take() {
        if completion.moves(event) {
            schema.completion = Some(completion);
            return Vec::new();
        }
        if matches!(event.code, KeyCode::Tab | KeyCode::Enter) && event.modifiers.is_empty() {
            completion.accept(&mut schema.editor);
            let commands = after(schema, shared, Effect::Edited);
            schema.completion = Completion::at_cursor(&schema.editor, &schema.structure, false);
            return commands;
        }
    }
    let window = layout::window(schema, shared);
    let effect = schema.editor.key(event, window, shared.now_ms);
    let commands = after(schema, shared, effect);
    if effect == Effect::Edited && matches!(event.code, KeyCode::Char(_) | KeyCode::Backspace) {
        schema.completion = Completion::at_cursor(&schema.editor, &schema.structure, false);
    }
    commands
}

fn scroll(schema: &mut Schema, shared: &mut Shared, pane: &'static str, go: impl FnOnce(&mut Cursor, usize)) {
    if pane == OUTLINE {
        return go(&mut schema.outline, shared.draft.outline.len());
    }
    let length = side_panes::lines(schema, shared, pane).len();
    if let Some(top) = PANES.iter().position(|other| *other == pane).and_then(|place| schema.tops.get_mut(place)) {
        go(top, length);
    }
}

fn on_paste(schema: &mut Schema, shared: &mut Shared, text: &str) -> Vec<Command> {
    if !schema.typing {
        shared.complain(format!("press {} to edit, then paste", shared.key_of("schema.type")));
        return Vec::new();
    }
    schema.completion = None;
    let effect = schema.editor.paste(text);
    after(schema, shared, effect)
}

fn mouse(schema: &mut Schema, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    if matches!(event.kind, MouseEventKind::Drag(MouseButton::Left)) {
        if schema.pane == EDITOR {
            point(schema, shared, event);
        }
        return Vec::new();
    }
    let Some((pane, _)) = layout::pane_at(schema, shared, event.column, event.row) else { return Vec::new() };
    let by = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(MouseButton::Left) => {
            if pane != schema.pane {
                focus(schema, shared, pane);
            }
            schema.completion = None;
            match outline_pane::entry_at(schema, shared, event.row).filter(|_| pane == OUTLINE) {
                Some(entry) => schema.outline.index = entry,
                None if pane == EDITOR => point(schema, shared, event),
                None => {}
            }
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    if pane == EDITOR {
        let window = layout::window(schema, shared);
        schema.editor.scroll(by, window);
    } else {
        scroll(schema, shared, pane, |top, length| top.go(by, length));
    }
    Vec::new()
}

/// Moves the cursor under the pointer; dragging selects.
fn point(schema: &mut Schema, shared: &Shared, event: MouseEvent) {
    let (area, wraps) = (layout::editor(schema, shared), shared.wraps(&schema.editor));
    schema.editor.pointer(event, area, wraps);
}
