//! A database in memory, with bounds on the steps, rows and memory of statements. Queries read it; a copy of its image
//! may be changed, too.

mod clock;
mod math;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{self, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, MAIN_DB, Statement, ffi};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

pub(crate) use clock::Clock;
use clock::ClockVfs;

/// The schema and its data may take more.
const MAX_SETUP_STEPS: u64 = 500_000_000;
/// Steps between two looks at the count.
const STEPS_PER_LOOK: i32 = 1_000;
/// Bytes that all databases of the process may take together, those of other threads among them.
const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// Pages, of 4 KiB, that a database may grow to.
const MAX_PAGES: u64 = 16_384;

/// The time that statements read, and bounds on a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) now: Clock,
    /// Steps of SQLite's machine; a scan takes a few a row.
    pub(crate) max_steps: u64,
    /// Where each step takes long; far above what that many steps take.
    pub(crate) seconds: f64,
    /// Rows of a result.
    pub(crate) max_rows: usize,
    /// All values of a result together.
    pub(crate) result_kib: usize,
    /// One text or blob.
    pub(crate) value_kib: i32,
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
        }
    }
}

/// A value in a result.
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
    /// As people read it.
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

/// As SQL writes it.
fn as_hex<S: Serializer>(blob: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("x'{}'", crate::format::hex(blob)))
}

/// The result of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A list of rows, each an object.
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

/// A table or view of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumns {
    pub(crate) name: String,
    pub(crate) is_view: bool,
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its type as declared, and whether it is a key.
    pub(crate) about: String,
}

/// Why a query failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Byte offset in the query, where SQLite says it.
    pub(crate) offset: Option<usize>,
    pub(crate) kind: FailureKind,
}

impl Failure {
    /// The error for a statement that is not a query.
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
    /// SQLite's parser refuses it.
    Syntax,
    UnknownTable,
    UnknownColumn,
    /// It does what the caller does not allow.
    Denied,
    Other,
}

/// The steps that the running statement may still take.
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
        self.looks == 0 || Instant::now() > self.until
    }
}

#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    left: Arc<Mutex<Budget>>,
    settings: Settings,
    /// After the connection, which is dropped first.
    _clock: ClockVfs,
}

impl Database {
    /// A database with the content of an image, which is copied.
    pub(crate) fn from_image(image: &[u8]) -> Result<Self, Failure> {
        let mut database = Self::new("")?;
        let copy = |database: &mut Self| -> rusqlite::Result<()> {
            let connection = &mut database.connection;
            connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
            connection.deserialize_read_exact(MAIN_DB, image, image.len(), false)?;
            // A statement that fails half-way is undone.
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = MEMORY; PRAGMA max_page_count = {MAX_PAGES};"
            ))?;
            connection.authorizer(Some(in_query))
        };
        copy(&mut database).map_err(|error| failure(&error))?;
        Ok(database)
    }

    /// The bytes of the whole database.
    pub(crate) fn into_image(mut self) -> Result<Vec<u8>, Failure> {
        let connection = &mut self.connection;
        // SQLite asks for the number of pages by a pragma.
        let open = connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let image = open
            .and_then(|()| connection.serialize(MAIN_DB))
            .map_err(|error| failure(&error))?;
        Ok(image.to_vec())
    }

    /// Runs one statement that may change rows, with the values of its parameters, `:name`: what it returns, and how many
    /// rows it changed.
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

    /// The parameters of a statement that may change rows, which is not run; empty texts for those without a name.
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

    /// Runs further statements of a schema and its data.
    pub(crate) fn extend(&mut self, statements: &str) -> Result<(), Failure> {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Budget::of_setup();
        let run = |connection: &mut Connection| -> rusqlite::Result<()> {
            connection.authorizer(Some(in_schema))?;
            connection.execute_batch(statements)?;
            connection.authorizer(Some(in_query))
        };
        run(&mut self.connection).map_err(|error| failure(&error))
    }

    /// Runs the statements of a schema and its data in a new database.
    ///
    /// # Errors
    /// SQLite's sentence.
    pub(crate) fn new(schema: &str) -> Result<Self, Failure> {
        Self::with_settings(schema, &Settings::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// SQLite's sentence.
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

    /// The first statement of a schema that fails, by its byte offset, and why.
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
                // The semicolon stands in a text or a trigger.
                Err(error) if end < schema.len() && error.is_incomplete() => {}
                Err(error) => {
                    let blanks = statement.len() - statement.trim_start().len();
                    return Some((start + error.offset.unwrap_or(blanks), error));
                }
            }
        }
        None
    }

    /// Line, column and reason of the first statement of a schema that fails; `failure`: where that is not found.
    pub(crate) fn fault_place(schema: &str, failure: Failure) -> (usize, usize, String) {
        Self::new("").map_or((1, 1, failure.message.clone()), |empty| {
            empty.fault_of(schema, failure)
        })
    }

    /// The same of statements that are run in this database.
    pub(crate) fn fault_of(self, schema: &str, failure: Failure) -> (usize, usize, String) {
        let (offset, failure) = Self::first_fault(self, schema).unwrap_or((0, failure));
        let (line, column) = crate::format::line_column(schema, offset);
        (
            line,
            column,
            format!("{}; each statement must run in SQLite", failure.message),
        )
    }

    fn prepare(&mut self, schema: &str) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA hard_heap_limit = {MAX_MEMORY_BYTES}; PRAGMA trusted_schema = OFF; PRAGMA journal_mode = OFF;"
        ))?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        let left = Arc::clone(&self.left);
        let is_spent = move || {
            left.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_spent()
        };
        math::register(connection)?;
        connection.progress_handler(STEPS_PER_LOOK, Some(is_spent))?;
        connection.authorizer(Some(in_schema))?;
        connection.execute_batch(schema)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, self.settings.value_kib << 10)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COLUMN, 200)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100)?;
        connection.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 200)?;
        connection.authorizer(Some(in_query))
    }

    /// The tables and views, in the order in which they were made; at most so many.
    pub(crate) fn tables(&mut self, most: usize) -> Result<Vec<TableColumns>, Failure> {
        // Queries that describe tables are not a completion's.
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

    /// Why SQLite does not take a statement, which is not run.
    pub(crate) fn refusal(&self, text: &str) -> Option<Failure> {
        self.connection
            .prepare(text)
            .err()
            .map(|error| failure(&error))
    }

    /// The rows of a query.
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
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) =
            Budget::new(self.settings.max_steps, self.settings.seconds);
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

/// A value of JSON as SQLite's; lists and objects as their text.
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

/// A schema makes tables, views and indexes and fills them.
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

/// A query reads.
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

/// A statement reads, or changes rows.
fn in_change(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. } => {
            Authorization::Allow
        }
        _ => in_query(context),
    }
}

/// Functions whose result is another at each call, and those that reach out of the database. The clock stands still.
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
    // It may quote a name as long as the query.
    Failure {
        message: message.chars().take(300).collect(),
        offset,
        kind,
    }
}
