//! What an answer states: JSON, and what is transcribed to it, with the place of each value.

pub mod json;
pub(super) mod schema_types;
pub(super) mod stated_value;
pub(super) mod transcript;
