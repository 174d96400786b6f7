//! The record of a turn in which tools were called: what the policy said on its way, what tools answered, why it ended.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::agent_record::AgentRecord;
use super::calls::{CallOutcome, ConversationLimits, ToolCall, ToolReply};
use super::error::EnvironmentError;
use crate::dataset::PromptRow;

/// The field of a row under which scorers find the conversation that they judge.
const FIELD: &str = "conversation";

/// Why a turn with tools ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainEnd {
    /// With an answer that calls nothing.
    Answer,
    /// With an answer at the token limit.
    Truncated,
    /// With a call that cannot be read.
    Unreadable,
    MaxCalls,
    MaxTurns,
    MaxContextTokens,
    TimeLimit,
    /// A tool failed: there is no reward.
    ToolFailed,
    /// With a call that is replayed and not recorded, or without a recorded final state: there is no reward.
    NotRecorded,
    /// The agent asked more often than it may, and ended for it.
    MaxRequests,
    /// The agent asked for nothing: there is no reward.
    NoRequest,
    /// The agent failed: there is no reward.
    AgentFailed,
}

impl ChainEnd {
    /// Those of conversations with tools, in the order in which they are listed.
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
    /// Those of conversations with agents.
    pub const OF_AGENTS: [Self; 7] = [
        Self::Answer,
        Self::Truncated,
        Self::MaxRequests,
        Self::MaxContextTokens,
        Self::TimeLimit,
        Self::NoRequest,
        Self::AgentFailed,
    ];

    /// As in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Truncated => "truncated",
            Self::Unreadable => "unreadable",
            Self::MaxCalls => "max_calls",
            Self::MaxTurns => "max_turns",
            Self::MaxContextTokens => "max_context_tokens",
            Self::TimeLimit => "time_limit",
            Self::ToolFailed => "tool_failed",
            Self::NotRecorded => "not_recorded",
            Self::MaxRequests => "max_requests",
            Self::NoRequest => "no_request",
            Self::AgentFailed => "agent_failed",
        }
    }

    /// In a sentence.
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
            Self::AgentFailed => "the agent failed, so there is no reward",
        }
    }
}

impl ConversationLimits {
    /// The end of a conversation that asks for the call number `calls` in its completion number `completions`, from 1.
    pub fn end(&self, calls: usize, completions: usize) -> Option<ChainEnd> {
        let is_last = completions >= self.max_turns;
        (calls > self.max_calls)
            .then_some(ChainEnd::MaxCalls)
            .or(is_last.then_some(ChainEnd::MaxTurns))
    }
}

impl CallOutcome {
    /// The end of its conversation, where it is one.
    pub fn end(self) -> Option<ChainEnd> {
        match self {
            Self::Answered | Self::Refused => None,
            Self::Failed => Some(ChainEnd::ToolFailed),
            Self::NotRecorded => Some(ChainEnd::NotRecorded),
        }
    }
}

impl EnvironmentError {
    /// The end of a conversation whose final state is not told.
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
    /// Those that the answer itself made, where a limit or a failure kept their replies from being read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_calls: Vec<AnsweredCall>,
    pub end: ChainEnd,
    /// What failed, where a tool did; what is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What `[score] kind = "state"` asked, and the tool's answer; empty for other kinds.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub states: Map<String, Value>,
    /// What an agent asked, where one held the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentRecord>>,
}

/// A completion that calls tools, or that an agent continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolStep {
    pub text: String,
    /// The stop token included.
    pub tokens: usize,
    /// Of the replies, with what the chat template writes around them: read and not sampled.
    pub reply_tokens: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// The sampler's log-prob of each token, nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probs: Vec<f32>,
    pub calls: Vec<AnsweredCall>,
}

/// A call with its reply. Its time is no part of it: a resumed run has the same record.
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

impl ToolChain {
    pub fn calls(&self) -> impl Iterator<Item = &AnsweredCall> + Clone {
        self.steps
            .iter()
            .flat_map(|step| &step.calls)
            .chain(&self.last_calls)
    }

    /// Tokens that were sampled before the answer.
    pub fn tokens(&self) -> usize {
        self.steps.iter().map(|step| step.tokens).sum()
    }

    /// Without the ids and log-probs of tokens, which training alone needs.
    #[must_use]
    pub fn without_ids(mut self) -> Self {
        for step in &mut self.steps {
            (step.token_ids, step.log_probs) = Default::default();
        }
        self.agent = self.agent.map(|agent| Box::new(agent.without_ids()));
        self
    }

    /// Whether each call that the model wrote is valid: it can be read, names a function, and its arguments fit. What the
    /// tool answers has no part in it. Empty of an agent, whose calls nobody checks.
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

    /// A row as scorers see it after the turn.
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

/// What a row says of the conversation that led to the answer that is scored.
#[derive(Debug, Clone, Copy)]
pub struct ScoredChain<'a>(&'a Value);

impl<'a> ScoredChain<'a> {
    /// `None` where no tools were called.
    pub fn of_row(row: &'a PromptRow) -> Option<Self> {
        row.fields.get(FIELD).map(Self)
    }

    /// What failed, where the environment did.
    pub fn failure(self) -> Option<&'a str> {
        self.0.get("failure")?.as_str()
    }

    /// Whether it lacks a recorded result.
    pub fn is_not_recorded(self) -> bool {
        self.0
            .get("end")
            .is_some_and(|end| end == ChainEnd::NotRecorded.name())
    }

    /// Why it ended, where that is not an answer.
    pub fn missing_answer(self) -> Option<&'a str> {
        self.0
            .get("end")
            .and_then(Value::as_str)
            .filter(|end| !matches!(*end, "answer" | "truncated"))
    }

    /// Whether it is cut off.
    pub fn is_truncated(self) -> bool {
        self.0
            .get("end")
            .is_some_and(|end| end == ChainEnd::Truncated.name())
    }

    /// What its agent asked, and how that ended.
    pub fn agent(self) -> Option<AgentRecord> {
        AgentRecord::deserialize(self.0.get("agent")?).ok()
    }

    /// The final state that was asked for by this key.
    pub fn state(self, key: &str) -> Option<&'a Value> {
        self.0.get("states")?.get(key)
    }
}
