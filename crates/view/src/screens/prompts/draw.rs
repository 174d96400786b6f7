//! Draws the prompts screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::editing::{EditTarget, Validity};
use super::table_row::Column;
use super::{CHAT, EDITOR, HEALTH, Prompts, ROWS, form, layout, row_templates, table};
use crate::drafts::choice;
use crate::pane::{framed, pane, text_pane};
use crate::screen::Screen as _;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::editor::paint::{Look, paint};

pub(super) fn draw(prompts: &Prompts, shared: &Shared, frame: &mut Frame<'_>, body: Rect) {
    if let Some(form) = &prompts.form {
        return form::draw(form, shared, frame, body);
    }
    if let Some(why) = shared.no_task() {
        let role = if shared.task_error.is_some() { Role::Bad } else { Role::Faint };
        return text_pane(&shared.theme, "prompts", (role, &why), frame, body);
    }
    choice::draw(prompts, shared, frame, body);
    for (name, area) in layout::areas(prompts, shared, body) {
        match name {
            ROWS => rows(prompts, shared, frame, area),
            CHAT => chat(prompts, shared, frame, area),
            HEALTH => health(prompts, shared, frame, area),
            EDITOR => editor(prompts, shared, frame, area),
            _ => {}
        }
    }
}

fn rows(prompts: &Prompts, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let count = match prompts.shown.len() == prompts.entries.len() {
        true => format!("{} rows", prompts.entries.len()),
        false => format!("{} of {} rows", prompts.shown.len(), prompts.entries.len()),
    };
    let marked = match prompts.marked.len() {
        0 => String::new(),
        marked => format!(", {marked} marked"),
    };
    let sort = match prompts.sort {
        (Column::File, false) => String::new(),
        (column, backwards) => {
            format!(" by {} {}", column.name(), if backwards { theme.glyph("↓", "v") } else { theme.glyph("↑", "^") })
        }
    };
    let busy = if shared.is_busy("prompts.rows") { theme.glyph(" …", " ...") } else { "" };
    let inner = framed(theme, &format!("{count}{marked}{sort}{busy}"), prompts.pane() == ROWS, frame, area);
    let columns = inner.width as usize;
    let mut lines = table::heading(prompts, shared, columns);
    lines.extend(table::rows(prompts, shared, columns, layout::table_rows(prompts, shared, area)));
    if prompts.shown.is_empty() {
        let key = |id| shared.key_of(id);
        let text = match prompts.entries.is_empty() {
            true => {
                format!("no prompt rows: {} adds one, {} opens the file", key("prompts.add"), key("prompts.outside"))
            }
            false => format!("no rows match the filter; {} clears it", key("prompts.leave")),
        };
        lines.push(Line::styled(text, theme.style(Role::Faint)));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn chat(prompts: &Prompts, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let id = prompts.selected_row(shared).map_or_else(String::new, |row| format!("{} ", row.id));
    let is_template = prompts.editing.as_ref().is_some_and(|editing| editing.what == EditTarget::Template);
    let (title, lines) = match is_template {
        true => ("row before and after".to_owned(), table::template_lines(prompts, shared)),
        false => (format!("{id}prompt preview"), table::chat_lines(prompts, shared)),
    };
    let inner = framed(theme, &title, prompts.pane() == CHAT, frame, area);
    let top = prompts.chat_top.at(lines.len()).unwrap_or(0);
    let seen: Vec<Line<'static>> = lines.into_iter().skip(top).take(inner.height as usize).collect();
    frame.render_widget(Paragraph::new(seen).wrap(Wrap { trim: false }), inner);
}

fn health(prompts: &Prompts, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let focused = prompts.pane() == HEALTH;
    let inner = framed(theme, "dataset health", focused, frame, area);
    let mut lines = table::health_head(prompts, shared);
    let room = (inner.height as usize).saturating_sub(lines.len());
    let seen = prompts.finding.seen(room, prompts.groups.len());
    lines.extend(seen.map(|(place, here)| table::group_line(theme, &prompts.groups[place], focused && here)));
    frame.render_widget(Paragraph::new(lines), inner);
}

fn editor(prompts: &Prompts, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let Some(editing) = &prompts.editing else { return };
    let (text, role) = match &editing.validity {
        Validity::Invalid(text) => (format!(" {} {text} ", theme.glyph("✗", "x")), Role::Bad),
        Validity::Warning(text) => (format!(" {} {text} ", theme.glyph("▲", "!")), Role::Warning),
        Validity::Valid(text) if text.is_empty() => (String::new(), Role::Good),
        Validity::Valid(text) => (format!(" {} {text} ", theme.glyph("✓", "ok:")), Role::Good),
    };
    let unsaved = match editing.what {
        EditTarget::Template => format!(": {}", row_templates::targets_in_words(prompts)),
        _ if editing.is_changed() => " (unsaved)".to_owned(),
        _ => String::new(),
    };
    let bottom = Line::from(Span::styled(text, theme.style(role)));
    let frame_of = pane(theme, &format!("{}{unsaved}", editing.title()), true).title_bottom(bottom);
    let inner = frame_of.inner(area);
    frame.render_widget(frame_of, area);
    paint(
        &editing.editor,
        Look { theme, typing: true, focused: true, faults: &[], wraps: shared.wraps(&editing.editor) },
        frame,
        inner,
    );
}
