//! Completion and row to score: tier, reward, and every reason with its position. Modules in order
//! of dependency: each uses only those above it.

mod error; // errors that prevent scoring
mod threads; // number of scoring threads
mod answer; // completion -> JSON with positions
mod verdict; // unwrapping, comparison with `expected`, tiers, reasons, recorded score
mod needs; // programs, judges and tool state that a kind needs
mod definition; // interface of a kind; degenerate answers
mod kinds; // scorer kinds, a file or folder each
mod grounded; // share of an answer's values found in its prompt
mod task; // a folder -> `Task`: definition and weighted parts
mod scorer; // verdicts -> scores

pub use answer::json;
pub(crate) use answer::schema_types::SchemaParts;
pub use definition::{Grammar, HttpRules, MessagePart, SchemaFiles, ToolRules};
pub use error::ScoreError;
pub(crate) use grounded::{WrittenDate, WrittenNumber, currencies_in, dates_in, numbers_in};
pub use kinds::http_request::{MessageSchema, Operation, message_schemas, operations};
pub(crate) use kinds::json_schema::meta_problems;
pub use kinds::json_schema::{WordEdge, encode_references, engine_pattern};
pub use kinds::kinds_page;
pub use kinds::rubric::{ReadyModel, report_loading};
pub(crate) use kinds::state::share_of_state;
pub(crate) use kinds::tool_calls::calls_of_message;
pub use kinds::tool_calls::{
    AnswerPart, ArgumentLayout, AskedCalls, CallLayout, CallReader, asked_calls, call_layout,
    closed_parameters, has_json_arguments, text_before_calls, written_calls,
};
pub use needs::trust::{Trust, TrustError};
pub use needs::{
    CodeRules, CommandMode, CommandRules, Criterion, FILE_ARGUMENT, LocalModel, ModelDevice,
    RubricRules, Scale, TestRules,
};
pub use scorer::batch::{AppendLine, LineWork, score_stream};
pub use scorer::unstated_values::{LabelledField, labelled_fields, tag_rows, unread_lines};
pub use scorer::{PartWeights, Scorer, ScorerErrors};
pub use scorer::{audit, mutants};
pub use task::agent_option::{AgentOptionError, command_words};
pub use task::score_keys::{ScoreKey, score_keys};
pub use task::{
    LengthAim, LengthRule, LengthUnit, PartValue, RewardPart, Task, TaskJudge, for_model,
};
pub use threads::{given_threads, on_every_core, take_threads_from_environment};
pub use verdict::{
    CriterionGrade, FailureClass, GroundedValue, LeafCounts, Leaves, OrderedMap, OwnClass,
    PromptPlace, QueryResult, Reason, Sampled, Score, Tier, Trial, mean_reward, standard_text,
};
pub(crate) use verdict::{OTHER_PATHS, null_is_nan};
