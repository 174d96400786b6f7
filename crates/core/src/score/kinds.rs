//! The kinds of scorer. A new one is a file or folder beside this one, and a line here.

use super::definition::Kind;
use super::{
    agent, command, http_request, json_schema, regex, sql, state, structured, text, tool_calls,
};

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
    &super::rubric::KIND,
];

pub(crate) fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
