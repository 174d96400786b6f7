//! The outline of the definition: a line an entry, the selected one with its details.

use ratatui::text::{Line, Span};

use super::{OUTLINE, Schema};
use crate::help::OutlineEntry;
use crate::pane::content::{Body, Content, Entries};
use crate::popup::PickEntry;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;

fn rows(schema: &Schema, shared: &Shared) -> Vec<(usize, Line<'static>)> {
    let theme = &shared.theme;
    let entries = &shared.draft.outline;
    let selected = schema
        .outline
        .at(entries.len())
        .filter(|_| schema.pane == OUTLINE);
    let mut rows = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (mark, role, word) = match entry.required {
            Some(true) => ("● ", Role::Accent, "required, "),
            Some(false) => ("○ ", Role::Faint, "optional, "),
            None => ("", Role::Faint, ""),
        };
        let blanks = "  ".repeat(entry.depth);
        let line = Line::from(vec![
            Span::raw(blanks.clone()),
            theme.span(mark, role),
            theme.span(format!("{}: ", visible(&entry.name)), Role::JsonKey),
            theme.span(word, Role::Faint),
            Span::raw(visible(&entry.text).into_owned()),
        ]);
        rows.push((index, line));
        if selected != Some(index) {
            continue;
        }
        let detail =
            |text: &String| theme.line(format!("{blanks}    {}", visible(text)), Role::Faint);
        rows.extend(entry.details.iter().map(|text| (index, detail(text))));
    }
    rows
}

pub(super) fn content<'a>(content: Content<'a>, schema: &Schema, shared: &Shared) -> Content<'a> {
    let lines = rows(schema, shared)
        .into_iter()
        .map(|(entry, line)| (Some(entry), line))
        .collect();
    let is_marked = schema.pane == OUTLINE;
    let entries = Entries {
        lines,
        cursor: schema.outline,
        is_marked,
        wraps: true,
    };
    let text = if shared.draft.stale.is_some() {
        "does not compile: see the editor"
    } else {
        "reading ..."
    };
    let empty = vec![shared.theme.line(text, Role::Faint)];
    Content {
        body: Body::Entries(entries),
        empty,
        ..content
    }
}

pub(super) fn choices(shared: &Shared) -> (Vec<PickEntry>, Vec<(usize, usize)>) {
    let entry = |(entry, (line, column)): (&OutlineEntry, (usize, usize))| {
        let choice = PickEntry {
            label: entry.name.clone(),
            beside: entry.text.clone(),
            detail: format!("line {line}  {}", entry.details.join("  ")),
            role: Some(Role::JsonKey),
            depth: entry.depth,
            ..PickEntry::default()
        };
        (choice, (line - 1, column - 1))
    };
    shared
        .draft
        .outline
        .iter()
        .filter_map(|entry| Some((entry, entry.place?)))
        .map(entry)
        .unzip()
}
