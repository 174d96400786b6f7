//! The result of a query against that of the expected one: as many columns, the same rows, in order where that counts.

use std::collections::HashMap;

use super::super::OrderedMap;
use crate::sqlite::{Cell, Table};

/// Rows that a sentence shows.
const SHOWN: usize = 3;
/// Characters of a row that a sentence shows.
const SHOWN_LETTERS: usize = 80;

/// The result of a comparison.
#[derive(Debug, PartialEq)]
pub(super) struct Comparison {
    /// `columns`, `rows` and, where it counts, `order`.
    pub(super) fields: OrderedMap<bool>,
    /// A sentence a difference.
    pub(super) differences: Vec<String>,
}

/// `in_order`: rows must be in the order of the expected ones. Names of columns do not count.
pub(super) fn compare(found: &Table, expected: &Table, in_order: bool) -> Comparison {
    let same_columns = found.columns.len() == expected.columns.len();
    let mut differences = Vec::new();
    if !same_columns {
        let wanted = crate::format::counted(expected.columns.len(), "column");
        differences.push(format!(
            "{wanted} expected ({}), found {}",
            expected.columns.join(", "),
            found.columns.len()
        ));
    }
    // Integers are exact among themselves; beside a real they are as exact as that.
    let is_real = |column: usize| {
        let mut cells = found
            .rows
            .iter()
            .chain(&expected.rows)
            .filter_map(|row| row.get(column));
        cells.any(|cell| matches!(cell, Cell::Real(_)))
    };
    let real: Vec<bool> = (0..found.columns.len().max(expected.columns.len()))
        .map(is_real)
        .collect();
    let keys = |table: &Table| {
        table
            .rows
            .iter()
            .map(|row| key(row, &real))
            .collect::<Vec<String>>()
    };
    let (found_keys, expected_keys) = (keys(found), keys(expected));
    let missing = left_over(&expected_keys, &found_keys);
    let extra = left_over(&found_keys, &expected_keys);
    // With other columns no row is equal, which needs no second sentence.
    if same_columns {
        for (what, table, rows) in [("missing", expected, &missing), ("extra", found, &extra)] {
            if !rows.is_empty() {
                let shown: Vec<String> = rows
                    .iter()
                    .take(SHOWN)
                    .map(|row| shown(&table.rows[*row]))
                    .collect();
                let more = if rows.len() > SHOWN { ", …" } else { "" };
                let count = crate::format::counted(rows.len(), "row");
                differences.push(format!(
                    "{count} {what} of {}: {}{more}",
                    table.rows.len(),
                    shown.join(", ")
                ));
            }
        }
    }
    let same_rows = missing.is_empty() && extra.is_empty();
    let moved = found_keys
        .iter()
        .zip(&expected_keys)
        .position(|(found, expected)| found != expected);
    if let Some(row) = moved.filter(|_| in_order && same_rows) {
        let (wanted, found) = (shown(&expected.rows[row]), shown(&found.rows[row]));
        differences.push(format!(
            "wrong order: row {} is expected to be {wanted}, found {found}",
            row + 1
        ));
    }
    let order = in_order.then_some(same_rows && moved.is_none());
    Comparison {
        fields: fields(same_columns, same_rows, order),
        differences,
    }
}

/// The parts of a result that are compared; `order` only where it counts.
pub(super) fn fields(columns: bool, rows: bool, order: Option<bool>) -> OrderedMap<bool> {
    let named = |(name, same): (&str, bool)| (name.to_owned(), same);
    let all = [("columns", columns), ("rows", rows)]
        .into_iter()
        .chain(order.map(|same| ("order", same)));
    OrderedMap(all.map(named).collect())
}

/// The rows that have no partner among the others, each row counted.
fn left_over(rows: &[String], others: &[String]) -> Vec<usize> {
    let mut counts: HashMap<&str, usize> = HashMap::with_capacity(others.len());
    for other in others {
        *counts.entry(other).or_default() += 1;
    }
    let mut left = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        match counts.get_mut(row.as_str()).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => left.push(number),
        }
    }
    left
}

/// A text that equal rows share. Numbers are equal by value to twelve digits: sums and means depend on the order in
/// which they are computed. `real`: by column, whether it has reals.
fn key(row: &[Cell], real: &[bool]) -> String {
    let mut key = String::new();
    for (cell, is_real) in row.iter().zip(real) {
        match cell {
            Cell::Null => key.push('z'),
            Cell::Integer(number) if *is_real => {
                key.push_str(&format!("#{}", rounded(*number as f64)))
            }
            Cell::Integer(number) => key.push_str(&format!("#{number}")),
            Cell::Real(number) => key.push_str(&format!("#{}", rounded(*number))),
            Cell::Text(text) => key.push_str(&format!("t{}:{text}", text.len())),
            Cell::Blob(bytes) => key.push_str(&format!("b{}", crate::format::hex(bytes))),
        }
        key.push(',');
    }
    key
}

fn rounded(number: f64) -> String {
    let rounded: f64 = format!("{number:.11e}").parse().unwrap_or(number);
    // Adding zero makes a negative zero positive.
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 {
        format!("{:.0}", rounded + 0.0)
    } else {
        format!("{rounded:e}")
    }
}

/// A value as people read it.
pub(super) fn cell_text(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => format!("'{}'", text.replace(char::is_control, " ")),
        Cell::Blob(bytes) => format!("x'{}'", crate::format::hex(bytes)),
    }
}

/// A row as people read it, shortened.
fn shown(row: &[Cell]) -> String {
    let cells: Vec<String> = row.iter().map(cell_text).collect();
    crate::format::shortened(&format!("({})", cells.join(", ")), SHOWN_LETTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_same_rows() {
        let table = |rows: &[&[Cell]]| Table {
            columns: (0..rows.first().map_or(1, |row| row.len()))
                .map(|column| format!("c{column}"))
                .collect(),
            rows: rows.iter().map(|row| row.to_vec()).collect(),
        };
        let (one, two) = ([Cell::Integer(1)], [Cell::Integer(2)]);
        let text = |text: &str| Cell::Text(text.to_owned());
        let check = |found: &[&[Cell]],
                     expected: &[&[Cell]],
                     in_order: bool,
                     fields: &str,
                     differences: &[&str]| {
            let compared = compare(&table(found), &table(expected), in_order);
            let shown: Vec<String> = compared
                .fields
                .iter()
                .map(|(name, same)| format!("{}{name}", if *same { "" } else { "!" }))
                .collect();
            assert_eq!(
                (shown.join(" ").as_str(), compared.differences.as_slice()),
                (
                    fields,
                    differences
                        .iter()
                        .map(|one| (*one).to_owned())
                        .collect::<Vec<_>>()
                        .as_slice()
                )
            );
        };
        let (a, b): (&[Cell], &[Cell]) = (&one, &two);
        check(&[a, b], &[b, a], false, "columns rows", &[]);
        check(
            &[a, b],
            &[b, a],
            true,
            "columns rows !order",
            &["wrong order: row 1 is expected to be (2), found (1)"],
        );
        check(&[a, b], &[a, b], true, "columns rows order", &[]);
        check(&[], &[], false, "columns rows", &[]);
        check(
            &[a, a],
            &[a],
            false,
            "columns !rows",
            &["1 row extra of 2: (1)"],
        );
        check(
            &[a],
            &[a, b, b, b, b],
            false,
            "columns !rows",
            &["4 rows missing of 5: (2), (2), (2), …"],
        );
        check(
            &[&[Cell::Integer(1), Cell::Integer(2)]],
            &[a],
            false,
            "!columns !rows",
            &["1 column expected (c0), found 2"],
        );
        check(&[&[Cell::Real(1.0)]], &[a], false, "columns rows", &[]);
        let (lowest, large) = (
            Cell::Integer(i64::MIN),
            Cell::Integer(1_000_000_000_000_000_001),
        );
        check(
            &[&[Cell::Real(-9_223_372_036_854_775_808.0)]],
            &[&[lowest]],
            false,
            "columns rows",
            &[],
        );
        check(
            &[&[Cell::Real(1e18)], b],
            &[b, std::slice::from_ref(&large)],
            false,
            "columns rows",
            &[],
        );
        check(
            &[&[Cell::Integer(1_000_000_000_000_000_000)]],
            &[&[large]],
            false,
            "columns !rows",
            &[
                "1 row missing of 1: (1000000000000000001)",
                "1 row extra of 1: (1000000000000000000)",
            ],
        );
        check(
            &[&[Cell::Real(0.1 + 0.2)]],
            &[&[Cell::Real(0.3)]],
            false,
            "columns rows",
            &[],
        );
        check(
            &[&[text("1")]],
            &[a],
            false,
            "columns !rows",
            &["1 row missing of 1: (1)", "1 row extra of 1: ('1')"],
        );
        check(
            &[&[Cell::Null]],
            &[&[text("")]],
            false,
            "columns !rows",
            &["1 row missing of 1: ('')", "1 row extra of 1: (NULL)"],
        );
        check(
            &[&[text("a,"), text("b")]],
            &[&[text("a"), text(",b")]],
            false,
            "columns !rows",
            &[
                "1 row missing of 1: ('a', ',b')",
                "1 row extra of 1: ('a,', 'b')",
            ],
        );
    }
}
