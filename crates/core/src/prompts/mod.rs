//! Prompt rows in use: rendered and counted in tokens, checked, answered by hand, matched with
//! completions of a file.

mod call_search;
mod call_values;
mod checked_set;
mod completion_line;
mod completion_rows;
mod data_problems;
mod demonstration;
mod hand_conversation;
mod lazy_conversations;
mod rendering;

pub use call_search::{
    MAX_TRIED, NoCalls, SearchedRows, demonstration_messages, find_calls_of, search_rows,
};
pub use checked_set::{CheckedSet, RowMark};
pub use completion_line::{CompletionLine, ForeignPrompt};
pub use completion_rows::{CompletionRows, NamedIds, NoRow};
pub use data_problems::{
    DataProblem, DataProblemKind, TriedAnswers, data_problems, load_sets, repeated_prompts,
    similar_prompts,
};
pub use demonstration::{
    DemonstratedTurn, demonstrated_chain, demonstrated_turns, demonstration_problem,
};
pub use hand_conversation::{HandChain, HandConversation};
pub use lazy_conversations::audit_task;
pub use rendering::{
    check_prompts, prompt_text, prompt_tokens, reference_answer, rows_without_answer,
    template_options, thinking_of, tools_of, turns_of,
};
