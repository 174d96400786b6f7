//! Draws a pane with the widgets of ratatui.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Margin, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{
    Cell, Clear, HighlightSpacing, List, ListState, Paragraph, Row, Scrollbar,
    ScrollbarOrientation, ScrollbarState, Table, TableState,
};
use unicode_width::UnicodeWidthStr;

use super::content::{self, Body, Content, Place};
use super::pane;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::editor::paint;
use crate::widgets::text_width::wrapped_line;

/// The rows above what is visible, those visible, and all.
type Extent = (usize, usize, usize);

pub fn draw(
    theme: &Theme,
    frame: &mut Frame<'_>,
    place: &Place,
    focused: bool,
    content: Content<'_>,
) {
    if place.area.width == 0 || place.area.height == 0 {
        return;
    }
    if place.is_over {
        frame.render_widget(Clear, place.area);
    }
    if place.is_framed {
        edge(theme, frame, place.area, focused, &content);
    }
    let inside = place.inside();
    let [head, body, foot] = content.parts(inside);
    if content.is_empty() {
        let rows = content
            .empty
            .iter()
            .cloned()
            .flat_map(|line| wrapped_line(line, body.width.into()));
        // Below the titles of a table.
        let below = u16::from(matches!(content.body, Body::Table(_))).min(body.height);
        let area = Rect {
            y: body.y + below,
            height: body.height - below,
            ..body
        };
        frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()), area);
    }
    frame.render_widget(Paragraph::new(content.head), head);
    frame.render_widget(Paragraph::new(content.foot), foot);
    let extent = match content.body {
        Body::Empty => None,
        Body::List(list) => list_body(theme, frame, body, &list),
        Body::Table(table) => table_body(theme, frame, body, &table),
        Body::Entries(entries) => {
            let rows = entries.wrapped(body.width);
            let (first, all) = (entries.first(&rows, body.height.into()), rows.len());
            let at = entries.at().filter(|_| entries.is_marked);
            let here = rows
                .iter()
                .position(|(entry, _)| entry.is_some() && *entry == at);
            let selected = |(row, (_, line)): (usize, (_, Line<'static>))| {
                if here == Some(row) {
                    line.patch_style(theme.style(Role::Selected))
                } else {
                    line
                }
            };
            let shown = rows
                .into_iter()
                .enumerate()
                .skip(first)
                .take(body.height.into())
                .map(selected);
            let shown: Vec<_> = shown.collect();
            frame.render_widget(Paragraph::new(shown), body);
            Some((first, body.height.into(), all))
        }
        Body::Text(text) => text_body(frame, text),
        Body::Fixed(lines) => {
            frame.render_widget(Paragraph::new(lines), body);
            None
        }
        Body::Editor(edited) => {
            paint::paint(edited.editor, edited.look(theme), frame, body);
            None
        }
    };
    if let Some(extent) = extent.filter(|_| place.is_framed) {
        scroll_bar(theme, frame, place.area, extent);
    }
}

fn edge(theme: &Theme, frame: &mut Frame<'_>, area: Rect, focused: bool, content: &Content<'_>) {
    let Content {
        title,
        key,
        legend,
        edge,
        ..
    } = content;
    let mut block = pane(theme, title, focused);
    if let Some(role) = edge {
        block = block.border_style(theme.style(*role));
    }
    // Blanks, the mark of the focus, and the corners.
    if !key.is_empty() && title.width() + key.width() + 8 <= usize::from(area.width) {
        block = block.title_top(
            theme
                .line(format!(" {key} "), Role::Faint)
                .alignment(Alignment::Right),
        );
    }
    if legend.width() > 0 {
        block = block.title_bottom(legend.clone());
    }
    frame.render_widget(block, area);
}

fn selected(theme: &Theme) -> Style {
    Style {
        fg: None,
        ..theme.style(Role::Selected)
    }
}

fn mark(theme: &Theme, columns: u16) -> Line<'static> {
    let mark = format!("{:<width$}", "▸", width = usize::from(columns));
    theme.line(mark, Role::Accent)
}

fn list_body(
    theme: &Theme,
    frame: &mut Frame<'_>,
    area: Rect,
    list: &content::List<'_>,
) -> Option<Extent> {
    let height = usize::from(area.height);
    let first = list.first(height);
    let at = list.at().filter(|_| list.is_marked);
    let row = |row: usize| {
        let line = (list.row)(row);
        if at == Some(row) {
            line.style(theme.style(Role::Selected))
        } else {
            line
        }
    };
    let rows: Vec<Line<'_>> = (first..list.rows.min(first + height)).map(row).collect();
    let mut state = ListState::default().with_selected(at.map(|at| at - first));
    let widget = List::new(rows)
        .highlight_symbol(mark(theme, list.mark))
        .highlight_spacing(if list.mark > 0 {
            HighlightSpacing::Always
        } else {
            HighlightSpacing::Never
        })
        .highlight_style(selected(theme));
    frame.render_stateful_widget(widget, area, &mut state);
    Some((first, height, list.rows))
}

fn table_body(
    theme: &Theme,
    frame: &mut Frame<'_>,
    area: Rect,
    table: &content::Table<'_>,
) -> Option<Extent> {
    let content::Table {
        list,
        columns,
        cells,
    } = table;
    let height = usize::from(area.height.saturating_sub(1));
    let first = list.first(height);
    let at = list.at().filter(|_| list.is_marked);
    let row = |row: usize| {
        let cells = cells(row)
            .into_iter()
            .map(|(line, span)| Cell::new(line).column_span(span));
        let style = if at == Some(row) {
            theme.style(Role::Selected)
        } else {
            Style::new()
        };
        Row::new(cells.collect::<Vec<_>>()).style(style)
    };
    let rows: Vec<Row<'_>> = (first..list.rows.min(first + height)).map(row).collect();
    let mut state = TableState::new().with_selected(at.map(|at| at - first));
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let widget = Table::new(rows, widths)
        .header(Row::new(columns.iter().map(|(title, _)| title.clone())))
        .column_spacing(1)
        .highlight_symbol(mark(theme, list.mark))
        .highlight_spacing(HighlightSpacing::Always)
        .row_highlight_style(selected(theme));
    frame.render_stateful_widget(widget, area, &mut state);
    Some((first, height, list.rows))
}

fn text_body(frame: &mut Frame<'_>, text: content::Text) -> Option<Extent> {
    let top = text.first();
    let mut extent = None;
    for (area, rows) in text.wrapped() {
        extent = extent.max(Some((rows.len(), usize::from(area.height))));
        let shown: Vec<_> = rows
            .into_iter()
            .skip(top)
            .take(area.height.into())
            .collect();
        frame.render_widget(Paragraph::new(shown), area);
    }
    extent.map(|(all, visible)| (top, visible, all))
}

fn scroll_bar(theme: &Theme, frame: &mut Frame<'_>, area: Rect, (above, visible, all): Extent) {
    if all <= visible || area.height < 4 {
        return;
    }
    let mut state = ScrollbarState::new(all - visible + 1)
        .position(above)
        .viewport_content_length(visible);
    let bar = Scrollbar::new(ScrollbarOrientation::VerticalRight)
        .begin_symbol(None)
        .end_symbol(None)
        .track_symbol(None)
        .thumb_symbol("┃")
        .thumb_style(theme.style(Role::Border));
    frame.render_stateful_widget(bar, area.inner(Margin::new(0, 1)), &mut state);
}
