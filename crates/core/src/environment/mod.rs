//! Environments of a model: tools that it calls, one state per conversation (`[[tool]]`,
//! `[tools]`), or a program that queries it (`[agent]`).

mod agent;
mod agent_process;
mod agent_record;
mod agent_service;
mod arguments;
mod calls;
mod chain;
mod check;
mod conversation;
mod definition;
mod error;
mod files_tool;
mod live_tool;
mod mcp;
mod mcp_file;
mod program;
mod program_process;
mod program_rules;
mod python_tool;
mod ready;
mod recorded;
mod reply_text;
mod sqlite_tool;
#[cfg(test)]
mod tests;
mod tool_program;
mod toolset;
mod warm_tool;

pub(crate) use agent::AGENT_KEY;
pub use agent::{Agent, AgentLimits, OnFailure, RequestedConstraints};
pub use agent_process::{AgentExit, AgentPhase, AgentProcess, AgentRows, AgentServer, ExitReason};
pub use agent_record::{AgentRecord, AgentRequest};
pub use calls::{CallOutcome, ConversationLimits, StateQuery, StateQuestion, ToolCall, ToolReply};
pub use chain::{AnsweredCall, ChainEnd, ScoredChain, ToolChain, ToolStep};
pub(crate) use check::read_call;
pub use check::{FunctionCheck, FunctionFinding, check_tools};
pub use conversation::Environment;
pub(crate) use definition::TOOL_KEYS;
pub use error::EnvironmentError;
pub use mcp::VERSIONS as MCP_VERSIONS;
pub use recorded::{RecordedCall, RecordedConversation};
pub use tool_program::{ToolProgram, TrustSubject};
pub use toolset::Toolset;
