//! Judges YAML or XML by a JSON Schema, with positions in the original notation.

mod definition;
mod judge;
mod notation;
mod xml;
mod yaml;

pub(super) use definition::KIND;
