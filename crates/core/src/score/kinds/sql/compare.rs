//! Compares query results: number of columns, rows, and order if relevant.

use std::collections::{HashMap, HashSet};

use super::columns::{cell_key, same_columns};
use crate::score::verdict::OrderedMap;
use crate::sqlite::{Cell, Table};

/// Rows in a sentence.
const SHOWN: usize = 3;
/// Additional columns of a superset: without a limit, a list of constants answers every question.
pub(super) const MAX_MORE_COLUMNS: usize = 10;
/// Characters of a row in a sentence.
const SHOWN_LETTERS: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CompareRules {
    /// Equal rows count once.
    pub(super) rows_are_set: bool,
    /// Allows additional and reordered columns.
    pub(super) takes_superset: bool,
    /// Ignores `ORDER BY` of the expected query.
    pub(super) ignores_order: bool,
}

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) table: Table,
    /// Rank per row if order is relevant; rows of equal rank may be in any order.
    pub(super) ranks: Option<Vec<usize>>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Comparison {
    /// `columns`, `rows` and, if relevant, `order`.
    pub(super) fields: OrderedMap<bool>,
    /// One sentence per difference.
    pub(super) differences: Vec<String>,
}

pub(super) fn compare(found: &Table, wanted: &Wanted, rules: CompareRules) -> Comparison {
    let expected = &wanted.table;
    let ranks = wanted.ranks.as_ref().filter(|_| !rules.ignores_order);
    let is_enough = match rules.takes_superset {
        true => {
            (0..=MAX_MORE_COLUMNS).any(|more| found.columns.len() == expected.columns.len() + more)
        }
        false => found.columns.len() == expected.columns.len(),
    };
    if !is_enough {
        // With other columns no row is equal: one sentence suffices.
        let same_rows = found.rows.is_empty() && expected.rows.is_empty();
        let count = crate::format::counted(expected.columns.len(), "column");
        let more = match rules.takes_superset {
            true => format!(" and at most {MAX_MORE_COLUMNS} more"),
            false => String::new(),
        };
        return Comparison {
            fields: fields(false, same_rows, ranks.map(|_| same_rows)),
            differences: vec![format!(
                "{count} expected ({}){more}, found {}",
                expected.columns.join(", "),
                found.columns.len()
            )],
        };
    }
    let columns = match rules.takes_superset {
        true => same_columns(found, expected, rules.rows_are_set),
        false => None,
    };
    let columns = columns.unwrap_or_else(|| likely_columns(found, expected, rules));
    // Integers compare exactly among themselves, and rounded with reals.
    let has_real = |table: &Table, column: usize| {
        let mut cells = table.rows.iter().filter_map(|row| row.get(column));
        cells.any(|cell| matches!(cell, Cell::Real(_)))
    };
    let real: Vec<bool> = columns
        .iter()
        .enumerate()
        .map(|(number, column)| has_real(expected, number) || has_real(found, *column))
        .collect();
    let found_keys = found
        .rows
        .iter()
        .map(|row| key(columns.iter().filter_map(|column| row.get(*column)), &real));
    let found_rows = Rows::new(found, found_keys.collect(), rules);
    let expected_keys = expected.rows.iter().map(|row| key(row.iter(), &real));
    let expected_rows = Rows::new(expected, expected_keys.collect(), rules);
    let mut differences = Vec::new();
    let missing = left_over(&expected_rows.keys, &found_rows.keys);
    let extra = left_over(&found_rows.keys, &expected_rows.keys);
    for (what, rows, left) in [
        ("missing", &expected_rows, &missing),
        ("extra", &found_rows, &extra),
    ] {
        if !left.is_empty() {
            let shown: Vec<String> = left
                .iter()
                .take(SHOWN)
                .map(|row| rows.shown(*row))
                .collect();
            let more = if left.len() > SHOWN { ", …" } else { "" };
            let count = crate::format::counted(left.len(), "row");
            differences.push(format!(
                "{count} {what} of {}: {}{more}",
                rows.keys.len(),
                shown.join(", ")
            ));
        }
    }
    let same_rows = missing.is_empty() && extra.is_empty();
    let moved = ranks
        .filter(|_| same_rows)
        .and_then(|ranks| moved(&found_rows, &expected_rows, ranks));
    let order = ranks.map(|_| same_rows && moved.is_none());
    differences.extend(moved);
    Comparison {
        fields: fields(true, same_rows, order),
        differences,
    }
}

struct Rows<'t> {
    table: &'t Table,
    numbers: Vec<usize>,
    keys: Vec<String>,
}

impl<'t> Rows<'t> {
    fn new(table: &'t Table, keys: Vec<String>, rules: CompareRules) -> Self {
        let mut seen = HashSet::new();
        let (numbers, keys) = keys
            .into_iter()
            .enumerate()
            .filter(|(_, key)| !rules.rows_are_set || seen.insert(key.clone()))
            .unzip();
        Self {
            table,
            numbers,
            keys,
        }
    }

    fn shown(&self, row: usize) -> String {
        let cells = self
            .numbers
            .get(row)
            .and_then(|row| self.table.rows.get(*row));
        shown(cells.map(Vec::as_slice).unwrap_or_default())
    }
}

fn moved(found: &Rows<'_>, expected: &Rows<'_>, ranks: &[usize]) -> Option<String> {
    let rank = |row: usize| expected.numbers.get(row).and_then(|row| ranks.get(*row));
    let mut start = 0;
    while start < expected.keys.len() {
        let end = (start..expected.keys.len())
            .find(|row| rank(*row) != rank(start))
            .unwrap_or(expected.keys.len());
        let (ours, theirs) = (&found.keys[start..end], &expected.keys[start..end]);
        if let (Some(extra), Some(missing)) = (
            left_over(ours, theirs).first(),
            left_over(theirs, ours).first(),
        ) {
            return Some(format!(
                "wrong order: row {} is expected to be {}, found {}",
                start + extra + 1,
                expected.shown(start + missing),
                found.shown(start + extra)
            ));
        }
        start = end;
    }
    None
}

/// Probable columns of a result with wrong rows: by name, else by position.
fn likely_columns(found: &Table, expected: &Table, rules: CompareRules) -> Vec<usize> {
    let named = |name: &String| found.columns.iter().position(|found| found == name);
    expected
        .columns
        .iter()
        .map(named)
        .collect::<Option<Vec<_>>>()
        .filter(|_| rules.takes_superset)
        .unwrap_or_else(|| (0..expected.columns.len()).collect())
}

/// Compared parts; `order` only if relevant.
pub(super) fn fields(columns: bool, rows: bool, order: Option<bool>) -> OrderedMap<bool> {
    let named = |(name, same): (&str, bool)| (name.to_owned(), same);
    let all = [("columns", columns), ("rows", rows)]
        .into_iter()
        .chain(order.map(|same| ("order", same)));
    OrderedMap(all.map(named).collect())
}

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

fn key<'c>(row: impl Iterator<Item = &'c Cell>, real: &[bool]) -> String {
    let keys = row
        .zip(real)
        .map(|(cell, is_real)| cell_key(cell, *is_real));
    keys.flat_map(|key| [key, ",".to_owned()]).collect()
}

fn shown(row: &[Cell]) -> String {
    let cells: Vec<String> = row.iter().map(Cell::text).collect();
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
            let wanted = Wanted {
                table: table(expected),
                ranks: in_order.then(|| (0..expected.len()).collect()),
            };
            let compared = compare(&table(found), &wanted, CompareRules::default());
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
