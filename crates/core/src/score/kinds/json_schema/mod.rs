//! Judges by JSON Schema, and compares with `expected` field by field.

pub(super) mod budget;
mod definition;
mod ecma;
pub(super) mod exact_numbers;
mod instance;
pub(super) mod judge;
mod partial_credit;
pub(super) mod pattern;
pub(super) mod schema;
pub(super) mod schema_faults;
mod schema_rewrite;

pub(super) use definition::KIND;
pub use ecma::{WordEdge, engine_pattern};
pub(crate) use schema_faults::meta_problems;
pub use schema_rewrite::encode_references;
