//! Elements of a conversation: calls, replies, questions about its state, limits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub name: String,
    pub arguments: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool answered, possibly with an error such as SQLite's.
    Answered,
    /// Rejected before reaching a tool: unknown function or wrong arguments, the model's fault.
    Refused,
    /// Failed in the environment: the conversation has no reward.
    Failed,
    /// A call that is not recorded, in replay. The conversation has no reward.
    NotRecorded,
}

/// The reply to a call, recorded and replayed on resume.
///
/// The text has no control characters but line ends, and at most
/// [`ConversationLimits::max_result_bytes`] bytes. It may contain the text of a special token such
/// as `<|im_end|>`, which only a tokenizer knows: encode it as [`crate::text::Tokenizer`] encodes
/// text that must not become control tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolReply {
    pub text: String,
    pub outcome: CallOutcome,
    /// Time from call to answer; calls of one answer may overlap.
    pub seconds: f64,
}

/// Limits in `[tools]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationLimits {
    /// Limit over all turns.
    pub max_calls: usize,
    pub max_turns: usize,
    /// Prompt, answers and results together; `None`: the run's limit.
    pub max_context_tokens: Option<usize>,
    /// Total time of calls, by [`ToolReply::seconds`].
    pub time_limit_seconds: f64,
    /// Limit per result; longer ones are truncated with a note.
    pub max_result_bytes: usize,
}

/// A question about a conversation's final state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateQuery {
    /// `name` of the `[[tool]]`; `None`: the first that answers such questions.
    pub tool: Option<String>,
    pub question: StateQuestion,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateQuestion {
    /// A query to `sqlite`. Answer: `{"columns": [..], "rows": [[..], ..]}`.
    Sql(String),
    /// A path for `files`. Answer: the file's text, or null if missing.
    File(String),
    /// Sent to a `run` program as `{"state": ..}`. Answer: its `result`. Of an MCP server a last
    /// call, `{"name": .., "arguments": {..}}`. Answer: its structured content, else its text.
    Program(Value),
}
