//! The details of a group of runs: mean, spread and number of each value, and the keys in which its runs differ.

use super::Group;
use crate::format::{counted, short_id};
use crate::page::{Block, Cell, Level, Row, Table};
use crate::report::{RunGroup, RunRow, number_text};
use crate::shared::Shared;

/// Fields before the metrics.
const FIELDS: [&str; 5] = ["base_valid", "valid", "base_exact", "exact", "step"];

pub(super) fn page(group: &Group, shared: &Shared) -> Vec<Block> {
    let runs = group.runs(shared);
    let named = |run: &&RunRow| match run.directory.name() {
        "" => short_id(run.directory.id()).to_owned(),
        name => format!("{} {name}", short_id(run.directory.id())),
    };
    let ids: Vec<String> = runs.runs.iter().map(named).collect();
    let count = counted(group.entries.len(), "run");
    let first = Block::info(format!("{count}: {}", ids.join(", ")));
    if !runs.is_of_one_task() {
        let why = Block::detail("different tasks: no mean over them");
        return vec![first, differing(&runs), why];
    }
    let metrics: std::collections::BTreeSet<&str> = runs
        .runs
        .iter()
        .flat_map(|run| run.metrics.keys().map(String::as_str))
        .filter(|name| !FIELDS.contains(name))
        .collect();
    let row = |name: &str| {
        let found = runs.mean(name, false)?;
        let cell = |number| Cell::Text(number_text(name, number));
        let std = Cell::known(found.std.map(cell), "one run");
        let [mean, least, most] = [found.mean, found.least, found.most].map(cell);
        Some(Row::new(
            name,
            [mean, std, least, most, Cell::Count(found.n)],
        ))
    };
    let rows = FIELDS.into_iter().chain(metrics).filter_map(row).collect();
    let head = [
        "over runs; std: sample, n - 1",
        "mean",
        "std",
        "min",
        "max",
        "n",
    ];
    let table = Table {
        left_out: &[4, 3],
        ..Table::new(&head, "lr", rows)
    };
    vec![first, differing(&runs), Block::Table(table)]
}

/// The keys in which the runs differ: a spread is one over seeds only if the seed is the only one.
fn differing(runs: &RunGroup<'_>) -> Block {
    let found = runs.different_keys();
    let level = match found.iter().any(|(key, _)| key != "seed") {
        true => Level::Warning,
        false => Level::Info,
    };
    let keys = found.iter();
    let keys: Vec<String> = keys
        .map(|(key, values)| format!("{key} ({values} values)"))
        .collect();
    match keys.is_empty() {
        true => Block::info("equal configurations"),
        false => Block::Text(level, format!("differ in {}", keys.join(", "))),
    }
}
