//! FunctionGemma and Gemma 4: `call:NAME{key:value,…}` between two tokens, strings between two
//! others, keys and other values bare.

use std::fmt::Write;

use serde_json::Value;

use crate::score::answer::json::{self, MAX_DEPTH};
use crate::score::kinds::tool_calls::syntax::{
    ArgumentLayout, ArgumentTypes, CallLayout, CallList, CallSyntax, Read, after_white_space,
    expect, find_any, truncated, unreadable,
};
use crate::score::verdict::FailureClass;

#[derive(Debug)]
pub(crate) struct Gemma {
    name: &'static str,
    openings: &'static [&'static str],
    close: &'static str,
    quote: &'static str,
}

pub(crate) static FUNCTIONGEMMA: Gemma = Gemma {
    name: "functiongemma",
    openings: &["<start_function_call>"],
    close: "<end_function_call>",
    quote: "<escape>",
};
pub(crate) static GEMMA4: Gemma = Gemma {
    name: "gemma4",
    openings: &["<|tool_call>"],
    close: "<tool_call|>",
    quote: "<|\"|>",
};

impl CallSyntax for Gemma {
    fn name(&self) -> &'static str {
        self.name
    }

    fn openings(&self) -> &'static [&'static str] {
        self.openings
    }

    fn read_block(
        &self,
        text: &str,
        at: usize,
        _types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize> {
        let start = expect(
            text,
            after_white_space(text, at + self.openings[0].len()),
            "call:",
        )?;
        let mut end = find_any(text, start, &["{", self.close])?;
        calls.begin_named(text, start..start + text[start..end].trim_end().len());
        if text[end..].starts_with('{') {
            end = self.value(text, end, calls, 0)?;
        } else {
            calls.literal("null", end);
        }
        calls.end_call(end);
        expect(text, after_white_space(text, end), self.close)
    }

    fn layout(&self) -> Option<CallLayout> {
        let (open, arguments) = (
            self.openings[0],
            ArgumentLayout::Braces { quote: self.quote },
        );
        Some(CallLayout::Named {
            open,
            before: "call:",
            after: "",
            arguments,
            close: self.close,
        })
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        let mut text = String::new();
        for (name, arguments) in calls {
            _ = write!(text, "{}call:{name}", self.openings[0]);
            self.write_value(arguments, &mut text);
            text.push_str(self.close);
        }
        Some(text)
    }
}

impl Gemma {
    fn value(&self, text: &str, at: usize, calls: &mut CallList, depth: usize) -> Read<usize> {
        let rest = &text[at..];
        if depth > MAX_DEPTH {
            return Err(unreadable(
                "values are nested too deeply",
                at,
                FailureClass::Syntax,
            ));
        }
        if rest.starts_with(self.quote) {
            return self.string(text, at, calls);
        }
        if self.quote.starts_with(rest) {
            return Err(truncated(text));
        }
        if rest.starts_with(['{', '[']) {
            return self.members(text, at, calls, depth);
        }
        let end = at
            + rest
                .find([',', '}', ']', '\n', ' '])
                .ok_or_else(|| truncated(text))?;
        match json::parse(&text[at..end], 0) {
            Ok(_) => calls.copy(text, at..end),
            Err(_) => {
                let message = format!("not a value: a string stands between two {}", self.quote);
                return Err(unreadable(message, at, FailureClass::Syntax));
            }
        }
        Ok(end)
    }

    fn string(&self, text: &str, at: usize, calls: &mut CallList) -> Read<usize> {
        let start = at + self.quote.len();
        let end = find_any(text, start, &[self.quote])?;
        calls.string(&text[start..end], start);
        Ok(end + self.quote.len())
    }

    fn members(&self, text: &str, at: usize, calls: &mut CallList, depth: usize) -> Read<usize> {
        let (is_object, close) = if text[at..].starts_with('{') {
            (true, "}")
        } else {
            (false, "]")
        };
        calls.literal(&text[at..=at], at);
        let mut at = after_white_space(text, at + 1);
        let mut is_first = true;
        while !text[at..].starts_with(close) {
            if !is_first {
                at = after_white_space(text, expect(text, at, ",")?);
                calls.literal(", ", at);
            }
            if is_object {
                at = self.key(text, at, calls)?;
            }
            at = after_white_space(text, self.value(text, at, calls, depth + 1)?);
            is_first = false;
        }
        calls.literal(close, at);
        Ok(at + 1)
    }

    fn key(&self, text: &str, at: usize, calls: &mut CallList) -> Read<usize> {
        let end = if text[at..].starts_with(self.quote) {
            self.string(text, at, calls)?
        } else {
            let end = find_any(text, at, &[":", ",", "}", "\n"])?;
            calls.string(text[at..end].trim_end(), at);
            end
        };
        calls.literal(": ", end);
        Ok(after_white_space(
            text,
            expect(text, after_white_space(text, end), ":")?,
        ))
    }

    fn write_value(&self, value: &Value, text: &mut String) {
        let comma = |index: usize| if index > 0 { "," } else { "" };
        match value {
            Value::String(content) => _ = write!(text, "{0}{content}{0}", self.quote),
            Value::Object(members) => {
                text.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    _ = write!(text, "{}{key}:", comma(index));
                    self.write_value(value, text);
                }
                text.push('}');
            }
            Value::Array(items) => {
                text.push('[');
                for (index, value) in items.iter().enumerate() {
                    text.push_str(comma(index));
                    self.write_value(value, text);
                }
                text.push(']');
            }
            scalar => _ = write!(text, "{scalar}"),
        }
    }
}
