//! `[score] kind = "sql"`: the tables that queries run on, and the dialect that they are written in.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Sql, first_table, outline};
use crate::dataset::PromptRow;
use crate::score::audit::BY_EXPECTED;
use crate::score::definition::{
    Definition, FoundDefinition, Judge, KeyInfo, Kind, LazyAnswer, SCHEMA, text_digest,
};
use crate::score::{OutlineEntry, ScoreError};
use crate::task::{Home, Read, Section, TASK_FILE, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "sql",
    keys: &[SCHEMA],
    score_keys: &[KeyInfo::new("dialect", "sqlite", "the grammar of queries")],
    read,
};

/// Dialects of SQL that queries are parsed in.
pub(super) const DIALECTS: [&str; 16] = [
    "sqlite",
    "generic",
    "ansi",
    "postgres",
    "mysql",
    "mssql",
    "oracle",
    "duckdb",
    "bigquery",
    "snowflake",
    "redshift",
    "databricks",
    "spark",
    "hive",
    "clickhouse",
    "teradata",
];

#[derive(Debug)]
pub(super) struct SqlRules {
    /// Whether the task's definition file is the statements that make tables and data; else each row has its own.
    pub(super) has_schema: bool,
    /// One of [`DIALECTS`].
    pub(super) dialect: String,
}

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let dialect = read_dialect(score)?;
    let found = home.file_of(top, "schema")?;
    Ok((
        Arc::new(SqlRules {
            has_schema: found.is_some(),
            dialect,
        }),
        found,
    ))
}

fn read_dialect(score: &Section<'_>) -> Read<String> {
    let Some((name, (_, offset))) = score.string("dialect")?.zip(score.get("dialect")) else {
        return Ok(DIALECTS[0].to_owned());
    };
    if DIALECTS.contains(&name.as_str()) {
        return Ok(name);
    }
    let near = crate::format::did_you_mean(&name, DIALECTS);
    Err(score.error(
        "dialect",
        offset,
        format!("takes {}, not {name:?}{near}", DIALECTS.join(", ")),
    ))
}

impl SqlRules {
    /// The task's statements; `None` where each row has its own.
    pub(super) fn schema<'a>(&self, task: &'a TaskFiles) -> Option<&'a str> {
        self.has_schema.then_some(task.definition_text.as_str())
    }
}

impl Definition for SqlRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(Sql::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(json!({"type": "string"}))
    }

    fn summary(&self, _task: &TaskFiles) -> String {
        let whose = if self.has_schema {
            "these tables"
        } else {
            "those of the row's `schema`"
        };
        format!(
            "a query ({}) on {whose}, with the result of `expected`",
            self.dialect
        )
    }

    fn outline(&self, task: &TaskFiles) -> Option<Vec<OutlineEntry>> {
        self.schema(task).map(outline)
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let lazy = [
            ("an empty answer", ""),
            ("a constant", "SELECT 1"),
            ("a word", "x"),
        ];
        let mut answers: Vec<_> = lazy
            .map(|(name, text)| LazyAnswer::same(name, text, BY_EXPECTED))
            .into();
        let schema = self.schema(task);
        let all = move |row: Option<&PromptRow>| {
            let table = first_table(schema, row)?;
            Some(format!("SELECT * FROM \"{}\"", table.replace('"', "\"\"")))
        };
        let name = "all of the first table";
        match (rows.first(), all(rows.first())) {
            (Some(_), Some(_)) => {
                answers.push(LazyAnswer::by_row(name, BY_EXPECTED, move |row| {
                    all(Some(row)).unwrap_or_default()
                }));
            }
            (None, Some(query)) => answers.push(LazyAnswer::same(name, query, BY_EXPECTED)),
            (_, None) => {}
        }
        answers
    }

    fn digest(&self, task: &TaskFiles) -> String {
        text_digest(&format!(
            "sql\n{}\n{}",
            self.dialect,
            self.schema(task).unwrap_or_default()
        ))
    }

    fn file_name(&self) -> &'static str {
        if self.has_schema { "schema" } else { TASK_FILE }
    }

    fn answer_names(&self, task: &TaskFiles) -> Vec<String> {
        task.definition_text
            .lines()
            .filter(|line| line.starts_with("CREATE TABLE"))
            .map(str::to_owned)
            .collect()
    }
}
