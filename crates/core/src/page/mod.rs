//! What a report says, not how it looks: blocks of typed cells. Terminal text, Markdown and HTML are rendered here, panes
//! in the view.

pub mod html;
pub mod markdown;
pub mod text;

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

use crate::facts::{AlertLevel, Tier};
use crate::format::{amount, bytes, duration, percent, percent_interval, shortened_start};

/// How much a line matters, and which side of a comparison it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Step,
    Info,
    Base,
    Trained,
    Request,
    Good,
    Warning,
    Error,
}

impl From<AlertLevel> for Level {
    fn from(level: AlertLevel) -> Self {
        match level {
            AlertLevel::Info => Self::Info,
            AlertLevel::Warning => Self::Warning,
            AlertLevel::Error => Self::Error,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    Heading(String),
    Text(Level, String),
    /// A sentence with the mark of its level: `error: `, `✗ `.
    Finding(Level, String),
    List(Vec<String>),
    Facts(Vec<Fact>),
    Bars(Vec<Bar>),
    Table(Table),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub name: Cow<'static, str>,
    pub value: Cell,
    pub level: Level,
    /// In [0, 1], or above it for too much; a pane draws it as a bar.
    pub share: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub name: String,
    pub amount: Cell,
    /// In [0, 1].
    pub share: f64,
    /// May be empty.
    pub note: Cow<'static, str>,
    /// What the part counts, if it counts completions.
    pub tier: Option<Tier>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// One more than a row has cells; the first is above the labels.
    pub head: Vec<String>,
    pub rows: Vec<Row>,
    /// As of [`text::table`].
    pub align: &'static str,
    /// Of the columns: that of cells whose row has none. Terminal text and Markdown have no colours.
    pub levels: &'static [Level],
    /// Columns that a narrow pane leaves out, the first one first; 0 is that of the labels.
    pub left_out: &'static [usize],
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub label: String,
    pub cells: Vec<Cell>,
    pub level: Level,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Rate {
        value: f64,
        interval: Option<[f64; 2]>,
        /// Sample size, if it differs from the table's.
        n: Option<usize>,
    },
    Seconds(f64),
    Bytes(u64),
    Count(usize),
    Amount(f64),
    /// With so many decimals.
    Number(f64, usize),
    /// With its bounds, and so many decimals.
    Estimate(f64, [f64; 2], usize),
    Text(String),
    Noted(Box<Cell>, String),
    /// Why the value is not known.
    Unknown(&'static str),
}

impl Block {
    pub fn info(text: impl Into<String>) -> Self {
        Self::Text(Level::Info, text.into())
    }

    pub fn detail(text: impl Into<String>) -> Self {
        Self::Text(Level::Step, text.into())
    }

    pub fn heading(text: impl Into<String>) -> Self {
        Self::Heading(text.into())
    }

    fn table(&self) -> Option<Table> {
        let fact = |fact: &Fact| Row::new(&*fact.name, [fact.value.clone()]);
        let bar = |bar: &Bar| {
            let note = Cell::Text(bar.note.to_string());
            Row::new(format!("  {}", bar.name), [bar.amount.clone(), note])
        };
        match self {
            Self::Facts(facts) => Some(Table::new(&[], "l", facts.iter().map(fact).collect())),
            Self::Bars(bars) => Some(Table::new(&[], "lrl", bars.iter().map(bar).collect())),
            Self::Table(table) => Some(table.clone()),
            _ => None,
        }
    }
}

impl Table {
    pub fn new(head: &[&str], align: &'static str, rows: Vec<Row>) -> Self {
        let head = head.iter().map(|&title| title.to_owned()).collect();
        Self {
            head,
            rows,
            align,
            levels: &[],
            left_out: &[],
        }
    }

    /// With cells and labels in their shortest form.
    #[must_use]
    pub fn short(mut self) -> Self {
        for row in &mut self.rows {
            row.label = shortened_start(&row.label, text::MAX_TITLE);
            let cells = row.cells.iter_mut();
            cells.for_each(|cell| *cell = Cell::Text(cell.short()));
        }
        self
    }

    fn texts(&self) -> impl Iterator<Item = Vec<String>> {
        self.rows.iter().map(|Row { label, cells, .. }| {
            let cells = cells.iter().map(ToString::to_string);
            std::iter::once(label.clone()).chain(cells).collect()
        })
    }
}

/// The alignment of each column.
fn letters(align: &str) -> impl Iterator<Item = char> {
    let last = align.chars().last().unwrap_or('l');
    align.chars().chain(std::iter::repeat(last))
}

impl Row {
    pub fn new(label: impl Into<String>, cells: impl IntoIterator<Item = Cell>) -> Self {
        Self {
            label: label.into(),
            cells: cells.into_iter().collect(),
            level: Level::Info,
        }
    }
}

impl Fact {
    pub fn new(name: impl Into<Cow<'static, str>>, value: impl Into<Cell>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            level: Level::Info,
            share: None,
        }
    }
}

impl Bar {
    pub fn new(name: impl Into<String>, amount: Cell, share: f64) -> Self {
        Self {
            name: name.into(),
            amount,
            share,
            note: Cow::Borrowed(""),
            tier: None,
        }
    }
}

impl Cell {
    pub fn rate(value: f64) -> Self {
        Self::Rate {
            value,
            interval: None,
            n: None,
        }
    }

    pub fn interval(value: f64, interval: [f64; 2]) -> Self {
        Self::Rate {
            value,
            interval: Some(interval),
            n: None,
        }
    }

    pub fn known(value: Option<Self>, why: &'static str) -> Self {
        value.unwrap_or(Self::Unknown(why))
    }

    /// Without intervals, notes and reasons.
    pub fn short(&self) -> String {
        match self {
            Self::Rate { value, n: None, .. } => percent(*value),
            Self::Rate {
                value, n: Some(n), ..
            } => format!("{} of {n}", percent(*value)),
            Self::Estimate(value, _, decimals) => Self::Number(*value, *decimals).to_string(),
            Self::Noted(cell, _) => cell.short(),
            Self::Unknown(_) => "n/a".to_owned(),
            _ => self.to_string(),
        }
    }

    /// The longest form that fits into so many columns, else the shortest.
    pub fn fitted(&self, columns: usize) -> String {
        let noted = match self {
            Self::Noted(cell, note) => Some(format!("{} ({note})", cell.short())),
            _ => None,
        };
        let mut forms = std::iter::once(self.to_string()).chain(noted);
        let fits = |form: &String| form.width() <= columns;
        forms.find(fits).unwrap_or_else(|| self.short())
    }
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Self {
        Self::Text(text.into())
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Rate { value, interval, n } => {
                let rate = interval.map_or_else(
                    || percent(*value),
                    |interval| percent_interval(*value, interval),
                );
                n.map_or_else(|| rate.clone(), |n| format!("{rate}, n = {n}"))
            }
            Self::Seconds(seconds) => duration(*seconds),
            Self::Bytes(number) => bytes(*number),
            Self::Count(number) => number.to_string(),
            Self::Amount(number) => amount(*number),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
            Self::Estimate(value, [low, high], decimals) => {
                format!("{value:.decimals$} [{low:.decimals$}, {high:.decimals$}]")
            }
            Self::Text(text) => text.clone(),
            Self::Noted(cell, note) => format!("{cell} ({note})"),
            Self::Unknown(why) => format!("n/a ({why})"),
        };
        formatter.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_cell_has_no_interval_and_no_reason() {
        let check = |cell: &Cell, forms: &[(usize, &str)]| {
            for (columns, expected) in forms {
                assert_eq!(cell.fitted(*columns), *expected, "{columns}");
            }
        };
        let rate = Cell::Rate {
            value: 0.594,
            interval: Some([0.55, 0.636]),
            n: Some(40),
        };
        let forms = [(26, "59.4% [55.0, 63.6], n = 40"), (25, "59.4% of 40")];
        check(&rate, &forms);
        let noted = Cell::Noted(Box::new(rate), "p^3 21%".to_owned());
        let forms = [
            (36, "59.4% [55.0, 63.6], n = 40 (p^3 21%)"),
            (21, "59.4% of 40 (p^3 21%)"),
            (20, "59.4% of 40"),
        ];
        check(&noted, &forms);
        let wide = Cell::Noted(Box::new(Cell::Count(3)), "請求書".to_owned());
        check(&wide, &[(10, "3 (請求書)"), (9, "3")]);
        let unknown = Cell::known(None, "no price");
        check(&unknown, &[(14, "n/a (no price)"), (13, "n/a")]);
    }

    #[test]
    fn a_page_is_text_markdown_and_html() {
        let rows = vec![Row::new("a|b", [Cell::rate(0.5), Cell::Count(1)])];
        let page = [
            Block::heading("title"),
            Block::Text(Level::Good, "better".to_owned()),
            Block::Finding(Level::Error, "wrong\nmore".to_owned()),
            Block::List(vec!["one".to_owned()]),
            Block::Facts(vec![Fact::new("disk", Cell::Bytes(12).to_string())]),
            Block::Bars(vec![Bar::new("part", Cell::Seconds(3.0), 0.5)]),
            Block::Table(Table {
                levels: &[Level::Info, Level::Base, Level::Trained],
                ..Table::new(&["", "x", "y"], "lr", rows)
            }),
        ];
        assert_eq!(
            text::render(&page),
            "title\nbetter\nerror: wrong\n  more\n  one\ndisk  12 B\n  part  3.0 s\n         x  y\na|b  50.0%  1\n"
        );
        let classes = ["", "right base", "right trained"];
        assert_eq!(
            html::values(&page)[6]["classes"],
            serde_json::json!(classes)
        );
        assert_eq!(
            markdown::render(&page),
            "\n#### title\n\n**better**\n\nerror: wrong␊more\n\n- one\n\n|  |  |\n|---|---|\n| disk | 12 B |\n\n|  |  |  |\n|---|---:|---|\n|   part | 3.0 s |  |\n\n|  | x | y |\n|---|---:|---:|\n| a\\|b | 50.0% | 1 |\n"
        );
    }
}
