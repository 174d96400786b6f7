//! What is in the panes of the prompts screen.

use ratatui::layout::Rect;
use ratatui::text::Line;

use super::editing::Validity;
use super::table_row::Column;
use super::{CHAT, HEALTH, Prompts, ROWS, form, table};
use crate::drafts::choice;
use crate::pane::content::{Body, Content, List, Place, Table};
use crate::screen::Screen as _;
use crate::shared::Shared;
use crate::style_role::Role;

pub(super) fn content<'a>(prompts: &'a Prompts, shared: &'a Shared, place: &Place) -> Content<'a> {
    let inside = place.inside();
    if let Some(form) = &prompts.form {
        return form::content(form, shared, place);
    }
    if let Some(why) = shared.no_task() {
        let role = if shared.task_error.is_some() {
            Role::Bad
        } else {
            Role::Faint
        };
        return Content::saying(&shared.theme, "prompts", role, &why, inside);
    }
    match place.id {
        choice::QUESTION => choice::content(prompts, shared),
        ROWS => rows(prompts, shared, inside.width.into()),
        CHAT => chat(prompts, shared, inside),
        HEALTH => health(prompts, shared),
        _ => editor(prompts, shared),
    }
}

fn rows<'a>(prompts: &'a Prompts, shared: &'a Shared, columns: usize) -> Content<'a> {
    let theme = &shared.theme;
    let count = match prompts.shown.len() == prompts.entries.len() {
        true => crate::format::counted(prompts.entries.len(), "row"),
        false => format!("{} of {} rows", prompts.shown.len(), prompts.entries.len()),
    };
    let sort = match prompts.sort {
        (Column::File, false) => String::new(),
        (column, backwards) => {
            format!(
                " by {} {}",
                column.name(),
                if backwards { "↓" } else { "↑" }
            )
        }
    };
    let busy = if shared.is_busy("prompts.rows") {
        " …"
    } else {
        ""
    };
    let key = |id| shared.key_of(id);
    let nothing = match prompts.entries.is_empty() {
        true => format!(
            "no prompt rows: {} adds one, {} opens the file",
            key("prompts.add"),
            key("prompts.outside")
        ),
        false => format!(
            "no rows match the filter; {} clears it",
            key("prompts.leave")
        ),
    };
    Content {
        head: table::heading(prompts, shared, columns),
        body: Body::Table(Table {
            list: List::new(prompts.shown.len(), prompts.cursor, |_| Line::default()),
            columns: table::titles_of(shared, columns),
            cells: Box::new(move |place| table::cells(prompts, shared, columns, place)),
        }),
        empty: vec![theme.line(nothing, Role::Faint)],
        ..Content::titled(format!("{count}{sort}{busy}"))
    }
}

fn chat<'a>(prompts: &Prompts, shared: &Shared, inside: Rect) -> Content<'a> {
    let id = prompts
        .selected_row(shared)
        .map_or_else(String::new, |row| format!("{} ", row.id));
    let lines = table::chat_lines(prompts, shared, inside.width.into());
    Content::titled(format!("{id}prompt preview")).text(inside, lines, prompts.chat_top)
}

fn health<'a>(prompts: &'a Prompts, shared: &'a Shared) -> Content<'a> {
    let line = |place: usize| table::group_line(&shared.theme, &prompts.groups[place]);
    let list =
        List::new(prompts.groups.len(), prompts.finding, line).marked(prompts.pane() == HEALTH);
    Content {
        head: table::health_head(prompts, shared),
        ..Content::titled("dataset health").list(list)
    }
}

fn editor<'a>(prompts: &'a Prompts, shared: &'a Shared) -> Content<'a> {
    let theme = &shared.theme;
    let Some(editing) = &prompts.editing else {
        return Content::default();
    };
    let (text, role) = match &editing.validity {
        Validity::Invalid(text) => (format!(" ✗ {text} "), Role::Bad),
        Validity::Warning(text) => (format!(" ▲ {text} "), Role::Warning),
        Validity::Valid(text) if text.is_empty() => (String::new(), Role::Good),
        Validity::Valid(text) => (format!(" ✓ {text} "), Role::Good),
    };
    let unsaved = if editing.is_changed() {
        " (unsaved)"
    } else {
        ""
    };
    let wraps = shared.wraps(&editing.editor);
    Content {
        legend: Line::from(theme.span(text, role)),
        ..Content::titled(format!("{}{unsaved}", editing.title())).editor(
            &editing.editor,
            true,
            wraps,
        )
    }
}
