//! Draws the list of runs and the details of the one under the cursor.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::columns::{self, Column, Look};
use super::{DETAIL, LIST, Runs};
use crate::report::Entry;
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::text_width::{self, fitted};

pub(super) fn draw(runs: &Runs, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let (list, detail) = places(runs, shared, area);
    if let Some(list) = list {
        draw_list(runs, shared, frame, list);
    }
    if let Some(detail) = detail {
        super::detail::draw(runs, shared, frame, detail);
    }
}

/// The areas of list and details; on a small screen only the focused one.
fn places(runs: &Runs, shared: &Shared, area: Rect) -> (Option<Rect>, Option<Rect>) {
    if shared.zoomed || area.width < 50 || area.height < 14 || shared.runs.listing.entries().is_empty() {
        let focused_detail = runs.pane == DETAIL && !shared.runs.listing.entries().is_empty();
        return if focused_detail { (None, Some(area)) } else { (Some(area), None) };
    }
    let list_height = shared.runs.listing.entries().len() as u16 + 4;
    let most = area.height * 11 / 20;
    let [list, detail] =
        Layout::vertical([Constraint::Length(list_height.clamp(7, most.max(7))), Constraint::Fill(1)]).areas(area);
    (Some(list), Some(detail))
}

/// Rows of a page.
pub(super) fn page_rows(runs: &Runs, shared: &Shared) -> usize {
    let (list, detail) = places(runs, shared, shared.body());
    let shown = if runs.pane == DETAIL { detail } else { list };
    shown.map_or(10, |area| area.height.saturating_sub(3) as usize)
}

/// Lines of the details.
pub(super) fn detail_rows(runs: &Runs, shared: &Shared) -> usize {
    places(runs, shared, shared.body()).1.map_or(0, |area| super::detail::rows(runs, shared, area))
}

/// The row of the list at a terminal position.
pub(super) fn row_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<usize> {
    let list = places(runs, shared, shared.body()).0?;
    let inside = list_rows(runs, list);
    if !inside.contains((column, row).into()) {
        return None;
    }
    runs.cursor.row_at((row - inside.y) as usize, inside.height as usize, runs.shown.len())
}

/// The field of the column whose title is at a terminal position, and whether it is its moving average.
pub(super) fn title_at(runs: &Runs, shared: &Shared, column: u16, row: u16) -> Option<(String, bool)> {
    let list = places(runs, shared, shared.body()).0?;
    let rows = list_rows(runs, list);
    let mut at = column.checked_sub(rows.x + 2).filter(|_| row + 1 == rows.y)? as usize;
    let sort = &runs.sort;
    let columns = columns::columns((rows.width as usize).saturating_sub(2), &sort.field, sort.smoothed);
    let column = columns.into_iter().find(|column| {
        let is_here = at <= column.width;
        at = at.saturating_sub(column.width + 1);
        is_here
    })?;
    Some((column.field, column.title == "smooth"))
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
    let all = shared.runs.listing.entries().len();
    let inside = framed(theme, &title(runs, shared, area.width as usize), runs.pane == LIST, frame, area);
    if inside.height == 0 || inside.width == 0 {
        return;
    }
    if all == 0 {
        let text = Paragraph::new(nothing(shared)).wrap(Wrap { trim: false });
        frame.render_widget(text, Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside });
        return;
    }
    let mut lines = Vec::new();
    lines.extend(runs.filter.is_shown().then(|| filter_line(runs, shared, inside.width as usize)));
    let columns = columns::columns((inside.width as usize).saturating_sub(2), &runs.sort.field, runs.sort.smoothed);
    lines.push(titles(runs, shared, &columns));
    let rows = list_rows(runs, area).height as usize;
    for (place, here) in runs.cursor.seen(rows, runs.shown.len()) {
        let Some(entry) = shared.runs.listing.entries().get(runs.shown[place]) else { continue };
        lines.push(row(runs, shared, entry, &columns, inside.width as usize, here));
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
    let (shown, all) = (runs.shown.len(), shared.runs.listing.entries().len());
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
    let full = format!("{count}{marked}{reading} · {sort}");
    let full = if shared.theme.ascii { full.replace(" · ", ", ") } else { full };
    if full.width() + 6 > width { format!("{count}{marked}") } else { full }
}

fn nothing(shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    if !shared.runs.listed {
        return vec![Line::default(), Line::styled("loading runs ...", theme.style(Role::Faint))];
    }
    let key = |id| Span::styled(shared.key_of(id), theme.style(Role::Key));
    let mut lines = vec![
        Line::default(),
        Line::styled("No runs yet.", theme.style(Role::Title)),
        Line::default(),
        Line::from(vec![key("screen.launch"), Span::raw("  opens Launch, to start a run on this machine")]),
    ];
    if shared.runs.demonstration.is_some() {
        lines.push(Line::from(vec![key("runs.demonstration"), Span::raw("  opens a recorded sample run")]));
    }
    lines.push(Line::default());
    let places = format!("Runs folder: {}", shared.options.run_folders.described());
    lines.push(Line::styled(places, theme.style(Role::Faint)));
    lines
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
    let arrow = if sort.descending { theme.glyph("▾", "v") } else { theme.glyph("▴", "^") };
    let smoothed_column = |column: &Column| column.title == "smooth";
    let mut spans = vec![Span::raw("  ")];
    for column in columns {
        let is_sort = column.field == sort.field
            && column.title != "trend"
            && (column.field != "reward" || smoothed_column(column) == sort.smoothed);
        let title = if is_sort {
            format!("{}{arrow}", fitted(&column.title, column.width.saturating_sub(1)))
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
            let look = Look { theme, now_ms: shared.now_ms };
            for column in columns {
                let (text, role) = (column.cell)(&look, run);
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

/// A cell padded to its column, and the gap after it.
fn padded(text: &str, column: &Column) -> String {
    format!("{} ", text_width::padded(text, column.width, column.right))
}
