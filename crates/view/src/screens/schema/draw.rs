//! The contents of the schema screen's panes.

use std::borrow::Cow;

use ratatui::text::{Line, Span};

use super::completion::Completion;
use super::{COMPLETIONS, EDITOR, PANES, PROGRAM, Schema, layout, program_pane, side_panes};
use crate::drafts::choice;
use crate::format::counted;
use crate::pane::content::{Body, Content, Edited, Place};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::editor::paint::fault_at;

pub(super) fn content<'a>(schema: &'a Schema, shared: &'a Shared, place: &Place) -> Content<'a> {
    if let Some(why) = layout::no_text(shared) {
        let role = if shared.task_error.is_some() {
            Role::Bad
        } else {
            Role::Faint
        };
        return Content::saying(&shared.theme, "schema", role, &why, place.inside());
    }
    match place.id {
        choice::QUESTION => choice::content(schema, shared),
        COMPLETIONS => schema
            .completion
            .as_ref()
            .map_or_else(Content::default, |list: &Completion| {
                list.content(&shared.theme)
            }),
        EDITOR => editor(schema, shared),
        _ => side(schema, shared, place),
    }
}

fn editor<'a>(schema: &'a Schema, shared: &'a Shared) -> Content<'a> {
    let theme = &shared.theme;
    let draft = &shared.draft;
    let focused = schema.pane == EDITOR;
    let name = draft
        .base
        .as_ref()
        .map_or("", |base| base.definition_file.as_str());
    let unsaved = if draft.is_changed() { " (unsaved)" } else { "" };
    let leave = || format!("  editing, {} leaves", shared.key_of("schema.leave"));
    let typing = if schema.typing {
        leave()
    } else {
        String::new()
    };
    let (row, column) = schema.editor.cursor();
    let here = fault_at(&draft.faults, (row, column));
    let errors = draft.faults.iter().filter(|fault| fault.is_error).count();
    let warnings = draft.faults.len() - errors;
    let status = match here {
        Some(fault) => {
            let mark = if fault.is_error { "✗" } else { "▲" };
            theme.span(
                format!(" {mark} {} ", fault.message),
                if fault.is_error {
                    Role::Bad
                } else {
                    Role::Warning
                },
            )
        }
        None if errors > 0 => {
            let line = draft
                .faults
                .iter()
                .find(|fault| fault.is_error)
                .map_or(0, |fault| fault.line);
            theme.span(
                format!(" ✗ {} in line {line} ", counted(errors, "error")),
                Role::Bad,
            )
        }
        None if warnings > 0 => theme.span(
            format!(" ▲ {} ", counted(warnings, "warning")),
            Role::Warning,
        ),
        None => compiles(schema, theme),
    };
    let bottom = Line::from(vec![
        theme.span(format!(" {}:{} ", row + 1, column + 1), Role::Faint),
        status,
    ]);
    let (faults, wraps) = (
        Cow::Borrowed(draft.faults.as_slice()),
        shared.wraps(&schema.editor),
    );
    Content {
        legend: bottom,
        body: Body::Editor(Edited {
            editor: &schema.editor,
            typing: schema.typing,
            focused,
            faults,
            wraps,
        }),
        opens: true,
        ..Content::titled(format!("{name}{unsaved}{typing}"))
    }
}

/// The note that the schema compiles, with the number of expected answers that it rejects.
fn compiles(schema: &Schema, theme: &Theme) -> Span<'static> {
    match schema.rejections.as_ref().map_or(0, |found| found.rejected) {
        0 => theme.span(" ✓ compiles ", Role::Good),
        rejected => {
            let what = counted(rejected, "answer");
            theme.span(format!(" ▲ rejects {what} "), Role::Warning)
        }
    }
}

fn side<'a>(schema: &Schema, shared: &Shared, place: &Place) -> Content<'a> {
    let name = place.id;
    // Stale: of the last schema that compiled, not of the current text.
    let stale = match name {
        // Nothing of an older text is shown.
        _ if name == PROGRAM || program_pane::untrusted(shared).is_some() => false,
        _ => shared.draft.stale.is_some() && shared.draft.scorer.is_some(),
    };
    let title = if stale {
        format!("STALE {name}")
    } else {
        name.to_owned()
    };
    let content = Content {
        edge: stale.then_some(Role::Warning),
        ..Content::titled(title)
    };
    let at = PANES.iter().position(|pane| *pane == name).unwrap_or(0);
    let top = schema.tops.get(at).copied().unwrap_or_default();
    let inside = place.inside();
    let lines = side_panes::lines(schema, shared, name, inside.width.into());
    content.text(inside, lines, top)
}
