//! `[score] kind = "sql"`: tables, dialect, comparison.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::compare::{CompareRules, MAX_MORE_COLUMNS};
use super::judge::{Sql, SqlRules, TIME_FORM, first_table};
use crate::dataset::PromptRow;
use crate::score::definition::lazy_answers::BY_EXPECTED;
use crate::score::definition::{
    Definition, FoundDefinition, Judge, KeyInfo, Kind, LazyAnswer, text_digest,
};
use crate::score::error::ScoreError;
use crate::sqlite::{Clock, Settings};
use crate::task::{Home, Read, Section, TASK_FILE, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "sql",
    about: include_str!("about.md"),
    keys: &[KeyInfo::new(
        "schema",
        "those of each row",
        "the file of statements that make and fill the tables",
    )],
    score_keys: &[
        KeyInfo::new("dialect", "sqlite", "the grammar of queries"),
        KeyInfo::new(
            "now",
            "2024-01-01 00:00:00",
            "the time, in UTC, that queries, defaults, views and triggers read",
        ),
        KeyInfo::new("rows", "each", "set: equal rows count once"),
        KeyInfo::new(
            "columns",
            "equal",
            "superset: a result may have up to 10 more columns, in any order",
        ),
        KeyInfo::new(
            "order",
            "expected",
            "ignore: ORDER BY of `expected` does not count",
        ),
        KeyInfo::new("max_steps", "5000000", "steps of SQLite's virtual machine"),
        KeyInfo::new("seconds", "5", "time limit of a query"),
        KeyInfo::new("max_rows", "10000", "rows of a result"),
        KeyInfo::new("result_kib", "16384", "size of a result, KiB"),
        KeyInfo::new("value_kib", "64", "size of one value, KiB"),
    ],
    read,
};

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

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let dialect = read_dialect(score)?;
    let settings = read_settings(score)?;
    let compare = CompareRules {
        rows_are_set: is_other(score, "rows", ["each", "set"])?,
        takes_superset: is_other(score, "columns", ["equal", "superset"])?,
        ignores_order: is_other(score, "order", ["expected", "ignore"])?,
    };
    let found = home.file_of(top, "schema")?;
    Ok((
        Arc::new(SqlRules {
            has_schema: found.is_some(),
            dialect,
            settings,
            compare,
        }),
        found,
    ))
}

/// Whether a key with two values has the second; the first is the default.
fn is_other(score: &Section<'_>, key: &str, words: [&str; 2]) -> Read<bool> {
    let Some((word, (_, offset))) = score.string(key)?.zip(score.get(key)) else {
        return Ok(false);
    };
    match words.iter().position(|known| *known == word) {
        Some(place) => Ok(place == 1),
        None => {
            let [default, other] = words;
            let message = format!("takes \"{default}\" or \"{other}\", not {word:?}");
            Err(score.error(key, offset, message))
        }
    }
}

fn read_settings(score: &Section<'_>) -> Read<Settings> {
    let default = Settings::default();
    let now = match score.get("now") {
        Some((DeValue::Datetime(time), offset)) => Some((time.to_string(), offset)),
        found => score.string("now")?.zip(found.map(|(_, offset)| offset)),
    };
    let now = now.map(|(text, offset)| {
        Clock::parse(&text)
            .ok_or_else(|| score.error("now", offset, format!("takes {TIME_FORM}, not {text:?}")))
    });
    let whole = |key, default: u64, most| score.whole(key, default, 1..=most);
    Ok(Settings {
        now: now.transpose()?.unwrap_or(default.now),
        max_steps: whole("max_steps", default.max_steps, 1_000_000_000_000)?,
        seconds: score.seconds("seconds", default.seconds)?,
        max_rows: whole("max_rows", default.max_rows as u64, 1_000_000)? as usize,
        result_kib: whole("result_kib", default.result_kib as u64, 1 << 20)? as usize,
        value_kib: whole("value_kib", default.value_kib as u64, 1 << 18)? as i32,
        double_quoted_texts: default.double_quoted_texts,
    })
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

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let lazy = [
            ("an empty answer", ""),
            ("a constant", "SELECT 1"),
            ("a word", "x"),
        ];
        let mut answers: Vec<_> = lazy
            .map(|(name, text)| LazyAnswer::same(name, text, BY_EXPECTED))
            .into();
        if self.compare.takes_superset {
            let numbers: Vec<_> = (0..=MAX_MORE_COLUMNS).map(|one| one.to_string()).collect();
            let list = format!("SELECT {}", numbers.join(", "));
            answers.push(LazyAnswer::same("a list of numbers", list, BY_EXPECTED));
        }
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
        let mut text = format!(
            "sql\n{}\n{}",
            self.dialect,
            self.schema(task).unwrap_or_default()
        );
        // Tasks without these keys keep their digest.
        if (&self.settings, self.compare) != (&Settings::default(), CompareRules::default()) {
            text.push_str(&format!("\n{:?}\n{:?}", self.settings, self.compare));
        }
        text_digest(&text)
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
