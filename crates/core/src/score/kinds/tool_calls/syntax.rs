//! What a format of calls is to the scorer and to `serve`: how its calls are read and written.

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

/// Around a call of Hermes, and of Qwen.
pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

/// The texts around the parts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallLayout {
    /// `open`, a JSON object with the keys `name` and `arguments`, `close`.
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

/// How the arguments of a call are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentLayout {
    /// A JSON object.
    Json,
    /// Each value between `open`, its key, `after` and `close`: a string as it is, all else as JSON.
    Tags {
        open: &'static str,
        after: &'static str,
        close: &'static str,
    },
    /// `{key:value,…}`, a string between two `quote`.
    Braces { quote: &'static str },
}

/// How calls of a format are read and written. A format is one file of `formats`, a line in `known_formats.rs`, and one in
/// [`crate::text::CALL_FORMATS`].
pub(super) trait CallSyntax: Debug + Sync {
    /// Of its [`crate::text::CallFormat`].
    fn name(&self) -> &'static str;

    /// Texts that calls begin with, wherever they are in an answer.
    fn openings(&self) -> &'static [&'static str];

    /// Texts that begin calls only at the beginning of an answer, and after other calls.
    fn first_openings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether calls are JSON of the completion itself, so that nothing is transcribed.
    fn is_in_place(&self) -> bool {
        false
    }

    /// Reads the calls that begin at a byte offset up to the next opening, and returns where they end. An error is of the
    /// class `Truncated` only where more text may complete them.
    fn read_block(
        &self,
        text: &str,
        at: usize,
        types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize>;

    /// What may stand between calls besides white space.
    fn separator(&self) -> &'static str {
        ""
    }

    /// How a call is put together, for a grammar; `None` where none can be made of it.
    fn layout(&self) -> Option<CallLayout>;

    /// An answer of these calls, each with the object of its arguments.
    fn write(&self, calls: &[(&str, &Value)]) -> Option<String>;

    /// Where the calls of an answer begin that has text before them; in formats whose marks are around all text,
    /// behind the messages that are text.
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

    /// Where the text to the user is, in an answer without calls that begins at a byte offset.
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

    /// The calls of an answer that is nothing else, from a byte offset to the end of the text.
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

    /// The calls of a text, whatever is between them; `None` where there is none, or one is broken.
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

    /// Where the first call may begin in a text.
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

/// The byte offset after a text that must be at another.
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

/// The byte offset of the first of some texts.
pub(super) fn find_any(text: &str, at: usize, ends: &[&str]) -> Read<usize> {
    let rest = text.get(at..).unwrap_or_default();
    ends.iter()
        .filter_map(|end| rest.find(end))
        .min()
        .map(|found| at + found)
        .ok_or_else(|| truncated(text))
}

/// Copies the JSON object at a byte offset, as far as it is there, and returns where it ends.
pub(super) fn copy_object(text: &str, at: usize, calls: &mut CallList) -> Read<usize> {
    let object = json_at(text, at).inspect_err(|why| {
        if why.class == FailureClass::Truncated {
            calls.copy(text, at..text.len());
        }
    })?;
    calls.copy(text, at..object.root.end);
    Ok(object.root.end)
}

/// The JSON value at a byte offset.
pub(super) fn json_at(text: &str, at: usize) -> Read<Document<'_>> {
    json::parse_prefix(text, at).map_err(|error: SyntaxError| Unreadable::json(text, &error))
}

/// The list without its brackets, as far as it is written: calls, with commas between.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CallList {
    calls: Transcript,
    /// The name of the last call that begins with it, and where its arguments are.
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
    /// The whole list.
    pub(super) fn into_list(self) -> Transcript {
        self.calls.into_list()
    }

    /// The name of the last call, where that is known before its arguments.
    pub(super) fn name(&self) -> Option<String> {
        self.last.as_ref().map(|(name, _)| name.clone())
    }

    /// What is written of the last call from its arguments on, where its name is known before.
    pub(super) fn arguments(&self) -> Option<&str> {
        let json = self.json();
        self.last
            .as_ref()
            .and_then(|(_, range)| json.get(range.start..range.end.min(json.len())))
    }

    /// Begins a call that is copied whole.
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

/// The schemas of the parameters, by function.
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

    /// Whether the text of an argument is the JSON that it spells, and not a string.
    pub(super) fn is_json(&self, function: &str, argument: &str, text: &str) -> bool {
        let known = self.0.iter().find(|(name, _)| name == function);
        let schema =
            known.and_then(|(_, whole)| Some((whole, whole.get("properties")?.get(argument)?)));
        let (whole, schema) = schema.unwrap_or((&Value::Null, &Value::Null));
        SchemaParts::new(whole, schema).types().is_json(text)
    }
}
