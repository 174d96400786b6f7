//! `builtin = "sqlite"`: a database per conversation, which the model queries and changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::calls::{StateQuestion, ToolCall};
use super::error::EnvironmentError;
use super::live_tool::{CallResult, LiveTool, RawReply, one_by_one};
use crate::dataset::PromptRow;
use crate::format::line_column;
use crate::sqlite::{Database, Failure, FailureKind, StatementFault};
use crate::task::{Home, Read, Section, TaskError, functions};

#[derive(Debug, Clone)]
pub(super) struct SqliteRules {
    /// File of statements that create the database; `None`: only the row's.
    database: Option<String>,
    field: String,
    /// OpenAI's list.
    pub(super) definitions: Value,
    statements: Arc<Statements>,
    pub(super) files: Vec<String>,
}

type Statements = BTreeMap<String, Statement>;

#[derive(Debug)]
enum Statement {
    /// Written by the model; may change rows if `is_change`.
    Written { is_change: bool },
    /// The task's, with the call's arguments as parameters.
    Own(String),
}

/// The initial database of conversations.
#[derive(Debug)]
pub(super) struct SqliteTool {
    rules: SqliteRules,
    image: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Conversation {
    database: Database,
    statements: Arc<Statements>,
    /// What the database was made of: the tool's image, and the row's own statements.
    image: Option<Arc<Vec<u8>>>,
    own: Option<String>,
}

impl SqliteRules {
    /// `own`: the file of the task's own functions, and its content.
    pub(super) fn read(
        block: &Section<'_>,
        prefix: &str,
        home: &Home,
        own: Option<(String, Value)>,
    ) -> Read<Self> {
        let database = home.file_of(block, "database")?.map(|(file, _)| file);
        let (field, is_read_only) = (block.string("field")?, block.boolean("read_only")?);
        if database.is_none() && (field.is_none() || own.is_some()) {
            return Err(home.missing("tool.database", "database = \"shop.sql\""));
        }
        let (mut statements, mut files) = (Statements::new(), Vec::from_iter(database.clone()));
        let definitions = match own {
            None => built_in(prefix, is_read_only.unwrap_or(false), &mut statements),
            Some(_) if is_read_only.is_some() => {
                let at = block.get("read_only").map_or(0, |(_, offset)| offset);
                return Err(block.error(
                    "read_only",
                    at,
                    "is of `query` and `execute`, which `definitions` replace",
                ));
            }
            Some((file, mut list)) => {
                let own = own_statements(&mut list).map_err(|message| {
                    let at = block.get("definitions").map_or(0, |(_, offset)| offset);
                    block.error(
                        "definitions",
                        at,
                        format!("{}: {message}", home.label(&file)),
                    )
                })?;
                statements.extend(own);
                files.push(file);
                list
            }
        };
        let field = field.unwrap_or_else(|| "database".to_owned());
        Ok(Self {
            database,
            field,
            definitions,
            statements: Arc::new(statements),
            files,
        })
    }

    /// Runs the task's statements once.
    pub(super) fn prepare(&self, home: &Home) -> Result<SqliteTool, EnvironmentError> {
        let image = self.database.as_ref().map(|file| {
            let text = home.read_text(file)?;
            image(&text).map(Arc::new).map_err(|failure| {
                let fault = Database::fault_place(&text, failure);
                TaskError::Place {
                    label: home.label(file),
                    line: fault.line,
                    column: fault.column,
                    message: fault.message,
                }
            })
        });
        let tool = SqliteTool {
            rules: self.clone(),
            image: image.transpose()?,
        };
        if let (Some(image), Some(file)) = (&tool.image, self.files.get(1)) {
            let (label, text) = (home.label(file), home.read_text(file)?);
            tool.check(image).map_err(|(sql, message)| {
                // At its start if written with other escapes than ours.
                let byte = text.find(&Value::from(sql).to_string()).unwrap_or_default();
                let (line, column) = line_column(&text, byte);
                TaskError::Place {
                    label,
                    line,
                    column,
                    message,
                }
            })?;
        }
        Ok(tool)
    }
}

fn image(statements: &str) -> Result<Vec<u8>, Failure> {
    Database::new(statements)?.into_image()
}

fn built_in(prefix: &str, is_read_only: bool, statements: &mut Statements) -> Value {
    let mut function = |name: &str, is_change: bool, description: &str| {
        let name = format!("{prefix}{name}");
        let sql = json!({"type": "string", "description": "one statement"});
        let parameters = json!({"type": "object", "properties": {"sql": sql}, "required": ["sql"], "additionalProperties": false});
        statements.insert(name.clone(), Statement::Written { is_change });
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
    };
    let query = function(
        "query",
        false,
        "Runs a query of SQLite and returns its columns and rows. SELECT sql FROM sqlite_schema shows the tables.",
    );
    if is_read_only {
        return json!([query]);
    }
    let execute = function(
        "execute",
        true,
        "Changes rows of the database by INSERT, UPDATE or DELETE and returns how many were changed.",
    );
    json!([query, execute])
}

fn own_statements(list: &mut Value) -> Result<Statements, String> {
    let names: Vec<String> = functions(list)
        .iter()
        .flatten()
        .map(|function| function.name.to_owned())
        .collect();
    let objects = list
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut);
    let statement =
        |(index, (name, object)): (usize, (String, &mut Map<String, Value>))| match object
            .remove("sql")
        {
            Some(Value::String(sql)) => Ok((name, Statement::Own(sql))),
            _ => {
                let example = "\"sql\": \"SELECT * FROM orders WHERE id = :id\"";
                Err(format!(
                    "/{index}: {name} has no statement: write {example} beside \"function\""
                ))
            }
        };
    names
        .into_iter()
        .zip(objects)
        .enumerate()
        .map(statement)
        .collect()
}

impl SqliteTool {
    /// Checks that the database accepts the statements of the task's own functions, with their
    /// arguments as parameters; else returns the statement and reason.
    fn check(&self, image: &[u8]) -> Result<(), (&str, String)> {
        let mut database = Database::from_image(image).map_err(|failure| ("", failure.message))?;
        for function in functions(&self.rules.definitions).iter().flatten() {
            let Some(Statement::Own(sql)) = self.rules.statements.get(function.name) else {
                continue;
            };
            let at = format!("/{}/sql", function.index);
            let names = database
                .parameters(sql)
                .map_err(|failure| (sql.as_str(), format!("{at}: {}", failure.message)))?;
            let properties = function
                .parameters
                .and_then(|parameters| parameters["properties"].as_object());
            let is_known =
                |name: &&String| properties.is_some_and(|known| known.contains_key(*name));
            if let Some(name) = names.iter().find(|name| !is_known(name)) {
                let known = properties
                    .into_iter()
                    .flat_map(Map::keys)
                    .map(|name| format!(":{name}"));
                let known = known.collect::<Vec<_>>().join(", ");
                let message = format!(
                    "{at}: `:{name}` is no property of {}, which has {known}",
                    function.name
                );
                return Err((sql, message));
            }
        }
        Ok(())
    }

    pub(super) fn open(&self, row: &PromptRow) -> Result<Box<dyn LiveTool>, String> {
        let field = &self.rules.field;
        let own = row.fields.value(field);
        let own = match &own {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(format!("`{field}` is not a text of SQL statements")),
        };
        Ok(Box::new(Conversation {
            database: initial(self.image.as_deref(), own, field)?,
            statements: Arc::clone(&self.rules.statements),
            image: self.image.clone(),
            own: own.cloned(),
        }))
    }
}

/// The database at the start of a conversation. `own`: the row's statements, of this field.
fn initial(
    image_of_tool: Option<&Vec<u8>>,
    own: Option<&String>,
    field: &str,
) -> Result<Database, String> {
    let fault = |StatementFault {
                     line,
                     column,
                     message,
                 }| { format!("`{field}` line {line} column {column}: {message}") };
    match (own, image_of_tool) {
        (own, Some(base)) => {
            let mut database = Database::from_image(base).map_err(|failure| failure.message)?;
            if let Some((text, Err(failure))) = own.map(|text| (text, database.extend(text))) {
                let fresh = Database::from_image(base).map_err(|failure| failure.message)?;
                return Err(fault(fresh.fault_of(text, failure)));
            }
            Ok(database)
        }
        (Some(text), None) => image(text)
            .and_then(|image| Database::from_image(&image))
            .map_err(|failure| fault(Database::fault_place(text, failure))),
        (None, None) => Err(format!(
            "no `{field}`: give the row SQL statements, or the tool a `database`"
        )),
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
        let StateQuestion::Sql(query) = question else {
            return Err("takes SQL queries only".to_owned());
        };
        let why = match self.database.query(query) {
            Ok(table) => return serde_json::to_value(table).map_err(|error| error.to_string()),
            Err(failure) => failure.message,
        };
        // A query that ran before the conversation fails by what the model made of the rows.
        let start = initial(self.image.as_deref(), self.own.as_ref(), "database")?;
        match start.query(query) {
            Ok(_) => Ok(json!({"error": why})),
            Err(_) => Err(why),
        }
    }

    fn changes(&self) -> Option<u64> {
        Some(self.database.changed_rows())
    }
}

impl Conversation {
    fn answer(&mut self, call: &ToolCall) -> CallResult {
        let statement = self
            .statements
            .get(&call.name)
            .ok_or_else(|| format!("no function {:?}", call.name))?;
        let written = || {
            call.arguments
                .get("sql")
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let result = match statement {
            Statement::Written { is_change: false } => {
                self.database.query(written()).map(|table| json!(table))
            }
            Statement::Written { is_change: true } => self
                .database
                .execute(written(), &Map::new())
                .map(|(table, changed)| match table.columns.is_empty() {
                    true => json!({"changed": changed}),
                    false => {
                        json!({"changed": changed, "columns": table.columns, "rows": table.rows})
                    }
                }),
            Statement::Own(sql) => {
                self.database
                    .execute(sql, &call.arguments)
                    .map(|(table, changed)| {
                        if table.columns.is_empty() {
                            json!({"changed": changed})
                        } else {
                            table.into_objects()
                        }
                    })
            }
        };
        Ok(match result {
            Ok(value) => value.to_string(),
            Err(Failure {
                kind: FailureKind::Denied,
                ..
            }) => {
                let is_query = matches!(statement, Statement::Written { is_change: false });
                let allowed = if is_query {
                    "queries"
                } else {
                    "INSERT, UPDATE, DELETE and queries"
                };
                format!("error: not allowed; this function takes {allowed}")
            }
            Err(failure) => format!("error: {}", failure.message),
        })
    }
}
