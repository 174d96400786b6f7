//! Imports prompt rows from CSV, JSON, JSONL and Parquet: a mapping says which column becomes which part of a row.

pub(super) mod cells;
mod mapping;
mod parquet;
mod records;
mod survey;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

pub use mapping::{LAST_TURN, MappingText};
pub use parquet::parquet_lines;
pub use records::{Format, Record, columns, read_records};

use super::DatasetError;
use crate::task::PromptSet;
use mapping::Mapping;
use survey::Survey;

/// Rows of an imported file, and its malformed records with their lines.
#[derive(Debug, Clone, Default)]
pub struct ImportedRows {
    /// The mapping with its guessed parts.
    pub mapping: MappingText,
    pub rows: Vec<Map<String, Value>>,
    /// Line and reason.
    pub problems: Vec<(usize, String)>,
}

/// Reads the first `most` records of a file as rows; parts that the mapping lacks are guessed. `schema`: of the
/// expected answers, if known.
///
/// # Errors
/// The file cannot be read, or the mapping does not fit its columns.
pub fn import(
    path: &Path,
    text: &MappingText,
    schema: Option<&Value>,
    most: usize,
) -> Result<ImportedRows, DatasetError> {
    let label = path.display().to_string();
    // Twice from end to end, because the records of a large file would fill the memory.
    let survey = Survey::from_records(records::records(path, most)?, schema.is_some())?;
    let stem = path.file_stem().map_or_else(
        || "row".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let text = text.clone().guessed(&survey, schema);
    let mapping =
        Mapping::new(&text, &survey, schema, &stem).map_err(|problem| DatasetError::Import {
            label: label.clone(),
            problem,
        })?;
    let mut imported = ImportedRows {
        mapping: text,
        ..ImportedRows::default()
    };
    let mut lines: HashMap<String, usize> = HashMap::new();
    for record in records::records(path, most)? {
        let record = record?;
        let row = mapping.row(&record).and_then(|row| {
            let id = row
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            match lines.insert(id.clone(), record.line) {
                Some(first) => Err(format!(
                    "id `{}` is already on line {first}",
                    records::clip(&id)
                )),
                None => Ok(row),
            }
        });
        match row {
            Ok(row) => imported.rows.push(row),
            Err(problem) => imported.problems.push((record.line, problem)),
        }
    }
    Ok(imported)
}

/// `1 record is not a valid row`
pub fn not_valid_rows(records: usize) -> String {
    match records {
        1 => "1 record is not a valid row".to_owned(),
        records => format!("{records} records are not valid rows"),
    }
}

/// Shares of the sets in percent: `80/10/10`.
///
/// # Errors
/// They are not three numbers that add up to 100.
pub fn parse_split(text: &str) -> Result<[usize; 3], String> {
    let shares: Vec<usize> = text
        .split('/')
        .filter_map(|share| share.trim().parse().ok())
        .collect();
    match shares[..] {
        [train, eval, test] if train + eval + test == 100 && text.split('/').count() == 3 => {
            Ok([train, eval, test])
        }
        _ => Err(format!(
            "{text}: write the percentages of train, eval and test, such as 80/10/10"
        )),
    }
}

/// Rows of a set, as they are written.
pub type SetRows = (PromptSet, Vec<Map<String, Value>>);

/// Distributes rows over train, eval and test; rows of the same prompt go into the same set. Which rows go where
/// depends on their text alone; each set is in the order of the rows.
pub fn split(rows: Vec<Map<String, Value>>, shares: [usize; 3]) -> [SetRows; 3] {
    let hash = |row: &Map<String, Value>| {
        super::random::text_hash(
            &row.get("messages")
                .map(Value::to_string)
                .unwrap_or_default(),
        )
    };
    let mut prompts: Vec<u64> = rows.iter().map(hash).collect();
    prompts.sort_unstable();
    prompts.dedup();
    // At least one prompt for a set that has a share, as far as they go; training comes first.
    let count = |share: usize| ((prompts.len() * share + 50) / 100).max(usize::from(share > 0));
    let most_held_out = prompts.len().saturating_sub(usize::from(shares[0] > 0));
    let test = count(shares[2]).min(most_held_out);
    let eval = count(shares[1]).min(most_held_out - test);
    let set_of: HashMap<u64, usize> = prompts
        .iter()
        .enumerate()
        .map(|(place, hash)| {
            (
                *hash,
                if place < test {
                    2
                } else if place < test + eval {
                    1
                } else {
                    0
                },
            )
        })
        .collect();
    let mut sets = PromptSet::ALL.map(|set| (set, Vec::new()));
    for row in rows {
        let set = set_of.get(&hash(&row)).copied().unwrap_or(0);
        sets[set].1.push(row);
    }
    sets
}

/// The text of a set's file with rows after its own.
///
/// # Errors
/// An id of the rows is in the file already.
pub fn with_rows(
    label: &str,
    text: &str,
    rows: &[Map<String, Value>],
) -> Result<String, DatasetError> {
    let known: HashMap<String, usize> = super::read_rows(label, text.as_bytes())
        .filter_map(|row| row.ok().map(|row| (row.id, row.line)))
        .collect();
    let taken = rows.iter().find_map(|row| {
        let id = row.get("id")?.as_str()?;
        known.get(id).map(|line| (id, *line))
    });
    if let Some((id, line)) = taken {
        let problem = format!(
            "id `{}` of the imported rows already exists; import each record once, or replace all rows with `dataset import --replace`",
            records::clip(id)
        );
        return Err(DatasetError::Line {
            label: label.to_owned(),
            line,
            problem,
        });
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok(format!("{text}{end}{}", lines_of(rows)))
}

/// The lines of a JSONL file.
pub fn lines_of(rows: &[Map<String, Value>]) -> String {
    rows.iter()
        .map(|row| serde_json::to_string(row).unwrap_or_default() + "\n")
        .collect()
}
