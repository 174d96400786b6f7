//! Interface of a call format for the scorer and `serve`: reading and writing calls.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut, Range};

use serde_json::Value;

use crate::score::answer::json::{self, Document, SyntaxError};
use crate::score::answer::schema_types::SchemaParts;
use crate::score::answer::transcript::Transcript;
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::{Unreadable, class_of_text, think_opening};
use crate::task::Function;
use crate::text::THINK_MARKS;

pub(super) type Read<T> = Result<T, Unreadable>;

/// Opening of Hermes and Qwen.
pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallLayout {
    /// `open`, a JSON object with `name` and `arguments`, `close`.
    Object {
        open: &'static str,
        arguments: &'static str,
        close: &'static str,
        separator: &'static str,
    },
    /// `open`, and a JSON list of all calls.
    List { open: &'static str },
    /// `open`, `before`, the name, `after`, the arguments, `close`.
    Named {
        open: &'static str,
        before: &'static str,
        after: &'static str,
        arguments: ArgumentLayout,
        close: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentLayout {
    Json,
    /// Each value between `open`, key, `after` and `close`: strings raw, others as JSON.
    Tags {
        open: &'static str,
        after: &'static str,
        close: &'static str,
    },
    /// `{key:value,…}`, strings between two `quote`.
    Braces {
        quote: &'static str,
    },
}

/// A call format: a file in `formats`, a line in `known_formats.rs`, and one in
/// [`crate::text::CALL_FORMATS`].
pub(super) trait CallSyntax: Debug + Sync {
    /// Name of its [`crate::text::CallFormat`].
    fn name(&self) -> &'static str;

    /// Texts that begin calls anywhere in an answer.
    fn openings(&self) -> &'static [&'static str];

    /// Texts that begin calls only at the start of an answer, and after other calls.
    fn first_openings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether calls are JSON in the completion itself, without transcription.
    fn is_in_place(&self) -> bool {
        false
    }

    /// Reads calls from a byte offset up to the next opening; returns their end. The error class is
    /// `Truncated` only if more text may complete them.
    fn read_block(
        &self,
        text: &str,
        at: usize,
        types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize>;

    /// Allowed between calls besides white space.
    fn separator(&self) -> &'static str {
        ""
    }

    fn layout(&self) -> Option<CallLayout>;

    /// Writes calls with their argument objects.
    fn write(&self, calls: &[(&str, &Value)]) -> Option<String>;

    /// Start of an answer's calls after text; if marks surround all text, after the text messages.
    fn first_call(&self, text: &str) -> Option<usize> {
        let found = self
            .openings()
            .iter()
            .filter_map(|opening| text.find(opening))
            .min()?;
        think_opening(&text[..found], &THINK_MARKS)
            .is_none()
            .then_some(found)
    }

    /// Range of the text for the user in an answer without calls.
    fn spoken(&self, text: &str, from: usize) -> Range<usize> {
        from..text.len()
    }
}

pub(super) type Syntax = &'static dyn CallSyntax;

impl dyn CallSyntax {
    pub(super) fn all_openings(&self) -> impl Iterator<Item = &'static str> {
        self.openings().iter().chain(self.first_openings()).copied()
    }

    /// Whether calls begin here, after white space.
    pub(super) fn opens(&self, rest: &str) -> bool {
        self.all_openings().any(|opening| rest.starts_with(opening))
    }

    /// Calls of a text that consists of calls, from a byte offset to its end.
    pub(super) fn transcribe(
        &self,
        text: &str,
        from: usize,
        types: &ArgumentTypes,
    ) -> Read<CallList> {
        let mut calls = CallList::default();
        let mut at = after_white_space(text, from);
        let start = at;
        loop {
            let rest = &text[at..];
            if !self.opens(rest) {
                return Err(self.not_calls(text, at, at > start));
            }
            at = after_white_space(text, self.read_block(text, at, types, &mut calls)?);
            if text.len() == at {
                return if calls.json().is_empty() {
                    Err(self.not_calls(text, start, false))
                } else {
                    Ok(calls)
                };
            }
            if !self.separator().is_empty() && text[at..].starts_with(self.separator()) {
                at = after_white_space(text, at + self.separator().len());
            }
        }
    }

    /// Calls of a text, ignoring text between; `None` without calls, or with a malformed one.
    pub(super) fn transcribe_within(
        &self,
        text: &str,
        from: usize,
        types: &ArgumentTypes,
    ) -> Option<CallList> {
        let (mut calls, mut at) = (CallList::default(), from);
        while let Some(found) = self.next_opening(text.get(at..)?) {
            at = self.read_block(text, at + found, types, &mut calls).ok()?;
        }
        (!calls.json().is_empty()).then_some(calls)
    }

    pub(super) fn next_opening(&self, text: &str) -> Option<usize> {
        self.openings()
            .iter()
            .filter_map(|opening| text.find(opening))
            .min()
    }

    fn not_calls(&self, text: &str, at: usize, has_called: bool) -> Unreadable {
        let rest = &text[at..];
        if !rest.is_empty() && self.all_openings().any(|opening| opening.starts_with(rest)) {
            return truncated(text);
        }
        let more = self.next_opening(rest).is_some();
        let (message, class) = match (rest.is_empty(), has_called) {
            (true, _) => ("the completion is empty", FailureClass::Other),
            (false, true) if more => ("text between the calls", class_of_text(text, at)),
            (false, true) => ("text after the calls", class_of_text(text, at)),
            (false, false) if rest.starts_with("```") => {
                ("Markdown fence before the calls", FailureClass::Fence)
            }
            (false, false) if more => ("text before the calls", FailureClass::Prose),
            (false, false) => ("no call in the text", FailureClass::Prose),
        };
        Unreadable {
            is_wrapped: !rest.is_empty(),
            ..unreadable(message, at, class)
        }
    }
}

pub(super) fn unreadable(
    message: impl Into<String>,
    offset: usize,
    class: FailureClass,
) -> Unreadable {
    Unreadable {
        message: message.into(),
        offset,
        class,
        is_wrapped: false,
    }
}

pub(super) fn truncated(text: &str) -> Unreadable {
    unreadable(
        "the text ends inside a call",
        text.len(),
        FailureClass::Truncated,
    )
}

pub(super) fn after_white_space(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    text.len() - rest.trim_start_matches([' ', '\n', '\r', '\t']).len()
}

pub(super) fn expect(text: &str, at: usize, expected: &str) -> Read<usize> {
    let rest = text.get(at..).unwrap_or_default();
    match rest.starts_with(expected) {
        true => Ok(at + expected.len()),
        false if expected.starts_with(rest) => Err(truncated(text)),
        false => Err(unreadable(
            format!("`{expected}` is missing"),
            at,
            FailureClass::Syntax,
        )),
    }
}

pub(super) fn find_any(text: &str, at: usize, ends: &[&str]) -> Read<usize> {
    let rest = text.get(at..).unwrap_or_default();
    ends.iter()
        .filter_map(|end| rest.find(end))
        .min()
        .map(|found| at + found)
        .ok_or_else(|| truncated(text))
}

/// Copies the (possibly truncated) JSON object at `at`; returns its end.
pub(super) fn copy_object(text: &str, at: usize, calls: &mut CallList) -> Read<usize> {
    let object = json_at(text, at).inspect_err(|why| {
        if why.class == FailureClass::Truncated {
            calls.copy(text, at..text.len());
        }
    })?;
    calls.copy(text, at..object.root.end);
    Ok(object.root.end)
}

pub(super) fn json_at(text: &str, at: usize) -> Read<Document<'_>> {
    json::parse_prefix(text, at).map_err(|error: SyntaxError| Unreadable::json(text, &error))
}

/// The list without brackets, as far as written: calls separated by commas.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CallList {
    calls: Transcript,
    /// Name of the last call, if written first, and range of its arguments.
    last: Option<(String, Range<usize>)>,
}

impl Deref for CallList {
    type Target = Transcript;

    fn deref(&self) -> &Transcript {
        &self.calls
    }
}

impl DerefMut for CallList {
    fn deref_mut(&mut self) -> &mut Transcript {
        &mut self.calls
    }
}

impl CallList {
    pub(super) fn into_list(self) -> Transcript {
        self.calls.into_list()
    }

    /// Name of the last call, if it precedes its arguments.
    pub(super) fn name(&self) -> Option<String> {
        self.last.as_ref().map(|(name, _)| name.clone())
    }

    pub(super) fn arguments(&self) -> Option<&str> {
        let json = self.json();
        self.last
            .as_ref()
            .and_then(|(_, range)| json.get(range.start..range.end.min(json.len())))
    }

    pub(super) fn begin_call(&mut self, at: usize) {
        let comma = if self.json().is_empty() { "" } else { ", " };
        self.literal(comma, at);
    }

    /// Begins a call, up to its arguments; [`Self::end_call`] ends it.
    pub(super) fn begin_named(&mut self, text: &str, name: Range<usize>) {
        self.begin_call(name.start);
        self.literal("{\"name\": ", name.start);
        self.string(&text[name.clone()], name.start);
        self.literal(", \"arguments\": ", name.end);
        self.last = Some((text[name].to_owned(), self.json().len()..usize::MAX));
    }

    pub(super) fn end_call(&mut self, at: usize) {
        let end = self.json().len();
        self.last.iter_mut().for_each(|(_, range)| range.end = end);
        self.literal("}", at);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct ArgumentTypes(Vec<(String, Value)>);

impl ArgumentTypes {
    pub(super) fn new(functions: &[Function<'_>]) -> Self {
        let schema = |function: &Function<'_>| {
            (
                function.name.to_owned(),
                function.parameters.cloned().unwrap_or_default(),
            )
        };
        Self(functions.iter().map(schema).collect())
    }

    pub(super) fn is_json(&self, function: &str, argument: &str, text: &str) -> bool {
        let known = self.0.iter().find(|(name, _)| name == function);
        let schema =
            known.and_then(|(_, whole)| Some((whole, whole.get("properties")?.get(argument)?)));
        let (whole, schema) = schema.unwrap_or((&Value::Null, &Value::Null));
        SchemaParts::new(whole, schema).types().is_json(text)
    }
}
