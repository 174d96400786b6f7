//! Completions as what they state: the answer within what is around it, JSON and what is transcribed to it, and where each
//! value is written.

pub mod json;
pub(super) mod schema_types;
pub(super) mod stated_value;
pub(super) mod transcript;
