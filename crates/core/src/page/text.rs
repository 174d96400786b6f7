//! A page as text of a terminal.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

use super::{Block, Level, Table, letters};
use crate::format::shortened_start;
use crate::secrets::{redact, visible};

/// Columns to which cells are padded. A longer one moves what follows it in its row: a hostile name is one long row, not a
/// wide table.
const MAX_PADDED: usize = 120;

/// Between columns.
const GAP: &str = "  ";

pub(super) const MAX_TITLE: usize = 32;

/// Lines without control characters. A heading has a blank line above it, a table with a head one below it.
pub fn render(page: &[Block]) -> String {
    let mut text = String::new();
    let mut is_below_table = false;
    for block in page {
        let is_heading = matches!(block, Block::Heading(_));
        if is_below_table || is_heading && !text.is_empty() {
            text += "\n";
        }
        is_below_table = matches!(block, Block::Table(table) if !table.head.is_empty());
        match block {
            Block::Heading(heading) => text += &line(heading),
            Block::Finding(level, sentence) => {
                let mut lines = sentence.lines();
                text += mark(*level);
                text += &line(lines.next().unwrap_or_default());
                text.extend(lines.map(|more| line(&format!("  {more}"))));
            }
            Block::Text(_, sentence) => text += &line(sentence),
            Block::List(items) => text.extend(items.iter().map(|item| line(&format!("  {item}")))),
            Block::Facts(_) | Block::Bars(_) | Block::Table(_) => {
                text.extend(block.table().map(|found| lines(&padded(&found, &[], GAP))));
            }
        }
    }
    text
}

pub(super) fn mark(level: Level) -> &'static str {
    match level {
        Level::Request => "note: ",
        Level::Warning => "warning: ",
        Level::Error => "error: ",
        _ => "",
    }
}

/// The padded cells of a table whose lines all fit: whole, else with cells in their shortest form, else closer together,
/// else without those of its columns that it can do without, whose cells are empty.
pub fn fitted(found: &Table, fits: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let short = found.clone().short();
    let wide = [found, &short].map(|table| padded(table, &[], GAP));
    let narrow = |count| padded(&short, &found.left_out[..count], " ");
    let most = found.left_out.len();
    let mut forms = wide.into_iter().chain((0..most).map(narrow));
    let found = forms.find(|rows| rows.iter().all(|row| fits(row.concat().trim_end())));
    found.unwrap_or_else(|| narrow(most))
}

fn padded(found: &Table, left_out: &[usize], gap: &str) -> Vec<Vec<String>> {
    // A title from its end: that of a path or of a run's name is more specific.
    let title = |title: &String| shortened_start(&visible(&redact(title).0), MAX_TITLE);
    let head = (!found.head.is_empty()).then(|| found.head.iter().map(title).collect());
    let rows: Vec<Vec<String>> = head.into_iter().chain(found.texts()).collect();
    let mut rows = cells(&rows, found.align, gap);
    for row in &mut rows {
        for column in left_out {
            if let Some(cell) = row.get_mut(*column) {
                cell.clear();
            }
        }
    }
    rows
}

fn line(text: &str) -> String {
    visible(text).into_owned() + "\n"
}

/// Columns separated by two spaces, each cell on one line. `align` has a letter per column, `r` for right; the last one
/// applies to all further columns.
pub fn table(rows: &[Vec<String>], align: &str) -> String {
    lines(&cells(rows, align, GAP))
}

fn lines(rows: &[Vec<String>]) -> String {
    rows.iter()
        .map(|row| row.concat().trim_end().to_owned() + "\n")
        .collect()
}

/// Each as wide as its column, with the gap behind it.
fn cells(rows: &[Vec<String>], align: &str, gap: &str) -> Vec<Vec<String>> {
    let shown: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(cell)).collect())
        .collect();
    let width = |column: usize| {
        shown
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.width())
            .max()
            .unwrap_or(0)
            .min(MAX_PADDED)
    };
    let widths: Vec<usize> = (0..shown.iter().map(Vec::len).max().unwrap_or(0))
        .map(width)
        .collect();
    let aligned = |((cell, width), letter): ((&Cow<'_, str>, &usize), char)| {
        let blanks = " ".repeat(width.saturating_sub(cell.width()));
        match letter {
            'r' => format!("{blanks}{cell}{gap}"),
            _ => format!("{cell}{blanks}{gap}"),
        }
    };
    let row = |row: &Vec<Cow<'_, str>>| {
        row.iter()
            .zip(&widths)
            .zip(letters(align))
            .map(aligned)
            .collect()
    };
    shown.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["", "a", "b"],
            ["long\tname", "1", "22%"],
            ["x", "10", "5%"],
        ]
        .map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&rows, "lr"),
            "            a    b\nlong name   1  22%\nx          10   5%\n"
        );
        assert_eq!(
            table(&[vec!["a".into()], vec!["b".into(), "c".into()]], "l"),
            "a\nb  c\n"
        );
        assert_eq!(
            table(
                &[
                    vec!["請求".into(), "1".into()],
                    vec!["a".into(), "2".into()]
                ],
                "l"
            ),
            "請求  1\na     2\n"
        );
        assert_eq!(table(&[], "l"), "");
    }

    #[test]
    fn a_cell_of_any_length_is_one_long_row() {
        let long = "x".repeat(70_000);
        for align in ["l", "r"] {
            let table = table(
                &[vec!["a".into(), "b".into()], vec![long.clone(), "c".into()]],
                align,
            );
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(
                (lines[0].len(), lines[1]),
                (123, format!("{long}  c").as_str()),
                "{align}"
            );
        }
    }
}
