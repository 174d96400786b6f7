//! Llama 3.1 to 3.3: `{"name": …, "parameters": {…}}`, after `<|python_tag|>` or alone; several are
//! separated by `;`.

use serde_json::{Value, json};

use crate::score::kinds::tool_calls::syntax::{
    ArgumentTypes, CallLayout, CallList, CallSyntax, Read, after_white_space, json_at, unreadable,
};
use crate::score::verdict::FailureClass;
use crate::text::json_line;

const TAG: &str = "<|python_tag|>";
const FORM: &str = "a call is {\"name\": …, \"parameters\": {…}}";

#[derive(Debug)]
pub(crate) struct Llama;

pub(crate) static LLAMA: Llama = Llama;

impl CallSyntax for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn openings(&self) -> &'static [&'static str] {
        &[TAG]
    }

    fn first_openings(&self) -> &'static [&'static str] {
        &["{"]
    }

    fn separator(&self) -> &'static str {
        ";"
    }

    fn read_block(
        &self,
        text: &str,
        at: usize,
        _types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize> {
        let start = if text[at..].starts_with(TAG) {
            after_white_space(text, at + TAG.len())
        } else {
            at
        };
        let call = json_at(text, start)?.root;
        let fault = |message: &str, class| unreadable(format!("{message}; {FORM}"), start, class);
        let members = call
            .as_object()
            .ok_or_else(|| fault("a call is an object", FailureClass::WrongType))?;
        if members.get("name").is_none() {
            return Err(fault("a call without `name`", FailureClass::MissingKey));
        }
        calls.begin_call(start);
        let Some(key) = members
            .get("parameters")
            .or_else(|| members.get("arguments"))
        else {
            calls.copy(text, start..call.end);
            return Ok(call.end);
        };
        calls.copy(text, start..key.key_start);
        calls.literal("\"arguments\"", key.key_start);
        let after_key = text[key.key_start..key.value.start]
            .rfind(':')
            .map_or(key.value.start, |colon| key.key_start + colon);
        calls.copy(text, after_key..call.end);
        Ok(call.end)
    }

    fn layout(&self) -> Option<CallLayout> {
        Some(CallLayout::Object {
            open: "",
            arguments: "parameters",
            close: "",
            separator: "; ",
        })
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        let call = |(name, arguments): &(&str, &Value)| {
            json_line(&json!({"name": name, "parameters": arguments})).ok()
        };
        Some(
            calls
                .iter()
                .map(call)
                .collect::<Option<Vec<_>>>()?
                .join("; "),
        )
    }
}
