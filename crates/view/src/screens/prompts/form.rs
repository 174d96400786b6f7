//! The forms over the prompts screen: import rows, and create a task. A form is a list of text fields with a preview
//! that is computed in the background; empty fields show what is guessed.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::form_fields::{Form, FormKind};
use super::{Prompts, form_import, form_new_task};
use crate::message::Command;
use crate::pane::{framed, pane};
use crate::shared::Shared;
use crate::style_role::Role;

/// Columns of the fields' labels.
const LABEL_COLUMNS: usize = 10;

/// Handles a key: text, or to another field.
pub(super) fn key(prompts: &mut Prompts, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let Some(form) = &mut prompts.form else { return Vec::new() };
    let last = form.fields.len().saturating_sub(1);
    match event.code {
        KeyCode::Down | KeyCode::Tab | KeyCode::Enter => {
            form.cursor = if form.cursor == last { 0 } else { form.cursor + 1 }
        }
        KeyCode::Up | KeyCode::BackTab => form.cursor = form.cursor.checked_sub(1).unwrap_or(last),
        _ => {
            let cursor = form.cursor;
            if form.fields.get_mut(cursor).is_some_and(|field| field.field.key(event)) {
                form.is_tried = true;
                return changed(prompts, shared);
            }
        }
    }
    Vec::new()
}

pub(super) fn paste(prompts: &mut Prompts, shared: &mut Shared, text: &str) -> Vec<Command> {
    let Some(form) = &mut prompts.form else { return Vec::new() };
    if let Some(field) = form.fields.get_mut(form.cursor) {
        field.field.paste(text);
    }
    form.is_tried = true;
    changed(prompts, shared)
}

/// Previews the form again.
pub(super) fn changed(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    match prompts.form.as_ref().map(|form| form.kind) {
        Some(FormKind::Import) => form_import::preview(prompts, shared),
        Some(FormKind::NewTask) => form_new_task::preview(prompts, shared),
        None => Vec::new(),
    }
}

/// Imports the rows, or creates the task.
pub(super) fn submit(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(form) = &mut prompts.form else { return Vec::new() };
    form.is_tried = true;
    if let Some(problem) = form.problem.clone() {
        shared.complain(problem);
        return Vec::new();
    }
    match form.kind {
        FormKind::Import => form_import::submit(prompts, shared),
        FormKind::NewTask => form_new_task::submit(prompts, shared),
    }
}

/// The fields and the preview: side by side if there is room.
fn areas(form: &Form, area: Rect) -> [Rect; 2] {
    let rows = form.fields.len() as u16 + 5;
    match area.width >= 100 {
        true => Layout::horizontal([Constraint::Percentage(50), Constraint::Fill(1)]).areas(area),
        false => Layout::vertical([Constraint::Length(rows.min(area.height)), Constraint::Fill(1)]).areas(area),
    }
}

/// Handles a click: selects the field under it.
pub(super) fn click(prompts: &mut Prompts, area: Rect, row: u16) {
    let Some(form) = &mut prompts.form else { return };
    let [fields, _] = areas(form, area);
    if let Some(line) = row.checked_sub(fields.y + 1).map(usize::from).filter(|line| *line < form.fields.len()) {
        form.cursor = line;
    }
}

pub(super) fn draw(form: &Form, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let [left, right] = areas(form, area);
    let submit = || format!("{} {}", shared.key_of("prompts.submit"), submit_in_words(form));
    let (mark, role, text) = match &form.problem {
        Some(problem) if form.is_tried => (theme.glyph("✗ ", "x "), Role::Bad, problem.clone()),
        Some(_) => ("", Role::Faint, submit()),
        None => (theme.glyph("✓ ", "ok: "), Role::Good, submit()),
    };
    let frame_of = pane(theme, form.title(), true);
    let inside = frame_of.inner(left);
    frame.render_widget(frame_of, left);
    let columns = (inside.width as usize).saturating_sub(LABEL_COLUMNS + 3);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (index, field) in form.fields.iter().enumerate() {
        let here = index == form.cursor;
        let mut spans = vec![
            Span::styled(if here { theme.glyph("▸ ", "> ") } else { "  " }, theme.style(Role::Accent)),
            Span::styled(
                format!("{:<LABEL_COLUMNS$} ", field.label),
                theme.style(if here { Role::Title } else { Role::Text }),
            ),
        ];
        spans.extend(field.field.line(theme, columns, here).spans);
        if field.field.text().is_empty() && !field.guess.is_empty() {
            spans.push(Span::styled(field.guess.clone(), theme.style(Role::Faint)));
        }
        lines.push(Line::from(spans));
    }
    let help = form.fields.get(form.cursor).map_or("", |field| field.help);
    lines.push(Line::styled(format!("{mark}{text}"), theme.style(role)));
    lines.push(Line::styled(help, theme.style(Role::Faint)));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
    if right.height > 2 {
        let inside = framed(theme, "preview", false, frame, right);
        let lines: Vec<Line<'_>> =
            form.preview.iter().map(|(role, text)| Line::styled(text.clone(), theme.style(*role))).collect();
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
    }
}

fn submit_in_words(form: &Form) -> &'static str {
    match form.kind {
        FormKind::Import => "imports the rows",
        FormKind::NewTask => "creates the task",
    }
}
