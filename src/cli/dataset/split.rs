//! `grpo-tui dataset split`: distributes a task's rows anew over its sets, so that no schema, or no prompt, is in two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::super::{Failure, Outcome, print_json};
use super::import::path_of;
use crate::dataset::import::{SetRows, lines_of, parse_split, split, split_by};
use crate::dataset::{self, PromptRow, schema_digest};
use crate::files::{Access, hides_test_sets, replace_files};
use crate::format::counted;
use crate::score::Task;
use crate::secrets::visible;
use crate::task::PromptSet;

type Digests = BTreeMap<String, Option<u64>>;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// What no two sets share: schema (of the rows) or prompt
    #[arg(long, value_name = "WHAT", value_parser = ["schema", "prompt"])]
    by: String,
    /// Percentages of train, eval and test; 0 for a set that the task does not have
    #[arg(long, value_name = "A/B/C", default_value = "80/10/10", value_parser = parse_split)]
    split: [usize; 3],
    /// Write nothing: show how many rows each set would have
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let by_schema = arguments.by == "schema";
    if by_schema && task.schema().is_none() {
        let kind = task.kind();
        return Err(Failure::usage(format!(
            "--by schema: rows have schemas of their own where `[score] kind` is json_schema or structured, not {kind}"
        )));
    }
    let (rows, digests) = rows_of(&task, by_schema)?;
    let digest = |row: &Map<String, Value>| {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        digests.get(id).copied().flatten().unwrap_or_default()
    };
    let schemas = |rows: &[Map<String, Value>]| rows.iter().map(digest).collect::<BTreeSet<_>>();
    if by_schema && schemas(&rows).len() < 2 {
        return Err(Failure::failed(format!(
            "{}: the rows have one schema; there is nothing to split by",
            task.name
        )));
    }
    let mut shares = arguments.split;
    if hides_test_sets() {
        // It stays as it is: the others share their own rows.
        let [train, eval, _] = shares;
        shares = [train, eval * 100 / (train + eval).max(1), 0];
    }
    let sets = match by_schema {
        true => split_by(rows, shares, digest),
        false => split(rows, shares),
    };
    let texts = texts_of(&task, &sets)?;
    if !arguments.dry_run {
        let files: Vec<(&Path, &[u8])> = texts
            .iter()
            .map(|(path, text)| (path.as_path(), text.as_bytes()))
            .collect();
        replace_files(&files, Access::Umask).map_err(|(path, error)| {
            Failure::failed(format!("{}: {error}; no set was changed", path.display()))
        })?;
    }
    let counts = sets
        .iter()
        .map(|(set, rows)| (set.name(), rows.len(), schemas(rows).len()));
    if arguments.json {
        let counts = counts.map(|(set, rows, schemas)| {
            let counts = json!({"rows": rows, "schemas": schemas});
            (set.to_owned(), counts)
        });
        return print_json(Value::Object(counts.collect()));
    }
    for (set, rows, schemas) in counts {
        println!(
            "{set}: {}, {}",
            counted(rows, "row"),
            counted(schemas, "schema")
        );
    }
    if arguments.dry_run {
        println!("nothing written (--dry-run)");
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows of all sets, and the digest of each one's own schema by its id.
fn rows_of(task: &Task, by_schema: bool) -> Result<(Vec<Map<String, Value>>, Digests), Failure> {
    let (mut rows, mut digests) = (Vec::new(), Digests::new());
    let mut places: BTreeMap<String, PromptSet> = BTreeMap::new();
    for set in PromptSet::ALL {
        let Some(file) = task.set_file(set) else {
            continue;
        };
        for row in dataset::load(task, set)? {
            if let Some(other) = places.insert(row.id.clone(), set) {
                return Err(Failure::failed(format!(
                    "id `{}` is in {} and in {}: give every row of the task its own id",
                    visible(&row.id),
                    other.name(),
                    set.name()
                )));
            }
            let own = dataset::row_schema(task, &row).filter(|_| by_schema);
            if let Some(problem) = own.and_then(Result::err) {
                let (file, line) = (task.label(file), row.line);
                return Err(Failure::failed(format!("{file} line {line}: {problem}")));
            }
            digests.insert(row.id.clone(), schema_digest(task, &row));
            rows.push(fields(&row));
        }
    }
    Ok((rows, digests))
}

/// What each set's file holds then.
fn texts_of(task: &Task, sets: &[SetRows]) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut texts = Vec::new();
    for (set, rows) in sets {
        match (task.set_file(*set), rows.is_empty()) {
            (None, true) => {}
            (Some(_), true) => {
                return Err(Failure::failed(format!(
                    "{} would have no rows; use another --split",
                    set.name()
                )));
            }
            _ => texts.push((path_of(task, *set)?, lines_of(rows))),
        }
    }
    Ok(texts)
}

/// The row as written, with the id that it has in its set.
fn fields(row: &PromptRow) -> Map<String, Value> {
    let mut fields = row.fields.whole();
    fields.insert("id".to_owned(), row.id.clone().into());
    fields
}
