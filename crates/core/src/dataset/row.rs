//! Reads prompt rows from JSONL.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::demonstration::{self, demonstration_of, take_demonstration};
use super::error::DatasetError;
use super::messages::{check_turns, clip, json_fault, messages, show};
use super::random::{mix, text_hash};
use super::row_fields::RowFields;
use crate::exact_json;
use crate::task::{PromptSet, TaskError, TaskFiles, referenced_part};
use crate::text::Message;

/// Bounds memory for a file without line ends.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Lines in memory at once while reading a set.
const BATCH_LINES: usize = 4_096;
/// Below this, one thread is faster.
const LINES_PER_THREAD: usize = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub struct PromptRow {
    /// Unique in its set; `<file stem>-<line>` if the row has none.
    pub id: String,
    /// Not empty.
    pub messages: Vec<Message>,
    pub expected: Option<Value>,
    /// Results are broken down by tag.
    pub tags: Vec<String>,
    /// The row as written.
    pub fields: RowFields,
    /// 1-based.
    pub line: usize,
}

/// The field of a row whose `expected` no person wrote: how likely it is right.
pub const PROPOSED: &str = "proposed";

impl PromptRow {
    /// Whether a program proposed its `expected`, which then trains and does not judge.
    pub fn is_proposed(&self) -> bool {
        self.fields
            .get(PROPOSED)
            .is_some_and(|value| !value.is_null())
    }

    /// Leaves a proposed `expected` out: where rows judge.
    pub fn drop_proposal(&mut self) {
        if self.is_proposed() {
            self.expected = None;
        }
    }

    pub fn tools(&self) -> Option<&Value> {
        self.fields.get("tools").filter(|tools| !tools.is_null())
    }

    /// The turns that follow the prompt in a demonstration: of the model, and of tools with the results of its calls. Empty
    /// where the row has none.
    pub fn demonstration(&self) -> Vec<Message> {
        // Checked when the row was read.
        demonstration_of(self.fields.other()).unwrap_or_default()
    }

    pub fn has_demonstration(&self) -> bool {
        self.fields
            .get(demonstration::KEY)
            .is_some_and(|turns| !turns.is_null())
    }

    /// Hash of the prompt: all turns with roles, later ones included, and the row's own tools and schema.
    pub fn prompt_hash(&self) -> u64 {
        let other = |turn: &Message| {
            if turn.other.is_empty() {
                0
            } else {
                text_hash(&json!(turn.other).to_string())
            }
        };
        let turns = self.messages.iter().fold(0, |hash, turn| {
            mix(hash ^ text_hash(&turn.role)) ^ text_hash(&turn.content) ^ other(turn)
        });
        let own = ["tools", "turns", "schema", "response_format"]
            .into_iter()
            .filter_map(|key| self.fields.get(key).filter(|value| !value.is_null()));
        own.fold(turns, |hash, value| {
            mix(hash ^ text_hash(&value.to_string()))
        })
    }
}

/// Policy for malformed lines: an error stops reading.
pub type OnMalformed<'a> = &'a mut dyn FnMut(DatasetError) -> Result<(), DatasetError>;

/// Reads a set. Errors on the first malformed line, a repeated id, an empty set.
pub fn load(task: &TaskFiles, set: PromptSet) -> Result<Vec<PromptRow>, DatasetError> {
    load_with(task, set, &mut Err)
}

/// [`load`] with another policy for malformed lines and repeated ids.
pub fn load_with(
    task: &TaskFiles,
    set: PromptSet,
    malformed: OnMalformed<'_>,
) -> Result<Vec<PromptRow>, DatasetError> {
    let (file, reader) = open(task, set)?;
    let mut rows = rows_of(&task.label(&file), reader, malformed)?;
    expect_null(task, &mut rows);
    judge_by_labels(set, &mut rows);
    Ok(rows)
}

/// Drops what a program proposed from rows of a set that judges.
fn judge_by_labels(set: PromptSet, rows: &mut [PromptRow]) {
    if set != PromptSet::Train {
        rows.iter_mut().for_each(PromptRow::drop_proposal);
    }
}

/// Makes `"expected": null` an expected answer where null is one by the task's schema; elsewhere it means none.
pub fn expect_null(task: &TaskFiles, rows: &mut [PromptRow]) {
    let may_be_null =
        |row: &&mut PromptRow| row.expected.is_none() && row.fields.text().contains("null");
    let mut rows = rows.iter_mut().filter(may_be_null).peekable();
    if rows.peek().is_none() || !task.definition_file.ends_with(".json") {
        return;
    }
    let schema = serde_json::from_str(&task.definition_text).unwrap_or_default();
    if !allows_null(&schema, &schema, MAX_DEPTH) {
        return;
    }
    for row in rows {
        row.expected = row.fields.value("expected").filter(Value::is_null);
    }
}

/// Depth limit for `$ref`, `anyOf` etc.
const MAX_DEPTH: usize = 8;

/// Whether a schema names null among its types or values, or a part of it does.
fn allows_null(schema: &Value, root: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    let lists = |key: &str, value: &Value| {
        let list = schema.get(key).and_then(Value::as_array);
        list.is_some_and(|list| list.contains(value))
    };
    let parts = ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|key| schema.get(key)?.as_array());
    let target = schema
        .get("$ref")
        .and_then(|reference| referenced_part(root, reference.as_str()?));
    schema.get("type").is_some_and(|name| name == "null")
        || lists("type", &json!("null"))
        || lists("enum", &Value::Null)
        || schema.get("const").is_some_and(Value::is_null)
        || parts
            .flatten()
            .chain(target)
            .any(|part| allows_null(part, root, depth))
}

/// As [`load_with`]: `visit` gets the rows batch by batch, so that they need not fit into memory.
pub fn visit_batches(
    task: &TaskFiles,
    set: PromptSet,
    malformed: OnMalformed<'_>,
    visit: &mut dyn FnMut(Vec<PromptRow>),
) -> Result<(), DatasetError> {
    let (file, reader) = open(task, set)?;
    unique_batches(&task.label(&file), reader, malformed, &mut |mut rows| {
        expect_null(task, &mut rows);
        judge_by_labels(set, &mut rows);
        visit(rows);
    })
}

/// The rows on these lines, in order, without those that cannot be read.
pub fn rows_on<'t>(
    task: &'t TaskFiles,
    set: PromptSet,
    lines: HashSet<usize>,
) -> Result<impl Iterator<Item = PromptRow> + use<'t>, DatasetError> {
    let (file, reader) = open(task, set)?;
    let label = task.label(&file);
    let stem = stem_of(&label);
    let last = lines.iter().copied().max().unwrap_or(0);
    let is_wanted =
        move |line: &NumberedLine| line.as_ref().is_ok_and(|(line, _)| lines.contains(line));
    // An unreadable line is the last.
    let is_before_end =
        move |line: &NumberedLine| line.as_ref().is_ok_and(|(line, _)| *line <= last);
    Ok(read_lines(reader)
        .take_while(is_before_end)
        .filter(is_wanted)
        .filter_map(move |line| {
            let mut row = row_of(line, &label, &stem).ok()?;
            expect_null(task, std::slice::from_mut(&mut row));
            judge_by_labels(set, std::slice::from_mut(&mut row));
            Some(row)
        }))
}

/// Reads JSONL; errors as [`load`].
pub fn load_from(label: &str, reader: impl BufRead) -> Result<Vec<PromptRow>, DatasetError> {
    rows_of(label, reader, &mut Err)
}

fn rows_of(
    label: &str,
    reader: impl BufRead,
    malformed: OnMalformed<'_>,
) -> Result<Vec<PromptRow>, DatasetError> {
    let mut rows = Vec::new();
    unique_batches(label, reader, malformed, &mut |batch| rows.extend(batch))?;
    rows.shrink_to_fit();
    Ok(rows)
}

fn unique_batches(
    label: &str,
    reader: impl BufRead,
    malformed: OnMalformed<'_>,
    visit: &mut dyn FnMut(Vec<PromptRow>),
) -> Result<(), DatasetError> {
    let mut lines = HashMap::new();
    let mut is_empty = true;
    for batch in batches(label, reader) {
        is_empty = false;
        let mut rows = Vec::with_capacity(batch.len());
        for row in batch {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    malformed(error)?;
                    continue;
                }
            };
            if let Some(first) = lines.insert(row.id.clone(), row.line) {
                let problem = format!(
                    "id {} is already on line {first}; give every row its own id, or none",
                    clip(&row.id)
                );
                malformed(DatasetError::Line {
                    label: label.to_owned(),
                    line: row.line,
                    problem,
                })?;
                continue;
            }
            rows.push(row);
        }
        visit(rows);
    }
    if is_empty {
        Err(DatasetError::Empty {
            label: label.to_owned(),
        })
    } else {
        Ok(())
    }
}

/// A set's file name in the task, and a buffered reader.
pub fn open(task: &TaskFiles, set: PromptSet) -> Result<(String, Box<dyn BufRead>), DatasetError> {
    let file = task.set_file(set).ok_or(DatasetError::NoSuchSet { set })?;
    let reader = task.open(file).map_err(|error| match error {
        TaskError::Read { label, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let remedy = "write the file, or name another one under [prompts] in task.toml";
            DatasetError::File {
                path: label,
                source,
                remedy,
            }
        }
        other => DatasetError::Task(other),
    })?;
    Ok((file.to_owned(), reader))
}

/// Reads rows line by line, skipping blank lines, and continues after a malformed line.
pub fn read_rows(
    label: &str,
    reader: impl BufRead,
) -> impl Iterator<Item = Result<PromptRow, DatasetError>> {
    let (label, stem) = (label.to_owned(), stem_of(label));
    read_lines(reader).map(move |line| row_of(line, &label, &stem))
}

/// A line with its number (from 1), or number and problem of an unreadable line.
pub type NumberedLine<L = Vec<u8>> = Result<(usize, L), (usize, String)>;

fn stem_of(label: &str) -> String {
    Path::new(label).file_stem().map_or_else(
        || label.to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

fn row_of(line: NumberedLine, label: &str, stem: &str) -> Result<PromptRow, DatasetError> {
    let row =
        line.and_then(|(line, bytes)| parse(&bytes, line, stem).map_err(|problem| (line, problem)));
    row.map_err(|(line, problem)| DatasetError::Line {
        label: label.to_owned(),
        line,
        problem,
    })
}

/// As [`read_rows`], on every core.
pub(super) fn batches(
    label: &str,
    reader: impl BufRead,
) -> impl Iterator<Item = Vec<Result<PromptRow, DatasetError>>> {
    let (label, stem) = (label.to_owned(), stem_of(label));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = read_lines(reader);
    std::iter::from_fn(move || {
        let mut batch: Vec<NumberedLine> = lines.by_ref().take(BATCH_LINES).collect();
        if batch.is_empty() {
            return None;
        }
        let parse = |part: Vec<NumberedLine>| -> Vec<_> {
            part.into_iter()
                .map(|line| row_of(line, &label, &stem))
                .collect()
        };
        if threads == 1 || batch.len() < LINES_PER_THREAD {
            return Some(parse(batch));
        }
        let size = batch.len().div_ceil(threads);
        let mut parts = Vec::new();
        while !batch.is_empty() {
            parts.push(batch.drain(..size.min(batch.len())).collect::<Vec<_>>());
        }
        Some(std::thread::scope(|scope| {
            let parse = &parse;
            let running: Vec<_> = parts
                .into_iter()
                .map(|part| scope.spawn(move || parse(part)))
                .collect();
            // Propagates a thread's panic.
            let joined = running.into_iter().map(|thread| thread.join());
            joined
                .flat_map(|rows| rows.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        }))
    })
}

/// Non-blank lines of JSONL with numbers (from 1); an error is the last item. Drops a byte order
/// mark; a line of more than 64 MiB is an error.
pub fn read_lines(reader: impl BufRead) -> impl Iterator<Item = NumberedLine> {
    let mut append = append_lines(reader);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        Some(append(&mut line)?.map(|number| (number, line)))
    })
}

/// As [`read_lines`], but each call appends a line to a text and returns its number.
pub fn append_lines(
    mut reader: impl BufRead,
) -> impl FnMut(&mut Vec<u8>) -> Option<Result<usize, (usize, String)>> {
    let (mut number, mut ended) = (0, false);
    move |text| {
        let start = text.len();
        while !ended {
            number += 1;
            match append_line(&mut reader, number, text) {
                Ok(()) if text.len() == start => ended = true,
                Ok(()) if text[start..].trim_ascii().is_empty() => text.truncate(start),
                Ok(()) => return Some(Ok(number)),
                Err(problem) => {
                    ended = true;
                    return Some(Err((number, problem)));
                }
            }
        }
        None
    }
}

fn append_line(reader: &mut impl BufRead, number: usize, text: &mut Vec<u8>) -> Result<(), String> {
    let start = text.len();
    let mut limited = reader.take(MAX_LINE_BYTES as u64 + 1);
    let length = limited
        .read_until(b'\n', text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if length > MAX_LINE_BYTES {
        return Err(format!(
            "longer than {} MiB; write one JSON object per line",
            MAX_LINE_BYTES >> 20
        ));
    }
    if number == 1 && text[start..].starts_with("\u{feff}".as_bytes()) {
        text.drain(start..start + 3);
        if text.len() == start {
            // A file of only a byte order mark is empty, not at its end.
            text.push(b'\n');
        }
    }
    Ok(())
}

pub(super) fn parse(bytes: &[u8], line: usize, stem: &str) -> Result<PromptRow, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| {
            format!(
                "not UTF-8 from byte {} of the line; save the file as UTF-8",
                error.valid_up_to() + 1
            )
        })?
        .trim_end_matches(['\r', '\n']);
    let value = exact_json::parse(text).map_err(|error| not_json(&error, text))?;
    let Value::Object(mut fields) = value else {
        return Err(format!(
            "expected an object, found {}; write {{\"messages\": […]}}",
            show(&value)
        ));
    };
    let mut messages = messages(&fields)?;
    check_turns(&fields)?;
    take_demonstration(&mut fields, &mut messages)?;
    let id = match fields.get("id") {
        None | Some(Value::Null) => format!("{stem}-{line}"),
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(id) if let Some(id) = exact_json::marked_number(id) => id.text().to_owned(),
        Some(other) => {
            return Err(format!(
                "`id` is {}; write a text that is not empty, or leave it out",
                show(other)
            ));
        }
    };
    let expected = fields
        .get("expected")
        .filter(|value| !value.is_null())
        .cloned();
    Ok(PromptRow {
        id,
        messages,
        expected,
        tags: tags(&fields)?,
        fields: RowFields::new(text, fields),
        line,
    })
}

pub(super) fn not_json(error: &serde_json::Error, text: &str) -> String {
    format!(
        "{}: {}; write one whole JSON object per line",
        json_fault(error),
        clip(text)
    )
}

fn tags(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    let wrong = |value: &Value| {
        format!(
            "`tags` contains {}; write a list of strings such as [\"clean\"]",
            show(value)
        )
    };
    match fields.get("tags") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => tags
            .iter()
            .map(|tag| tag.as_str().map(str::to_owned).ok_or_else(|| wrong(tag)))
            .collect(),
        Some(other) => Err(wrong(other)),
    }
}
