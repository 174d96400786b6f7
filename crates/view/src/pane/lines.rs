//! A pane as lines, for linear mode.

use ratatui::text::Line;

use super::content::{Body, Content, Entries, List, Place, Table};
use crate::secrets::visible;
use crate::theme::Theme;
use crate::widgets::editor::paint;
use crate::widgets::text_width::wrapped_line;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaneLines {
    /// The id of the pane, and the number of the box.
    pub id: (&'static str, usize),
    /// Empty for text without a frame.
    pub title: String,
    /// The key that focuses it; may be empty.
    pub key: String,
    pub focused: bool,
    /// Lines that are not blank.
    pub lines: Vec<TextLine>,
    /// The text in the lower edge.
    pub legend: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextLine {
    pub text: String,
    pub selected: bool,
}

pub fn lines(theme: &Theme, place: &Place, focused: bool, content: &Content<'_>) -> PaneLines {
    let plain = |line: &Line<'_>| TextLine {
        text: line.to_string(),
        selected: false,
    };
    let [_, body, _] = content.parts(place.inside());
    let (columns, height) = (usize::from(body.width), usize::from(body.height));
    let mut lines: Vec<TextLine> = content.head.iter().map(plain).collect();
    if content.is_empty() {
        lines.extend(
            content
                .empty
                .iter()
                .cloned()
                .flat_map(|line| wrapped_line(line, columns))
                .map(|line| plain(&line)),
        );
    }
    match &content.body {
        Body::Empty => {}
        Body::List(list) => {
            lines.extend(list_lines(list, height, |row| (list.row)(row).to_string()))
        }
        Body::Table(table) => {
            lines.push(TextLine {
                text: row(table, table.columns.iter().map(|(title, _)| (title, 1))),
                selected: false,
            });
            let cells = |number| {
                row(
                    table,
                    (table.cells)(number)
                        .iter()
                        .map(|(line, span)| (line, *span)),
                )
            };
            lines.extend(list_lines(&table.list, height.saturating_sub(1), cells));
        }
        Body::Entries(entries) => lines.extend(entry_lines(entries, body.width, height)),
        Body::Text(text) => {
            let top = text.first();
            for (area, column) in &text.columns {
                let rows = column
                    .iter()
                    .cloned()
                    .flat_map(|line| wrapped_line(line, area.width.into()));
                lines.extend(
                    rows.skip(top)
                        .take(area.height.into())
                        .map(|line| plain(&line)),
                );
            }
        }
        Body::Fixed(fixed) => lines.extend(fixed.iter().take(height).map(plain)),
        Body::Editor(edited) => {
            let rows = paint::lines(edited.editor, edited.look(theme), body);
            lines.extend(rows.into_iter().map(|(has_cursor, line)| TextLine {
                selected: has_cursor,
                ..plain(&line)
            }));
        }
    }
    lines.extend(content.foot.iter().map(plain));
    lines.iter_mut().for_each(TextLine::finish);
    lines.retain(|line| !line.text.is_empty());
    let legend = content.legend.to_string().trim().to_owned();
    PaneLines {
        id: (place.id, place.part),
        title: content.title.clone(),
        key: content.key.clone(),
        focused,
        lines,
        legend,
    }
}

impl TextLine {
    /// Without control characters and trailing blanks.
    fn finish(&mut self) {
        self.text = visible(self.text.trim_end()).into_owned();
    }
}

fn list_lines(list: &List<'_>, height: usize, text: impl Fn(usize) -> String) -> Vec<TextLine> {
    let (first, at) = (list.first(height), list.at().filter(|_| list.is_marked));
    let line = |row| TextLine {
        text: text(row),
        selected: at == Some(row),
    };
    (first..list.rows.min(first + height)).map(line).collect()
}

/// Cells in their columns.
fn row<'a>(table: &Table<'_>, cells: impl Iterator<Item = (&'a Line<'static>, u16)>) -> String {
    let mut widths = table
        .columns
        .iter()
        .map(|(_, width)| usize::from(*width) + 1);
    let mut text = String::new();
    for (cell, span) in cells {
        let width: usize = widths.by_ref().take(span.into()).sum();
        let cell_text = cell.to_string();
        let blanks = " ".repeat(width.saturating_sub(cell.width() + 1));
        let is_right = cell.alignment == Some(ratatui::layout::Alignment::Right);
        text.push_str(&if is_right {
            format!("{blanks}{cell_text} ")
        } else {
            format!("{cell_text}{blanks} ")
        });
    }
    text
}

fn entry_lines(entries: &Entries, columns: u16, height: usize) -> Vec<TextLine> {
    let rows = entries.wrapped(columns);
    let (first, at) = (
        entries.first(&rows, height),
        entries.at().filter(|_| entries.is_marked),
    );
    let line = |(entry, line): &(Option<usize>, Line<'static>)| TextLine {
        text: line.to_string(),
        selected: entry.is_some() && *entry == at,
    };
    rows.iter().skip(first).take(height).map(line).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;

    use super::*;
    use crate::widgets::list_cursor::Cursor;

    #[test]
    fn every_body_is_told_as_lines_with_what_is_selected() {
        let theme = Theme::linear();
        let place = Place::new(
            "pane",
            Rect {
                x: 0,
                y: 0,
                width: 20,
                height: 6,
            },
        );
        let cursor = Cursor { index: 1 };
        let check = |content: Content<'_>, expected: &[(&str, bool)]| {
            let found = lines(&theme, &place, true, &content).lines;
            let found: Vec<_> = found
                .iter()
                .map(|line| (line.text.as_str(), line.selected))
                .collect();
            assert_eq!(found, expected);
        };
        let list = || List::new(3, cursor, |row| Line::from(format!("row {row}")));
        let head = vec![Line::from("head")];
        check(
            Content {
                head,
                ..Content::default()
            }
            .list(list()),
            &[
                ("head", false),
                ("row 0", false),
                ("row 1", true),
                ("row 2", false),
            ],
        );
        check(
            Content {
                empty: vec![Line::from("none")],
                ..Content::default()
            },
            &[("none", false)],
        );
        let columns = vec![(Line::from("id"), 3), (Line::from("n").right_aligned(), 4)];
        let cells = Box::new(|row| {
            vec![
                (Line::from(format!("r{row}")), 1),
                (Line::from("7").right_aligned(), 1),
            ]
        });
        let table = Table {
            list: list(),
            columns,
            cells,
        };
        check(
            Content {
                body: Body::Table(table),
                ..Content::default()
            },
            &[
                ("id     n", false),
                ("r0     7", false),
                ("r1     7", true),
                ("r2     7", false),
            ],
        );
        let entry = |entry, text: &'static str| (entry, Line::from(text));
        let entries = vec![
            entry(None, "title"),
            entry(Some(0), "  one"),
            entry(Some(1), "  語 two"),
        ];
        let entries = Entries {
            lines: entries,
            cursor,
            is_marked: true,
            wraps: false,
        };
        check(
            Content {
                body: Body::Entries(entries),
                ..Content::default()
            },
            &[("title", false), ("  one", false), ("  語 two", true)],
        );
        let text = vec![
            Line::from("a | + b"),
            Line::from("eighteen columns and more"),
        ];
        check(
            Content::default().text(place.inside(), text, Cursor::default()),
            &[
                ("a | + b", false),
                ("eighteen columns", false),
                ("and more", false),
            ],
        );
    }
}
