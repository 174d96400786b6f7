//! Draws the list of runs and the details of the one under the cursor.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::columns::{self, Column, Look};
use super::{COLUMNS, DETAIL, Group, LIST, MATCHES, PIPELINE, Row, Runs, pipeline};
use crate::pane::framed;
use crate::report::Entry;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::{self, fitted};

pub(super) fn draw(runs: &Runs, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    if runs.pane == MATCHES {
        return super::matches::draw(runs, shared, frame, area);
    }
    let Places { stages, list, detail } = Places::new(runs, shared, area);
    if let Some(stages) = stages {
        pipeline::draw(runs, shared, frame, stages);
    }
    if let Some(list) = list {
        draw_list(runs, shared, frame, list);
    }
    if let Some(detail) = detail {
        match runs.pane {
            COLUMNS => super::column_chooser::draw(runs, shared, frame, detail),
            _ => super::detail::draw(runs, shared, frame, detail),
        }
    }
}

/// The areas of the panes.
#[derive(Default)]
struct Places {
    stages: Option<Rect>,
    list: Option<Rect>,
    detail: Option<Rect>,
}

/// Rows for the details if the pipeline is above a list.
const DETAIL_ROWS: u16 = 8;

impl Places {
    /// On a small screen only the focused pane; without runs the pipeline alone, or the chooser of columns. The
    /// pipeline gives its place to a longer list, unless it has the focus.
    fn new(runs: &Runs, shared: &Shared, area: Rect) -> Self {
        let entries = shared.runs.listing.entries().len();
        if entries == 0 && runs.pane != COLUMNS {
            return Self { stages: Some(area), ..Self::default() };
        }
        if entries == 0 || shared.zoomed || area.width < 50 || area.height < 14 {
            return match runs.pane {
                PIPELINE => Self { stages: Some(area), ..Self::default() },
                LIST => Self { list: Some(area), ..Self::default() },
                _ => Self { detail: Some(area), ..Self::default() },
            };
        }
        let list_height = u16::try_from(entries + 4).unwrap_or(u16::MAX).max(7);
        let room = area.height.saturating_sub(pipeline::ROWS + DETAIL_ROWS);
        let high = if runs.pane == PIPELINE || list_height <= room { pipeline::ROWS } else { 0 };
        let most = (area.height - high) * 11 / 20;
        let rows = [Constraint::Length(high), Constraint::Length(list_height.min(most.max(7))), Constraint::Fill(1)];
        let [stages, list, detail] = Layout::vertical(rows).areas(area);
        Self { stages: Some(stages).filter(|_| high > 0), list: Some(list), detail: Some(detail) }
    }
}

/// The stage of the pipeline at a terminal position.
pub(super) fn stage_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<usize> {
    let area = Places::new(runs, shared, shared.body()).stages.filter(|_| runs.pane != MATCHES)?;
    pipeline::stage_at(shared, area, row).filter(|_| area.contains((column, row).into()))
}

/// Rows of a page.
pub(super) fn page_rows(runs: &Runs, shared: &Shared) -> usize {
    let Places { list, detail, .. } = Places::new(runs, shared, shared.body());
    let shown = if runs.pane == DETAIL { detail } else { list };
    shown.map_or(10, |area| area.height.saturating_sub(3) as usize)
}

/// Lines of the details.
pub(super) fn detail_rows(runs: &Runs, shared: &Shared) -> usize {
    Places::new(runs, shared, shared.body()).detail.map_or(0, |area| super::detail::rows(runs, shared, area))
}

/// The row of the list at a terminal position.
pub(super) fn row_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<usize> {
    if runs.pane == MATCHES {
        return super::matches::row_at(runs, shared, row);
    }
    let list = Places::new(runs, shared, shared.body()).list?;
    let inside = list_rows(runs, list);
    if !inside.contains((column, row).into()) {
        return None;
    }
    runs.cursor.row_at((row - inside.y) as usize, inside.height as usize, runs.shown.len())
}

/// Whether a terminal position is on the marks beside the rows.
pub(super) fn is_mark(runs: &Runs, shared: &Shared, column: u16) -> bool {
    Places::new(runs, shared, shared.body()).list.is_some_and(|list| column <= list.x + 2)
}

/// The list of columns, if it is at a terminal position.
pub(super) fn chooser_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<Rect> {
    let area = Places::new(runs, shared, shared.body()).detail.filter(|_| runs.pane == COLUMNS)?;
    area.contains((column, row).into()).then_some(area)
}

/// The field of the column whose title is at a terminal position.
pub(super) fn title_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<String> {
    if runs.pane == MATCHES {
        return None;
    }
    let list = Places::new(runs, shared, shared.body()).list?;
    let rows = list_rows(runs, list);
    let mut at = column.checked_sub(rows.x + 2).filter(|_| row + 1 == rows.y)? as usize;
    let columns = columns_of(runs, shared, rows.width);
    let column = columns.into_iter().find(|column| {
        let is_here = at <= column.width;
        at = at.saturating_sub(column.width + 1);
        is_here
    })?;
    Some(column.field)
}

fn columns_of(runs: &Runs, shared: &Shared, width: u16) -> Vec<Column> {
    let usual = || columns::usual_of(super::rows_of(&shared.runs.listing));
    let fields = shared.options.runs_columns.clone().unwrap_or_else(usual);
    columns::columns((width as usize).saturating_sub(2), &fields, &runs.sort.field, runs.group_by.is_some())
}

/// The rows below frame, filter and titles.
fn list_rows(runs: &Runs, area: Rect) -> Rect {
    let above = 2 + u16::from(runs.filter.is_shown());
    Rect {
        x: area.x + 1,
        y: area.y + above,
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(above + 1),
    }
}

fn draw_list(runs: &Runs, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let inside = framed(theme, &title(runs, shared, area.width as usize), runs.pane == LIST, frame, area);
    if inside.height == 0 || inside.width == 0 {
        return;
    }
    let mut lines = Vec::new();
    lines.extend(runs.filter.is_shown().then(|| filter_line(runs, shared, inside.width as usize)));
    let columns = columns_of(runs, shared, inside.width);
    lines.push(titles(runs, shared, &columns));
    let rows = list_rows(runs, area).height as usize;
    for (place, here) in runs.cursor.seen(rows, runs.shown.len()) {
        match runs.shown[place] {
            Row::Group(index) => lines.push(group_row(runs, shared, &runs.groups[index], &columns, here)),
            Row::Run(index) => {
                let Some(entry) = shared.runs.listing.entries().get(index) else { continue };
                lines.push(row(runs, shared, entry, &columns, inside.width as usize, here));
            }
        }
    }
    if runs.shown.is_empty() {
        lines.push(Line::styled(
            format!("  no runs match filter; {} clears it", shared.key_of("runs.leave_filter")),
            theme.style(Role::Faint),
        ));
    }
    frame.render_widget(Paragraph::new(lines), inside);
}

fn title(runs: &Runs, shared: &Shared, width: usize) -> String {
    let (shown, all) = (runs.filtered, shared.runs.listing.entries().len());
    let count = if shown == all { format!("Runs {all}") } else { format!("Runs {shown} of {all}") };
    let marked = if runs.marked.is_empty() { String::new() } else { format!(", {} marked", runs.marked.len()) };
    let reading = if shared.runs.listed { "" } else { ", loading" };
    let sort = match (runs.sort.field.as_str(), runs.sort.descending) {
        ("created", true) => "newest first".to_owned(),
        ("created", false) => "oldest first".to_owned(),
        (field, descending) => {
            let smoothed = if runs.sort.smoothed { " smoothed" } else { "" };
            format!("by {field}{smoothed}, {} first", if descending { "highest" } else { "lowest" })
        }
    };
    let sign = shared.theme.glyph("±", "+-");
    let groups = runs.group_by.as_ref().map_or_else(String::new, |by| {
        format!(" in {} by {by}, mean {sign}std over runs", crate::format::counted(runs.groups.len(), "group"))
    });
    let full = format!("{count}{groups}{marked}{reading}{}{sort}", shared.theme.glyph(" · ", ", "));
    let by = runs.group_by.as_ref().map_or_else(String::new, |by| format!(" by {by}: mean {sign}std"));
    if full.width() + 6 > width { format!("{count}{by}{marked}") } else { full }
}

fn filter_line(runs: &Runs, shared: &Shared, width: usize) -> Line<'static> {
    let theme = &shared.theme;
    let wrong = runs.filter_error.as_deref().unwrap_or_default();
    let mut line = runs.filter.line(theme, if wrong.is_empty() { width } else { width / 2 });
    if !wrong.is_empty() {
        let room = width.saturating_sub(line.width() + 2);
        line.spans.push(Span::styled(format!("  {}", fitted(wrong, room)), theme.style(Role::Bad)));
    } else if runs.filter.text().is_empty() {
        line.spans.push(Span::styled(" filter: tiny valid>0.9 and tags:best", theme.style(Role::Faint)));
    }
    line
}

fn titles(runs: &Runs, shared: &Shared, columns: &[Column]) -> Line<'static> {
    let (sort, theme) = (&runs.sort, &shared.theme);
    // A letter stands apart.
    let arrow = if sort.descending { theme.glyph("▾", " v") } else { theme.glyph("▴", " ^") };
    let mut spans = vec![Span::raw("  ")];
    for column in columns {
        let is_sort = column.field == sort.field;
        let title = if is_sort {
            format!("{}{arrow}", fitted(&column.title, column.width.saturating_sub(arrow.width())))
        } else {
            column.title.clone()
        };
        spans.push(Span::styled(padded(&title, column), theme.style(if is_sort { Role::Title } else { Role::Faint })));
    }
    Line::from(spans)
}

fn row(
    runs: &Runs,
    shared: &Shared,
    entry: &Entry,
    columns: &[Column],
    width: usize,
    under_cursor: bool,
) -> Line<'static> {
    let theme = &shared.theme;
    let cursor = if under_cursor { theme.glyph("▸", ">") } else { " " };
    let marked = runs.marked.contains(&entry.path);
    let mark = if marked { theme.glyph("◆", "+") } else { " " };
    let mut spans =
        vec![Span::styled(cursor, theme.style(Role::Accent)), Span::styled(mark, theme.style(Role::Marked))];
    match &entry.row {
        Ok(run) => {
            let look = look_of(runs, shared);
            for column in columns {
                let (text, role) = columns::cell(column, &look, run);
                spans.push(Span::styled(padded(&text, column), theme.style(role)));
            }
        }
        Err(error) => {
            let error = error.replace(&format!("{}/", entry.path.display()), "");
            let text =
                format!("{} unreadable  {} {error}", theme.glyph("✗", "x"), crate::format::short_id(&entry.id()));
            spans.push(Span::styled(fitted(&text, width.saturating_sub(2)), theme.style(Role::Bad)));
        }
    }
    let line = Line::from(spans);
    if under_cursor { line.style(theme.style(Role::Selected)) } else { line }
}

fn look_of<'a>(runs: &Runs, shared: &'a Shared) -> Look<'a> {
    Look { theme: &shared.theme, now_ms: shared.now_ms, smoothed: runs.sort.smoothed }
}

/// The value and the size of the group in place of the columns up to the first number, then means.
fn group_row(runs: &Runs, shared: &Shared, group: &Group, columns: &[Column], under_cursor: bool) -> Line<'static> {
    let theme = &shared.theme;
    let cursor = if under_cursor { theme.glyph("▸", ">") } else { " " };
    let all_marked = group.paths(shared).all(|path| runs.marked.contains(path));
    let mark = if all_marked { theme.glyph("◆", "+") } else { " " };
    let is_open = runs.expanded.contains(&group.value);
    let fold = if is_open { theme.glyph("▾", "-") } else { theme.glyph("▸", "+") };
    let texts = columns.iter().take_while(|column| !column.right).count().max(1);
    let room = columns[..texts.min(columns.len())].iter().map(|column| column.width + 1).sum::<usize>();
    let size = format!(", n={}", group.entries.len());
    let value = format!("{fold} {}", group.label);
    let head = format!("{}{size} ", fitted(&value, room.saturating_sub(size.width() + 1)));
    let (look, means) = (look_of(runs, shared), group.runs(shared));
    let mut spans = vec![
        Span::styled(cursor, theme.style(Role::Accent)),
        Span::styled(mark, theme.style(Role::Marked)),
        Span::styled(text_width::padded(&head, room, false), theme.style(Role::Title)),
    ];
    let cells = columns.iter().skip(texts).map(|column| padded(&columns::group_cell(column, &look, &means), column));
    spans.extend(cells.map(|cell| Span::styled(cell, theme.style(Role::Text))));
    let line = Line::from(spans);
    if under_cursor { line.style(theme.style(Role::Selected)) } else { line }
}

/// A cell padded to its column, and the gap after it.
fn padded(text: &str, column: &Column) -> String {
    format!("{} ", text_width::padded(text, column.width, column.right))
}
