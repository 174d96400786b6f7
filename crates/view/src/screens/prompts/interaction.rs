//! What the prompts screen does with keys and the mouse.

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::actions::{on_change, on_show};
use super::rows::arrange;
use super::{CHAT, EDITOR, FORM, Prompts, ROWS, draw, form, layout, preview, row_editor, table};
use crate::message::{Change, Command};
use crate::screen::{self, Screen as _};
use crate::shared::Shared;

impl screen::Screen for Prompts {
    fn pane(&self) -> &'static str {
        match (&self.form, &self.editing) {
            (Some(_), _) => FORM,
            (_, Some(_)) => EDITOR,
            _ => self.pane.unwrap_or(ROWS),
        }
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        self.pane = Some(pane);
    }

    fn draw(&self, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
        draw::draw(self, shared, frame, area);
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing || self.editing.is_some() || self.form.is_some()
    }

    fn takes_tab(&self) -> bool {
        self.editing.is_some() || self.form.is_some()
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
        layout::pane_at(self, shared, column, row).is_some_and(|(pane, area)| pane != CHAT && row > area.y)
    }

    fn on_show(&mut self, shared: &mut Shared) -> Vec<Command> {
        on_show(self, shared)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

fn on_key(prompts: &mut Prompts, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    if prompts.form.is_some() {
        return form::key(prompts, shared, event);
    }
    if prompts.editing.is_some() {
        return row_editor::key(prompts, shared, event);
    }
    if prompts.filter.is_typing {
        return if prompts.filter.key(event) { arrange(prompts, shared) } else { Vec::new() };
    }
    let page = layout::page(prompts, shared);
    match prompts.pane() {
        ROWS => {
            let length = prompts.shown.len();
            if prompts.cursor.key(event, page, length) { preview::show(prompts, shared) } else { Vec::new() }
        }
        CHAT => {
            let length = table::chat_lines(prompts, shared).len();
            prompts.chat_top.key(event, page, length);
            Vec::new()
        }
        _ => {
            let length = prompts.groups.len();
            prompts.finding.key(event, page, length);
            Vec::new()
        }
    }
}

fn on_paste(prompts: &mut Prompts, shared: &mut Shared, text: &str) -> Vec<Command> {
    if prompts.form.is_some() {
        return form::paste(prompts, shared, text);
    }
    if prompts.editing.is_some() {
        return row_editor::paste(prompts, shared, text);
    }
    if prompts.filter.paste(text) { arrange(prompts, shared) } else { Vec::new() }
}

fn mouse(prompts: &mut Prompts, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    if matches!(event.kind, MouseEventKind::Drag(MouseButton::Left)) {
        return row_editor::point(prompts, shared, event);
    }
    let Some((pane, area)) = layout::pane_at(prompts, shared, event.column, event.row) else { return Vec::new() };
    let by: isize = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(MouseButton::Left) => return clicked(prompts, shared, pane, area, event),
        _ => return Vec::new(),
    };
    match pane {
        FORM => {}
        EDITOR => row_editor::scroll(prompts, shared, by),
        ROWS => {
            let length = prompts.shown.len();
            prompts.cursor.go(by, length);
            return preview::show(prompts, shared);
        }
        CHAT => {
            let length = table::chat_lines(prompts, shared).len();
            prompts.chat_top.go(by, length);
        }
        _ => {
            let length = prompts.groups.len();
            prompts.finding.go(by, length);
        }
    }
    Vec::new()
}

fn clicked(
    prompts: &mut Prompts,
    shared: &mut Shared,
    pane: &'static str,
    area: ratatui::layout::Rect,
    event: MouseEvent,
) -> Vec<Command> {
    if pane == FORM {
        form::click(prompts, area, event.row);
        return Vec::new();
    }
    if pane == EDITOR {
        return row_editor::point(prompts, shared, event);
    }
    prompts.pane = Some(pane);
    prompts.filter.is_typing = false;
    if pane != ROWS {
        return Vec::new();
    }
    let top = area.y + 1 + table::heading_rows(prompts, shared);
    if let Some(at) = event.column.checked_sub(area.x + 1).filter(|_| event.row + 1 == top) {
        let (column, backwards) = prompts.sort;
        let clicked = table::title_at(area.width.saturating_sub(2) as usize, at as usize);
        prompts.sort = (clicked, clicked == column && !backwards);
        return arrange(prompts, shared);
    }
    let rows = layout::table_rows(prompts, shared, area);
    let length = prompts.shown.len();
    if let Some(row) = event.row.checked_sub(top).and_then(|line| prompts.cursor.row_at(line as usize, rows, length)) {
        prompts.cursor.index = row;
        return preview::show(prompts, shared);
    }
    Vec::new()
}
