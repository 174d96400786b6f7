//! Streams a completion in transcribed formats as text and calls; enforced calls piecewise, as far
//! as determined.

use serde_json::Value;

use super::calls::Answer;
use super::known_formats::syntax_of;
use super::reader::{AnswerPart, JsonReader, parts_of};
use super::syntax::{ArgumentTypes, CallLayout, CallList, Syntax};
use crate::score::verdict::FailureClass;
use crate::task::functions;
use crate::text::{CallFormat, unfinished};

/// Streams a completion's text and calls.
#[derive(Debug)]
pub struct CallReader(Reader);

#[derive(Debug)]
enum Reader {
    Json(JsonReader),
    Blocks(BlockReader),
}

impl CallReader {
    /// `tools`: in OpenAI's schema. `is_constrained`: whether decoding is constrained to calls;
    /// `has_value`: or to a response format's value.
    pub fn new(format: &CallFormat, tools: &Value, is_constrained: bool, has_value: bool) -> Self {
        let syntax = syntax_of(format);
        // If calls require blocks, other JSON is text.
        let takes_json =
            !is_constrained || matches!(syntax.layout(), Some(CallLayout::List { .. }));
        // A list may also be a value of the response format.
        let is_enforced = is_constrained && !(takes_json && has_value);
        Self(match syntax.is_in_place() {
            true => Reader::Json(JsonReader::new(takes_json, is_enforced)),
            false => {
                let types = functions(tools)
                    .map(|functions| ArgumentTypes::new(&functions))
                    .unwrap_or_default();
                Reader::Blocks(BlockReader {
                    is_enforced,
                    ..BlockReader::new(syntax, types)
                })
            }
        })
    }

    pub fn is_within_call(&self) -> bool {
        match &self.0 {
            Reader::Json(reader) => reader.is_within_call(),
            Reader::Blocks(reader) => reader.given.is_some(),
        }
    }

    pub fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        match &mut self.0 {
            Reader::Json(reader) => reader.push(text),
            Reader::Blocks(reader) => reader.push(text),
        }
    }

    pub fn finish(&mut self) -> Vec<AnswerPart> {
        match &mut self.0 {
            Reader::Json(reader) => reader.finish(),
            Reader::Blocks(reader) => reader.finish(),
        }
    }
}

#[derive(Debug)]
struct BlockReader {
    syntax: Syntax,
    types: ArgumentTypes,
    is_enforced: bool,
    /// Buffered text; begins with a call's opening if `in_block`.
    held: String,
    in_block: bool,
    has_spoken: bool,
    has_called: bool,
    /// Bytes emitted of the current call's arguments, once its name was.
    given: Option<usize>,
}

impl BlockReader {
    fn new(syntax: Syntax, types: ArgumentTypes) -> Self {
        let (held, given) = (String::new(), None);
        Self {
            syntax,
            types,
            is_enforced: false,
            held,
            in_block: false,
            has_spoken: false,
            has_called: false,
            given,
        }
    }

    fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        self.held.push_str(text);
        let mut said = Vec::new();
        // Nothing else completes a part of a call.
        if self.in_block && !text.contains(['>', '}', ']', ',', '"']) {
            return said;
        }
        while if self.in_block {
            self.block(&mut said)
        } else {
            self.text(&mut said)
        } {}
        said
    }

    fn finish(&mut self) -> Vec<AnswerPart> {
        let mut said = Vec::new();
        if self.in_block {
            self.block(&mut said);
        }
        let rest = std::mem::take(&mut self.held);
        let text = if self.has_called {
            rest.trim_end()
        } else {
            &rest
        };
        let is_text = !text.is_empty() && self.given.is_none();
        said.extend(is_text.then(|| AnswerPart::Text(text.to_owned())));
        said
    }

    /// Emits text up to a (possible) call. Returns whether there may be more.
    fn text(&mut self, said: &mut Vec<AnswerPart>) -> bool {
        if self.has_called || !self.has_spoken {
            let rest = self.held.trim_start();
            let separated = rest
                .strip_prefix(self.syntax.separator())
                .filter(|_| self.has_called);
            let rest = separated.unwrap_or(rest).trim_start();
            if rest.is_empty() {
                return false;
            }
            if self.syntax.opens(rest) {
                self.held.drain(..self.held.len() - rest.len());
                self.in_block = true;
                return true;
            }
            if self
                .syntax
                .all_openings()
                .any(|opening| opening.starts_with(rest))
            {
                return false;
            }
        }
        let found = self.syntax.next_opening(&self.held);
        let openings = self.syntax.openings().iter();
        let end = found.unwrap_or_else(|| {
            openings
                .map(|opening| unfinished(&self.held, opening))
                .min()
                .unwrap_or(self.held.len())
        });
        // Drops white space before a call.
        let text = self.held[..end].trim_end().to_owned();
        self.held
            .drain(..if found.is_some() { end } else { text.len() });
        self.in_block = found.is_some();
        if !text.is_empty() {
            (self.has_spoken, self.has_called) = (true, false);
            said.push(AnswerPart::Text(text));
        }
        self.in_block
    }

    /// As [`Self::text`], for a call.
    fn block(&mut self, said: &mut Vec<AnswerPart>) -> bool {
        let mut transcript = CallList::default();
        match self
            .syntax
            .read_block(&self.held, 0, &self.types, &mut transcript)
        {
            Ok(end) => {
                let parts = match self.given.take() {
                    Some(given) => transcript.arguments().map(|text| rest(text, given)),
                    None => parts(transcript),
                };
                let block: String = self.held.drain(..end).collect();
                self.in_block = false;
                self.has_called |= parts.is_some();
                said.extend(parts.unwrap_or_else(|| vec![AnswerPart::Text(block)]));
                true
            }
            Err(why) if why.class == FailureClass::Truncated => {
                if let Some(text) = transcript.arguments().filter(|_| self.is_enforced) {
                    if self.given.is_none() {
                        said.extend(transcript.name().map(AnswerPart::Name));
                    }
                    said.extend(rest(text, self.given.unwrap_or(0)));
                    self.given = Some(text.len());
                }
                false
            }
            Err(_) => {
                let opening = self
                    .syntax
                    .all_openings()
                    .find(|opening| self.held.starts_with(opening));
                let text: String = self.held.drain(..opening.map_or(0, str::len)).collect();
                (self.in_block, self.has_spoken, self.has_called) = (false, true, false);
                said.push(AnswerPart::Text(text));
                true
            }
        }
    }
}

/// Arguments after the first `given` bytes.
fn rest(arguments: &str, given: usize) -> Vec<AnswerPart> {
    let rest = arguments.get(given..).filter(|rest| !rest.is_empty());
    rest.map(|rest| AnswerPart::Arguments(rest.to_owned()))
        .into_iter()
        .collect()
}

/// A block's calls, empty for reasoning; `None` if malformed.
fn parts(calls: CallList) -> Option<Vec<AnswerPart>> {
    let list = calls.into_list();
    let json = list.json();
    let answer = Answer::read(json, 0).ok()?;
    parts_of(&answer.calls(json).ok()?, json)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Text as is, calls as `NAME(arguments)`.
    fn read(format: &str, is_enforced: bool, text: &str, step: usize) -> String {
        let tools = json!([{"name": "f", "parameters": {"properties": {"a": {"type": "string"}, "n": {"type": "integer"}}}}]);
        let mut reader = CallReader::new(
            CallFormat::named(format).unwrap(),
            &tools,
            is_enforced,
            false,
        );
        let letters: Vec<char> = text.chars().collect();
        let mut parts: Vec<AnswerPart> = letters
            .chunks(step)
            .flat_map(|part| reader.push(&part.iter().collect::<String>()))
            .collect();
        let is_within = reader.is_within_call();
        parts.extend(reader.finish());
        let mut shown = String::new();
        for part in parts {
            match part {
                AnswerPart::Text(text) => shown.push_str(&text),
                AnswerPart::Name(name) => shown.push_str(&format!("|{name}:")),
                AnswerPart::Arguments(text) => shown.push_str(&text),
            }
        }
        if is_within {
            format!("{shown}…")
        } else {
            shown
        }
    }

    #[test]
    fn text_and_calls_come_out_however_the_completion_comes() {
        let xml = "<tool_call>\n<function=f>\n<parameter=a>\n1 <b>\n</parameter>\n<parameter=n>\n2\n</parameter>\n</function>\n</tool_call>";
        for (format, text, expected) in [
            ("qwen-xml", xml.to_owned(), r#"|f:{"a": "1 <b>", "n": 2}"#),
            ("qwen-xml", format!("I call\n{xml}\n{xml} <tool"), r#"I call|f:{"a": "1 <b>", "n": 2}|f:{"a": "1 <b>", "n": 2} <tool"#),
            ("qwen-xml", "<tool_call>{}</tool_call>".to_owned(), "<tool_call>{}</tool_call>"),
            ("llama", r#" {"name": "f", "parameters": {"n": 1}}; {"name": "f", "parameters": {}}"#.to_owned(), r#"|f:{"n": 1}|f:{}"#),
            ("llama", r#"<|python_tag|>{"name": "f", "parameters": {"n": 1}}"#.to_owned(), r#"|f:{"n": 1}"#),
            ("llama", r#"{"a": 1} is JSON, {b}."#.to_owned(), r#"{"a": 1} is JSON, {b}."#),
            ("llama", "No {\"name\": 1}".to_owned(), "No {\"name\": 1}"),
            ("mistral", r#"[TOOL_CALLS] [{"name": "f", "arguments": {"n": 1}}, {"name": "f", "arguments": {}}]"#.to_owned(), r#"|f:{"n": 1}|f:{}"#),
            ("mistral-args", r#"So:[TOOL_CALLS]f[ARGS]{"n": 1}[TOOL_CALLS]f[ARGS]{}"#.to_owned(), r#"So:|f:{"n": 1}|f:{}"#),
            (
                "functiongemma",
                "<start_function_call>call:f{a:<escape>x, {y}<escape>,n:1}<end_function_call>".to_owned(),
                r#"|f:{"a": "x, {y}", "n": 1}"#,
            ),
            ("gemma4", r#"<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>."#.to_owned(), r#"|f:{"a": "x"}."#),
            ("harmony", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"n\": 1}".to_owned(), r#"|f:{"n": 1}"#),
            ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>".to_owned(), "|f:{}"),
        ] {
            for step in [1, 3, 1000] {
                assert_eq!(read(format, false, &text, step), expected, "{format} {text} by {step}");
                if expected.starts_with('|') && format != "hermes" {
                    assert_eq!(read(format, true, &text, step), expected, "enforced {format} {text} by {step}");
                }
            }
        }
    }

    #[test]
    fn enforced_calls_that_break_off_have_the_arguments_so_far() {
        for (format, text, expected) in [
            (
                "qwen-xml",
                "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n<parameter=n>\n1",
                r#"|f:{"a": "x"…"#,
            ),
            (
                "functiongemma",
                "<start_function_call>call:f{a:<escape>x<escape>,n:1",
                r#"|f:{"a": "x", "n": …"#,
            ),
            (
                "mistral-args",
                r#"[TOOL_CALLS]f[ARGS]{"a": "x", "n"#,
                r#"|f:{"a": "x", "n…"#,
            ),
        ] {
            assert_eq!(read(format, true, text, 1), expected, "{format}");
            assert!(
                read(format, false, text, 1).starts_with(&text[..10]),
                "{format}"
            );
        }
    }
}
