//! The details of a group of runs that a sweep has started: its table, with what it says of the settings.

use ratatui::text::Line;

use crate::report::text_table;
use crate::secrets::visible;
use crate::study::{LAST_RATES, SweepTable};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::wrapped;

/// Columns of a setting; its end says more, since labels begin with the same keys.
const LABEL: usize = 40;
/// The width that holds all columns.
const ALL_COLUMNS: usize = 100;

pub(super) fn lines(table: &SweepTable, theme: &Theme, width: usize) -> Vec<Line<'static>> {
    let mut titles = table.titles();
    let mut rows = vec![titles.clone()];
    rows.extend(table.cells());
    // Where not all columns fit, the others matter more.
    let last = titles.iter().position(|title| title == LAST_RATES);
    if let Some(last) = last.filter(|_| width < ALL_COLUMNS) {
        titles.remove(last);
        rows.iter_mut().for_each(|row| drop(row.remove(last)));
    }
    let most = LABEL.min(width / 3).max(8);
    for row in &mut rows {
        let letters = row[0].chars().count();
        if letters > most {
            row[0] = format!(
                "…{}",
                row[0].chars().skip(letters - most + 1).collect::<String>()
            );
        }
    }
    let align: String = titles
        .iter()
        .map(|title| if title == "n" { 'r' } else { 'l' })
        .collect();
    let head = if table.is_active {
        format!("{}; active", table.head())
    } else {
        table.head()
    };
    let mut lines: Vec<Line<'static>> = wrapped(&visible(&head), width)
        .into_iter()
        .map(Line::from)
        .collect();
    for (index, row) in text_table(&rows, &align).lines().enumerate() {
        let role = match index.checked_sub(1) {
            None => Role::Title,
            Some(place) if table.best == Some(place) => Role::Good,
            Some(place) if table.rows[place].pruned.is_some() => Role::Faint,
            Some(_) => Role::Text,
        };
        lines.push(theme.line(row.to_owned(), role));
    }
    let notes = table.notes();
    let notes = notes.iter().flat_map(|note| wrapped(&visible(note), width));
    lines.extend(notes.map(|note| theme.line(note, Role::Faint)));
    lines
}
