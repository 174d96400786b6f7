//! Reads prompt rows from JSONL.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::DatasetError;
use super::random::{mix, text_hash};
use super::turns;
use crate::task::{PromptSet, Task, TaskError};
use crate::text::Message;

/// Bounds the memory for a file without line ends.
const LONGEST_LINE_BYTES: usize = 64 << 20;

/// Lines in memory at once while a whole set is read.
const BATCH_LINES: usize = 32_768;
/// Fewer lines are read faster by one thread.
const LINES_PER_THREAD: usize = 1_000;

/// Of chat templates.
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "developer"];

#[derive(Clone, Debug, PartialEq)]
pub struct PromptRow {
    /// Unique in its set; `<file stem>-<line>` if the row has none.
    pub id: String,
    /// At least one turn.
    pub messages: Vec<Message>,
    pub expected: Option<Value>,
    /// Results are broken down by these.
    pub tags: Vec<String>,
    /// The whole row, unknown fields included.
    pub fields: Map<String, Value>,
    /// From 1.
    pub line: usize,
}

impl PromptRow {
    /// Tools of the row's own, in place of the task's.
    pub fn tools(&self) -> Option<&Value> {
        self.fields.get("tools").filter(|tools| !tools.is_null())
    }

    /// Identifies the prompt: all turns with their roles, later ones included, and tools of the row's own.
    pub(crate) fn prompt_hash(&self) -> u64 {
        let other = |turn: &Message| if turn.other.is_empty() { 0 } else { text_hash(&json!(turn.other).to_string()) };
        let turns = self
            .messages
            .iter()
            .fold(0, |hash, turn| mix(hash ^ text_hash(&turn.role)) ^ text_hash(&turn.content) ^ other(turn));
        let own =
            ["tools", "turns"].into_iter().filter_map(|key| self.fields.get(key).filter(|value| !value.is_null()));
        own.fold(turns, |hash, value| mix(hash ^ text_hash(&value.to_string())))
    }
}

/// All rows of a set. Errors on the first bad line, a repeated id, an empty set.
pub fn load(task: &Task, set: PromptSet) -> Result<Vec<PromptRow>, DatasetError> {
    let (file, reader) = open(task, set)?;
    load_from(&task.label(&file), reader)
}

/// All rows of a JSONL text; the errors of [`load`].
pub fn load_from(label: &str, reader: impl BufRead) -> Result<Vec<PromptRow>, DatasetError> {
    let mut rows = Vec::new();
    let mut lines = HashMap::new();
    for row in all_rows(label, reader) {
        let row = row?;
        if let Some(first) = lines.insert(row.id.clone(), row.line) {
            let problem =
                format!("id {} is already on line {first}; give every row its own id, or none", clip(&row.id));
            return Err(DatasetError::Line { label: label.to_owned(), line: row.line, problem });
        }
        rows.push(row);
    }
    if rows.is_empty() { Err(DatasetError::Empty { label: label.to_owned() }) } else { Ok(rows) }
}

/// The name of a set's file in the task, and a buffered reader.
pub fn open(task: &Task, set: PromptSet) -> Result<(String, Box<dyn BufRead>), DatasetError> {
    let file = task.set_file(set).ok_or(DatasetError::NoSuchSet { set: set.name() })?;
    let reader = task.open(file).map_err(|error| match error {
        TaskError::Read { label, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let remedy =
                "write the file, run `grpo-tui dataset build`, or name another one under [prompts] in task.toml";
            DatasetError::File { path: label, source, remedy }
        }
        other => DatasetError::Task(other),
    })?;
    Ok((file.to_owned(), reader))
}

/// Reads rows one line at a time, skipping blank lines, and continues after a bad line.
pub fn read_rows(label: &str, reader: impl BufRead) -> impl Iterator<Item = Result<PromptRow, DatasetError>> {
    let (label, stem) = (label.to_owned(), stem_of(label));
    read_lines(reader).map(move |line| row_of(line, &label, &stem))
}

type NumberedLine = Result<(usize, Vec<u8>), (usize, String)>;

fn stem_of(label: &str) -> String {
    Path::new(label).file_stem().map_or_else(|| label.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn row_of(line: NumberedLine, label: &str, stem: &str) -> Result<PromptRow, DatasetError> {
    let row = line.and_then(|(line, bytes)| parse(&bytes, line, stem).map_err(|problem| (line, problem)));
    row.map_err(|(line, problem)| DatasetError::Line { label: label.to_owned(), line, problem })
}

/// [`read_rows`] on every core, batch by batch.
fn all_rows(label: &str, reader: impl BufRead) -> impl Iterator<Item = Result<PromptRow, DatasetError>> {
    let (label, stem) = (label.to_owned(), stem_of(label));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = read_lines(reader);
    std::iter::from_fn(move || {
        let mut batch: Vec<NumberedLine> = lines.by_ref().take(BATCH_LINES).collect();
        if batch.is_empty() {
            return None;
        }
        let parse =
            |part: Vec<NumberedLine>| -> Vec<_> { part.into_iter().map(|line| row_of(line, &label, &stem)).collect() };
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
            let running: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || parse(part))).collect();
            // A panic of a thread goes on in this one.
            let joined = running.into_iter().map(|thread| thread.join());
            joined.flat_map(|rows| rows.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        }))
    })
    .flatten()
}

/// The non-blank lines of a JSONL text with their numbers (from 1); an error is the last item. A byte order mark is
/// dropped; a line of more than 64 MiB is an error.
pub fn read_lines(mut reader: impl BufRead) -> impl Iterator<Item = Result<(usize, Vec<u8>), (usize, String)>> {
    let (mut number, mut ended) = (0, false);
    std::iter::from_fn(move || {
        while !ended {
            number += 1;
            match read_line(&mut reader, number) {
                Ok(line) if line.is_empty() => ended = true,
                Ok(line) if line.trim_ascii().is_empty() => {}
                Ok(line) => return Some(Ok((number, line))),
                Err(problem) => {
                    ended = true;
                    return Some(Err((number, problem)));
                }
            }
        }
        None
    })
}

/// The next line with its end; empty at the end of the file.
fn read_line(reader: &mut impl BufRead, number: usize) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut limited = reader.take(LONGEST_LINE_BYTES as u64 + 1);
    let length = limited.read_until(b'\n', &mut line).map_err(|error| format!("cannot be read: {error}"))?;
    if length > LONGEST_LINE_BYTES {
        return Err(format!("longer than {} MiB; write one JSON object per line", LONGEST_LINE_BYTES >> 20));
    }
    if number == 1 && line.starts_with("\u{feff}".as_bytes()) {
        line.drain(..3);
        if line.is_empty() {
            // A mark alone is an empty file, not its end.
            line.push(b'\n');
        }
    }
    Ok(line)
}

/// Parses a line; the error says what is wrong.
fn parse(bytes: &[u8], line: usize, stem: &str) -> Result<PromptRow, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| {
            format!("not UTF-8 from byte {} of the line; save the file as UTF-8", error.valid_up_to() + 1)
        })?
        .trim_end_matches(['\r', '\n']);
    let value: Value = serde_json::from_str(text).map_err(|error| not_json(&error, text))?;
    let Value::Object(fields) = value else {
        return Err(format!("expected an object, found {}; write {{\"messages\": […]}}", show(&value)));
    };
    let messages = messages(&fields)?;
    turns::check(&fields)?;
    let id = match fields.get("id") {
        None | Some(Value::Null) => format!("{stem}-{line}"),
        Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(other) => return Err(format!("`id` is {}; write a text that is not empty, or leave it out", show(other))),
    };
    let expected = fields.get("expected").filter(|value| !value.is_null()).cloned();
    Ok(PromptRow { id, messages, expected, tags: tags(&fields)?, fields, line })
}

/// What is wrong with a line of JSONL.
pub(super) fn not_json(error: &serde_json::Error, text: &str) -> String {
    format!("{}: {}; write one whole JSON object per line", json_fault(error), clip(text))
}

/// `not JSON at column 14 (expected value)`; the line is said by who knows it.
pub(super) fn json_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    format!("not JSON at column {} ({message})", error.column())
}

/// The turns under `messages`.
pub(super) fn messages(fields: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let turns = match fields.get("messages") {
        Some(Value::Array(turns)) if turns.is_empty() => {
            return Err("`messages` is empty; it needs at least one user turn".into());
        }
        Some(Value::Array(turns)) => turns,
        Some(other) => {
            return Err(format!("`messages` is {}; it must be a list of {{\"role\", \"content\"}}", show(other)));
        }
        None => {
            let near = ["prompt", "question", "text", "input", "conversations", "message"]
                .into_iter()
                .find(|key| fields.contains_key(*key));
            let found = near.map_or(String::new(), |key| format!(" (it has {})", clip(key)));
            return Err(format!(
                "missing `messages`{found}; write {{\"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
            ));
        }
    };
    turns.iter().enumerate().map(|(place, turn)| message(place + 1, turn)).collect()
}

fn message(place: usize, turn: &Value) -> Result<Message, String> {
    let text = |key: &str| match turn.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("turn {place}: `{key}` is {}; it must be a string", show(other))),
        None => Err(format!(
            "turn {place} has no `{key}`: {}; write {{\"role\": \"user\", \"content\": \"…\"}}",
            show(turn)
        )),
    };
    let role = text("role")?;
    if !ROLES.contains(&role.as_str()) {
        return Err(format!("turn {place}: role {} is unknown; write one of {}", clip(&role), ROLES.join(", ")));
    }
    let mut other = turn.as_object().cloned().unwrap_or_default();
    other.retain(|key, value| !matches!(key.as_str(), "role" | "content") && !value.is_null());
    let calls = match other.get_mut("tool_calls") {
        Some(calls) => tool_calls(calls).map_err(|problem| format!("turn {place}: {problem}"))?,
        None => 0,
    };
    let content = match turn.get("content") {
        None | Some(Value::Null) if calls > 0 => String::new(),
        _ => text("content")?,
    };
    Ok(Message { role, content, other })
}

/// Checks the calls of a turn and counts them. Arguments in a string, as OpenAI writes them, become the object that
/// chat templates expect.
fn tool_calls(calls: &mut Value) -> Result<usize, String> {
    const FORM: &str = "write [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]";
    let wrong = |found: &Value| format!("`tool_calls` has {}; {FORM}", show(found));
    let Some(list) = calls.as_array_mut() else { return Err(format!("`tool_calls` is {}; {FORM}", show(calls))) };
    for call in list.iter_mut() {
        let shown = call.clone();
        let function = if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
        let function = function.and_then(Value::as_object_mut).ok_or_else(|| wrong(&shown))?;
        let arguments = function.get("arguments").ok_or_else(|| wrong(&shown))?;
        if let Some(text) = arguments.as_str() {
            let object = serde_json::from_str(text).map_err(|error| {
                format!("`arguments` {} of a call: {}; write an object", clip(text), json_fault(&error))
            })?;
            function.insert("arguments".to_owned(), object);
        }
        let is_call = function.get("name").is_some_and(Value::is_string)
            && function.get("arguments").is_some_and(Value::is_object);
        if !is_call {
            return Err(wrong(&shown));
        }
    }
    Ok(list.len())
}

fn tags(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    let wrong = |value: &Value| format!("`tags` contains {}; write a list of strings such as [\"clean\"]", show(value));
    match fields.get("tags") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            tags.iter().map(|tag| tag.as_str().map(str::to_owned).ok_or_else(|| wrong(tag))).collect()
        }
        Some(other) => Err(wrong(other)),
    }
}

pub(super) fn show(value: &Value) -> String {
    clip(&value.to_string())
}

/// At most 60 characters, in backticks.
fn clip(text: &str) -> String {
    format!("`{}`", crate::format::shortened(text, 60))
}
