//! A pane as a value: position, frame and content, shared by drawing, pointer, movement and linear
//! mode.

#![expect(
    missing_debug_implementations,
    reason = "they hold closures, and live for one frame"
)]

use std::borrow::Cow;
use std::ops::Range;

use ratatui::layout::{Constraint, Layout, Margin, Position, Rect};
use ratatui::text::Line;

use crate::help::Fault;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::editor::Editor;
use crate::widgets::editor::paint::Look;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::{wrapped_line, wrapped_rows};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub id: &'static str,
    /// Index among the boxes of a pane, which share its id.
    pub part: usize,
    pub area: Rect,
    pub is_framed: bool,
    /// Whether it is drawn over another pane.
    pub is_over: bool,
}

impl Place {
    pub fn new(id: &'static str, area: Rect) -> Self {
        Self {
            id,
            part: 0,
            area,
            is_framed: true,
            is_over: false,
        }
    }

    /// Text without a frame.
    pub fn bare(id: &'static str, area: Rect) -> Self {
        Self {
            is_framed: false,
            ..Self::new(id, area)
        }
    }

    pub fn inside(&self) -> Rect {
        if self.is_framed {
            self.area.inner(Margin::new(1, 1))
        } else {
            self.area
        }
    }
}

#[derive(Default)]
pub struct Content<'a> {
    pub title: String,
    pub key: String,
    /// In the lower edge.
    pub legend: Line<'static>,
    /// Role of the frame, if not the default.
    pub edge: Option<Role>,
    /// Fixed lines above the body; `foot`: below it.
    pub head: Vec<Line<'static>>,
    pub foot: Vec<Line<'static>>,
    /// Whether the foot directly follows a short list instead of being at the bottom.
    pub foot_follows: bool,
    pub body: Body<'a>,
    /// Shown instead of an empty body.
    pub empty: Vec<Line<'static>>,
    /// Text ranges that trigger an action when clicked.
    pub links: Vec<Link>,
    /// Whether a double click anywhere acts as Enter.
    pub opens: bool,
}

#[derive(Default)]
pub enum Body<'a> {
    #[default]
    Empty,
    List(List<'a>),
    Table(Table<'a>),
    Entries(Entries),
    Text(Text),
    /// Lines built for the size of the pane, such as a chart; overflow is truncated.
    Fixed(Vec<Line<'static>>),
    Editor(Edited<'a>),
}

/// Rows of one line each, built when drawn.
pub struct List<'a> {
    /// Number of rows; `items`: number of those where the cursor stops.
    pub rows: usize,
    pub items: usize,
    /// Counts the rows where it stops.
    pub cursor: Cursor,
    /// Whether the row under the cursor is marked.
    pub is_marked: bool,
    pub row: Box<dyn Fn(usize) -> Line<'static> + 'a>,
    /// Index of the item in a row; `None` for a heading.
    pub item: Box<dyn Fn(usize) -> Option<usize> + 'a>,
    /// Columns before the cursor mark in a row.
    pub mark: u16,
}

pub struct Table<'a> {
    pub list: List<'a>,
    /// Titles with their widths.
    pub columns: Vec<(Line<'static>, u16)>,
    /// Cells of a row, with the columns that each takes.
    pub cells: Box<dyn Fn(usize) -> Vec<(Line<'static>, u16)> + 'a>,
}

pub struct Edited<'a> {
    pub editor: &'a Editor,
    /// Whether the editor receives the keys.
    pub typing: bool,
    pub focused: bool,
    pub faults: Cow<'a, [Fault]>,
    pub wraps: bool,
}

impl<'a> Edited<'a> {
    pub fn look(&'a self, theme: &'a Theme) -> Look<'a> {
        let Self {
            typing,
            focused,
            faults,
            wraps,
            ..
        } = self;
        Look {
            theme,
            typing: *typing,
            focused: *focused,
            faults,
            wraps: *wraps,
        }
    }
}

/// Lines, some of which belong to an entry where the cursor stops; an entry may have several.
pub struct Entries {
    pub lines: Vec<(Option<usize>, Line<'static>)>,
    pub cursor: Cursor,
    pub is_marked: bool,
    pub wraps: bool,
}

/// Lines that wrap and scroll, in one or several columns.
pub struct Text {
    pub columns: Vec<(Rect, Vec<Line<'static>>)>,
    /// First visible row.
    pub top: Cursor,
}

impl<'a> List<'a> {
    /// A list in which the cursor stops in every row.
    pub fn new(rows: usize, cursor: Cursor, row: impl Fn(usize) -> Line<'static> + 'a) -> Self {
        Self {
            rows,
            items: rows,
            cursor,
            is_marked: true,
            row: Box::new(row),
            item: Box::new(Some),
            mark: 1,
        }
    }

    /// With headings between the items.
    pub fn with_headings(self, items: usize, item: impl Fn(usize) -> Option<usize> + 'a) -> Self {
        Self {
            items,
            item: Box::new(item),
            ..self
        }
    }

    pub fn marked(self, is_marked: bool) -> Self {
        Self { is_marked, ..self }
    }

    pub fn at(&self) -> Option<usize> {
        let item = self.cursor.at(self.items)?;
        match self.rows == self.items {
            true => Some(item),
            false => (0..self.rows).find(|row| (self.item)(*row) == Some(item)),
        }
    }

    pub fn first(&self, height: usize) -> usize {
        Cursor {
            index: self.at().unwrap_or(0),
        }
        .first(height, self.rows)
    }
}

impl Entries {
    pub fn wrapped(&self, columns: u16) -> Vec<(Option<usize>, Line<'static>)> {
        if !self.wraps {
            return self.lines.clone();
        }
        let wrap = |(entry, line): (Option<usize>, Line<'static>)| {
            wrapped_line(line, columns.into())
                .into_iter()
                .map(move |line| (entry, line))
        };
        self.lines.iter().cloned().flat_map(wrap).collect()
    }

    pub fn count(&self) -> usize {
        self.lines
            .iter()
            .filter_map(|(entry, _)| *entry)
            .max()
            .map_or(0, |last| last + 1)
    }

    pub fn at(&self) -> Option<usize> {
        self.cursor.at(self.count())
    }

    /// First visible row: the entry under the cursor is centred, except near the ends, and complete
    /// if it fits.
    pub fn first(&self, rows: &[(Option<usize>, Line<'static>)], height: usize) -> usize {
        let at = self.at();
        let is_at = |row: &(Option<usize>, Line<'static>)| row.0.is_some() && row.0 == at;
        let start = rows.iter().position(is_at).unwrap_or(0);
        let end = rows.iter().rposition(is_at).map_or(0, |last| last + 1);
        let above = (height / 2).min(height.saturating_sub(end - start));
        start
            .saturating_sub(above)
            .min(rows.len().saturating_sub(height))
    }
}

impl Text {
    pub fn new(inside: Rect, lines: Vec<Line<'static>>, top: Cursor) -> Self {
        Self {
            columns: vec![(inside, lines)],
            top,
        }
    }

    /// Maximum over the columns of the screen rows that are not visible.
    pub fn over(&self) -> usize {
        let over = |(area, lines): &(Rect, Vec<Line<'static>>)| {
            let rows: usize = lines
                .iter()
                .map(|line| wrapped_rows(line, area.width.into()))
                .sum();
            rows.saturating_sub(area.height.into())
        };
        self.columns.iter().map(over).max().unwrap_or(0)
    }

    pub fn first(&self) -> usize {
        self.top.index.min(self.over())
    }

    pub fn wrapped(self) -> impl Iterator<Item = (Rect, Vec<Line<'static>>)> {
        self.columns.into_iter().map(|(area, lines)| {
            (
                area,
                lines
                    .into_iter()
                    .flat_map(|line| wrapped_line(line, area.width.into()))
                    .collect(),
            )
        })
    }
}

/// A text range that triggers an action when clicked.
#[derive(Debug, Clone)]
pub struct Link {
    /// Index of the text column; `line`: of the line in it.
    pub column: usize,
    pub line: usize,
    pub cells: Range<usize>,
    pub action: &'static str,
}

/// What is at a position of a pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// An item of a list, by index.
    Item(usize),
    /// A column title, by index.
    Title(usize),
    /// A link to the action with this id.
    Link(&'static str),
    Other,
}

impl<'a> Content<'a> {
    pub fn titled(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    pub fn saying(theme: &Theme, title: &str, role: Role, text: &str, inside: Rect) -> Self {
        let lines = text
            .lines()
            .map(|line| theme.line(line.to_owned(), role))
            .collect();
        Self::titled(title).text(inside, lines, Cursor::default())
    }

    pub fn list(self, list: List<'a>) -> Self {
        Self {
            body: Body::List(list),
            ..self
        }
    }

    /// An editor without faults, which has the focus if it receives the keys.
    pub fn editor(self, editor: &'a Editor, typing: bool, wraps: bool) -> Self {
        let edited = Edited {
            editor,
            typing,
            focused: typing,
            faults: Cow::default(),
            wraps,
        };
        Self {
            body: Body::Editor(edited),
            ..self
        }
    }

    pub fn text(self, inside: Rect, lines: Vec<Line<'static>>, top: Cursor) -> Self {
        Self {
            body: Body::Text(Text::new(inside, lines, top)),
            ..self
        }
    }

    pub fn fixed(self, lines: Vec<Line<'static>>) -> Self {
        Self {
            body: Body::Fixed(lines),
            ..self
        }
    }

    pub fn parts(&self, inside: Rect) -> [Rect; 3] {
        let rows =
            |lines: &[Line<'_>]| Constraint::Length(u16::try_from(lines.len()).unwrap_or(u16::MAX));
        let [head, mut body, mut foot] =
            Layout::vertical([rows(&self.head), Constraint::Fill(1), rows(&self.foot)])
                .areas(inside);
        if let (true, Body::List(list)) = (self.foot_follows, &self.body) {
            body.height = body
                .height
                .min(u16::try_from(list.rows).unwrap_or(u16::MAX));
            foot.y = body.bottom();
        }
        [head, body, foot]
    }

    pub fn extent(&self, inside: Rect) -> (usize, usize) {
        let [_, body, _] = self.parts(inside);
        let height = usize::from(body.height);
        match &self.body {
            Body::List(list) => (height, list.items),
            Body::Table(table) => (height.saturating_sub(1), table.list.items),
            Body::Entries(entries) => (height, entries.count()),
            Body::Text(text) => (height, text.over() + 1),
            Body::Empty | Body::Fixed(_) | Body::Editor(_) => (height, 0),
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.body {
            Body::List(list) => list.rows == 0,
            Body::Table(table) => table.list.rows == 0,
            Body::Entries(entries) => entries.lines.is_empty(),
            Body::Text(text) => text.columns.iter().all(|(_, lines)| lines.is_empty()),
            Body::Fixed(lines) => lines.is_empty(),
            Body::Empty => true,
            Body::Editor(_) => false,
        }
    }

    pub fn spot(&self, inside: Rect, at: Position) -> Spot {
        let [_, body, _] = self.parts(inside);
        if !body.contains(at) {
            return Spot::Other;
        }
        let line = usize::from(at.y - body.y);
        let item = |list: &List<'_>, line: usize, height: usize| {
            let row = list.first(height) + line;
            (row < list.rows)
                .then(|| (list.item)(row))
                .flatten()
                .map_or(Spot::Other, Spot::Item)
        };
        match &self.body {
            Body::List(list) => item(list, line, body.height.into()),
            Body::Table(table) if line == 0 => table.title_at(usize::from(at.x - body.x)),
            Body::Table(table) => item(&table.list, line - 1, usize::from(body.height) - 1),
            Body::Entries(entries) => {
                let rows = entries.wrapped(body.width);
                let row = rows.get(entries.first(&rows, body.height.into()) + line);
                row.and_then(|(entry, _)| *entry)
                    .map_or(Spot::Other, Spot::Item)
            }
            Body::Text(text) => self.link_at(text, at).map_or(Spot::Other, Spot::Link),
            _ => Spot::Other,
        }
    }

    fn link_at(&self, text: &Text, at: Position) -> Option<&'static str> {
        let (column, (area, lines)) = text
            .columns
            .iter()
            .enumerate()
            .find(|(_, (area, _))| area.contains(at))?;
        let row = text.first() + usize::from(at.y - area.y);
        let cell = usize::from(at.x - area.x);
        let mut rows = 0;
        let line = lines.iter().position(|line| {
            rows += wrapped_rows(line, area.width.into());
            row < rows
        })?;
        let is_here =
            |link: &&Link| link.column == column && link.line == line && link.cells.contains(&cell);
        self.links.iter().find(is_here).map(|link| link.action)
    }
}

impl Table<'_> {
    fn title_at(&self, column: usize) -> Spot {
        let mut end = usize::from(self.list.mark);
        let found = self.columns.iter().position(|(_, width)| {
            end += usize::from(*width) + 1;
            (end - usize::from(*width) - 1..end).contains(&column)
        });
        found.map_or(Spot::Other, Spot::Title)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Hit {
    pub place: Place,
    pub spot: Spot,
    pub at: Position,
    pub is_editor: bool,
    /// Whether a double click acts as Enter.
    pub opens: bool,
}
