//! The prompts screen as the rest of the view sees it.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use super::rows::arrange;
use super::table_row::Column;
use super::{
    CHAT, EDITOR, FORM, HEALTH, Prompts, ROWS, draw, form, layout, preview, row_editor, rows,
    table, token_count,
};
use crate::drafts;
use crate::message::{Change, Command};
use crate::pane::content::{Content, Place};
use crate::screen;
use crate::screens::Screen;
use crate::shared::{self, Shared};
use crate::widgets::editor::{Editor, Effect};
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::Cursor;

impl screen::Screen for Prompts {
    fn pane(&self) -> &'static str {
        match (&self.form, &self.editing) {
            (Some(_), _) => FORM,
            (_, Some(_)) => EDITOR,
            _ => self.pane.unwrap_or(ROWS),
        }
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        if [ROWS, CHAT, HEALTH].contains(&pane) {
            (self.pane, self.filter.is_typing) = (Some(pane), false);
        }
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing || self.editing.is_some() || self.form.is_some()
    }

    fn stop_typing(&mut self) {
        self.filter.is_typing = false;
    }

    fn takes_tab(&self) -> bool {
        self.editing.is_some() || self.form.is_some()
    }

    fn takes_backtab(&self) -> bool {
        self.form.is_some()
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        layout::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            ROWS => Some(&mut self.cursor),
            CHAT => Some(&mut self.chat_top),
            HEALTH => Some(&mut self.finding),
            FORM => self.form.as_mut().map(|form| &mut form.cursor),
            _ => None,
        }
    }

    fn moved(&mut self, shared: &mut Shared, pane: &str) -> Vec<Command> {
        if pane == ROWS {
            preview::show(self, shared)
        } else {
            Vec::new()
        }
    }

    fn sort_by(&mut self, shared: &mut Shared, place: &Place, title: usize) -> Vec<Command> {
        let Some(column) = table::column(shared, place.inside().width.into(), title) else {
            return Vec::new();
        };
        self.sort = (column, self.sort == (column, false));
        arrange(self, shared)
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        match &mut self.form {
            Some(form) => form.field(),
            None => self.filter.typed().filter(|_| self.editing.is_none()),
        }
    }

    fn typed(&mut self, shared: &mut Shared) -> Vec<Command> {
        if self.form.is_some() {
            form::typed(self, shared)
        } else {
            arrange(self, shared)
        }
    }

    fn editor(&mut self, shared: &Shared) -> Option<&mut Editor> {
        // Text typed while saving would be lost when the editor closes.
        let editing = self
            .editing
            .as_mut()
            .filter(|_| !shared.is_busy("task.rows") && self.form.is_none())?;
        Some(&mut editing.editor)
    }

    fn edited(&mut self, shared: &mut Shared, effect: Effect) -> Vec<Command> {
        row_editor::changed(self, shared, effect)
    }

    fn on_key(&mut self, shared: &mut Shared, event: KeyEvent) -> Option<Vec<Command>> {
        let completes = event.code == KeyCode::Tab;
        if let Some(commands) = completes.then(|| form::complete(self, shared)).flatten() {
            return Some(commands);
        }
        self.form.as_mut()?.moves(event).then(Vec::new)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

/// Counts the tokens of the rows once the screen is visible.
fn on_show(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    if shared.task.is_none() {
        return Vec::new();
    }
    match std::mem::replace(&mut prompts.is_counted, true) {
        true => Vec::new(),
        false => token_count::count(prompts, shared),
    }
}

fn on_change(prompts: &mut Prompts, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown => on_show(prompts, shared),
        Change::Task => {
            let mut commands = park_draft(prompts, shared);
            commands.extend(rows::read_again(prompts, shared));
            commands.extend(row_editor::follow_task(prompts, shared));
            commands.extend(drafts::look::<Prompts>(shared));
            prompts.is_counted = false;
            if shared.screen == Screen::Prompts {
                commands.extend(on_show(prompts, shared));
                commands.extend(preview::show(prompts, shared));
            }
            commands
        }
        Change::Copied(copy) => drafts::move_to_copy(prompts, shared, copy),
        Change::Files(paths) if paths.iter().any(|path| is_of_task(shared, path)) => {
            let folder = shared
                .task
                .as_ref()
                .and_then(|open| open.task.folder())
                .map(|folder| folder.display().to_string());
            prompts.select_next = prompts.selected_place(shared);
            shared::open_task(shared, folder)
        }
        Change::PromptRow(set, line) => rows::show_line(prompts, shared, *set, *line),
        Change::Schema => {
            row_editor::check(prompts, shared);
            Vec::new()
        }
        Change::Expected => rows::findings_changed(prompts, shared),
        Change::CurrentRun | Change::RunNews if prompts.sort.0 == Column::SolveRate => {
            arrange(prompts, shared)
        }
        Change::Second => drafts::store(prompts, shared),
        _ => Vec::new(),
    }
}

/// After another task was opened, the text being written stays in its draft.
fn park_draft(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = &shared.task else {
        return Vec::new();
    };
    if prompts
        .editing
        .as_ref()
        .is_none_or(|editing| editing.file.is_of(&open.task))
    {
        return Vec::new();
    }
    let commands = drafts::park(prompts, shared);
    prompts.editing = None;
    commands
}

fn is_of_task(shared: &Shared, path: &std::path::Path) -> bool {
    shared
        .task
        .as_ref()
        .is_some_and(|open| open.stamps.iter().any(|(file, _)| file == path))
}
