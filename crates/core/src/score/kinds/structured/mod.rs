//! Judges answers in YAML or XML by a JSON Schema: the answer as JSON, with the places that it has in its own notation.

mod definition;
mod judge;
mod notation;
mod xml;
mod yaml;

pub(super) use definition::KIND;
