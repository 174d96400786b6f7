//! The outline of the definition: a line an entry, the selected one with its details.

use ratatui::layout::{Margin, Rect};
use ratatui::text::{Line, Span};

use super::{OUTLINE, Schema, layout};
use crate::popup::PickEntry;
use crate::score::OutlineEntry;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::wrapped_rows;

/// The lines, each with its entry.
fn rows(schema: &Schema, shared: &Shared) -> Vec<(usize, Line<'static>)> {
    let theme = &shared.theme;
    let entries = &shared.draft.outline;
    let selected = schema.outline.at(entries.len()).filter(|_| schema.pane == OUTLINE);
    let mut rows = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (mark, role, word) = match entry.required {
            Some(true) => (theme.glyph("● ", "* "), Role::Accent, "required, "),
            Some(false) => (theme.glyph("○ ", "o "), Role::Faint, "optional, "),
            None => ("", Role::Faint, ""),
        };
        let blanks = "  ".repeat(entry.depth);
        let line = Line::from(vec![
            Span::raw(blanks.clone()),
            Span::styled(mark, theme.style(role)),
            Span::styled(format!("{}: ", visible(&entry.name)), theme.style(Role::JsonKey)),
            Span::styled(word, theme.style(Role::Faint)),
            Span::raw(visible(&entry.text).into_owned()),
        ]);
        if selected != Some(index) {
            rows.push((index, line));
            continue;
        }
        rows.push((index, line.style(theme.style(Role::Selected))));
        let detail = |text: &String| Line::styled(format!("{blanks}    {}", visible(text)), theme.style(Role::Faint));
        rows.extend(entry.details.iter().map(|text| (index, detail(text))));
    }
    rows
}

/// The lines, and the first that is drawn in that area.
pub(super) fn lines(schema: &Schema, shared: &Shared, area: Rect) -> (Vec<Line<'static>>, usize) {
    let rows = rows(schema, shared);
    if rows.is_empty() {
        let text = if shared.draft.stale.is_some() { "does not compile: see the editor" } else { "reading ..." };
        return (vec![Line::styled(text, shared.theme.style(Role::Faint))], 0);
    }
    let first = first(schema, shared, &rows, area);
    (rows.into_iter().map(|(_, line)| line).collect(), first)
}

/// The selected entry is in the middle, except near the ends.
fn first(schema: &Schema, shared: &Shared, rows: &[(usize, Line<'static>)], area: Rect) -> usize {
    let selected = schema.outline.at(shared.draft.outline.len()).unwrap_or(0);
    let heights: Vec<usize> = rows.iter().map(|(_, line)| wrapped_rows(line, area.width.into())).collect();
    let height = usize::from(area.height);
    // With its details, where they fit.
    let end = rows.iter().rposition(|(index, _)| *index == selected).map_or(0, |last| last + 1);
    let below: usize = heights.iter().skip(end).sum();
    let mut room = height.saturating_sub(below.min(height / 2));
    let fits = |above: &&usize| {
        room = room.saturating_sub(**above);
        room > 0 || **above == 0
    };
    let fitting = heights.iter().take(end).rev().take_while(fits).count();
    let start = rows.iter().position(|(index, _)| *index == selected).unwrap_or(0);
    end.saturating_sub(fitting.max(1)).min(start)
}

/// The entry on a row of the terminal.
pub(super) fn entry_at(schema: &Schema, shared: &Shared, row: u16) -> Option<usize> {
    let area = layout::areas(schema, shared, shared.body()).into_iter().find(|(pane, _)| *pane == OUTLINE)?.1;
    let inner = area.inner(Margin::new(1, 1));
    let rows = rows(schema, shared);
    let mut left = usize::from(row.checked_sub(inner.y)?);
    for (index, line) in rows.iter().skip(first(schema, shared, &rows, inner)) {
        let height = wrapped_rows(line, inner.width.into());
        if left < height {
            return Some(*index);
        }
        left -= height;
    }
    None
}

/// The entries that have a place, to choose from.
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
    shared.draft.outline.iter().filter_map(|entry| Some((entry, entry.place?))).map(entry).unzip()
}
