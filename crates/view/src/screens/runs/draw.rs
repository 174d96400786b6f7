//! The panes of the runs screen: the pipeline, the list of runs, and its details.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr;

use super::columns::{self, Column, Look};
use super::{DETAIL, LIST, PIPELINE, Runs, detail, pipeline};
use crate::pane::content::{Body, Content, List, Place, Table};
use crate::report::Entry;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::fitted;

/// The places of the panes: on a small screen the focused one only; without runs the pipeline. A longer list hides the
/// pipeline, unless that has the focus, and has what the details leave free.
pub(super) fn places(runs: &Runs, shared: &Shared, area: Rect) -> Vec<Place> {
    let entries = shared.runs.listing.entries().len();
    if entries == 0 {
        return vec![Place::new(PIPELINE, area)];
    }
    if shared.zoomed || area.width < 50 || area.height < 14 {
        return vec![Place::new(runs.pane, area)];
    }
    let list_height = u16::try_from(entries + 4).unwrap_or(u16::MAX).max(7);
    let room = area.height.saturating_sub(pipeline::ROWS + DETAIL_ROWS);
    let high = if runs.pane == PIPELINE || list_height <= room {
        pipeline::ROWS
    } else {
        0
    };
    // What the details leave free is the list's.
    let needed = detail::rows(runs, shared, Place::new(DETAIL, area).inside()).saturating_add(2);
    let below = area.height - high;
    let most = (below * 11 / 20).max(below.saturating_sub(needed));
    let rows = [
        Constraint::Length(high),
        Constraint::Length(list_height.min(most.max(7))),
        Constraint::Fill(1),
    ];
    let [stages, list, detail] = Layout::vertical(rows).areas(area);
    let (list, detail) = (Place::new(LIST, list), Place::new(DETAIL, detail));
    [Place::new(PIPELINE, stages), list, detail]
        .into_iter()
        .skip(usize::from(high == 0))
        .collect()
}

/// Rows for the details if the pipeline is above a list.
const DETAIL_ROWS: u16 = 8;

fn columns_of(runs: &Runs, shared: &Shared, width: u16) -> Vec<Column> {
    let rows = super::rows_of(&shared.runs.listing);
    columns::columns((width as usize).saturating_sub(2), rows, &runs.sort.field)
}

pub(super) fn list<'a>(runs: &'a Runs, shared: &'a Shared, place: &Place) -> Content<'a> {
    let width = place.inside().width;
    let columns = columns_of(runs, shared, width);
    let first = columns.first().map_or(0, |column| column.width as u16 + 1);
    let widths = columns
        .iter()
        .enumerate()
        .map(|(at, column)| if at == 0 { first } else { column.width as u16 });
    let titles = titles(runs, shared, &columns)
        .into_iter()
        .zip(widths)
        .collect();
    let nothing = format!(
        "  no runs match filter; {} clears it",
        shared.key_of("runs.leave_filter")
    );
    let cells = move |place: usize| match shared.runs.listing.entries().get(runs.shown[place]) {
        Some(entry) => row(runs, shared, entry, &columns),
        None => Vec::new(),
    };
    Content {
        head: runs
            .filter
            .is_shown()
            .then(|| filter_line(runs, shared, width.into()))
            .into_iter()
            .collect(),
        body: Body::Table(Table {
            list: List::new(runs.shown.len(), runs.cursor, |_| Line::default()),
            columns: titles,
            cells: Box::new(cells),
        }),
        empty: vec![shared.theme.line(nothing, Role::Faint)],
        ..Content::titled(title(runs, shared, place.area.width.into()))
    }
}

fn title(runs: &Runs, shared: &Shared, width: usize) -> String {
    let (shown, all) = (runs.shown.len(), shared.runs.listing.entries().len());
    let count = if shown == all {
        format!("Runs {all}")
    } else {
        format!("Runs {shown} of {all}")
    };
    let marked = if runs.marked.is_empty() {
        String::new()
    } else {
        format!(", {} marked", runs.marked.len())
    };
    let reading = if shared.runs.listed { "" } else { ", loading" };
    let sort = match (runs.sort.field.as_str(), runs.sort.descending) {
        ("created", true) => "newest first".to_owned(),
        ("created", false) => "oldest first".to_owned(),
        (field, descending) => {
            format!(
                "by {field}, {} first",
                if descending { "highest" } else { "lowest" }
            )
        }
    };
    let full = format!("{count}{marked}{reading} · {sort}");
    if full.width() + 6 > width {
        format!("{count}{marked}")
    } else {
        full
    }
}

fn filter_line(runs: &Runs, shared: &Shared, width: usize) -> Line<'static> {
    let theme = &shared.theme;
    let wrong = runs.filter_error.as_deref().unwrap_or_default();
    let mut line = runs
        .filter
        .line(theme, if wrong.is_empty() { width } else { width / 2 });
    if !wrong.is_empty() {
        let room = width.saturating_sub(line.width() + 2);
        line.spans
            .push(theme.span(format!("  {}", fitted(wrong, room)), Role::Bad));
    } else if runs.filter.text().is_empty() {
        line.spans
            .push(theme.span(" filter: tiny valid>0.9 and tags:best", Role::Faint));
    }
    line
}

fn titles(runs: &Runs, shared: &Shared, columns: &[Column]) -> Vec<Line<'static>> {
    let (sort, theme) = (&runs.sort, &shared.theme);
    // A letter stands apart.
    let arrow = if sort.descending { "▾" } else { "▴" };
    let title = |(at, column): (usize, &Column)| {
        let is_sort = column.field == sort.field;
        let text = match is_sort {
            true => format!(
                "{}{arrow}",
                fitted(&column.title, column.width.saturating_sub(arrow.width()))
            ),
            false => column.title.clone(),
        };
        let mark = if at == 0 { " " } else { "" };
        let role = if is_sort { Role::Title } else { Role::Faint };
        aligned(theme.line(format!("{mark}{text}"), role), column)
    };
    columns.iter().enumerate().map(title).collect()
}

/// The cells of a run, the first with its mark; of one that cannot be read, why.
fn row(
    runs: &Runs,
    shared: &Shared,
    entry: &Entry,
    columns: &[Column],
) -> Vec<(Line<'static>, u16)> {
    let theme = &shared.theme;
    let is_marked = runs.marked.contains(&entry.path);
    let mark = theme.span(if is_marked { "◆" } else { " " }, Role::Marked);
    match &entry.row {
        Ok(run) => {
            let look = Look {
                theme,
                now_ms: shared.now_ms,
            };
            let cell = |column: &Column| {
                let (text, role) = columns::cell(column, &look, run);
                (
                    aligned(theme.line(fitted(&text, column.width), role), column),
                    1,
                )
            };
            let mut cells: Vec<(Line<'static>, u16)> = columns.iter().map(cell).collect();
            if let Some((first, _)) = cells.first_mut() {
                first.spans.insert(0, mark);
            }
            cells
        }
        Err(error) => {
            let error = error.replace(&format!("{}/", entry.path.display()), "");
            let text = format!(
                "✗ unreadable  {} {error}",
                crate::format::short_id(&entry.id())
            );
            let room = columns
                .iter()
                .map(|column| column.width + 1)
                .sum::<usize>()
                .saturating_sub(1);
            let why = theme.span(fitted(&text, room), Role::Bad);
            vec![(Line::from(vec![mark, why]), columns.len() as u16)]
        }
    }
}

fn aligned(line: Line<'static>, column: &Column) -> Line<'static> {
    if column.right {
        line.right_aligned()
    } else {
        line
    }
}
