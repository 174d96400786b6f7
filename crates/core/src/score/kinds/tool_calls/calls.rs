//! Parses calls: `<tool_call>` blocks of Hermes and Qwen, OpenAI's message, or bare JSON.

pub(super) use super::syntax::{CLOSE, OPEN};

use super::syntax::{Read, after_white_space, unreadable};
use super::tools::Tools;
use crate::score::answer::json::position::StringPlaces;
use crate::score::answer::json::{self, Document, Kind, Object, Syntax, SyntaxError, Value};
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::{Unreadable, class_of_text};

const FORM: &str = "a call is {\"name\": …, \"arguments\": {…}}";

#[derive(Debug)]
pub(super) struct Answer<'t> {
    /// One per block, or a single one.
    pub(super) documents: Vec<Document<'t>>,
    are_blocks: bool,
}

#[derive(Debug)]
pub(super) struct Call<'d> {
    pub(super) name: &'d str,
    /// Byte offset of the name.
    pub(super) name_at: usize,
    pub(super) arguments: Arguments<'d>,
    /// Without arguments, with null or an empty text: right only if the function requires none.
    pub(super) has_none: bool,
    /// An unknown key with its byte offset.
    pub(super) extra_key: Option<(&'d str, usize)>,
}

#[derive(Debug)]
pub(super) enum Arguments<'d> {
    Written(&'d Value<'d>),
    /// JSON in a string, as in OpenAI's form.
    Quoted {
        document: Document<'d>,
        /// The unescaped string, to which the document's positions refer.
        text: &'d str,
        /// Byte offset of the opening quote in the completion.
        quote: usize,
    },
}

impl<'t> Answer<'t> {
    /// Reads the text from a byte offset to its end.
    pub(super) fn read(text: &'t str, from: usize) -> Read<Self> {
        let start = after_white_space(text, from);
        let are_blocks = text[start..].starts_with(OPEN);
        let documents = match are_blocks {
            true => blocks(text, start),
            false => json::parse(text, from)
                .map(|document| vec![document])
                .map_err(|error| not_json(text, &error)),
        };
        Ok(Self {
            documents: documents?,
            are_blocks,
        })
    }

    /// Reads the blocks of a text, ignoring text between; `None` without blocks, or with a
    /// malformed one.
    pub(super) fn blocks_within(text: &'t str, from: usize) -> Option<Self> {
        let (mut documents, mut at) = (Vec::new(), from);
        while let Some(found) = text.get(at..)?.find(OPEN) {
            let (document, end) = block(text, at + found).ok()?;
            documents.push(document);
            at = end;
        }
        (!documents.is_empty()).then_some(Self {
            documents,
            are_blocks: true,
        })
    }

    pub(super) fn are_blocks(&self) -> bool {
        self.are_blocks
    }

    /// Whether it is valid in every format: no call, `[]`, or OpenAI's message.
    pub(super) fn is_neutral(&self) -> bool {
        match self.documents.as_slice() {
            [
                Document {
                    root:
                        Value {
                            kind: Kind::Array(items),
                            ..
                        },
                    ..
                },
            ] => items.is_empty() && !self.are_blocks,
            [
                Document {
                    root:
                        Value {
                            kind: Kind::Object(object),
                            ..
                        },
                    ..
                },
            ] => object.get("tool_calls").is_some(),
            _ => false,
        }
    }

    pub(super) fn has_calls(&self, text: &str) -> bool {
        let calls = self.calls(text).unwrap_or_default();
        !calls.is_empty() && calls.iter().all(|call| !call.has_none)
    }

    /// [`Self::calls`], where only calls of a function that requires no arguments may have none.
    pub(super) fn calls_by(&self, completion: &str, tools: &Tools) -> Read<Vec<Call<'_>>> {
        let calls = self.calls(completion)?;
        let is_wrong = |call: &&Call<'_>| {
            let function = tools.function(call.name);
            call.has_none && function.is_none_or(|function| function.has_required)
        };
        match calls.iter().find(is_wrong) {
            Some(call) => Err(missing("arguments", call.name_at)),
            None => Ok(calls),
        }
    }

    pub(super) fn calls(&self, completion: &str) -> Read<Vec<Call<'_>>> {
        match self.documents.as_slice() {
            [document] if !self.are_blocks => calls_of(completion, &document.root),
            blocks => blocks
                .iter()
                .map(|block| call(completion, &block.root))
                .collect(),
        }
    }
}

impl Arguments<'_> {
    pub(super) fn value(&self) -> &Value<'_> {
        match self {
            Self::Written(value) => value,
            Self::Quoted { document, .. } => &document.root,
        }
    }

    pub(super) fn text<'a>(&'a self, completion: &'a str) -> &'a str {
        match self {
            Self::Written(_) => completion,
            Self::Quoted { text, .. } => text,
        }
    }

    /// Maps those positions to the completion.
    pub(super) fn places<'t>(&self, completion: &'t str) -> ArgumentPlaces<'t> {
        match self {
            Self::Written(_) => ArgumentPlaces(None),
            Self::Quoted { quote, .. } => {
                ArgumentPlaces(Some(StringPlaces::new(completion, *quote)))
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct ArgumentPlaces<'t>(Option<StringPlaces<'t>>);

impl ArgumentPlaces<'_> {
    /// As [`StringPlaces::locate`].
    pub(super) fn locate(&mut self, offset: usize) -> usize {
        self.0
            .as_mut()
            .map_or(offset, |places| places.locate(offset))
    }
}

/// Calls of a JSON value: a list, a message with `tool_calls`, or one call.
pub(super) fn calls_of<'d>(completion: &str, root: &'d Value<'_>) -> Read<Vec<Call<'d>>> {
    let list = |items: &'d [Value<'_>]| items.iter().map(|item| call(completion, item)).collect();
    match &root.kind {
        Kind::Array(items) => list(items),
        Kind::Object(object) => {
            let Some(calls) = object.get("tool_calls") else {
                return Ok(vec![call(completion, root)?]);
            };
            if let Some(said) = object
                .get("content")
                .filter(|content| !is_blank(&content.value))
            {
                let message = "text beside the calls, in `content`".to_owned();
                return Err(unreadable(message, said.value.start, FailureClass::Prose));
            }
            match &calls.value.kind {
                Kind::Array(items) => list(items),
                _ => Err(wrong_type("`tool_calls`", "a list", &calls.value)),
            }
        }
        _ => Err(wrong_type("the answer", "a call or a list of calls", root)),
    }
}

/// `{"name", "arguments"}`, possibly under `function`.
fn call<'d>(completion: &str, value: &'d Value<'_>) -> Read<Call<'d>> {
    let outer = value
        .as_object()
        .ok_or_else(|| wrong_type("a call", "an object", value))?;
    let (inner, start) = match outer.get("function").map(|function| &function.value) {
        Some(function) => (
            function
                .as_object()
                .ok_or_else(|| wrong_type("`function`", "an object", function))?,
            function.start,
        ),
        None => (outer, value.start),
    };
    let is_openai = !std::ptr::eq(inner, outer);
    let member = |key: &str| {
        let found = inner.get(key).map(|member| &member.value);
        found.ok_or_else(|| missing(key, start))
    };
    let name = member("name")?;
    let Kind::String(text) = &name.kind else {
        return Err(wrong_type("`name`", "a string", name));
    };
    let unknown = |object: &'d Object<'_>, known: &[&str]| {
        let member = object
            .members()
            .iter()
            .find(|member| !known.contains(&&*member.key))?;
        Some((&*member.key, member.key_start))
    };
    let extra_key = match is_openai {
        true => unknown(outer, &["function", "id", "type", "index"])
            .or(unknown(inner, &["name", "arguments"])),
        false => unknown(outer, &["name", "arguments", "id", "type"]),
    };
    let given = member("arguments").ok().filter(|given| !is_blank(given));
    let Some(arguments) = given else {
        // Another key may be meant for them.
        if extra_key.is_some() {
            return Err(missing("arguments", start));
        }
        return Ok(Call {
            name: text,
            name_at: name.start,
            arguments: quoted(completion, start, "{}")?,
            has_none: true,
            extra_key,
        });
    };
    let arguments = match &arguments.kind {
        Kind::Object(_) => Arguments::Written(arguments),
        Kind::String(text) if is_openai => quoted(completion, arguments.start, text)?,
        Kind::String(_) => {
            let message = format!(
                "`arguments` is JSON in a string, as only OpenAI's `function` has it; {FORM}"
            );
            return Err(unreadable(
                message,
                arguments.start,
                FailureClass::WrongType,
            ));
        }
        _ => return Err(wrong_type("`arguments`", "an object", arguments)),
    };
    Ok(Call {
        name: text,
        name_at: name.start,
        arguments,
        has_none: false,
        extra_key,
    })
}

fn quoted<'d>(completion: &str, quote: usize, text: &'d str) -> Read<Arguments<'d>> {
    let document = json::parse(text, 0).map_err(|error| {
        let offset = StringPlaces::new(completion, quote).locate(error.offset);
        unreadable(
            format!("`arguments`: {}", error.reason),
            offset,
            FailureClass::Syntax,
        )
    })?;
    match document.root.kind {
        Kind::Object(_) => Ok(Arguments::Quoted {
            document,
            text,
            quote,
        }),
        _ => Err(Unreadable {
            offset: quote,
            ..wrong_type("`arguments`", "an object", &document.root)
        }),
    }
}

fn is_blank(value: &Value<'_>) -> bool {
    match &value.kind {
        Kind::Null => true,
        Kind::String(text) => ["", "null"].contains(&text.trim()),
        _ => false,
    }
}

/// The blocks of an answer consisting of blocks.
fn blocks(text: &str, start: usize) -> Read<Vec<Document<'_>>> {
    let (mut documents, mut at) = (Vec::new(), start);
    loop {
        let (document, end) = block(text, at)?;
        documents.push(document);
        at = after_white_space(text, end);
        let rest = &text[at..];
        if rest.is_empty() {
            return Ok(documents);
        }
        if !rest.starts_with(OPEN) {
            let place = if rest.contains(OPEN) {
                "between"
            } else {
                "after"
            };
            let class = class_of_text(text, at);
            return Err(Unreadable {
                is_wrapped: true,
                ..unreadable(format!("text {place} the {OPEN} blocks"), at, class)
            });
        }
    }
}

/// The block at a byte offset, and its end.
fn block(text: &str, start: usize) -> Read<(Document<'_>, usize)> {
    let start = after_white_space(text, start + OPEN.len());
    let document = json::parse_prefix(text, start).map_err(|error| not_json(text, &error))?;
    let end = after_white_space(text, document.root.end);
    let rest = &text[end..];
    if rest.starts_with(CLOSE) {
        return Ok((document, end + CLOSE.len()));
    }
    match CLOSE.starts_with(rest) {
        true => Err(unreadable(
            format!("the text ends inside a {OPEN} block"),
            text.len(),
            FailureClass::Truncated,
        )),
        false => Err(unreadable(
            format!("{CLOSE} is missing after the call"),
            end,
            FailureClass::Syntax,
        )),
    }
}

fn not_json(text: &str, error: &SyntaxError) -> Unreadable {
    let unreadable = Unreadable::json(text, error);
    let message = match error.reason {
        Syntax::NoValue => "no call in the text",
        Syntax::Fence => "Markdown fence before the calls",
        Syntax::TextBefore if text[error.offset..].contains(OPEN) => {
            "text before the <tool_call> blocks"
        }
        Syntax::TextBefore => "text before the calls",
        Syntax::TextAfter => "text after the calls",
        _ => return unreadable,
    };
    Unreadable {
        message: message.to_owned(),
        ..unreadable
    }
}

fn missing(key: &str, at: usize) -> Unreadable {
    unreadable(
        format!("a call without `{key}`; {FORM}"),
        at,
        FailureClass::MissingKey,
    )
}

fn wrong_type(what: &str, expected: &str, found: &Value<'_>) -> Unreadable {
    let message = format!("{what} is {expected}, not {}; {FORM}", found.type_name());
    unreadable(message, found.start, FailureClass::WrongType)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as `NAME@LINE:COLUMN{keys}`, or the message with its place.
    fn read(text: &str) -> String {
        let place = |offset| {
            let place = json::Places::new(text).locate(offset);
            format!("{}:{}", place.line, place.column)
        };
        let wrong = |error: Unreadable| {
            format!(
                "{:?} {}{}",
                error.class,
                place(error.offset),
                if error.is_wrapped { " wrapped" } else { "" }
            )
        };
        let answer = match Answer::read(text, 0) {
            Ok(answer) => answer,
            Err(error) => return wrong(error),
        };
        let shown = |call: &Call<'_>| {
            let arguments = call.arguments.value().as_object().unwrap();
            let keys: Vec<&str> = arguments
                .members()
                .iter()
                .map(|member| &*member.key)
                .collect();
            let extra = call
                .extra_key
                .map(|(key, at)| format!("+{key}@{}", place(at)))
                .unwrap_or_default();
            format!(
                "{}@{}({}){extra}",
                call.name,
                place(call.name_at),
                keys.join(",")
            )
        };
        match answer.calls(text) {
            Ok(calls) => calls.iter().map(shown).collect::<Vec<_>>().join(" "),
            Err(error) => wrong(error),
        }
    }

    #[test]
    fn calls_are_read_in_every_form_with_their_places() {
        for (text, expected) in [
            // Hermes and Qwen.
            (
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
                "f@2:10(a)",
            ),
            (
                " <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>\n",
                "f@1:21() g@2:20()",
            ),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"</tool_call>\"}}</tool_call>",
                "f@1:20(a)",
            ),
            // Alone.
            ("{\"name\":\"f\",\"arguments\":{}}", "f@1:9()"),
            (
                "[{\"arguments\":{},\"name\":\"f\"},\n {\"id\":\"1\",\"name\":\"g\",\"arguments\":{\"x\":[1],\"y\":{}}}]",
                "f@1:25() g@2:19(x,y)",
            ),
            ("[]", ""),
            // OpenAI.
            (
                r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#,
                "f@1:97(a)",
            ),
            (
                r#"[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]"#,
                "f@1:40(a)",
            ),
            (r#"{"tool_calls":[]}"#, ""),
            // Without arguments.
            (r#"{"name":"f"}"#, "f@1:9()"),
            (r#"{"name":"f","arguments":null}"#, "f@1:9()"),
            (r#"{"function":{"name":"f","arguments":" "}}"#, "f@1:21()"),
            (
                r#"{"function":{"name":"f","arguments":"null"}}"#,
                "f@1:21()",
            ),
            // An unknown key.
            (r#"{"name":"f","arguments":{},"why":1}"#, "f@1:9()+why@1:28"),
            (
                r#"{"function":{"name":"f","arguments":"{}","x":1}}"#,
                "f@1:21()+x@1:42",
            ),
            // Not calls.
            ("", "Other 1:1"),
            ("No.", "Prose 1:1"),
            (
                "I call {\"name\":\"f\",\"arguments\":{}}",
                "Prose 1:1 wrapped",
            ),
            (
                "I call\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
                "Prose 1:1 wrapped",
            ),
            ("```json\n[]\n```", "Fence 1:1 wrapped"),
            ("[]\n```", "Fence 2:1 wrapped"),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\nDone.",
                "Prose 2:1 wrapped",
            ),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> and <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
                "Prose 1:52 wrapped",
            ),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
                "Truncated 1:39",
            ),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool",
                "Truncated 1:45",
            ),
            ("<tool_call>{\"name\":\"f\",\"argu", "Truncated 1:29"),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{}} x</tool_call>",
                "Syntax 1:40",
            ),
            (
                "<tool_call>{\"name\":\"f\",\"arguments\":{},}</tool_call>",
                "Syntax 1:38",
            ),
            ("<tool_call></tool_call>", "Syntax 1:12"),
            (
                "<tool_call>[{\"name\":\"f\",\"arguments\":{}}]</tool_call>",
                "WrongType 1:12",
            ),
            ("7", "WrongType 1:1"),
            ("[7]", "WrongType 1:2"),
            ("{}", "MissingKey 1:1"),
            (r#"{"name":"f","parameters":{}}"#, "MissingKey 1:1"),
            (r#"{"name":7,"arguments":{}}"#, "WrongType 1:9"),
            (r#"{"name":"f","arguments":[]}"#, "WrongType 1:25"),
            (r#"{"name":"f","arguments":"{}"}"#, "WrongType 1:25"),
            (
                r#"{"function":{"name":"f","arguments":"{\"a\":\\u0031,}"}}"#,
                "Syntax 1:45",
            ),
            (
                r#"{"function":{"name":"f","arguments":"[1]"}}"#,
                "WrongType 1:37",
            ),
            (r#"{"function":7}"#, "WrongType 1:13"),
            (r#"{"tool_calls":{}}"#, "WrongType 1:15"),
            (r#"{"content":"Wait.","tool_calls":[]}"#, "Prose 1:12"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_call_is_named() {
        for (text, message) in [
            (
                r#"<tool_call>{"name":"f","arguments":"{}"}</tool_call>"#,
                "`arguments` is JSON in a string, as only OpenAI's `function` has it",
            ),
            (
                r#"I call <tool_call>{"name":"f","arguments":{}}</tool_call>"#,
                "text before the <tool_call> blocks",
            ),
            (
                r#"I call {"name":"f","arguments":{}}"#,
                "text before the calls",
            ),
        ] {
            let why = Answer::read(text, 0)
                .and_then(|answer| answer.calls(text).map(|_| ()))
                .unwrap_err();
            assert!(why.message.starts_with(message), "{text}: {}", why.message);
        }
    }

    #[test]
    fn blocks_are_found_among_text() {
        let count =
            |text: &str| Answer::blocks_within(text, 0).map(|answer| answer.documents.len());
        let block = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
        assert_eq!(count(&format!("I call {block} and\n{block}.")), Some(2));
        assert_eq!(count("I call f."), None);
        assert_eq!(
            count(&format!("{block}<tool_call>{{")),
            None,
            "one is broken"
        );
    }
}
