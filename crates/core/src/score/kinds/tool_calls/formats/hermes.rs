//! Hermes, Qwen2.5 and Qwen3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`; and a JSON
//! list of calls, for templates with other formats. Both read both, in place
//! (`crate::score::kinds::tool_calls::calls`).

use serde_json::{Value, json};

use crate::score::kinds::tool_calls::syntax::{
    ArgumentTypes, CLOSE, CallLayout, CallList, CallSyntax, OPEN, Read,
};
use crate::text::json_line;

#[derive(Debug)]
pub(crate) struct Hermes {
    /// Blocks instead of a list.
    in_blocks: bool,
}

pub(crate) static HERMES: Hermes = Hermes { in_blocks: true };
pub(crate) static JSON: Hermes = Hermes { in_blocks: false };

impl CallSyntax for Hermes {
    fn name(&self) -> &'static str {
        if self.in_blocks { "hermes" } else { "json" }
    }

    fn openings(&self) -> &'static [&'static str] {
        &[OPEN]
    }

    fn is_in_place(&self) -> bool {
        true
    }

    fn read_block(
        &self,
        _text: &str,
        at: usize,
        _types: &ArgumentTypes,
        _calls: &mut CallList,
    ) -> Read<usize> {
        Ok(at)
    }

    fn layout(&self) -> Option<CallLayout> {
        Some(match self.in_blocks {
            true => CallLayout::Object {
                open: OPEN,
                arguments: "arguments",
                close: CLOSE,
                separator: "",
            },
            false => CallLayout::List { open: "" },
        })
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        let call =
            |(name, arguments): &(&str, &Value)| json!({"name": name, "arguments": arguments});
        match self.in_blocks {
            true => {
                let block = |listed| {
                    Some(format!(
                        "<tool_call>\n{}\n</tool_call>",
                        json_line(&call(listed)).ok()?
                    ))
                };
                Some(
                    calls
                        .iter()
                        .map(block)
                        .collect::<Option<Vec<_>>>()?
                        .join("\n"),
                )
            }
            false => json_line(&calls.iter().map(call).collect()).ok(),
        }
    }
}
