//! One completion of a log, and what the readers of all formats share.

use std::fs::File;
use std::path::Path;

use serde_json::{Value, json};

use crate::dataset::DatasetError;
use crate::dataset::import::MappingText;
use crate::files;
use crate::text::Message;

#[derive(Debug, thiserror::Error)]
pub enum EvalLogError {
    #[error("{label}: {problem}")]
    Log { label: String, problem: String },
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// How logs are read.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Columns of tables.
    pub map: MappingText,
    /// The column of completions; empty: guessed.
    pub completion: String,
    /// The score that decides; the first of a log if `None`.
    pub score: Option<String>,
    /// The score that decides *exact*; that of *valid* if `None`.
    pub exact: Option<String>,
    /// The least score that passes.
    pub pass_at: f64,
    /// First and last training step of a trace; its last one if `None`.
    pub steps: Option<[u64; 2]>,
    pub most: usize,
}

/// One completion of a log. Everything a program may leave out is empty or `None`.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Where it was read: `line 5`, `samples/q0_epoch_1.json`.
    pub place: String,
    /// Distinguishes the models of one log; empty for its only one.
    pub model: String,
    pub id: Option<String>,
    /// Index among the completions of the prompt, from 0.
    pub sample: Option<usize>,
    pub messages: Vec<Message>,
    pub completion: String,
    pub expected: Option<Value>,
    pub tags: Vec<String>,
    pub scores: Vec<NamedScore>,
    /// Why the model did not answer, or the answer was not scored.
    pub error: Option<String>,
    pub tokens: Option<usize>,
    pub seconds: f64,
    pub truncated: bool,
}

/// A score as the log has it.
#[derive(Debug, Clone, Default)]
pub struct NamedScore {
    pub name: String,
    pub value: Value,
    /// Why, in the scorer's words; may be empty.
    pub explanation: String,
}

/// What a log says of itself.
#[derive(Debug, Clone, Default)]
pub struct LogHeader {
    pub program: &'static str,
    /// Of the format, or of the program.
    pub version: String,
    pub task: String,
    pub model: String,
    /// What was not read, or is missing, one sentence each.
    pub notes: Vec<String>,
}

/// A sample, or the place and the problem of one that cannot be read.
pub(super) type SampleResult = Result<Sample, (String, String)>;
pub(super) type Take<'a> = &'a mut dyn FnMut(SampleResult);

pub(super) fn fail(path: &Path, problem: impl Into<String>) -> EvalLogError {
    EvalLogError::Log {
        label: path.display().to_string(),
        problem: problem.into(),
    }
}

pub(super) fn open(path: &Path) -> Result<File, EvalLogError> {
    files::open(path).map_err(|error| fail(path, format!("{error}; name a readable log")))
}

/// A text, or the texts of a list of parts; what is no text leaves its type in brackets, and a
/// model's reasoning is left out.
pub(super) fn content_text(content: &Value) -> String {
    let part = |part: &Value| match part["type"].as_str() {
        Some("reasoning" | "thinking") => None,
        Some("text") | None => Some(part["text"].as_str().unwrap_or_default().to_owned()),
        Some(other) => Some(format!("[{other}]")),
    };
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(part).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// A prompt: a text, or a list of messages.
pub(super) fn conversation(input: &Value) -> Vec<Message> {
    let message = |message: &Value| {
        let role = message["role"].as_str().unwrap_or("user");
        let mut found = Message::new(role, content_text(&message["content"]));
        for key in ["tool_call_id", "name"] {
            if let Some(text) = message[key].as_str() {
                found.other.insert(key.to_owned(), text.into());
            }
        }
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        let calls: Vec<Value> = calls.map(call).collect();
        if !calls.is_empty() {
            found.other.insert("tool_calls".to_owned(), calls.into());
        }
        found
    };
    match input {
        Value::String(text) => vec![Message::new("user", text.as_str())],
        Value::Array(messages) => messages.iter().map(message).collect(),
        _ => Vec::new(),
    }
}

/// A call in OpenAI's form, which inspect writes with `function` and `arguments` side by side.
fn call(call: &Value) -> Value {
    if call["function"].is_object() {
        return call.clone();
    }
    json!({"id": call["id"], "type": "function", "function": {"name": call["function"], "arguments": call["arguments"]}})
}

/// The last answer of a model: a text, or that of a conversation's last assistant turn.
pub(super) fn answer_text(completion: &Value) -> Option<String> {
    match completion {
        Value::String(text) => Some(text.clone()),
        Value::Array(turns) => {
            let last = turns.iter().rfind(|turn| turn["role"] == "assistant");
            last.map(|turn| content_text(&turn["content"]))
        }
        _ => None,
    }
}

pub(super) fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
