//! All call formats: lookup by name, and detection in text.

use super::calls::Answer;
use super::formats::{functiongemma, harmony, hermes, llama, mistral, qwen_xml};
use super::syntax::{ArgumentLayout, ArgumentTypes, CallLayout, CallList, CallSyntax, Syntax};
use crate::text::CallFormat;

/// One per [`crate::text::CALL_FORMATS`].
static SYNTAXES: [Syntax; 9] = [
    &hermes::HERMES,
    &hermes::JSON,
    &qwen_xml::QWEN_XML,
    &llama::LLAMA,
    &mistral::MISTRAL,
    &mistral::MISTRAL_ARGS,
    &functiongemma::FUNCTIONGEMMA,
    &functiongemma::GEMMA4,
    &harmony::HARMONY,
];

pub(super) fn syntax_of(format: &CallFormat) -> Syntax {
    SYNTAXES
        .into_iter()
        .find(|syntax| syntax.name() == format.name)
        .unwrap_or(&hermes::HERMES)
}

/// Layout of a format's calls; `None` if they cannot be enforced.
pub fn call_layout(format: &CallFormat) -> Option<CallLayout> {
    syntax_of(format).layout()
}

pub(super) fn foreign_calls(
    own: Syntax,
    text: &str,
    from: usize,
    types: &ArgumentTypes,
) -> Option<&'static str> {
    let reads = |other: &Syntax| {
        let Ok(list) = other.transcribe(text, from, types).map(CallList::into_list) else {
            return false;
        };
        Answer::read(list.json(), 0).is_ok_and(|answer| answer.has_calls(list.json()))
    };
    let others = SYNTAXES
        .into_iter()
        .filter(|other| !other.is_in_place() && other.name() != own.name());
    let found = others.into_iter().find(reads).map(|other| other.name());
    let in_place = || {
        Answer::read(text, from)
            .ok()
            .filter(|answer| !own.is_in_place() && answer.has_calls(text))
    };
    found.or_else(|| {
        in_place().map(|answer| {
            if answer.are_blocks() {
                hermes::HERMES.name()
            } else {
                hermes::JSON.name()
            }
        })
    })
}

pub(super) fn foreign_opening(own: Syntax, answer: &str) -> Option<&'static str> {
    let begins = |other: &Syntax| {
        other
            .openings()
            .iter()
            .any(|opening| answer.starts_with(opening))
    };
    let others = SYNTAXES
        .into_iter()
        .filter(|other| !own.opens(answer) && other.name() != own.name());
    others.into_iter().find(begins).map(|other| other.name())
}

/// What begins calls anywhere in an answer, in any format.
pub(super) fn all_openings() -> impl Iterator<Item = &'static str> {
    SYNTAXES
        .into_iter()
        .flat_map(|syntax| syntax.openings())
        .copied()
}

/// Text before a completion's first call in any format; all of it in `harmony`, whose marks
/// surround all text.
pub fn text_before_calls(completion: &str) -> &str {
    if completion.trim_start().starts_with(['{', '[']) {
        return "";
    }
    let others = SYNTAXES
        .into_iter()
        .filter(|other| other.name() != "harmony");
    let first = others
        .filter_map(|other| other.next_opening(completion))
        .min();
    completion
        .get(..first.unwrap_or(completion.len()))
        .unwrap_or(completion)
        .trim_end()
}

pub fn has_json_arguments(format: &CallFormat) -> bool {
    let arguments = |layout| {
        if let CallLayout::Named { arguments, .. } = layout {
            Some(arguments)
        } else {
            None
        }
    };
    call_layout(format)
        .and_then(arguments)
        .is_none_or(|arguments| arguments == ArgumentLayout::Json)
}
