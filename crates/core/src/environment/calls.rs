//! What a conversation is made of: calls, replies, the questions about its state, and where it ends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One call that a policy wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Of the function.
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// By the tool; its answer may be an error, such as SQLite's.
    Answered,
    /// Before it reached a tool: an unknown function or wrong arguments, which are the model's fault.
    Refused,
    /// By a fault of the environment's own: the conversation has no reward.
    Failed,
    /// By nothing: calls are replayed, and this one is not recorded. The conversation has no reward.
    NotRecorded,
}

/// What a policy reads after a call. It is recorded, and replayed on resume.
///
/// The text has no control characters but line ends, and at most [`ConversationLimits::max_result_bytes`] bytes. It may
/// have the text of a special token, such as `<|im_end|>`: only a tokenizer knows which these are, so whoever makes tokens
/// of it must encode it as [`crate::text::Tokenizer`] encodes text that is not to become control tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolReply {
    pub text: String,
    pub outcome: CallOutcome,
    /// From the call to its answer; calls of one answer may overlap.
    pub seconds: f64,
}

/// `[tools]`: where a conversation ends.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationLimits {
    /// Calls of all turns together.
    pub max_calls: usize,
    /// Answers of the model.
    pub max_turns: usize,
    /// Prompt, answers and results together; `None`: as many as the run allows.
    pub max_context_tokens: Option<usize>,
    /// That calls may take together, by [`ToolReply::seconds`].
    pub time_limit_seconds: f64,
    /// Of one result; what is longer is cut, and says so.
    pub max_result_bytes: usize,
}

/// A question about the state that a conversation left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateQuery {
    /// `name` of the `[[tool]]`; `None`: the first that answers such questions.
    pub tool: Option<String>,
    pub question: StateQuestion,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateQuestion {
    /// Of `sqlite`: a query. The answer: `{"columns": [..], "rows": [[..], ..]}`.
    Sql(String),
    /// Of `files`: a path. The answer: the file's text, or null where there is none.
    File(String),
    /// Of a `run` program, which reads the line `{"state": ..}`. The answer: its `result`.
    Program(Value),
}
