//! An in-memory database with limits on steps, rows and memory. Queries read it; statements may
//! change a copy of its image.

mod clock;
mod math;
mod text_functions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{self, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, MAIN_DB, Statement, ffi};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

pub(crate) use clock::Clock;
use clock::ClockVfs;

/// Limit for the schema and its data.
const MAX_SETUP_STEPS: u64 = 500_000_000;
/// VM steps between two checks.
const STEPS_PER_LOOK: i32 = 100;
/// Limit for all databases of the process, across threads.
const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// Limit in pages of 4 KiB.
const MAX_PAGES: u64 = 16_384;

/// The fixed time and the limits of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) now: Clock,
    /// SQLite VM steps; a scan takes a few per row.
    pub(crate) max_steps: u64,
    /// Limit for slow steps; far above the time of `max_steps` usual ones.
    pub(crate) seconds: f64,
    pub(crate) max_rows: usize,
    pub(crate) result_kib: usize,
    pub(crate) value_kib: i32,
    /// Whether a query's unknown name in double quotes is a text.
    pub(crate) double_quoted_texts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            now: Clock::default(),
            max_steps: 5_000_000,
            seconds: 5.0,
            max_rows: 10_000,
            result_kib: 16 << 10,
            value_kib: 64,
            double_quoted_texts: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    #[serde(serialize_with = "as_hex")]
    Blob(Vec<u8>),
}

impl Cell {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) => format!("'{}'", text.replace(char::is_control, " ")),
            Self::Blob(bytes) => format!("x'{}'", crate::format::hex(bytes)),
        }
    }
}

fn as_hex<S: Serializer>(blob: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("x'{}'", crate::format::hex(blob)))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn into_objects(self) -> Value {
        let object = |row: Vec<Cell>| {
            self.columns
                .iter()
                .cloned()
                .zip(row.into_iter().map(|cell| json!(cell)))
                .collect()
        };
        self.rows
            .into_iter()
            .map(|row| Value::Object(object(row)))
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumns {
    pub(crate) name: String,
    pub(crate) is_view: bool,
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) about: String,
}

/// Where a statement of a text fails, and why.
pub(crate) struct StatementFault {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Byte offset in the query, if SQLite reports it.
    pub(crate) offset: Option<usize>,
    pub(crate) kind: FailureKind,
}

impl Failure {
    pub(crate) fn no_query() -> Self {
        let message = "only a query is allowed: SELECT, WITH or VALUES".to_owned();
        Self {
            message,
            offset: Some(0),
            kind: FailureKind::Other,
        }
    }

    pub(crate) fn is_syntax(&self) -> bool {
        self.kind == FailureKind::Syntax
    }

    fn is_incomplete(&self) -> bool {
        self.message == "incomplete input" || self.message.starts_with("unrecognized token")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Syntax,
    UnknownTable,
    UnknownColumn,
    /// Not allowed by the caller.
    Denied,
    Other,
}

/// Steps left for the running statement.
#[derive(Debug)]
struct Budget {
    looks: u64,
    until: Instant,
}

impl Budget {
    fn new(steps: u64, seconds: f64) -> Self {
        Self {
            looks: steps / STEPS_PER_LOOK as u64,
            until: Instant::now() + Duration::from_secs_f64(seconds),
        }
    }

    fn of_setup() -> Self {
        Self::new(MAX_SETUP_STEPS, Settings::default().seconds)
    }

    fn is_spent(&mut self) -> bool {
        self.looks = self.looks.saturating_sub(1);
        self.looks == 0 || self.is_late()
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.until
    }
}

#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    left: Arc<Mutex<Budget>>,
    settings: Settings,
    /// Dropped after the connection.
    _clock: ClockVfs,
}

impl Database {
    pub(crate) fn from_image(image: &[u8]) -> Result<Self, Failure> {
        let mut database = Self::new("")?;
        let copy = |database: &mut Self| -> rusqlite::Result<()> {
            let connection = &mut database.connection;
            connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
            connection.deserialize_read_exact(MAIN_DB, image, image.len(), false)?;
            // Undo a statement that fails half-way.
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = MEMORY; PRAGMA max_page_count = {MAX_PAGES};"
            ))?;
            connection.authorizer(Some(in_query))
        };
        copy(&mut database).map_err(|error| failure(&error))?;
        Ok(database)
    }

    pub(crate) fn into_image(mut self) -> Result<Vec<u8>, Failure> {
        let connection = &mut self.connection;
        // SQLite reads the page count by a pragma.
        let open = connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let image = open
            .and_then(|()| connection.serialize(MAIN_DB))
            .map_err(|error| failure(&error))?;
        Ok(image.to_vec())
    }

    /// Runs a statement that may change rows with values for its `:name` parameters; returns its
    /// result and the number of changed rows.
    pub(crate) fn execute(
        &mut self,
        text: &str,
        arguments: &Map<String, Value>,
    ) -> Result<(Table, u64), Failure> {
        self.connection
            .authorizer(Some(in_change))
            .map_err(|error| failure(&error))?;
        let before = self.connection.total_changes();
        let result = self.rows(text, arguments);
        let changed = self.connection.total_changes() - before;
        self.connection
            .authorizer(Some(in_query))
            .map_err(|error| failure(&error))?;
        result.map(|table| (table, changed))
    }

    /// Parameters of a statement, which is not run; empty text for those without a name.
    pub(crate) fn parameters(&mut self, text: &str) -> Result<Vec<String>, Failure> {
        self.connection
            .authorizer(Some(in_change))
            .map_err(|error| failure(&error))?;
        let names = |statement: Statement<'_>| {
            let name = |index| {
                statement
                    .parameter_name(index)
                    .and_then(|name| name.get(1..))
                    .unwrap_or_default()
            };
            (1..=statement.parameter_count())
                .map(|index| name(index).to_owned())
                .collect()
        };
        let found = self
            .connection
            .prepare(text)
            .map(names)
            .map_err(|error| failure(&error));
        self.connection
            .authorizer(Some(in_query))
            .map_err(|error| failure(&error))?;
        found
    }

    pub(crate) fn extend(&mut self, statements: &str) -> Result<(), Failure> {
        *self.left.lock() = Budget::of_setup();
        let run = |connection: &mut Connection| -> rusqlite::Result<()> {
            connection.authorizer(Some(in_schema))?;
            connection.execute_batch(statements)?;
            connection.authorizer(Some(in_query))
        };
        run(&mut self.connection).map_err(|error| failure(&error))
    }

    /// Creates a database from a schema with its data.
    pub(crate) fn new(schema: &str) -> Result<Self, Failure> {
        Self::with_settings(schema, &Settings::default())
    }

    pub(crate) fn with_settings(schema: &str, settings: &Settings) -> Result<Self, Failure> {
        let (connection, clock) = clock::open(settings.now).map_err(|error| failure(&error))?;
        let mut database = Self {
            connection,
            left: Arc::new(Mutex::new(Budget::of_setup())),
            settings: settings.clone(),
            _clock: clock,
        };
        database.prepare(schema).map_err(|error| failure(&error))?;
        Ok(database)
    }

    /// As [`Self::with_settings`], but queries read the rows of each table and view in reverse
    /// order: what this changes in a result is not determined by the data.
    pub(crate) fn with_reversed_rows(schema: &str, settings: &Settings) -> Result<Self, Failure> {
        let mut database = Self::with_settings(schema, settings)?;
        let tables = database.tables(usize::MAX)?;
        let views = tables.iter().map(|table| {
            let name = table.name.replace('"', "\"\"");
            format!("CREATE TEMP VIEW \"{name}\" AS SELECT * FROM main.\"{name}\" ORDER BY row_number() OVER () DESC LIMIT -1;")
        });
        database.extend(&views.collect::<String>())?;
        Ok(database)
    }

    fn first_fault(mut database: Self, schema: &str) -> Option<(usize, Failure)> {
        database.connection.authorizer(Some(in_schema)).ok()?;
        let mut start = 0;
        for end in schema
            .match_indices(';')
            .map(|(at, _)| at + 1)
            .chain([schema.len()])
        {
            let statement = schema.get(start..end)?;
            match database
                .connection
                .execute_batch(statement)
                .map_err(|error| failure(&error))
            {
                Ok(()) => start = end,
                // The semicolon is inside a string or trigger.
                Err(error) if end < schema.len() && error.is_incomplete() => {}
                Err(error) => {
                    let blanks = statement.len() - statement.trim_start().len();
                    return Some((start + error.offset.unwrap_or(blanks), error));
                }
            }
        }
        None
    }

    /// The first failing statement; `failure` if it is not found.
    pub(crate) fn fault_place(schema: &str, failure: Failure) -> StatementFault {
        match Self::new("") {
            Ok(empty) => empty.fault_of(schema, failure),
            Err(_) => StatementFault {
                line: 1,
                column: 1,
                message: failure.message,
            },
        }
    }

    /// As [`Self::fault_place`], for statements run in this database.
    pub(crate) fn fault_of(self, schema: &str, failure: Failure) -> StatementFault {
        let (offset, failure) = Self::first_fault(self, schema).unwrap_or((0, failure));
        let (line, column) = crate::format::line_column(schema, offset);
        StatementFault {
            line,
            column,
            message: format!("{}; each statement must run in SQLite", failure.message),
        }
    }

    fn prepare(&mut self, schema: &str) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA hard_heap_limit = {MAX_MEMORY_BYTES}; PRAGMA trusted_schema = OFF; PRAGMA journal_mode = OFF;"
        ))?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        let left = Arc::clone(&self.left);
        let is_spent = move || left.lock().is_spent();
        math::register(connection)?;
        connection.progress_handler(STEPS_PER_LOOK, Some(is_spent))?;
        connection.authorizer(Some(in_schema))?;
        connection.execute_batch(schema)?;
        // The schema is the task's: only what queries call has to end in time.
        let (left, max_bytes) = (&self.left, self.settings.value_kib << 10);
        text_functions::register(connection, left, max_bytes as usize)?;
        let is_text = self.settings.double_quoted_texts;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, is_text)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, max_bytes)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COLUMN, 200)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100)?;
        connection.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 200)?;
        connection.authorizer(Some(in_query))
    }

    pub(crate) fn tables(&mut self, most: usize) -> Result<Vec<TableColumns>, Failure> {
        // Descriptions of tables do not count as a completion's query.
        let read = |connection: &Connection| -> rusqlite::Result<Vec<TableColumns>> {
            let sql = "SELECT name, type = 'view' FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid";
            let mut names = connection.prepare(sql)?;
            let named = names.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
            })?;
            let mut tables = Vec::new();
            for named in named.take(most) {
                let (name, is_view) = named?;
                let mut info = connection
                    .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1)")?;
                let columns = info.query_map([&name], |row| {
                    let declared: String = row.get(1)?;
                    let mut about = if declared.is_empty() {
                        "any type".to_owned()
                    } else {
                        declared
                    };
                    if row.get::<_, i64>(3)? > 0 {
                        about.push_str(", primary key");
                    } else if row.get(2)? {
                        about.push_str(", not null");
                    }
                    Ok(Column {
                        name: row.get(0)?,
                        about,
                    })
                })?;
                let columns = columns.collect::<Result<_, _>>()?;
                tables.push(TableColumns {
                    name,
                    is_view,
                    columns,
                });
            }
            Ok(tables)
        };
        let open = self
            .connection
            .authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let found = open.and_then(|()| read(&self.connection));
        let closed = self.connection.authorizer(Some(in_query));
        closed.and(found).map_err(|error| failure(&error))
    }

    pub(crate) fn refusal(&self, text: &str) -> Option<Failure> {
        self.connection
            .prepare(text)
            .err()
            .map(|error| failure(&error))
    }

    /// Rows that statements have changed so far.
    pub(crate) fn changed_rows(&self) -> u64 {
        self.connection.total_changes()
    }

    pub(crate) fn query(&self, text: &str) -> Result<Table, Failure> {
        self.rows(text, &Map::new())
    }

    fn rows(&self, text: &str, arguments: &Map<String, Value>) -> Result<Table, Failure> {
        let failure = |error: &Error| {
            let found = failure(error);
            match error.sqlite_error_code() {
                Some(ErrorCode::TooBig) => Failure {
                    message: format!("a value is longer than {} KiB", self.settings.value_kib),
                    ..found
                },
                _ => found,
            }
        };
        *self.left.lock() = Budget::new(self.settings.max_steps, self.settings.seconds);
        let mut statement = self
            .connection
            .prepare(text)
            .map_err(|error| failure(&error))?;
        for index in 1..=statement.parameter_count() {
            let argument = statement
                .parameter_name(index)
                .and_then(|name| arguments.get(name.get(1..)?));
            statement
                .raw_bind_parameter(index, bound(argument))
                .map_err(|error| failure(&error))?;
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut table = Table {
            rows: Vec::new(),
            columns,
        };
        let (mut rows, mut bytes) = (statement.raw_query(), 0);
        while let Some(row) = rows.next().map_err(|error| failure(&error))? {
            let mut cells = Vec::with_capacity(table.columns.len());
            for column in 0..table.columns.len() {
                let cell = match row.get_ref(column).map_err(|error| failure(&error))? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(number) => Cell::Integer(number),
                    ValueRef::Real(number) => Cell::Real(number),
                    ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
                };
                bytes += match &cell {
                    Cell::Text(text) => text.len(),
                    Cell::Blob(blob) => blob.len(),
                    _ => 8,
                };
                cells.push(cell);
            }
            let (most, kib) = (self.settings.max_rows, self.settings.result_kib);
            if table.rows.len() == most || bytes > kib << 10 {
                let message = format!("the result has more than {most} rows or {kib} KiB");
                return Err(Failure {
                    message,
                    offset: None,
                    kind: FailureKind::Other,
                });
            }
            table.rows.push(cells);
        }
        Ok(table)
    }
}

fn bound(argument: Option<&Value>) -> types::Value {
    match argument {
        None | Some(Value::Null) => types::Value::Null,
        Some(Value::Bool(is_true)) => i64::from(*is_true).into(),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Some(Value::String(text)) => text.clone().into(),
        Some(other) => other.to_string().into(),
    }
}

/// Allows creating tables, views and indexes and filling them.
fn in_schema(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Pragma { .. } => {
            Authorization::Deny
        }
        AuthAction::CreateVtable { .. }
        | AuthAction::DropVtable { .. }
        | AuthAction::Unknown { .. } => Authorization::Deny,
        AuthAction::Function { function_name } if is_refused(function_name) => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

fn in_query(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name } if !is_refused(function_name) => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn in_change(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. } => {
            Authorization::Allow
        }
        _ => in_query(context),
    }
}

/// Nondeterministic functions, and those that reach outside the database. The clock is fixed.
fn is_refused(function: &str) -> bool {
    [
        "random",
        "randomblob",
        "load_extension",
        "readfile",
        "writefile",
        "edit",
        "fts3_tokenizer",
    ]
    .iter()
    .any(|name| function.eq_ignore_ascii_case(name))
}

fn failure(error: &Error) -> Failure {
    let (message, offset) = match error {
        Error::SqlInputError { msg, offset, .. } => (msg.clone(), usize::try_from(*offset).ok()),
        Error::SqliteFailure(cause, message) => {
            let message = match (cause.code, cause.extended_code) {
                (ErrorCode::OperationInterrupted, _) => "the query takes too many steps".to_owned(),
                (ErrorCode::OutOfMemory, _) => "the query takes too much memory".to_owned(),
                (ErrorCode::AuthorizationForStatementDenied, _) => message
                    .clone()
                    .unwrap_or_else(|| "not allowed in a query".to_owned()),
                (_, code) => message
                    .clone()
                    .unwrap_or_else(|| ffi::code_to_str(code).to_owned()),
            };
            (message, None)
        }
        Error::MultipleStatement => ("several statements; write one query".to_owned(), Some(0)),
        other => (other.to_string(), None),
    };
    // SQLite has one code for all of these.
    let is_syntax = matches!(error, Error::MultipleStatement)
        || message == "incomplete input"
        || message.starts_with("unrecognized token: ")
        || (message.starts_with("near \"") && message.ends_with("\": syntax error"));
    let is_denied = error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied);
    let kind = if is_syntax {
        FailureKind::Syntax
    } else if is_denied {
        FailureKind::Denied
    } else if message.starts_with("no such table") {
        FailureKind::UnknownTable
    } else if message.starts_with("no such column") {
        FailureKind::UnknownColumn
    } else {
        FailureKind::Other
    };
    // May quote a name as long as the query.
    Failure {
        message: message.chars().take(300).collect(),
        offset,
        kind,
    }
}
