//! Parses `/tokenize` in vLLM's two forms: text or chat messages.

use serde_json::Value as Json;

use super::{Fields, Prompt, TextPrompt, object};
use crate::openai::ApiError;
use crate::openai::fields::{shown, wrong};

#[derive(Clone, Debug, PartialEq)]
pub struct TokenizeRequest {
    pub model: Option<String>,
    pub prompt: Prompt,
    /// Such as BOS; as in vLLM for texts, not for rendered chats.
    pub add_special_tokens: bool,
    pub token_texts: bool,
}

/// Shared by both forms.
const NAMES: [&str; 3] = ["model", "add_special_tokens", "return_token_strs"];
const CHAT_NAMES: [&str; 7] = [
    "messages",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
    "reasoning_effort",
    "add_generation_prompt",
    "continue_final_message",
];

impl TokenizeRequest {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body = object(body)?;
        let fields = Fields::of(&body);
        let is_chat = fields.get("messages").is_some();
        let own: &[&str] = if is_chat { &CHAT_NAMES } else { &["prompt"] };
        let is_known = |name: &&str| NAMES.contains(name) || own.contains(name);
        if let Some(name) = fields.0.keys().find(|name| !is_known(name)) {
            let name = shown(name);
            return Err(ApiError::invalid(&name, format!("unknown field `{name}`")));
        }
        for (name, only) in [
            ("add_generation_prompt", true),
            ("continue_final_message", false),
        ] {
            if fields.get(name).is_some() && fields.flag(name)? != only {
                return Err(ApiError {
                    code: Some("unsupported_parameter"),
                    ..ApiError::invalid(name, format!("`{name}`: only {only} is supported"))
                });
            }
        }
        let prompt = match fields.get("prompt") {
            _ if is_chat => fields.chat()?,
            Some(Json::String(text)) => Prompt::Texts(vec![TextPrompt::Text(text.clone())]),
            _ => return Err(wrong("prompt", "a text; a chat has `messages` instead")),
        };
        let add_special_tokens = match fields.get("add_special_tokens") {
            None => !is_chat,
            Some(_) => fields.flag("add_special_tokens")?,
        };
        Ok(Self {
            model: fields.text("model")?.map(str::to_owned),
            prompt,
            add_special_tokens,
            token_texts: fields.flag("return_token_strs")?,
        })
    }
}
