//! The prompts of `eval` and `sample`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::Failure;
use crate::dataset::{self, PromptRow};
use crate::score::{Task, tag_rows};
use crate::task::{PromptSet, SetName};

/// The rows that an eval is on: a set of the task, or a file.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) set: SetName,
    /// For messages.
    pub(super) label: String,
    pub(super) rows: Vec<PromptRow>,
}

impl Rows {
    /// The rows of `--on test|eval|train|FILE`.
    pub(super) fn on(task: &Task, set: &SetName) -> Result<Self, Failure> {
        if let Some(set) = set.set().filter(|_| set.task().is_empty()) {
            return Self::from_set(task, set);
        }
        let on = &set.to_string();
        let path = Path::new(on);
        if !path.is_file() {
            return Err(Failure::usage(format!(
                "--on {on}: no such file: use train, eval, test, or a file of prompt rows"
            )));
        }
        let file = File::open(path).map_err(|error| Failure::failed(format!("{on}: {error}")))?;
        let mut rows = dataset::load_from(on, BufReader::new(file))?;
        dataset::expect_null(task, &mut rows);
        rows.iter_mut().for_each(PromptRow::drop_proposal);
        tag_rows(task, &mut rows);
        Ok(Self {
            set: set.clone(),
            label: on.clone(),
            rows,
        })
    }

    pub(super) fn from_set(task: &Task, set: PromptSet) -> Result<Self, Failure> {
        let mut rows = dataset::load(task, set)?;
        rows.iter_mut().for_each(PromptRow::drop_proposal);
        tag_rows(task, &mut rows);
        let label = task
            .set_file(set)
            .map_or_else(String::new, |file| task.label(file));
        Ok(Self {
            set: set.into(),
            label,
            rows,
        })
    }

    /// As JSONL, with their ids.
    pub(super) fn lines(&self) -> String {
        let line = |row: &PromptRow| format!("{}\n", whole(row));
        self.rows.iter().map(line).collect()
    }

    /// The rows for which `condition` holds.
    pub(super) fn only(&self, condition: impl Fn(&PromptRow) -> bool) -> Self {
        let rows = self
            .rows
            .iter()
            .filter(|row| condition(row))
            .cloned()
            .collect();
        Self {
            set: self.set.clone(),
            label: self.label.clone(),
            rows,
        }
    }
}

pub(super) fn whole(row: &PromptRow) -> serde_json::Value {
    let mut fields = row.fields.whole();
    fields.insert("id".to_owned(), row.id.clone().into());
    fields.into()
}
