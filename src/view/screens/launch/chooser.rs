//! A list over the form: base models, or tasks. Typing filters it; an unlisted name can be entered.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::{Chooser, ChooserKind, Launch};
use crate::view::fuzzy;
use crate::view::message::Command;
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::list_cursor::Cursor;

/// One line of the list.
#[derive(Debug, Clone)]
pub(super) struct Item {
    value: String,
    shown: String,
    about: String,
    usable: bool,
}

pub(super) fn items(launch: &Launch, chooser: &Chooser) -> Vec<Item> {
    let Some(context) = &launch.context else { return Vec::new() };
    let typed = chooser.field.text().trim();
    let all: Vec<Item> = match chooser.kind {
        ChooserKind::BaseModel => {
            let starts = context.models.iter();
            starts
                .map(|start| Item {
                    value: start.name.clone(),
                    shown: start.shown.clone(),
                    about: start.about.clone(),
                    usable: start.usable,
                })
                .collect()
        }
        ChooserKind::Task => context
            .tasks
            .iter()
            .map(|name| Item { value: name.clone(), shown: name.clone(), about: String::new(), usable: true })
            .collect(),
    };
    let places: Vec<usize> = (0..all.len()).collect();
    let ranked = fuzzy::rank(typed, &places, |place| {
        all.get(*place).map_or_else(String::new, |item| format!("{} {}", item.shown, item.about))
    });
    let mut found: Vec<Item> = ranked.into_iter().filter_map(|place| all.get(place).cloned()).collect();
    if !typed.is_empty() && !all.iter().any(|item| item.value == typed) {
        let about = match chooser.kind {
            ChooserKind::BaseModel => "as typed: folder, Hugging Face name, or RUN@best",
            ChooserKind::Task => "as typed: task name or folder",
        };
        found.push(Item { value: typed.to_owned(), shown: typed.to_owned(), about: about.to_owned(), usable: true });
    }
    found
}

/// Handles a key while the list is open.
pub(super) fn key(launch: &mut Launch, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let Some(mut chooser) = launch.chooser.take() else { return Vec::new() };
    let found = items(launch, &chooser);
    match event.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => match chooser.cursor.at(found.len()).and_then(|at| found.get(at)) {
            Some(item) if item.usable => return take(launch, shared, chooser.kind, item.value.clone()),
            Some(item) => shared.complain(format!("{} {}", item.shown, item.about)),
            None => {}
        },
        KeyCode::Char(_) | KeyCode::Backspace | KeyCode::Delete | KeyCode::Left | KeyCode::Right => {
            if chooser.field.key(event) {
                chooser.cursor = Cursor::default();
            }
        }
        _ => {
            chooser.cursor.key(event, 10, found.len());
        }
    }
    launch.chooser = Some(chooser);
    Vec::new()
}

/// Handles a click: selects a line of the list drawn over an area, or accepts the selected one.
pub(super) fn clicked(launch: &mut Launch, shared: &mut Shared, area: Rect, row: u16) -> Vec<Command> {
    let Some(chooser) = &launch.chooser else { return Vec::new() };
    let found = items(launch, chooser);
    let seen = seen(area.height.saturating_sub(2));
    let line = row.checked_sub(area.y + 2).filter(|_| row + 2 < area.bottom());
    match line.and_then(|line| chooser.cursor.row_at(line as usize / 2, seen, found.len())) {
        Some(index) if chooser.cursor.at(found.len()) == Some(index) => {
            key(launch, shared, KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE))
        }
        Some(index) => {
            if let Some(chooser) = &mut launch.chooser {
                chooser.cursor.index = index;
            }
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// How many items fit into so many rows inside the frame: two lines each, since names can be paths.
fn seen(rows: u16) -> usize {
    (rows.saturating_sub(2) as usize / 2).max(1)
}

fn take(launch: &mut Launch, shared: &mut Shared, what: ChooserKind, value: String) -> Vec<Command> {
    match what {
        ChooserKind::BaseModel => super::set(launch, shared, "base_model", &value),
        ChooserKind::Task => crate::view::shared::open_task(shared, Some(value)),
    }
}

/// Draws the list over an area.
pub(super) fn draw(launch: &Launch, shared: &Shared, chooser: &Chooser, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    frame.render_widget(Clear, area);
    let title = match chooser.kind {
        ChooserKind::BaseModel => "Base model",
        ChooserKind::Task => "Task",
    };
    let inside = framed(theme, title, true, frame, area);
    let columns = inside.width as usize;
    let found = items(launch, chooser);
    let mut lines = vec![chooser.field.line(theme, columns, true)];
    if launch.context.is_none() {
        lines.push(Line::styled("searching ...", theme.style(Role::Faint)));
    }
    for (index, is_here) in chooser.cursor.seen(seen(inside.height), found.len()) {
        let item = &found[index];
        let mark = if is_here { theme.glyph("▸ ", "> ") } else { "  " };
        let role = if item.usable { Role::Text } else { Role::Faint };
        let shown = super::clip_start(theme, &item.shown, columns.saturating_sub(2));
        let line =
            Line::from(vec![Span::styled(mark, theme.style(Role::Accent)), Span::styled(shown, theme.style(role))]);
        lines.push(if is_here { line.style(theme.style(Role::Selected)) } else { line });
        lines.push(Line::styled(format!("    {}", item.about), theme.style(Role::Faint)));
    }
    lines.truncate(inside.height.saturating_sub(1) as usize);
    frame.render_widget(Paragraph::new(lines), inside);
    let hint = Line::styled("type to filter, enter select, esc cancel", theme.style(Role::Faint));
    let bottom = Rect { y: inside.y + inside.height.saturating_sub(1), height: inside.height.min(1), ..inside };
    frame.render_widget(Paragraph::new(hint), bottom);
}
