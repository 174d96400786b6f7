//! Judges YAML by a JSON Schema, with positions in the YAML.

mod definition;
mod judge;
mod yaml;

pub(super) use definition::KIND;
