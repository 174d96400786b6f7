//! Qwen3-Coder and Qwen3.5:
//! `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`, each tag on
//! its own line. The tool's schema decides whether a value is a string or JSON.

use std::fmt::Write;
use std::ops::Range;

use serde_json::Value;

use crate::score::kinds::tool_calls::syntax::{
    ArgumentLayout, ArgumentTypes, CLOSE, CallLayout, CallList, CallSyntax, OPEN, Read,
    after_white_space, expect, find_any,
};
use crate::text::json_line;

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
const END: &str = "</parameter>";

#[derive(Debug)]
pub(crate) struct QwenXml;

pub(crate) static QWEN_XML: QwenXml = QwenXml;

impl CallSyntax for QwenXml {
    fn name(&self) -> &'static str {
        "qwen-xml"
    }

    fn openings(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn read_block(
        &self,
        text: &str,
        at: usize,
        types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize> {
        let start = expect(text, after_white_space(text, at + OPEN.len()), FUNCTION)?;
        let end = find_any(text, start, &[">"])?;
        let name = &text[start..end];
        calls.begin_named(text, start..end);
        calls.literal("{", end);
        let mut at = after_white_space(text, end + 1);
        let mut is_first = true;
        while text[at..].starts_with(PARAMETER) {
            let key = at + PARAMETER.len();
            let key_end = find_any(text, key, &[">"])?;
            let end = find_any(text, key_end + 1, &[END])?;
            let value = value_within(text, key_end + 1..end);
            calls.literal(if is_first { "" } else { ", " }, at);
            calls.string(&text[key..key_end], at);
            calls.literal(": ", at);
            let trimmed = text[value.clone()].trim();
            match types.is_json(name, &text[key..key_end], trimmed) {
                true => {
                    let start = after_white_space(text, value.start);
                    calls.copy(text, start..start + trimmed.len());
                }
                false => calls.string(&text[value.clone()], value.start),
            }
            is_first = false;
            at = after_white_space(text, end + END.len());
        }
        let end = expect(text, at, "</function>")?;
        calls.literal("}", at);
        calls.end_call(at);
        expect(text, after_white_space(text, end), CLOSE)
    }

    fn layout(&self) -> Option<CallLayout> {
        let arguments = ArgumentLayout::Tags {
            open: PARAMETER,
            after: ">\n",
            close: "\n</parameter>\n",
        };
        let close = "</function>\n</tool_call>";
        Some(CallLayout::Named {
            open: OPEN,
            before: "\n<function=",
            after: ">\n",
            arguments,
            close,
        })
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        let mut blocks = Vec::new();
        for (name, arguments) in calls {
            let mut block = format!("{OPEN}\n{FUNCTION}{name}>\n");
            for (key, value) in arguments.as_object()? {
                let text = value
                    .as_str()
                    .map_or_else(|| json_line(value).ok(), |text| Some(text.to_owned()))
                    .filter(|text| !text.contains(END))?;
                _ = write!(block, "{PARAMETER}{key}>\n{text}\n{END}\n");
            }
            blocks.push(format!("{block}</function>\n{CLOSE}"));
        }
        Some(blocks.join("\n"))
    }
}

/// The value between two tags, without one line break on each side and the closing tag's indent.
fn value_within(text: &str, between: Range<usize>) -> Range<usize> {
    let written = &text[between.clone()];
    let (break_before, is_crlf) = match written.as_bytes() {
        [b'\n', ..] => (1, false),
        [b'\r', b'\n', ..] => (2, true),
        _ => (0, true),
    };
    let unindented = written.trim_end_matches([' ', '\t']);
    let to = match unindented.strip_suffix('\n') {
        Some(line) if is_crlf => line.strip_suffix('\r').unwrap_or(line).len(),
        Some(line) => line.len(),
        None => written.len(),
    };
    between.start + break_before.min(to)..between.start + to
}
