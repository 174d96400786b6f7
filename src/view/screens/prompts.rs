//! Screen: what the model is asked. All prompt rows as a table, the selected one as the model sees it, editing, and the health of the sets.

mod actions;
mod draw;
mod layout;
mod messages_text;
mod preview;
mod recovery;
mod row_editor;
mod rows;
mod save;
mod table;
mod token_count;

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use super::{Change, ScreenDef};
use crate::dataset::health::Health;
use crate::task::PromptSet;
use crate::view::app::Model;
use crate::view::drafts;
use crate::view::message::Command;
use crate::view::screens::Screen;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;
pub use layout::{CHAT, EDITOR, HEALTH, ROWS};
pub use preview::Chat;
pub use row_editor::{Editing, What};
pub use rows::{Column, Entry};
pub use token_count::{Counter, UNCOUNTABLE, UNCOUNTED};

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Prompts {
    /// Every row of every set.
    pub entries: Vec<Entry>,
    /// Which of them are shown, in the order of the table.
    pub shown: Vec<u32>,
    /// The cursor of the table.
    pub cursor: Cursor,
    /// What the rows are filtered by.
    pub filter: Field,
    /// Whether the filter is being typed.
    pub filtering: bool,
    /// By which column the table is sorted, and whether backwards.
    pub sort: (Column, bool),
    /// Tokens of each entry.
    pub tokens: Vec<u32>,
    /// What counts tokens, or why nothing does.
    pub counter: Option<Result<Counter, String>>,
    /// The selected row as the model sees it.
    pub chat: Option<Chat>,
    /// The health of the sets, or why it cannot be told.
    pub health: Option<Result<Health, String>>,
    pub finding: Cursor,
    /// What is being written.
    pub editing: Option<Editing>,
    /// The model whose tokenizer counts; the task's base model where none was named.
    pub model: Option<String>,
    pane: Option<&'static str>,
    /// Whether the rows as they are now are counted, or about to be.
    is_counted: bool,
    chat_top: usize,
    /// The row to select once the task has been read again.
    wanted: Option<(PromptSet, usize)>,
}

pub const PARTS: ScreenDef = ScreenDef {
    title: "Prompts",
    help: "Prompt sets: every row, and the selected row exactly as the model sees it.",
    panes: &layout::PANES,
    actions: actions::ACTIONS,
    pane: |model| layout::pane(model),
    focus: |model, pane| model.prompts.pane = Some(pane),
    is_typing: |model| model.prompts.filtering || model.prompts.editing.is_some(),
    takes_tab: |model| model.prompts.editing.is_some(),
    typed,
    pasted,
    mouse,
    opens: |model, (column, row)| layout::pane_at(model, column, row).is_some_and(|(pane, area)| pane != CHAT && row > area.y),
    entered,
    changed,
    draw: draw::draw,
};

/// Rows are counted and checked once somebody looks.
fn entered(model: &mut Model) -> Vec<Command> {
    if model.prompts.is_counted || model.shared.task.is_none() {
        return Vec::new();
    }
    model.prompts.is_counted = true;
    token_count::count(model)
}

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    match change {
        Change::Task => {
            let mut commands = park_draft(model);
            commands.extend(rows::read_again(model));
            commands.extend(row_editor::follow_task(model));
            commands.extend(drafts::look::<Prompts>(model));
            model.prompts.is_counted = false;
            if model.shared.screen == Screen::Prompts {
                commands.extend(entered(model));
                commands.extend(preview::show(model));
            }
            commands
        }
        Change::File(path) if is_of_task(model, path) => {
            let folder = model.shared.task.as_ref().and_then(|open| open.task.folder()).map(|folder| folder.display().to_string());
            model.prompts.wanted = rows::selected_place(model);
            crate::view::shared::open_task(&model.shared, folder)
        }
        Change::Schema => {
            row_editor::check(model);
            Vec::new()
        }
        Change::Second => drafts::store::<Prompts>(model),
        _ => Vec::new(),
    }
}

/// Where another task is open now, what was written of the one before is put aside.
fn park_draft(model: &mut Model) -> Vec<Command> {
    let Some(open) = &model.shared.task else { return Vec::new() };
    if model.prompts.editing.as_ref().is_none_or(|editing| editing.file.is_of(&open.task)) {
        return Vec::new();
    }
    let commands = drafts::park::<Prompts>(model);
    model.prompts.editing = None;
    commands
}

/// Whether an external editor has written a file that this screen shows.
fn is_of_task(model: &Model, path: &std::path::Path) -> bool {
    let Some(open) = &model.shared.task else { return false };
    let Some(folder) = open.task.folder() else { return false };
    let sets = PromptSet::ALL.into_iter().filter_map(|set| open.task.set_file(set));
    sets.chain([crate::task::TASK_FILE]).any(|file| folder.join(file) == path)
}

fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if model.prompts.editing.is_some() {
        return row_editor::key(model, event);
    }
    if model.prompts.filtering {
        return match event.code {
            KeyCode::Enter | KeyCode::Down | KeyCode::Up => {
                model.prompts.filtering = false;
                Vec::new()
            }
            _ if model.prompts.filter.key(event) => rows::arrange(model),
            _ => Vec::new(),
        };
    }
    let page = layout::page(model);
    match layout::pane(model) {
        ROWS => {
            let length = model.prompts.shown.len();
            if model.prompts.cursor.key(event, page, length) { preview::show(model) } else { Vec::new() }
        }
        CHAT => {
            let mut top = Cursor { index: model.prompts.chat_top };
            let length = preview::length(model);
            top.key(event, page, length);
            model.prompts.chat_top = top.at(length).unwrap_or(0);
            Vec::new()
        }
        _ => {
            let length = table::findings(model).len();
            model.prompts.finding.key(event, page, length);
            Vec::new()
        }
    }
}

fn pasted(model: &mut Model, text: &str) -> Vec<Command> {
    if model.prompts.editing.is_some() {
        return row_editor::paste(model, text);
    }
    if model.prompts.filtering {
        model.prompts.filter.paste(text);
        return rows::arrange(model);
    }
    Vec::new()
}

fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let Some((pane, area)) = layout::pane_at(model, event.column, event.row) else { return Vec::new() };
    let by: isize = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(MouseButton::Left) => return clicked(model, pane, area, event),
        _ => return Vec::new(),
    };
    match pane {
        EDITOR => row_editor::scroll(model, by),
        ROWS => {
            let length = model.prompts.shown.len();
            model.prompts.cursor.go(by, length);
            return preview::show(model);
        }
        CHAT => {
            let last = preview::length(model).saturating_sub(1);
            model.prompts.chat_top = model.prompts.chat_top.saturating_add_signed(by).min(last);
        }
        _ => {
            let length = table::findings(model).len();
            model.prompts.finding.go(by, length);
        }
    }
    Vec::new()
}

fn clicked(model: &mut Model, pane: &'static str, area: ratatui::layout::Rect, event: MouseEvent) -> Vec<Command> {
    if pane == EDITOR {
        row_editor::click(model, area, event);
        return Vec::new();
    }
    model.prompts.pane = Some(pane);
    model.prompts.filtering = false;
    if pane != ROWS {
        return Vec::new();
    }
    let top = area.y + 1 + table::heading_rows(model);
    if let Some(at) = event.column.checked_sub(area.x + 1).filter(|_| event.row + 1 == top) {
        let (column, backwards) = model.prompts.sort;
        let clicked = table::title_at(area.width.saturating_sub(2) as usize, at as usize);
        model.prompts.sort = (clicked, clicked == column && !backwards);
        return rows::arrange(model);
    }
    let rows = layout::table_rows(model, area);
    let length = model.prompts.shown.len();
    if let Some(row) = event.row.checked_sub(top).map(usize::from).filter(|row| *row < rows) {
        model.prompts.cursor.index = (model.prompts.cursor.first(rows, length) + row).min(length.saturating_sub(1));
        return preview::show(model);
    }
    Vec::new()
}
