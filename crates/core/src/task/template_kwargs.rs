//! `chat_template_kwargs`: further variables of the chat template, named as in transformers and
//! vLLM.

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::error::Read;
use super::toml_section::Section;

/// Key in a task, and in a request to `serve`.
pub const TEMPLATE_KWARGS: &str = "chat_template_kwargs";

/// Set by the program itself.
const OWN_VARIABLES: [&str; 5] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "enable_thinking",
];

/// Why a task or request may not set a template variable; `None` if it may.
pub fn refused_kwarg(name: &str) -> Option<&'static str> {
    match name {
        "enable_thinking" => Some("is set by `thinking`"),
        _ if OWN_VARIABLES.contains(&name) => Some("is set by the program"),
        _ => None,
    }
}

pub(crate) fn read_template_kwargs(top: &Section<'_>) -> Read<Map<String, Value>> {
    let Some(table) = top.table(TEMPLATE_KWARGS)? else {
        return Ok(Map::new());
    };
    for (name, value) in table {
        let key = format!("{TEMPLATE_KWARGS}.{}", name.get_ref());
        if let Some(why) = refused_kwarg(name.get_ref()) {
            return Err(top.error(&key, name.span().start, why));
        }
        if let DeValue::Datetime(date) = value.get_ref() {
            return Err(top.error(
                &key,
                value.span().start,
                format!("is a date: write it as a text, \"{date}\""),
            ));
        }
    }
    top.json_object(TEMPLATE_KWARGS)
}
