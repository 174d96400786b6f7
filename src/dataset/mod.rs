//! Prompt rows.

mod row;

pub use row::PromptRow;
