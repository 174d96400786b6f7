//! Record of a turn with tool calls: completions, replies, end.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::agent_record::AgentRecord;
use super::calls::{CallOutcome, ConversationLimits, ToolCall, ToolReply};
use super::error::EnvironmentError;
use crate::config::choices;
use crate::dataset::PromptRow;

/// Row field in which scorers find the conversation.
const FIELD: &str = "conversation";

choices! {
    #[derive(PartialOrd, Ord)]
    ChainEnd {
        /// An answer without calls.
        Answer = "answer",
        /// An answer at the token limit.
        Truncated = "truncated",
        /// An unparsable call.
        Unreadable = "unreadable",
        MaxCalls = "max_calls",
        MaxTurns = "max_turns",
        MaxContextTokens = "max_context_tokens",
        TimeLimit = "time_limit",
        /// A tool failed: no reward.
        ToolFailed = "tool_failed",
        /// A call or final state is not recorded, in replay: no reward.
        NotRecorded = "not_recorded",
        /// The agent exceeded its requests and ended because of it.
        MaxRequests = "max_requests",
        /// The agent made no request: no reward.
        NoRequest = "no_request",
        /// The agent failed after a completion: the lowest tier.
        AgentError = "agent_error",
        /// The agent failed: no reward.
        AgentFailed = "agent_failed",
    }
}

impl ChainEnd {
    /// Ends of conversations with tools, in display order.
    pub const OF_TOOLS: [Self; 9] = [
        Self::Answer,
        Self::Truncated,
        Self::Unreadable,
        Self::MaxCalls,
        Self::MaxTurns,
        Self::MaxContextTokens,
        Self::TimeLimit,
        Self::ToolFailed,
        Self::NotRecorded,
    ];
    pub const OF_AGENTS: [Self; 8] = [
        Self::Answer,
        Self::Truncated,
        Self::MaxRequests,
        Self::MaxContextTokens,
        Self::TimeLimit,
        Self::AgentError,
        Self::NoRequest,
        Self::AgentFailed,
    ];

    /// Wording in a sentence.
    pub fn described(self) -> &'static str {
        match self {
            Self::Answer => "the model answered without a call",
            Self::Truncated => "an answer was truncated at its token limit",
            Self::Unreadable => "a call could not be read",
            Self::MaxCalls => "the model asked for more calls than `max_calls`",
            Self::MaxTurns => "the model called tools in its last answer of `max_turns`",
            Self::MaxContextTokens => "the next prompt was longer than `max_context_tokens`",
            Self::TimeLimit => "the time limit was over",
            Self::ToolFailed => "a tool failed, so there is no reward",
            Self::NotRecorded => "what is replayed was not recorded, so there is no reward",
            Self::MaxRequests => "the agent asked more often than `max_requests`",
            Self::NoRequest => "the agent asked for nothing, so there is no reward",
            Self::AgentError => "the agent failed after a completion",
            Self::AgentFailed => "the agent failed, so there is no reward",
        }
    }
}

impl ConversationLimits {
    /// The end of a conversation at call number `calls` in completion number `completions`, from 1.
    pub fn end(&self, calls: usize, completions: usize) -> Option<ChainEnd> {
        let is_last = completions >= self.max_turns;
        (calls > self.max_calls)
            .then_some(ChainEnd::MaxCalls)
            .or(is_last.then_some(ChainEnd::MaxTurns))
    }
}

impl CallOutcome {
    /// The end of its conversation, if it ends it.
    pub fn end(self) -> Option<ChainEnd> {
        match self {
            Self::Answered | Self::Refused => None,
            Self::Failed => Some(ChainEnd::ToolFailed),
            Self::NotRecorded => Some(ChainEnd::NotRecorded),
        }
    }
}

impl EnvironmentError {
    /// The end of a conversation whose final state is not reported.
    pub fn end(&self) -> ChainEnd {
        match self {
            Self::NotRecorded { .. } => ChainEnd::NotRecorded,
            _ => ChainEnd::ToolFailed,
        }
    }
}

/// A turn with tools, without its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolChain {
    pub steps: Vec<ToolStep>,
    /// Calls of the answer itself, whose replies were not read because of a limit or failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_calls: Vec<AnsweredCall>,
    pub end: ChainEnd,
    /// The failure of a tool, or what is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Questions of `[score] kind = "state"` and the tool's answers; empty for other kinds.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub states: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentRecord>>,
}

/// A completion that calls tools, or that an agent continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolStep {
    pub text: String,
    /// Including the stop token.
    pub tokens: usize,
    /// Tokens of the replies with the chat template's text around them: not sampled.
    pub reply_tokens: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// The sampler's log-prob per token, nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probs: Vec<f32>,
    pub calls: Vec<AnsweredCall>,
}

/// A call with its reply. Excludes timing, so that a resumed run has the same record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnsweredCall {
    pub name: String,
    pub arguments: Map<String, Value>,
    pub reply: String,
    pub outcome: CallOutcome,
}

impl AnsweredCall {
    pub fn new(ToolCall { name, arguments }: ToolCall, reply: ToolReply) -> Self {
        Self {
            name,
            arguments,
            reply: reply.text,
            outcome: reply.outcome,
        }
    }
}

impl ToolStep {
    /// Of a person or a demonstration: without tokens.
    pub fn unsampled(text: String, calls: Vec<AnsweredCall>) -> Self {
        Self {
            text,
            tokens: 0,
            reply_tokens: 0,
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            calls,
        }
    }
}

impl ToolChain {
    /// Ended by an answer.
    pub fn answered(steps: Vec<ToolStep>) -> Self {
        Self {
            steps,
            last_calls: Vec::new(),
            end: ChainEnd::Answer,
            failure: None,
            states: Map::new(),
            agent: None,
        }
    }

    pub fn calls(&self) -> impl Iterator<Item = &AnsweredCall> + Clone {
        self.steps
            .iter()
            .flat_map(|step| &step.calls)
            .chain(&self.last_calls)
    }

    /// Tokens sampled before the answer.
    pub fn tokens(&self) -> usize {
        self.steps.iter().map(|step| step.tokens).sum()
    }

    /// Drops token ids and log-probs, which only training needs.
    #[must_use]
    pub fn without_ids(mut self) -> Self {
        for step in &mut self.steps {
            (step.token_ids, step.log_probs) = Default::default();
        }
        self.agent = self.agent.map(|agent| Box::new(agent.without_ids()));
        self
    }

    /// Whether each call is valid: parsable, a known function, fitting arguments. Independent of
    /// the tool's answer. Empty for an agent, whose calls are not checked.
    pub fn valid_calls(&self) -> Vec<bool> {
        if self.agent.is_some() {
            return Vec::new();
        }
        let written = self
            .calls()
            .map(|call| call.outcome != CallOutcome::Refused);
        written
            .chain((self.end == ChainEnd::Unreadable).then_some(false))
            .collect()
    }

    #[must_use]
    pub fn scored_row(&self, row: &PromptRow) -> PromptRow {
        let step = |step: &ToolStep| json!({"text": step.text, "calls": step.calls});
        let steps: Vec<Value> = self.steps.iter().map(step).collect();
        let mut chain = json!({
            "end": self.end, "failure": self.failure, "steps": steps, "last_calls": self.last_calls, "states": self.states
        });
        if let Some(agent) = &self.agent {
            chain["agent"] = json!(agent.without_ids());
        }
        let mut row = row.clone();
        row.fields.insert(FIELD, chain);
        row
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ScoredChain<'a>(&'a Value);

impl<'a> ScoredChain<'a> {
    /// `None` without tool calls.
    pub fn of_row(row: &'a PromptRow) -> Option<Self> {
        row.fields.get(FIELD).map(Self)
    }

    pub fn failure(self) -> Option<&'a str> {
        self.0.get("failure")?.as_str()
    }

    pub fn has_end(self, end: ChainEnd) -> bool {
        self.0.get("end").is_some_and(|found| found == end.name())
    }

    pub fn missing_answer(self) -> Option<&'a str> {
        self.0
            .get("end")
            .and_then(Value::as_str)
            .filter(|end| !matches!(*end, "answer" | "truncated"))
    }

    pub fn is_truncated(self) -> bool {
        self.has_end(ChainEnd::Truncated)
    }

    /// Calls that reached a tool, and all; `None` for an agent, which calls tools itself.
    pub fn calls(self) -> Option<(usize, usize)> {
        if self.0.get("agent").is_some() {
            return None;
        }
        let steps = self.0.get("steps")?.as_array()?;
        let calls = steps
            .iter()
            .filter_map(|step| step.get("calls")?.as_array());
        let calls = calls.chain(self.0.get("last_calls").and_then(Value::as_array));
        let refused = json!(CallOutcome::Refused);
        let has_reached = |call: &&Value| call.get("outcome") != Some(&refused);
        let all = calls.flatten();
        Some((all.clone().filter(has_reached).count(), all.count()))
    }

    pub fn agent(self) -> Option<AgentRecord> {
        AgentRecord::deserialize(self.0.get("agent")?).ok()
    }

    pub fn state(self, key: &str) -> Option<&'a Value> {
        self.0.get("states")?.get(key)
    }
}
