//! `builtin = "sqlite"`: a database of the conversation's own, which the model queries and changes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::live_tool::{CallResult, LiveTool, RawReply, one_by_one};
use super::{EnvironmentError, StateQuestion, ToolCall};
use crate::dataset::PromptRow;
use crate::sqlite::{Database, Failure, FailureKind};
use crate::task::{Home, Read, Section, TaskError};

#[derive(Debug, Clone)]
pub(super) struct SqliteRules {
    /// The file of statements that make the database; `None`: each row has its own.
    pub(super) database: Option<String>,
    /// The row's field with other statements.
    field: String,
    read_only: bool,
    /// Before the names of its functions.
    prefix: String,
}

/// A database that conversations begin with.
#[derive(Debug)]
pub(super) struct SqliteTool {
    rules: SqliteRules,
    image: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Conversation {
    database: Database,
    execute: String,
}

impl SqliteRules {
    pub(super) fn read(block: &Section<'_>, prefix: &str, home: &Home) -> Read<Self> {
        let database = home.file_of(block, "database")?.map(|(file, _)| file);
        let field = block.string("field")?;
        if database.is_none() && field.is_none() {
            return Err(home.missing("tool.database", "database = \"shop.sql\""));
        }
        Ok(Self {
            database,
            field: field.unwrap_or_else(|| "database".to_owned()),
            read_only: block.boolean("read_only")?.unwrap_or(false),
            prefix: prefix.to_owned(),
        })
    }

    pub(super) fn definitions(&self) -> Value {
        let function = |name: &str, description: &str| {
            let sql = json!({"type": "string", "description": "one statement"});
            let parameters = json!({"type": "object", "properties": {"sql": sql}, "required": ["sql"], "additionalProperties": false});
            json!({"type": "function", "function": {"name": format!("{}{name}", self.prefix), "description": description, "parameters": parameters}})
        };
        let query = function(
            "query",
            "Runs a query of SQLite and returns its columns and rows. SELECT sql FROM sqlite_schema shows the tables.",
        );
        let execute = function(
            "execute",
            "Changes rows of the database by INSERT, UPDATE or DELETE and returns how many were changed.",
        );
        if self.read_only { json!([query]) } else { json!([query, execute]) }
    }

    /// Runs the task's statements once.
    pub(super) fn prepare(&self, home: &Home) -> Result<SqliteTool, EnvironmentError> {
        let image = self.database.as_ref().map(|file| {
            let text = home.read_text(file)?;
            image(&text).map(Arc::new).map_err(|failure| {
                let (line, column, message) = Database::fault_place(&text, failure);
                TaskError::Place { label: home.label(file), line, column, message }
            })
        });
        Ok(SqliteTool { rules: self.clone(), image: image.transpose()? })
    }
}

fn image(statements: &str) -> Result<Vec<u8>, Failure> {
    Database::new(statements)?.into_image()
}

impl SqliteTool {
    pub(super) fn open(&self, row: &PromptRow) -> Result<Box<dyn LiveTool>, String> {
        let field = &self.rules.field;
        let own = match row.fields.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(format!("`{field}` is not a text of SQL statements")),
        };
        let database = match (own, &self.image) {
            (Some(text), _) => image(text).and_then(|image| Database::from_image(&image)).map_err(|failure| {
                let (line, column, message) = Database::fault_place(text, failure);
                format!("`{field}` line {line} column {column}: {message}")
            })?,
            (None, Some(image)) => Database::from_image(image).map_err(|failure| failure.message)?,
            (None, None) => return Err(format!("no `{field}`: give the row SQL statements, or the tool a `database`")),
        };
        Ok(Box::new(Conversation { database, execute: format!("{}execute", self.rules.prefix) }))
    }
}

impl LiveTool for Conversation {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        one_by_one(calls, |call| self.answer(call))
    }

    fn has_state(&self, question: &StateQuestion) -> bool {
        matches!(question, StateQuestion::Sql(_))
    }

    fn state(&mut self, question: &StateQuestion) -> Result<Value, String> {
        let StateQuestion::Sql(query) = question else { return Err("takes SQL queries only".to_owned()) };
        let table = self.database.query(query).map_err(|failure| failure.message)?;
        serde_json::to_value(table).map_err(|error| error.to_string())
    }
}

impl Conversation {
    /// SQLite's errors are answers.
    fn answer(&mut self, call: &ToolCall) -> CallResult {
        let sql = call.arguments.get("sql").and_then(Value::as_str).unwrap_or_default();
        let is_change = call.name == self.execute;
        let result = match is_change {
            true => self.database.execute(sql).map(|(table, changed)| match table.columns.is_empty() {
                true => json!({"changed": changed}),
                false => json!({"changed": changed, "columns": table.columns, "rows": table.rows}),
            }),
            false => self.database.query(sql).map(|table| json!(table)),
        };
        Ok(match result {
            Ok(value) => value.to_string(),
            Err(Failure { kind: FailureKind::Denied, .. }) => {
                let allowed = if is_change { "INSERT, UPDATE, DELETE and queries" } else { "queries" };
                format!("error: not allowed; this function takes {allowed}")
            }
            Err(failure) => format!("error: {}", failure.message),
        })
    }
}
