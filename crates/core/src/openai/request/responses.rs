//! Parses `/v1/responses`. Nothing is stored: references to earlier answers are rejected.

use serde_json::{Map, Value as Json, json};

use super::super::ApiError;
use super::super::fields::{known, without_nulls, wrong};
use super::super::turns::message;
use super::tools::unknown_tool;
use super::{
    Fields, GenerationRequest, MAX_MESSAGES, MAX_TOP_LOG_PROBS, Prompt, ResponseFormat, VERBOSITIES,
};
use crate::text::Message;

/// Fields echoed in answers.
const REPEATED: [&str; 11] = [
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
];

impl Fields<'_> {
    pub(super) fn responses_request(&self) -> Result<GenerationRequest, ApiError> {
        self.refuse_what_is_stored()?;
        // True is OpenAI's default, which many clients send. The answer says that nothing is stored.
        self.flag("store")?;
        let stream = self.flag("stream")?;
        if let Some(options) = self.object("stream_options")? {
            known(options, "stream_options", &["include_obfuscation"])?;
        }
        let repeated = REPEATED
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.get(name)?.clone())));
        Ok(GenerationRequest {
            model: self.model()?,
            samples: 1,
            first_sample: 0,
            seed: None,
            stop: Vec::new(),
            thinking_budget: None,
            max_tokens: self
                .whole("max_output_tokens", 1, u64::from(u32::MAX))?
                .map(|tokens| tokens as usize),
            temperature: self.temperature()?,
            prompt_log_probs: false,
            echo: false,
            add_special_tokens: false,
            log_probs: self.includes_log_probs()?,
            top_log_probs: self
                .whole("top_logprobs", 0, MAX_TOP_LOG_PROBS)?
                .unwrap_or(0) as usize,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            min_tokens: 0,
            top_p: self.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            stream,
            include_usage: true,
            ignore_eos: false,
            token_ids: false,
            confidence: false,
            confidence_schema: None,
            response_format: self.text_format()?,
            format_field: "text.format",
            prompt: self.conversation()?,
            repeated: repeated.collect(),
        })
    }

    fn refuse_what_is_stored(&self) -> Result<(), ApiError> {
        let off = |value: &Json| *value == Json::Bool(false);
        for (name, &value) in &self.0 {
            let why = match *name {
                "previous_response_id" | "conversation" => {
                    "answers are not stored: send the earlier turns in `input`"
                }
                "prompt" => "prompts are not stored: send `instructions` and `input`",
                "background" if !off(value) => {
                    "answers are not stored: leave it out, or send false"
                }
                "truncation" if value != "disabled" => "only \"disabled\" is supported",
                "max_tool_calls" => "not supported: the client calls the tools",
                _ => continue,
            };
            let code = Some("unsupported_parameter");
            return Err(ApiError {
                code,
                ..ApiError::invalid(name, format!("`{name}`: {why}"))
            });
        }
        Ok(())
    }

    fn includes_log_probs(&self) -> Result<bool, ApiError> {
        const LOG_PROBS: &str = "message.output_text.logprobs";
        let Some(value) = self.get("include") else {
            return Ok(self.get("top_logprobs").is_some());
        };
        let expected = || {
            wrong(
                "include",
                "a list of \"message.output_text.logprobs\" alone",
            )
        };
        let names = value.as_array().ok_or_else(expected)?;
        // Think blocks are sent as text: nothing to encrypt.
        if !names
            .iter()
            .all(|name| name == LOG_PROBS || name == "reasoning.encrypted_content")
        {
            return Err(expected());
        }
        Ok(self.get("top_logprobs").is_some() || names.iter().any(|name| name == LOG_PROBS))
    }

    fn text_format(&self) -> Result<ResponseFormat, ApiError> {
        let Some(text) = self.object("text")? else {
            return Ok(ResponseFormat::Text);
        };
        known(text, "text", &["format", "verbosity"])?;
        let verbosity = text.get("verbosity").filter(|value| !value.is_null());
        if verbosity.is_some_and(|value| !VERBOSITIES.contains(&value.as_str())) {
            return Err(wrong("text.verbosity", "low, medium or high"));
        }
        let format = match text.get("format") {
            None | Some(Json::Null) => return Ok(ResponseFormat::Text),
            Some(Json::Object(format)) => format,
            Some(_) => return Err(wrong("text.format", "an object")),
        };
        known(
            format,
            "text.format",
            &["type", "name", "schema", "strict", "description"],
        )?;
        match (
            format.get("type").and_then(Json::as_str),
            format.get("schema"),
        ) {
            (Some("text"), _) => Ok(ResponseFormat::Text),
            (Some("json_object"), _) => Ok(ResponseFormat::JsonObject),
            (Some("json_schema"), Some(schema @ Json::Object(_))) => {
                Ok(ResponseFormat::JsonSchema(schema.clone()))
            }
            (Some("json_schema"), _) => Err(wrong("text.format.schema", "a JSON Schema")),
            _ => Err(wrong(
                "text.format.type",
                "\"text\", \"json_object\" or \"json_schema\"",
            )),
        }
    }

    fn conversation(&self) -> Result<Prompt, ApiError> {
        let mut turns = Turns::default();
        if let Some(instructions) = self.text("instructions")? {
            turns.messages.push(Message::new("system", instructions));
        }
        match self.get("input") {
            None => return Err(ApiError::invalid("input", "`input` is missing")),
            Some(Json::String(text)) => turns.messages.push(Message::new("user", text.as_str())),
            Some(Json::Array(items)) if (1..=MAX_MESSAGES).contains(&items.len()) => {
                for (index, item) in items.iter().enumerate() {
                    turns.add(&format!("input.{index}"), item)?;
                }
            }
            Some(_) => {
                return Err(wrong(
                    "input",
                    &format!("a text, or a list of 1 to {MAX_MESSAGES} items"),
                ));
            }
        }
        let effort = match self.object("reasoning")? {
            Some(reasoning) => {
                known(
                    reasoning,
                    "reasoning",
                    &["effort", "summary", "generate_summary"],
                )?;
                reasoning.get("effort").filter(|effort| !effort.is_null())
            }
            None => None,
        };
        let template = self.template(effort)?;
        let tools = self.get("tools").map(nested_tools).transpose()?;
        let choice = self.get("tool_choice").map(nested_choice);
        let tools = self.tools_of(tools.as_ref(), choice.as_ref())?;
        Ok(Prompt::Chat {
            messages: turns.finish()?,
            tools,
            template,
        })
    }
}

/// Joins the items of a conversation into turns.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// The assistant message being built: position of its first item, and its chat fields.
    answer: Option<(String, Map<String, Json>)>,
}

impl Turns {
    fn add(&mut self, at: &str, item: &Json) -> Result<(), ApiError> {
        let Json::Object(fields) = item else {
            return Err(wrong(at, "an object"));
        };
        let fields = &without_nulls(fields);
        let kind = fields
            .get("type")
            .and_then(Json::as_str)
            .unwrap_or("message");
        let text = |name: &str| match fields.get(name) {
            Some(Json::String(text)) => Ok(text.clone()),
            _ => Err(wrong(&format!("{at}.{name}"), "a text")),
        };
        match kind {
            "message" => {
                known(
                    fields,
                    at,
                    &["type", "role", "content", "id", "status", "phase"],
                )?;
                let (role, content) = (
                    text("role")?,
                    text_of(&format!("{at}.content"), fields.get("content"))?,
                );
                if role == "assistant" {
                    if self
                        .answer
                        .as_ref()
                        .is_some_and(|(_, answer)| answer.contains_key("content"))
                    {
                        self.close()?;
                    }
                    self.answer(at).insert("content".to_owned(), content.into());
                    return Ok(());
                }
                self.close()?;
                self.messages
                    .push(message(at, &json!({"role": role, "content": content}))?);
            }
            "function_call" => {
                known(
                    fields,
                    at,
                    &["type", "call_id", "name", "arguments", "id", "status"],
                )?;
                let function = json!({"name": text("name")?, "arguments": text("arguments")?});
                let call =
                    json!({"id": text("call_id")?, "type": "function", "function": function});
                let calls = self
                    .answer(at)
                    .entry("tool_calls")
                    .or_insert_with(|| json!([]));
                calls
                    .as_array_mut()
                    .into_iter()
                    .for_each(|calls| calls.push(call.clone()));
            }
            "function_call_output" => {
                known(fields, at, &["type", "call_id", "output", "id", "status"])?;
                self.close()?;
                let content = text_of(&format!("{at}.output"), fields.get("output"))?;
                let turn =
                    json!({"role": "tool", "content": content, "tool_call_id": text("call_id")?});
                self.messages.push(message(at, &turn)?);
            }
            "reasoning" => {
                known(
                    fields,
                    at,
                    &[
                        "type",
                        "id",
                        "summary",
                        "content",
                        "encrypted_content",
                        "status",
                    ],
                )?;
                self.close()?;
                let content = fields.get("content").filter(|content| !content.is_null());
                let thought = content.map_or_else(
                    || Ok(String::new()),
                    |content| text_of(&format!("{at}.content"), Some(content)),
                )?;
                if !thought.is_empty() {
                    self.answer(at)
                        .insert("reasoning_content".to_owned(), thought.into());
                }
            }
            _ => {
                return Err(wrong(
                    &format!("{at}.type"),
                    "message, function_call, function_call_output or reasoning",
                ));
            }
        }
        Ok(())
    }

    fn answer(&mut self, at: &str) -> &mut Map<String, Json> {
        let begun = || {
            (
                at.to_owned(),
                Map::from_iter([("role".to_owned(), "assistant".into())]),
            )
        };
        &mut self.answer.get_or_insert_with(begun).1
    }

    fn close(&mut self) -> Result<(), ApiError> {
        if let Some((at, answer)) = self.answer.take() {
            self.messages.push(message(&at, &Json::Object(answer))?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Message>, ApiError> {
        self.close()?;
        Ok(self.messages)
    }
}

fn text_of(at: &str, content: Option<&Json>) -> Result<String, ApiError> {
    let part = |part: &Json| {
        let is_text = ["input_text", "output_text", "reasoning_text", "text"]
            .iter()
            .any(|kind| part.get("type").is_some_and(|found| found == kind));
        part.get("text")
            .filter(|_| is_text)
            .and_then(Json::as_str)
            .map(str::to_owned)
    };
    match content {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(Json::Array(parts)) => {
            let parts: Option<Vec<String>> = parts.iter().map(part).collect();
            parts
                .map(|parts| parts.concat())
                .ok_or_else(|| wrong(at, "text: other parts are not supported"))
        }
        _ => Err(wrong(at, "a text or a list of text parts")),
    }
}

/// Nests a function's fields as the chat API does.
fn nested_tools(tools: &Json) -> Result<Json, ApiError> {
    let expected = || wrong("tools", "a list of {\"type\": \"function\", \"name\": …}");
    let nested = |tool: &Json| {
        let mut function = tool.as_object().cloned().ok_or_else(expected)?;
        match function.shift_remove("type") {
            Some(kind) if kind == "function" => {
                Ok(json!({"type": "function", "function": function}))
            }
            Some(Json::String(kind)) => Err(unknown_tool(&kind)),
            _ => Err(expected()),
        }
    };
    tools
        .as_array()
        .ok_or_else(expected)?
        .iter()
        .map(nested)
        .collect()
}

fn nested_choice(choice: &Json) -> Json {
    match choice.get("name") {
        Some(name) if choice.get("type").is_some_and(|kind| kind == "function") => {
            json!({"type": "function", "function": {"name": name}})
        }
        _ if choice
            .get("type")
            .is_some_and(|kind| kind == "allowed_tools") =>
        {
            let tools = choice.get("tools").and_then(Json::as_array);
            let tools: Vec<Json> = tools.into_iter().flatten().map(nested_choice).collect();
            let allowed = json!({"mode": choice.get("mode"), "tools": tools});
            json!({"type": "allowed_tools", "allowed_tools": allowed})
        }
        _ => choice.clone(),
    }
}
