//! The kinds of scorer. A new one is a file or folder in `kinds/`, and two lines here.

pub(super) mod agent;
pub(super) mod command;
pub(super) mod http_request;
pub(super) mod json_schema;
mod regex;
pub(super) mod rubric;
mod sql;
mod state;
mod structured;
mod text;
pub(super) mod tool_calls;

use super::definition::Kind;

/// The first is that of a task that names none.
pub(crate) const KINDS: &[&Kind] = &[
    &json_schema::KIND,
    &structured::KIND,
    &text::KIND,
    &regex::KIND,
    &tool_calls::KIND,
    &command::KIND,
    &command::CODE,
    &command::TESTS,
    &sql::KIND,
    &http_request::KIND,
    &state::KIND,
    &agent::KIND,
    &rubric::KIND,
];

pub(crate) fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
