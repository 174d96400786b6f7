//! Completion and row to score: tier, reward, and every reason with its place.

mod agent;
mod agent_option;
pub mod audit;
mod batch;
mod command;
mod completion_line;
mod completion_rows;
mod data_problems;
mod definition;
mod failure_class;
mod field_compare;
mod grammar;
mod grounded;
mod hand_conversation;
mod http_request;
pub mod json;
mod json_schema;
mod judge;
mod kinds;
mod length;
mod load_task;
mod outline;
mod outline_entry;
mod prompts;
mod regex;
mod result;
mod rubric;
mod schema_types;
mod score_keys;
mod scorer;
mod sql;
mod state;
mod stated_value;
mod string_places;
mod structured;
mod task;
mod text;
mod tool_calls;
mod transcript;
mod unwrap_answer;
mod verdict;

pub use crate::facts::Tier;
pub use agent_option::AgentOptionError;
pub use batch::{
    LineWork, given_threads, on_every_core, score_stream, take_threads_from_environment,
};
pub use command::{
    CodeRules, CommandMode, CommandRules, FILE_ARGUMENT, Language, TestRules, Trust, TrustError,
};
pub use completion_line::{CompletionLine, ForeignPrompt};
pub use completion_rows::{CompletionRows, NoRow};
pub use data_problems::{
    DataProblem, DataProblemKind, TriedAnswers, data_problems, load_sets, repeated_prompts,
    similar_prompts,
};
pub use failure_class::{FailureClass, OwnClass};
pub use grammar::{Grammar, HttpRules, MessagePart, SchemaFiles, ToolRules};
pub use hand_conversation::{HandChain, HandConversation};
pub use http_request::{MessageSchema, Operation, message_schemas, operations};
pub(crate) use json_schema::meta_problems;
pub use json_schema::{
    DRAFT_ADDRESSES, Draft, FORMATS, KEYWORDS, Keyword, KeywordValue, TYPES, WordEdge,
    encode_references, engine_pattern,
};
pub use kinds::kinds_page;
pub use length::{LengthAim, LengthRule, LengthUnit};
pub use outline::outline;
pub use outline_entry::OutlineEntry;
pub use prompts::{
    check_prompts, for_model, prompt_text, prompt_tokens, reference_answer, rows_without_answer,
    template_options, thinking_of, tools_of, turns_of,
};
pub(crate) use result::null_is_nan;
pub use result::{
    CriterionGrade, GroundedValue, OrderedMap, PromptPlace, QueryResult, Reason, Score, Trial,
    mean_reward,
};
pub use rubric::{
    Asker, Criterion, Grade, Graded, INSTRUCTION, LocalModel, ModelDevice, Question, ReadyModel,
    RubricRules, Scale, Usage, report_loading,
};
pub use score_keys::{ScoreKey, score_keys};
pub use scorer::{PartWeights, Scorer, ScorerErrors};
pub use task::{RewardPart, Task};
pub use tool_calls::{
    AnswerPart, ArgumentLayout, AskedCalls, CallLayout, CallReader, asked_calls, call_layout,
    closed_parameters, has_json_arguments, text_before_calls,
};

use crate::task::TaskError;

/// Why a task cannot score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A file of the task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The schema is not a schema.
    #[error("{label} line {line} column {column} ({}): {message}", if pointer.is_empty() { "the whole schema" } else { pointer })]
    Schema {
        /// The schema's file.
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// JSON pointer into the schema.
        pointer: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A statement of an SQL schema.
    #[error("{label} line {line} column {column}: {message}")]
    Statement {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        message: String,
    },
    /// A command that the user has not allowed to run.
    #[error(
        "{task}: scores by the command {commands}, not trusted on this machine: read it, then type `grpo-tui task trust {place}`{missing}"
    )]
    Untrusted {
        task: String,
        /// In backticks.
        commands: String,
        place: String,
        /// The rest of the sentence, if the machine also lacks the program.
        missing: String,
    },
    /// A command that this machine lacks.
    #[error("{task}: {missing}")]
    NotInstalled { task: String, missing: String },
    /// A command that asks for more isolation than this machine gives.
    #[error("{task}: isolation {text}")]
    NotIsolated { task: String, text: String },
    /// A judge that the user has not allowed to ask.
    #[error(
        "{task}: scores by a judge, which gets prompts and answers at {server}, not trusted on this machine: type `grpo-tui task trust {place}`"
    )]
    UntrustedJudge {
        task: String,
        server: String,
        place: String,
    },
    /// A judge that cannot be asked from here.
    #[error("{task}: {problem}")]
    NoJudge { task: String, problem: String },
    /// A schema file that `$ref` names.
    #[error("{label}: {message}")]
    Reference { label: String, message: String },
}

impl ScoreError {
    /// Whether the task is right, and only its command or judge may not be asked or is not there.
    pub fn is_of_command(&self) -> bool {
        matches!(
            self,
            Self::Untrusted { .. }
                | Self::NotInstalled { .. }
                | Self::NotIsolated { .. }
                | Self::UntrustedJudge { .. }
                | Self::NoJudge { .. }
        )
    }
}
