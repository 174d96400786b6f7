//! Values of answers: JSON or transcribed to it, each with its position.

pub mod json;
pub(super) mod schema_types;
pub(super) mod stated_value;
pub(super) mod transcript;
