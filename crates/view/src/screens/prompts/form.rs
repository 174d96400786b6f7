//! The form of a new task over the prompts screen: a list of text fields with a preview
//! that is computed in the background; empty fields show what is guessed.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;

use super::form_fields::{Form, FormField};
use super::form_path::{Completed, completed};
use super::{FORM, Prompts, form_new_task};
use crate::message::Command;
use crate::pane::content::{Body, Content, Entries, Place};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::field::Field;
use crate::widgets::list_cursor::Cursor;

/// Columns of the fields' labels.
const LABEL_COLUMNS: usize = 10;

pub(super) fn typed(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    prompts
        .form
        .iter_mut()
        .for_each(|form| form.is_tried = true);
    changed(prompts, shared)
}

/// Completes the path under the cursor; goes to the next field where there is nothing to complete. At once: what is typed
/// next belongs to the field that Tab leads to.
pub(super) fn complete(prompts: &mut Prompts, shared: &mut Shared) -> Option<Vec<Command>> {
    let form = prompts.form.as_mut()?;
    match completed(form.path()?, &shared.options.shell) {
        Completed::Nothing => form.next(),
        Completed::Several(names) => return Some(shared.say(names.join("  "))),
        Completed::Text(text) => {
            form.fields.get_mut(form.cursor.index)?.field = Field::new(&text);
            return Some(typed(prompts, shared));
        }
    }
    Some(Vec::new())
}

pub(super) fn changed(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    form_new_task::preview(prompts, shared)
}

pub(super) fn submit(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(form) = &mut prompts.form else {
        return Vec::new();
    };
    form.is_tried = true;
    if let Some(problem) = form.problem.clone() {
        return shared.complain(problem);
    }
    form_new_task::submit(prompts, shared)
}

pub(super) fn places(form: &Form, area: Rect) -> Vec<Place> {
    let rows = form.fields.len() as u16 + 5;
    let [fields, preview] = match area.width >= 100 {
        true => Layout::horizontal([Constraint::Percentage(50), Constraint::Fill(1)]).areas(area),
        false => Layout::vertical([
            Constraint::Length(rows.min(area.height)),
            Constraint::Fill(1),
        ])
        .areas(area),
    };
    let preview = Place {
        part: 1,
        ..Place::new(FORM, preview)
    };
    [Place::new(FORM, fields), preview]
        .into_iter()
        .filter(|place| place.part == 0 || place.area.height > 2)
        .collect()
}

pub(super) fn content<'a>(form: &Form, shared: &Shared, place: &Place) -> Content<'a> {
    let theme = &shared.theme;
    if place.part > 0 {
        let lines = form
            .preview
            .iter()
            .map(|(role, text)| theme.line(text.clone(), *role));
        return Content::titled("preview").text(place.inside(), lines.collect(), Cursor::default());
    }
    let submit = || format!("{} creates the task", shared.key_of("prompts.submit"));
    let (mark, role, text) = match &form.problem {
        Some(problem) if form.is_tried => ("✗ ", Role::Bad, problem.clone()),
        Some(_) => ("", Role::Faint, submit()),
        None => ("✓ ", Role::Good, submit()),
    };
    let columns = usize::from(place.inside().width).saturating_sub(LABEL_COLUMNS + 3);
    let field = |(index, field): (usize, &FormField)| {
        let here = index == form.cursor.index;
        let mut spans = vec![
            theme.span(if here { "▸ " } else { "  " }, Role::Accent),
            theme.span(
                format!("{:<LABEL_COLUMNS$} ", field.label),
                if here { Role::Title } else { Role::Text },
            ),
        ];
        spans.extend(field.field.line(theme, columns, here).spans);
        if field.field.text().is_empty() && !field.guess.is_empty() {
            spans.push(theme.span(field.guess.clone(), Role::Faint));
        }
        (Some(index), Line::from(spans))
    };
    let help = form
        .fields
        .get(form.cursor.index)
        .map_or("", |field| field.help);
    let below = [
        theme.line(format!("{mark}{text}"), role),
        theme.line(help, Role::Faint),
    ];
    let lines = form
        .fields
        .iter()
        .enumerate()
        .map(field)
        .chain(below.map(|line| (None, line)))
        .collect();
    let entries = Entries {
        lines,
        cursor: form.cursor,
        is_marked: false,
        wraps: true,
    };
    Content {
        body: Body::Entries(entries),
        ..Content::titled("new task")
    }
}
