//! Runs a query in SQLite and compares it with the expected one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use sqlparser::dialect::{Dialect, HiveDialect, SQLiteDialect};

use super::compare::{self, CompareRules, Wanted, compare};
use super::query::{Parsed, QueryError, dialect, parse, ranked};
use crate::dataset::PromptRow;
use crate::dataset::expected::{self, Expectation, alternatives};
use crate::score::answer::json::Places;
use crate::score::definition::Judge;
use crate::score::error::ScoreError;
use crate::score::verdict::{Attempt, FailureClass, QueryResult, Reason, Tier, Verdict};
use crate::sqlite::{Cell, Clock, Database, Failure, FailureKind, Settings, Table};
use crate::task::TaskFiles;

/// Open databases per thread, most recently used.
const MAX_DATABASES: usize = 16;
/// Cached expected results per database, and rows of each.
const MAX_RESULTS: usize = 1_000;
const MAX_CACHED_ROWS: usize = 100;
/// Rows shown per result.
const MAX_SHOWN_ROWS: usize = 20;

pub(super) const TIME_FORM: &str = "a date and time in UTC, such as \"2024-01-01 00:00:00\"";

#[derive(Debug)]
pub(super) struct SqlRules {
    /// Whether the task's definition file is the schema with data; else each row has its own.
    pub(super) has_schema: bool,
    pub(super) dialect: String,
    pub(super) settings: Settings,
    pub(super) compare: CompareRules,
}

impl SqlRules {
    pub(super) fn schema<'a>(&self, task: &'a TaskFiles) -> Option<&'a str> {
        self.has_schema.then_some(task.definition_text.as_str())
    }
}

fn query_result(table: &Table) -> QueryResult {
    let row = |cells: &Vec<Cell>| cells.iter().map(Cell::text).collect();
    let rows = table.rows.iter().take(MAX_SHOWN_ROWS).map(row).collect();
    QueryResult {
        columns: table.columns.clone(),
        rows,
        count: table.rows.len(),
    }
}

#[derive(Debug)]
pub(super) struct Sql {
    /// The task's schema; `None` if each row has its own.
    schema: Option<String>,
    dialect: String,
    settings: Settings,
    compare: CompareRules,
}

/// A thread's database with cached expected results.
struct OpenDatabase {
    schema: String,
    settings: Settings,
    database: Result<Database, Failure>,
    /// With rows in reverse order, once it is asked for; `None` if it cannot be made.
    reversed: Option<Option<Database>>,
    /// Results by whether order is relevant, and query.
    results: HashMap<(bool, String), Result<Arc<Wanted>, Failure>>,
}

thread_local! {
    /// Most recently used first.
    static OPEN: RefCell<Vec<OpenDatabase>> = const { RefCell::new(Vec::new()) };
}

struct ExpectedQuery<'r> {
    query: &'r str,
    parsed: Parsed,
}

struct Question<'r> {
    schema: &'r str,
    settings: Settings,
    dialect: Box<dyn Dialect>,
    /// Several alternatives; empty without `expected`.
    expected: Vec<ExpectedQuery<'r>>,
}

impl Sql {
    pub(super) fn new(task: &TaskFiles, rules: &SqlRules) -> Result<Self, ScoreError> {
        let schema = rules.schema(task);
        if let Some(schema) = schema
            && let Err(failure) = Database::with_settings(schema, &rules.settings)
        {
            let fault = Database::fault_place(schema, failure);
            return Err(ScoreError::Statement {
                label: task.label(&task.definition_file),
                line: fault.line,
                column: fault.column,
                message: fault.message,
            });
        }
        Ok(Self {
            schema: schema.map(str::to_owned),
            dialect: rules.dialect.clone(),
            settings: rules.settings.clone(),
            compare: rules.compare,
        })
    }

    /// # Errors
    /// Why no answer to this row can be scored.
    fn question<'r>(&'r self, row: Option<&'r PromptRow>) -> Result<Question<'r>, String> {
        let schema = self
            .schema_of(row)
            .ok_or("no schema: name a file, `schema` of task.toml, or give the row a `schema`")?;
        let dialect = self.dialect_of(row)?;
        let expected = row.and_then(|row| row.expected.as_ref());
        if let Some(problem) = expected.and_then(expected::problem) {
            return Err(format!("the row's `expected`: {problem}"));
        }
        let queries = expected.into_iter().flat_map(alternatives).map(|one| {
            let query = query_of(one)?;
            match parse(&*dialect, query) {
                Ok(parsed) => Ok(ExpectedQuery { query, parsed }),
                Err(error) => Err(does_not_parse(&error.message)),
            }
        });
        let expected = queries.collect::<Result<_, String>>()?;
        Ok(Question {
            schema,
            settings: self.settings_of(row)?,
            dialect,
            expected,
        })
    }

    /// Judges the trimmed answer at a byte offset of the completion.
    fn judge_answer(
        &self,
        (completion, offset): (&str, usize),
        answer: &str,
        row: Option<&PromptRow>,
    ) -> Verdict {
        let failed = |why: String| Verdict::failed(why, (completion, offset));
        let question = match self.question(row) {
            Ok(question) => question,
            Err(why) => return failed(why),
        };
        let place = (completion, offset);
        let verdict = with_database(question.schema, &question.settings, |open| {
            let dialect = &*question.dialect;
            open.judge(place, answer, dialect, &question.expected, self.compare)
                .unwrap_or_else(|error| {
                    let is_valid = |text: &str| {
                        let inside = open.judge(place, text, dialect, &[], self.compare);
                        inside.is_ok_and(|verdict| verdict.tier == Tier::Valid)
                    };
                    let is_valid_inside = fenced(answer).is_some_and(is_valid);
                    not_parsed(place, answer, error, is_valid_inside)
                })
        });
        let expected = row.and_then(|row| row.expected.as_ref());
        Verdict {
            exact: expected.map(|_| verdict.exact == Some(true)),
            ..verdict
        }
    }

    fn schema_of<'a>(&'a self, row: Option<&'a PromptRow>) -> Option<&'a str> {
        text_of(row, "schema").or(self.schema.as_deref())
    }

    fn dialect_of(&self, row: Option<&PromptRow>) -> Result<Box<dyn Dialect>, String> {
        let name = text_of(row, "dialect").unwrap_or(&self.dialect);
        dialect(name).ok_or_else(|| format!("`dialect` {name:?} of the row is unknown"))
    }

    /// # Errors
    /// The row's `dialect` is unknown, or its `now` is not a time.
    fn settings_of(&self, row: Option<&PromptRow>) -> Result<Settings, String> {
        let dialect = self.dialect_of(row)?;
        let mut settings = Settings {
            // The parser takes them for names in Hive, too.
            double_quoted_texts: !dialect.is_delimited_identifier_start('"')
                || dialect.is::<HiveDialect>(),
            ..self.settings.clone()
        };
        if let Some(now) = row.and_then(|row| row.fields.get("now")) {
            let read = now.as_str().and_then(Clock::parse);
            settings.now =
                read.ok_or_else(|| format!("`now` of the row takes {TIME_FORM}, not {now}"))?;
        }
        Ok(settings)
    }
}

impl Judge for Sql {
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        attempt.judge_text(attempt.expected(), |offset, answer| {
            self.judge_answer((attempt.completion, offset), answer, attempt.row)
        })
    }

    fn completion_of(
        &self,
        expected: &serde_json::Value,
        _row: Option<&PromptRow>,
    ) -> Option<String> {
        expected::target(expected).as_str().map(str::to_owned)
    }

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        let question = match self.question(Some(row)) {
            Ok(question) => question,
            Err(why) => return Some(why),
        };
        with_database(question.schema, &question.settings, |open| {
            if let Err(failure) = &open.database {
                return Some(schema_does_not_run(failure));
            }
            question.expected.iter().find_map(|expected| {
                let failure = open.wanted(expected, &*question.dialect).err()?;
                Some(expected_does_not_run(&failure))
            })
        })
    }

    /// `expected` is not determined by the data: with rows in reverse order its result is another.
    fn row_doubt(&self, row: &PromptRow) -> Option<String> {
        let question = self.question(Some(row)).ok()?;
        let (schema, settings) = (question.schema, &question.settings);
        with_database(schema, settings, |open| {
            let wanted = question.expected.iter();
            let wanted = wanted.map(|expected| open.wanted(expected, &*question.dialect));
            let wanted = wanted.collect::<Result<Vec<_>, _>>().ok()?;
            let reversed = open
                .reversed
                .get_or_insert_with(|| Database::with_reversed_rows(schema, settings).ok())
                .as_ref()?;
            let is_right = |found: &Table| {
                let is_equal = |wanted: &Arc<Wanted>| {
                    let compared = compare(found, wanted, self.compare);
                    compared.differences.is_empty()
                };
                wanted.iter().any(is_equal)
            };
            let mut found = question
                .expected
                .iter()
                .map(|one| reversed.query(one.query));
            found.any(|found| found.is_ok_and(|found| !is_right(&found))).then(|| {
                "the data do not determine the result of `expected`: with the same rows in another order it is another (a tie at LIMIT or in a window, or no ORDER BY), so a right query may count as wrong; order by a unique key, or list each right query in `$any`".to_owned()
            })
        })
    }

    /// Results of an answer and of the expected query; `None` unless both run.
    fn results(&self, answer: &str, row: &PromptRow) -> Option<[QueryResult; 2]> {
        let expected = self.completion_of(row.expected.as_ref()?, Some(row))?;
        let settings = self.settings_of(Some(row)).ok()?;
        with_database(self.schema_of(Some(row))?, &settings, |open| {
            let database = open.database.as_ref().ok()?;
            let result = |query: &str| database.query(query).ok().as_ref().map(query_result);
            Some([result(answer)?, result(&expected)?])
        })
    }
}

fn query_of(expected: &serde_json::Value) -> Result<&str, String> {
    match Expectation::from_value(expected) {
        Expectation::Plain(serde_json::Value::String(query)) => Ok(query),
        _ => Err(format!(
            "the row's `expected` is not a query in quotes: {}",
            crate::format::shortened(&expected.to_string(), 60)
        )),
    }
}

fn does_not_parse(message: &str) -> String {
    format!("the row's `expected` does not parse: {message}")
}

fn expected_does_not_run(failure: &Failure) -> String {
    let message = &failure.message;
    match failure.is_syntax() {
        true => does_not_parse(message),
        false => format!("the row's `expected` does not run: {message}"),
    }
}

fn schema_does_not_run(failure: &Failure) -> String {
    format!("the schema does not run: {}", failure.message)
}

fn text_of<'r>(row: Option<&'r PromptRow>, name: &str) -> Option<&'r str> {
    row?.fields.get(name)?.as_str()
}

impl OpenDatabase {
    fn new(schema: &str, settings: &Settings) -> Self {
        Self {
            schema: schema.to_owned(),
            settings: settings.clone(),
            database: Database::with_settings(schema, settings),
            reversed: None,
            results: HashMap::new(),
        }
    }

    /// Judges a query at a byte of the completion. In dialect `sqlite` SQLite's parser decides
    /// about syntax. For other dialects only an incomplete grammar is known: what it rejects
    /// uncertainly is judged by whether SQLite runs it.
    fn judge(
        &mut self,
        place: (&str, usize),
        text: &str,
        dialect: &dyn Dialect,
        expected: &[ExpectedQuery<'_>],
        rules: CompareRules,
    ) -> Result<Verdict, QueryError> {
        let parsed = parse(dialect, text)?;
        let is_sqlite = dialect.is::<SQLiteDialect>();
        let refused = match parsed.refused {
            Some(why) if why.is_certain && !is_sqlite => return Err(why),
            refused => refused,
        };
        let database = match &self.database {
            Ok(database) => database,
            Err(failure) => return Ok(Verdict::failed(schema_does_not_run(failure), place)),
        };
        let found = match parsed.is_query {
            true => database.query(text),
            false => Err(database
                .refusal(text)
                .filter(Failure::is_syntax)
                .unwrap_or_else(Failure::no_query)),
        };
        let found = match (found, refused) {
            (Err(failure), refused) if is_sqlite && failure.is_syntax() => {
                let at = failure.offset.unwrap_or(text.len());
                // The grammar's message is better, unless SQLite accepts that place.
                let same = refused.filter(|why| why.offset(text) == at);
                return Err(same.unwrap_or_else(|| {
                    QueryError::by_sqlite(failure.message, text, failure.offset)
                }));
            }
            (found, Some(why)) if !is_sqlite => {
                return Ok(not_understood(place, text, &why, found.err()));
            }
            (found, _) => found,
        };
        let wanted = expected
            .iter()
            .map(|expected| self.wanted(expected, dialect))
            .collect::<Result<Vec<_>, _>>();
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(failure) => return Ok(Verdict::failed(expected_does_not_run(&failure), place)),
        };
        Ok(match found {
            Ok(table) => compared(place, &table, &wanted, rules),
            Err(failure) => {
                let of_none = |wanted: &Arc<Wanted>| {
                    let counts = wanted.ranks.is_some() && !rules.ignores_order;
                    compare::fields(false, false, counts.then_some(false))
                };
                Verdict {
                    fields: wanted.first().map(of_none),
                    ..invalid(place, text, failure)
                }
            }
        })
    }

    fn wanted(
        &mut self,
        expected: &ExpectedQuery<'_>,
        dialect: &dyn Dialect,
    ) -> Result<Arc<Wanted>, Failure> {
        let key = (expected.parsed.is_ordered, expected.query.to_owned());
        if let Some(known) = self.results.get(&key) {
            return known.clone();
        }
        let database = self.database.as_ref().map_err(Clone::clone)?;
        let result = database.query(expected.query).map(|table| {
            let ranks = expected
                .parsed
                .is_ordered
                .then(|| ranks(database, dialect, expected.query, &table));
            Arc::new(Wanted { table, ranks })
        });
        if result
            .as_ref()
            .map_or(true, |wanted| wanted.table.rows.len() <= MAX_CACHED_ROWS)
        {
            if self.results.len() == MAX_RESULTS {
                self.results.clear();
            }
            self.results.insert(key, result.clone());
        }
        result
    }
}

/// Ranks of an ordered query's rows, equal where its `ORDER BY` leaves the order open; empty if
/// unknown.
fn ranks(database: &Database, dialect: &dyn Dialect, query: &str, table: &Table) -> Vec<usize> {
    let rank = |row: &[Cell], found: &[Cell]| match found.split_last()? {
        (Cell::Integer(rank), cells) if cells == row => usize::try_from(*rank).ok(),
        _ => None,
    };
    let of_all = |text: &String| {
        let found = database.query(text).ok()?;
        let pairs = table.rows.iter().zip(&found.rows);
        let ranks: Vec<usize> = pairs
            .map(|(row, found)| rank(row, found))
            .collect::<Option<_>>()?;
        (found.rows.len() == table.rows.len() && ranks.is_sorted()).then_some(ranks)
    };
    ranked(dialect, query, &table.columns)
        .iter()
        .find_map(of_all)
        .unwrap_or_else(|| (0..table.rows.len()).collect())
}

/// Verdict on a query with a result, by the nearest expected one.
fn compared(
    (completion, offset): (&str, usize),
    found: &Table,
    wanted: &[Arc<Wanted>],
    rules: CompareRules,
) -> Verdict {
    // The first of the nearest.
    let all = wanted.iter().rev();
    let nearness = |compared: &compare::Comparison| {
        let same = compared.fields.iter().filter(|(_, same)| **same).count();
        (compared.differences.is_empty(), same)
    };
    let compared = all.map(|wanted| compare(found, wanted, rules));
    let Some(compared) = compared.max_by_key(nearness) else {
        return Verdict::new(Tier::Valid, None);
    };
    let start = Places::new(completion).locate(offset);
    let errors: Vec<_> = compared
        .differences
        .into_iter()
        .map(|why| Reason::at(why, start))
        .collect();
    let failure = (!errors.is_empty()).then_some(FailureClass::WrongResult);
    let (exact, fields) = (Some(errors.is_empty()), Some(compared.fields));
    Verdict {
        exact,
        fields,
        errors,
        ..Verdict::new(Tier::Valid, failure)
    }
}

fn invalid((completion, offset): (&str, usize), text: &str, failure: Failure) -> Verdict {
    let class = match failure.kind {
        FailureKind::UnknownTable => FailureClass::UnknownTable,
        FailureKind::UnknownColumn => FailureClass::UnknownColumn,
        FailureKind::Syntax | FailureKind::Denied | FailureKind::Other => FailureClass::Other,
    };
    let at = failure
        .offset
        .or_else(|| named_place(text, &failure.message))
        .unwrap_or(0);
    Verdict::because(
        Tier::Invalid,
        class,
        failure.message,
        (completion, offset + at),
    )
}

/// Verdict on a query that the grammar lacks but the dialect may have: invalid if SQLite rejects it
/// too; otherwise unknown, so without score.
fn not_understood(
    (completion, offset): (&str, usize),
    text: &str,
    why: &QueryError,
    failure: Option<Failure>,
) -> Verdict {
    let place = (completion, offset + why.offset(text));
    let message = &why.message;
    match failure {
        Some(failure) => {
            let message = format!(
                "not understood: {message}; nor does it run in SQLite: {}",
                failure.message
            );
            Verdict::because(Tier::Invalid, FailureClass::NotUnderstood, message, place)
        }
        None => {
            let message = format!(
                "not understood: {message}; it runs in SQLite, so whether the dialect has it is unknown"
            );
            Verdict::failed(message, place)
        }
    }
}

pub(super) fn first_table(schema: Option<&str>, row: Option<&PromptRow>) -> Option<String> {
    let schema = text_of(row, "schema").or(schema)?;
    with_database(schema, &Settings::default(), |open| {
        let tables = open.database.as_mut().ok()?.tables(1).ok()?;
        tables.into_iter().next().map(|table| table.name)
    })
}

/// Runs `work` on this thread's database of a schema.
fn with_database<R>(
    schema: &str,
    settings: &Settings,
    work: impl FnOnce(&mut OpenDatabase) -> R,
) -> R {
    OPEN.with_borrow_mut(|all| {
        let is_same = |open: &OpenDatabase| open.schema == schema && open.settings == *settings;
        match all.iter().position(is_same) {
            Some(0) => {}
            Some(place) => all[..=place].rotate_right(1),
            None => {
                all.truncate(MAX_DATABASES - 1);
                all.insert(0, OpenDatabase::new(schema, settings));
            }
        }
        work(&mut all[0])
    })
}

/// Verdict on a text that is not a query; `is_valid_inside`: it has a valid one in a Markdown
/// fence.
fn not_parsed(
    (completion, offset): (&str, usize),
    answer: &str,
    error: QueryError,
    is_valid_inside: bool,
) -> Verdict {
    let class = match &error {
        _ if answer.starts_with("```") || is_valid_inside => FailureClass::Fence,
        error if error.is_truncated => FailureClass::Truncated,
        // Its first word begins no statement.
        error if (error.line, error.column) == (1, 1) => FailureClass::Prose,
        _ => FailureClass::Syntax,
    };
    let place = (completion, offset + error.offset(answer));
    let verdict = Verdict::because(Tier::Unparsable, class, error.message, place);
    Verdict {
        tolerant: is_valid_inside,
        ..verdict
    }
}

fn fenced(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("```")?;
    let word = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    Some(rest.get(word..)?.split("```").next()?.trim())
}

/// Position of the name that SQLite does not find: `no such table: NAME`.
fn named_place(text: &str, message: &str) -> Option<usize> {
    let name = message.strip_prefix("no such ")?.split_once(": ")?.1;
    let name = name.rsplit('.').next()?.to_ascii_lowercase();
    text.to_ascii_lowercase().find(&name)
}
