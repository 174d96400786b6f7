//! The panes of the runs screen: the pipeline, the list of runs, and beside it details or columns.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::columns::{self, Column, Look};
use super::{DETAIL, Group, LIST, PIPELINE, Row, Runs, detail, pipeline};
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
    if entries == 0 || shared.zoomed || area.width < 50 || area.height < 14 {
        return vec![Place::new(runs.pane, area)];
    }
    let rows = match runs.group_by {
        None => entries,
        Some(_) => runs.shown.len(),
    };
    let list_height = u16::try_from(rows + 4).unwrap_or(u16::MAX).max(7);
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
    let usual = || columns::usual_of(super::rows_of(&shared.runs.listing));
    let fields = shared.options.runs_columns.clone().unwrap_or_else(usual);
    columns::columns(
        (width as usize).saturating_sub(2),
        &fields,
        &runs.sort.field,
        runs.group_by.is_some(),
    )
}

pub(super) fn field_of(
    runs: &Runs,
    shared: &Shared,
    place: &Place,
    title: usize,
) -> Option<String> {
    columns_of(runs, shared, place.inside().width)
        .into_iter()
        .nth(title)
        .map(|column| column.field)
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
    let cells = move |place: usize| match runs.shown[place] {
        Row::Group(index) => group_row(runs, shared, &runs.groups[index], &columns),
        Row::Run(index) => match shared.runs.listing.entries().get(index) {
            Some(entry) => row(runs, shared, entry, &columns),
            None => Vec::new(),
        },
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
    let (shown, all) = (runs.filtered, shared.runs.listing.entries().len());
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
    let sign = shared.theme.glyph("±", "+-");
    let groups = runs.group_by.as_ref().map_or_else(String::new, |by| {
        format!(
            " in {} by {by}, mean {sign}std over runs",
            crate::format::counted(runs.groups.len(), "group")
        )
    });
    let full = format!("{count}{groups}{marked}{reading}{}{sort}", " · ");
    let by = runs
        .group_by
        .as_ref()
        .map_or_else(String::new, |by| format!(" by {by}: mean {sign}std"));
    if full.width() + 6 > width {
        format!("{count}{by}{marked}")
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
    let mark = mark(shared, runs.marked.contains(&entry.path));
    match &entry.row {
        Ok(run) => {
            let look = look_of(shared);
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

fn mark(shared: &Shared, is_marked: bool) -> Span<'static> {
    let mark = if is_marked { "◆" } else { " " };
    shared.theme.span(mark, Role::Marked)
}

fn look_of(shared: &Shared) -> Look<'_> {
    Look {
        theme: &shared.theme,
        now_ms: shared.now_ms,
    }
}

/// The value and the size of the group in place of the columns up to the first number, then means.
fn group_row(
    runs: &Runs,
    shared: &Shared,
    group: &Group,
    columns: &[Column],
) -> Vec<(Line<'static>, u16)> {
    let theme = &shared.theme;
    let mark = mark(
        shared,
        group.paths(shared).all(|path| runs.marked.contains(path)),
    );
    let is_open = runs.expanded.contains(&group.value);
    let fold = if is_open { "▾" } else { "▸" };
    let texts = columns
        .iter()
        .take_while(|column| !column.right)
        .count()
        .max(1);
    let room = columns[..texts.min(columns.len())]
        .iter()
        .map(|column| column.width + 1)
        .sum::<usize>();
    let size = format!(", n={}", group.entries.len());
    let value = format!("{fold} {}", group.label);
    let head = format!(
        "{}{size}",
        fitted(&value, room.saturating_sub(size.width() + 1))
    );
    let head = Line::from(vec![mark, theme.span(head, Role::Title)]);
    let (look, means) = (look_of(shared), group.runs(shared));
    let cell = |column: &Column| {
        let text = fitted(&columns::group_cell(column, &look, &means), column.width);
        (aligned(theme.line(text, Role::Text), column), 1)
    };
    std::iter::once((head, texts as u16))
        .chain(columns.iter().skip(texts).map(cell))
        .collect()
}

fn aligned(line: Line<'static>, column: &Column) -> Line<'static> {
    if column.right {
        line.right_aligned()
    } else {
        line
    }
}
