//! One prompt row of a set, whole.

use serde_json::{Map, Value};

use crate::text::Message;

/// One JSONL line of a prompt set: unknown fields are kept and reach the scorer.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// The row's `id`, else `<file stem>-<line>`.
    pub id: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// What a right answer holds.
    pub expected: Option<Value>,
    /// Labels by which results are grouped.
    pub tags: Vec<String>,
    /// The whole row as written.
    pub fields: Map<String, Value>,
    /// 1-based line in its file.
    pub line: usize,
}
