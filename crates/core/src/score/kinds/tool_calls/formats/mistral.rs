//! Mistral: `[TOOL_CALLS]` before a list of calls (tokenizers up to v7), or before each
//! `NAME[ARGS]{…}` (v11 and later, where `[CALL_ID]` and an id may follow the name). Both formats
//! read both.

use serde_json::{Value, json};

use crate::score::answer::json::Kind;
use crate::score::kinds::tool_calls::syntax::{
    ArgumentLayout, ArgumentTypes, CallLayout, CallList, CallSyntax, Read, after_white_space,
    copy_object, expect, find_any, json_at,
};
use crate::text::json_line;

const OPEN: &str = "[TOOL_CALLS]";
const ID: &str = "[CALL_ID]";
const ARGUMENTS: &str = "[ARGS]";

#[derive(Debug)]
pub(crate) struct Mistral {
    /// Names before arguments instead of a list.
    has_names: bool,
}

pub(crate) static MISTRAL: Mistral = Mistral { has_names: false };
pub(crate) static MISTRAL_ARGS: Mistral = Mistral { has_names: true };

impl CallSyntax for Mistral {
    fn name(&self) -> &'static str {
        if self.has_names {
            "mistral-args"
        } else {
            "mistral"
        }
    }

    fn openings(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn read_block(
        &self,
        text: &str,
        at: usize,
        _types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize> {
        let start = after_white_space(text, at + OPEN.len());
        if text[start..].is_empty() || text[start..].starts_with(['[', '{']) {
            let list = json_at(text, start)?.root;
            let items = if let Kind::Array(items) = &list.kind {
                items.as_slice()
            } else {
                std::slice::from_ref(&list)
            };
            for item in items {
                calls.begin_call(item.start);
                calls.copy(text, item.start..item.end);
            }
            return Ok(list.end);
        }
        let end = find_any(text, start, &[ID, ARGUMENTS, "{"])?;
        calls.begin_named(text, start..start + text[start..end].trim_end().len());
        let mut arguments = end;
        if text[arguments..].starts_with(ID) {
            arguments = find_any(text, arguments, &[ARGUMENTS, "{"])?;
        }
        if text[arguments..].starts_with(ARGUMENTS) {
            arguments = after_white_space(text, arguments + ARGUMENTS.len());
        }
        // A partial `NAME[ARGS]` is not yet a call.
        if !text[arguments..].starts_with('{') {
            expect(text, arguments, "{")?;
        }
        let end = copy_object(text, arguments, calls)?;
        calls.end_call(end);
        Ok(end)
    }

    fn layout(&self) -> Option<CallLayout> {
        let arguments = ArgumentLayout::Json;
        Some(match self.has_names {
            true => CallLayout::Named {
                open: OPEN,
                before: "",
                after: ARGUMENTS,
                arguments,
                close: "",
            },
            false => CallLayout::List { open: OPEN },
        })
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        if self.has_names {
            let call = |(name, arguments): &(&str, &Value)| {
                Some(format!(
                    "{OPEN}{name}{ARGUMENTS}{}",
                    json_line(arguments).ok()?
                ))
            };
            return calls.iter().map(call).collect();
        }
        let list = calls
            .iter()
            .map(|(name, arguments)| json!({"name": name, "arguments": arguments}))
            .collect();
        Some(format!("{OPEN}{}", json_line(&list).ok()?))
    }
}
