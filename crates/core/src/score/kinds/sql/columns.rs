//! Matches columns of a result with expected ones, if additional columns and other orders are
//! allowed.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::sqlite::{Cell, Table};

/// Columns tried. Columns that match separately but not together could otherwise require all
/// permutations.
const MAX_TRIES: usize = 2_000;

/// Cells of a column as hashes.
struct Column {
    has_real: bool,
    /// Hashes for comparing integers among themselves, and with reals.
    exact: Vec<u64>,
    rounded: Vec<u64>,
}

impl Column {
    fn new(table: &Table, column: usize) -> Self {
        let cells = || table.rows.iter().filter_map(move |row| row.get(column));
        let hashes = |is_real: bool| {
            let hash = |cell: &Cell| {
                let mut hasher = DefaultHasher::new();
                cell_key(cell, is_real).hash(&mut hasher);
                hasher.finish()
            };
            cells().map(hash).collect()
        };
        Self {
            has_real: cells().any(|cell| matches!(cell, Cell::Real(_))),
            exact: hashes(false),
            rounded: hashes(true),
        }
    }

    fn hashes(&self, is_real: bool) -> &[u64] {
        if is_real { &self.rounded } else { &self.exact }
    }
}

/// Row hashes of both results over the chosen columns.
type Rows = [Vec<u64>; 2];

struct Search<'t> {
    found: (&'t Table, Vec<Column>),
    expected: (&'t Table, Vec<Column>),
    rows_are_set: bool,
    tries: usize,
}

/// Finds for each column of `expected` one of `found`, so that rows are equal; `None` if impossible
/// or too many to try.
pub(super) fn same_columns(
    found: &Table,
    expected: &Table,
    rows_are_set: bool,
) -> Option<Vec<usize>> {
    let columns = |table: &Table| -> Vec<Column> {
        (0..table.columns.len())
            .map(|column| Column::new(table, column))
            .collect()
    };
    let mut search = Search {
        found: (found, columns(found)),
        expected: (expected, columns(expected)),
        rows_are_set,
        tries: 0,
    };
    let mut chosen = Vec::new();
    let start = [vec![0; found.rows.len()], vec![0; expected.rows.len()]];
    search.choose(&mut chosen, &start).then_some(chosen)
}

impl Search<'_> {
    fn choose(&mut self, chosen: &mut Vec<usize>, rows: &Rows) -> bool {
        let next = chosen.len();
        if next == self.expected.1.len() {
            return true;
        }
        // Prefer equal names, then equal positions.
        let name = self.expected.0.columns.get(next);
        let mut candidates: Vec<usize> = (0..self.found.1.len())
            .filter(|column| !chosen.contains(column))
            .collect();
        candidates.sort_by_key(|column| {
            let same_name = self.found.0.columns.get(*column) == name;
            (!same_name, *column != next, *column)
        });
        for column in candidates {
            self.tries += 1;
            if self.tries > MAX_TRIES {
                return false;
            }
            let (found, expected) = (&self.found.1[column], &self.expected.1[next]);
            let is_real = found.has_real || expected.has_real;
            let with = [
                joined(&rows[0], found.hashes(is_real)),
                joined(&rows[1], expected.hashes(is_real)),
            ];
            if sum(&with[0], self.rows_are_set) != sum(&with[1], self.rows_are_set) {
                continue;
            }
            chosen.push(column);
            if self.choose(chosen, &with) {
                return true;
            }
            chosen.pop();
        }
        false
    }
}

fn joined(rows: &[u64], cells: &[u64]) -> Vec<u64> {
    let join = |(row, cell): (&u64, &u64)| {
        let mut hasher = DefaultHasher::new();
        (row, cell).hash(&mut hasher);
        hasher.finish()
    };
    rows.iter().zip(cells).map(join).collect()
}

/// Order-independent hash of rows.
fn sum(rows: &[u64], rows_are_set: bool) -> u64 {
    let add = |sum: u64, row: &u64| sum.wrapping_add(*row);
    if rows_are_set {
        rows.iter().collect::<HashSet<_>>().into_iter().fold(0, add)
    } else {
        rows.iter().fold(0, add)
    }
}

/// Canonical text of a value. Numbers are equal to twelve digits, since sums and means depend on
/// the order of computation. `is_real`: whether its column contains reals.
pub(super) fn cell_key(cell: &Cell, is_real: bool) -> String {
    match cell {
        Cell::Null => "z".to_owned(),
        Cell::Integer(number) if is_real => format!("#{}", rounded(*number as f64)),
        Cell::Integer(number) => format!("#{number}"),
        Cell::Real(number) => format!("#{}", rounded(*number)),
        Cell::Text(text) => format!("t{}:{text}", text.len()),
        Cell::Blob(bytes) => format!("b{}", crate::format::hex(bytes)),
    }
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
