//! A first pass over all records for facts that a mapping needs. Keeps no records.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::cells::ColumnType;
use super::records::Record;
use crate::dataset::error::DatasetError;
use crate::exact_json;
use crate::format::shortened;

const FIRST_RECORDS: usize = 20;
/// Depth limit in objects, and limit of known fields.
const MAX_DEPTH: usize = 4;
const MAX_NESTED: usize = 1000;
/// Columns in a message, and characters of a value.
const MAX_SAMPLES: usize = 12;
const MAX_SAMPLE_CHARS: usize = 30;

#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Columns in order of first appearance.
    pub(super) columns: Vec<String>,
    pub(super) first: Vec<Record>,
    known: HashSet<String>,
    /// Fields of objects in columns, such as `reward_model.ground_truth`.
    nested: BTreeSet<String>,
    /// Types of the texts per column and nested field; empty if answers have a schema.
    types: BTreeMap<String, ColumnType>,
    /// Whether cells are typed; CSV cells are texts of any type.
    pub(super) is_typed: bool,
    /// Whether several records share a line, which then does not identify them.
    pub(super) shares_lines: bool,
}

impl Survey {
    /// Reads all records. `has_schema`: types need not be inferred.
    ///
    /// # Errors
    /// The first malformed record.
    pub(super) fn from_records(
        records: impl Iterator<Item = Result<Record, DatasetError>>,
        has_schema: bool,
        is_typed: bool,
    ) -> Result<Self, DatasetError> {
        let mut survey = Self {
            is_typed,
            ..Self::default()
        };
        let mut last_line = 0;
        for record in records {
            let record = record?;
            survey.shares_lines |= record.line == last_line;
            last_line = record.line;
            for (name, value) in &record.fields {
                if !survey.known.contains(name) {
                    survey.known.insert(name.clone());
                    survey.columns.push(name.clone());
                }
                survey.add(name, value, has_schema, 0);
            }
            if survey.first.len() < FIRST_RECORDS {
                survey.first.push(record);
            }
        }
        Ok(survey)
    }

    fn add(&mut self, path: &str, value: &Value, has_schema: bool, depth: usize) {
        match value {
            Value::String(text) if !has_schema && !self.is_typed => {
                match self.types.get_mut(path) {
                    Some(found) => found.add(text),
                    None => self.types.entry(path.to_owned()).or_default().add(text),
                }
            }
            Value::Object(fields) if depth < MAX_DEPTH => {
                for (name, value) in fields {
                    let path = format!("{path}.{name}");
                    if !self.nested.contains(&path) && self.nested.len() < MAX_NESTED {
                        self.nested.insert(path.clone());
                    }
                    if self.nested.contains(&path) {
                        self.add(&path, value, has_schema, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.known.contains(name) || self.nested.contains(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().chain(&self.nested).map(String::as_str)
    }

    /// Columns with first values: `id (7), body ("Where is my parcel?")`.
    pub(super) fn samples(&self) -> String {
        let sample = |column: &String| {
            let mut cells = self.first.iter().filter_map(|record| cell(record, column));
            let value = cells.find(|value| !value.is_null() && *value != "");
            let value = value.map_or_else(|| "empty".to_owned(), exact_json::write);
            format!("{column} ({})", shortened(&value, MAX_SAMPLE_CHARS))
        };
        let mut shown: Vec<String> = self.columns.iter().take(MAX_SAMPLES).map(sample).collect();
        if self.columns.len() > MAX_SAMPLES {
            shown.push(format!("{} more", self.columns.len() - MAX_SAMPLES));
        }
        shown.join(", ")
    }

    pub(super) fn schema_of(&self, name: &str) -> Value {
        self.types.get(name).copied().unwrap_or_default().schema()
    }
}

/// Value of a column, or of a field of an object in one: `reward_model.ground_truth`.
pub(super) fn cell<'r>(record: &'r Record, name: &str) -> Option<&'r Value> {
    if let Some(value) = record.fields.get(name) {
        return Some(value);
    }
    // A column name may contain a dot.
    let ends = name
        .char_indices()
        .filter(|(_, letter)| *letter == '.')
        .map(|(at, _)| at);
    ends.into_iter().find_map(|at| {
        let value = record.fields.get(&name[..at])?;
        name[at + 1..]
            .split('.')
            .try_fold(value, |value, key| value.get(key))
    })
}
