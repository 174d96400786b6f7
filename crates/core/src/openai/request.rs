//! Parses request bodies. Unsupported fields are rejected by name, never ignored: a client that
//! asks for top-k must not silently get none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

mod formats; // response formats
mod responses; // bodies of `/v1/responses`
mod texts; // prompts of `/v1/completions`
mod tokenize; // bodies of `/tokenize`
mod tools; // tools and `tool_choice`

use super::fields::{known, shown, unsupported, wrong};
use super::turns::message;
use super::{Api, ApiError};
use crate::config::{ThinkingBudget, ThinkingEnd};
use crate::task::{TEMPLATE_KWARGS, refused_kwarg};
use crate::text::Message;
pub use tokenize::TokenizeRequest;

/// Limit per prompt.
const MAX_SAMPLES: u64 = 128;
/// Limit per request.
const MAX_PROMPTS: usize = 128;
/// Limit per conversation.
const MAX_MESSAGES: usize = 4096;
/// OpenAI's limit.
const MAX_TOP_LOG_PROBS: u64 = 20;
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
/// A lower temperature would make logits infinite.
const MIN_TEMPERATURE: f64 = 0.01;
const MAX_REPETITION_PENALTY: f64 = 100.0;
/// A wish about style that no chat template knows; OpenAI's Agents SDK sends it by default.
const VERBOSITIES: [Option<&str>; 3] = [Some("low"), Some("medium"), Some("high")];

#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    /// Name in `/v1/models`.
    pub model: String,
    pub prompt: Prompt,
    /// Completions per prompt.
    pub samples: usize,
    /// Index of the first sample in the seed's random stream (our extension).
    pub first_sample: u32,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// 0 only with `echo`.
    pub max_tokens: Option<usize>,
    /// Limit of a think block (vLLM's `thinking_token_budget`, always forced).
    pub thinking_budget: Option<ThinkingBudget>,
    /// 0 is greedy.
    pub temperature: f64,
    pub log_probs: bool,
    /// Whether to return log-probs of prompt tokens (vLLM's extension).
    pub prompt_log_probs: bool,
    /// Whether a completion begins with its prompt.
    pub echo: bool,
    /// Whether text prompts get the tokenizer's special tokens, such as BOS.
    pub add_special_tokens: bool,
    /// Number of alternatives per token.
    pub top_log_probs: usize,
    /// Nucleus sampling; 1: off.
    pub top_p: f64,
    /// 0: off.
    pub top_k: usize,
    /// Minimum probability relative to the most likely token; 0: off.
    pub min_p: f64,
    /// Penalty for tokens in prompt or completion; 1: off.
    pub repetition_penalty: f64,
    /// Minimum before a stop token.
    pub min_tokens: usize,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub stream: bool,
    /// Whether to send a final chunk with token counts.
    pub include_usage: bool,
    /// Stop tokens do not end completions: for benchmarks (vLLM's extension).
    pub ignore_eos: bool,
    /// Choices contain `token_ids` including the stop token, and `logprobs` covers all of them
    /// (vLLM's extension).
    pub token_ids: bool,
    /// Whether choices have the confidence of each value of a JSON answer (our extension).
    pub confidence: bool,
    /// Under what; `None`: what constrains the completion.
    pub confidence_schema: Option<Box<AnswerSchema>>,
    pub response_format: ResponseFormat,
    pub format_field: &'static str,
    /// Fields of `/v1/responses` echoed in answers.
    pub repeated: Map<String, Json>,
}

/// A schema of answers that does not constrain them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerSchema {
    pub schema: Json,
    /// What its relative references start from.
    pub address: String,
    /// Other schemas that it refers to, by address.
    pub references: BTreeMap<String, Json>,
    pub assert_formats: bool,
    /// Whether answers to text prompts may begin with a think block.
    pub thinking: bool,
}

impl Default for AnswerSchema {
    fn default() -> Self {
        Self {
            schema: Json::Null,
            address: "task:///schema.json".to_owned(),
            references: BTreeMap::new(),
            assert_formats: true,
            thinking: false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedTemplate {
    /// Switches reasoning; `None`: the server's default.
    pub thinking: Option<bool>,
    /// Reasoning level, for templates that use one.
    pub effort: Option<String>,
    /// Further template variables.
    pub kwargs: Map<String, Json>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    Chat {
        messages: Vec<Message>,
        tools: Option<Tools>,
        template: Box<RequestedTemplate>,
    },
    /// Used verbatim, without a chat template.
    Texts(Vec<TextPrompt>),
}

impl Prompt {
    pub fn count(&self) -> usize {
        match self {
            Self::Chat { .. } => 1,
            Self::Texts(texts) => texts.len(),
        }
    }
}

/// Functions the model may call; not empty.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Tools {
    /// List in OpenAI's schema, without `strict`, which no chat template knows.
    pub list: Json,
    /// Functions whose arguments must match their schema.
    pub strict: Vec<String>,
    /// Functions that may be called; empty: all.
    pub allowed: Vec<String>,
    pub choice: ToolChoice,
    pub parallel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ToolChoice {
    Auto,
    Required,
    Function(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPrompt {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema(Json),
    /// Of a completion's confidence alone.
    Described(Box<AnswerSchema>),
}

impl GenerationRequest {
    /// Parses a body of `/v1/chat/completions`, `/v1/completions` or `/v1/responses`.
    pub fn parse(api: Api, body: &[u8]) -> Result<Self, ApiError> {
        let body = object(body)?;
        let fields = Fields::of(&body);
        match api {
            Api::Chat | Api::Completions => Self::parse_fields(api, &fields),
            Api::Responses => {
                fields.check_names(api)?;
                fields.responses_request()
            }
        }
    }

    fn parse_fields(api: Api, fields: &Fields<'_>) -> Result<Self, ApiError> {
        fields.check_names(api)?;
        fields.refuse_what_is_not_done()?;
        let stream = fields.flag("stream")?;
        let options = fields.object("stream_options")?;
        if let Some(options) = options {
            if !stream {
                return Err(ApiError::invalid(
                    "stream_options",
                    "`stream_options` needs `stream`: true",
                ));
            }
            known(
                options,
                "stream_options",
                &[
                    "include_usage",
                    "include_obfuscation",
                    "continuous_usage_stats",
                ],
            )?;
            let name = "continuous_usage_stats";
            if options.get(name) == Some(&Json::Bool(true)) {
                return Err(unsupported(&format!("stream_options.{name}")));
            }
        }
        let include_usage = match options.and_then(|options| options.get("include_usage")) {
            None | Some(Json::Null) => false,
            Some(Json::Bool(included)) => *included,
            Some(_) => return Err(wrong("stream_options.include_usage", "true or false")),
        };
        let (response_format, format_field) = fields.response_format()?;
        let echo = fields.echo(stream)?;
        let max_tokens = fields.max_tokens(if echo { 0 } else { 1 })?;
        let stop = fields.stop()?;
        let min_tokens = fields.min_tokens(max_tokens, &stop)?;
        let (confidence, confidence_schema) = fields.confidence()?;
        if confidence && echo {
            let message = "`x_confidence`: an echoed prompt is not an answer: leave `echo` out";
            return Err(ApiError::invalid("x_confidence", message));
        }
        Ok(Self {
            model: fields.model()?,
            samples: fields.whole("n", 1, MAX_SAMPLES)?.unwrap_or(1) as usize,
            first_sample: fields
                .whole("first_sample", 0, u64::from(u32::MAX - MAX_SAMPLES as u32))?
                .unwrap_or(0) as u32,
            seed: fields.seed()?,
            stop,
            max_tokens,
            thinking_budget: fields.thinking_budget()?,
            temperature: fields.temperature()?,
            log_probs: fields.log_probs(api)?,
            prompt_log_probs: fields.prompt_log_probs(stream)?,
            echo,
            add_special_tokens: api == Api::Completions
                && (fields.get("add_special_tokens").is_none()
                    || fields.flag("add_special_tokens")?),
            top_log_probs: fields.top_log_probs(api)?,
            top_k: fields.top_k()?,
            min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.0),
            repetition_penalty: fields.repetition_penalty()?,
            min_tokens,
            top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
            presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            frequency_penalty: fields
                .number("frequency_penalty", -2.0, 2.0)?
                .unwrap_or(0.0),
            stream,
            include_usage,
            ignore_eos: fields.flag("ignore_eos")?,
            token_ids: fields.flag("return_token_ids")?,
            confidence,
            confidence_schema,
            response_format,
            format_field,
            prompt: match api {
                Api::Completions => Prompt::Texts(fields.texts()?),
                Api::Chat | Api::Responses => fields.chat()?,
            },
            repeated: Map::new(),
        })
    }
}

/// Fields of both APIs; those from `user` on do not affect sampling.
const NAMES: &str = "model n seed stop max_tokens temperature logprobs stream stream_options ignore_eos return_token_ids x_confidence thinking_token_budget thinking_end response_format top_p top_k \
    min_p min_tokens presence_penalty frequency_penalty repetition_penalty logit_bias best_of length_penalty \
    skip_special_tokens user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention \
    priority request_id guided_json guided_regex guided_choice guided_grammar guided_decoding_backend structured_outputs";
const CHAT_NAMES: &str = "messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls chat_template_kwargs \
    functions function_call modalities reasoning_effort verbosity";
const RESPONSES_NAMES: &str = "model input instructions tools tool_choice parallel_tool_calls text temperature top_p max_output_tokens \
    stream stream_options reasoning top_logprobs include metadata store service_tier user safety_identifier \
    prompt_cache_key prompt_cache_retention truncation previous_response_id conversation background prompt \
    max_tool_calls chat_template_kwargs";
const COMPLETION_NAMES: &str = "prompt echo suffix prompt_logprobs first_sample add_special_tokens";

/// Non-null fields.
struct Fields<'b>(BTreeMap<&'b str, &'b Json>);

fn object(body: &[u8]) -> Result<Map<String, Json>, ApiError> {
    let body: Json = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("", format!("the body is not valid JSON: {error}")))?;
    match body {
        Json::Object(body) => Ok(body),
        _ => Err(ApiError::invalid("", "the body is not a JSON object")),
    }
}

impl<'b> Fields<'b> {
    /// Drops nulls, which mean absent.
    fn of(body: &'b Map<String, Json>) -> Self {
        let given = body.iter().filter(|(_, value)| !value.is_null());
        Self(given.map(|(name, value)| (name.as_str(), value)).collect())
    }

    fn get(&self, name: &str) -> Option<&'b Json> {
        self.0.get(name).copied()
    }

    fn check_names(&self, api: Api) -> Result<(), ApiError> {
        let (common, own) = match api {
            Api::Chat => (NAMES, CHAT_NAMES),
            Api::Completions => (NAMES, COMPLETION_NAMES),
            Api::Responses => ("", RESPONSES_NAMES),
        };
        let is_known = |name: &str| {
            common
                .split(' ')
                .chain(own.split(' '))
                .any(|known| known == name)
        };
        match self.0.keys().find(|name| !is_known(name)) {
            Some(name) => Err(ApiError::invalid(
                &shown(name),
                format!("unknown field `{}`", shown(name)),
            )),
            None => Ok(()),
        }
    }

    /// Accepts unsupported fields only at their neutral value.
    fn refuse_what_is_not_done(&self) -> Result<(), ApiError> {
        let number =
            |value: &Json, none: &[f64]| value.as_f64().is_some_and(|value| none.contains(&value));
        let empty = |value: &Json| value.as_object().is_some_and(Map::is_empty);
        for (name, &value) in &self.0 {
            let (is_none, why) = match *name {
                "length_penalty" => (number(value, &[1.0]), "only 1 is supported"),
                "guided_regex" | "guided_choice" | "guided_grammar" => (
                    false,
                    "not supported: use `response_format` or `guided_json`",
                ),
                "logit_bias" => (empty(value), "not supported"),
                "best_of" => (
                    self.get("n").map_or(number(value, &[1.0]), |n| n == value),
                    "only the value of `n` is supported",
                ),
                "skip_special_tokens" => (*value == Json::Bool(true), "only true is supported"),
                "modalities" => (
                    *value == serde_json::json!(["text"]),
                    "only [\"text\"] is supported",
                ),
                "functions" | "function_call" => (false, "use `tools`"),
                "verbosity" => (VERBOSITIES.contains(&value.as_str()), "low, medium or high"),
                "suffix" => (false, "not supported"),
                _ => continue,
            };
            if !is_none {
                return Err(ApiError {
                    code: Some("unsupported_parameter"),
                    ..ApiError::invalid(name, format!("`{name}`: {why}"))
                });
            }
        }
        Ok(())
    }

    fn model(&self) -> Result<String, ApiError> {
        let name = self
            .text("model")?
            .ok_or_else(|| ApiError::invalid("model", "`model` is missing"))?;
        Ok(name.to_owned())
    }

    fn text(&self, name: &str) -> Result<Option<&'b str>, ApiError> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| wrong(name, "a text")))
            .transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        self.get(name).map_or(Ok(false), |value| {
            value.as_bool().ok_or_else(|| wrong(name, "true or false"))
        })
    }

    fn object(&self, name: &str) -> Result<Option<&'b Map<String, Json>>, ApiError> {
        self.get(name)
            .map(|value| value.as_object().ok_or_else(|| wrong(name, "an object")))
            .transpose()
    }

    fn whole(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .filter(|value| (least..=most).contains(value))
        {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(
                name,
                &format!("a whole number from {least} to {most}"),
            )),
        }
    }

    fn seed(&self) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get("seed") else {
            return Ok(None);
        };
        let seed = value
            .as_u64()
            .or_else(|| value.as_i64().map(i64::cast_unsigned));
        seed.map(Some)
            .ok_or_else(|| wrong("seed", "a whole number of 64 bits"))
    }

    fn thinking_budget(&self) -> Result<Option<ThinkingBudget>, ApiError> {
        let end = match self.get("thinking_end") {
            None => Some(ThinkingEnd::Force),
            Some(value) => ThinkingEnd::deserialize(value).ok(),
        };
        let end = end.ok_or_else(|| wrong("thinking_end", "`force` or `truncate`"))?;
        let most = self.whole("thinking_token_budget", 1, u64::from(u32::MAX))?;
        if most.is_none() && self.get("thinking_end").is_some() {
            return Err(ApiError::invalid(
                "thinking_end",
                "`thinking_end` needs `thinking_token_budget`",
            ));
        }
        Ok(most.map(|tokens| ThinkingBudget {
            max_tokens: tokens as usize,
            end,
        }))
    }

    fn max_tokens(&self, least: u64) -> Result<Option<usize>, ApiError> {
        let tokens = |name| self.whole(name, least, u64::from(u32::MAX));
        let (old, new) = (tokens("max_tokens")?, tokens("max_completion_tokens")?);
        if old.is_some() && new.is_some() && old != new {
            let message = "`max_completion_tokens` and `max_tokens` differ: give one of them";
            return Err(ApiError::invalid("max_completion_tokens", message));
        }
        Ok(new.or(old).map(|tokens| tokens as usize))
    }

    fn min_tokens(&self, most: Option<usize>, stop: &[String]) -> Result<usize, ApiError> {
        const NAME: &str = "min_tokens";
        let least = self.whole(NAME, 0, u64::from(u32::MAX))?.unwrap_or(0) as usize;
        if most.is_some_and(|most| least > most) {
            return Err(ApiError::invalid(
                NAME,
                "`min_tokens` is more than `max_tokens`",
            ));
        }
        match least > 0 && !stop.is_empty() {
            true => Err(ApiError::invalid(
                NAME,
                "`min_tokens` cannot be combined with `stop`: a text may come before them",
            )),
            false => Ok(least),
        }
    }

    /// -1 also means off.
    fn top_k(&self) -> Result<usize, ApiError> {
        match self.get("top_k").and_then(Json::as_i64) {
            Some(-1) => Ok(0),
            _ => Ok(self.whole("top_k", 0, u64::from(u32::MAX))?.unwrap_or(0) as usize),
        }
    }

    fn repetition_penalty(&self) -> Result<f64, ApiError> {
        const NAME: &str = "repetition_penalty";
        let penalty = self
            .number(NAME, 0.0, MAX_REPETITION_PENALTY)?
            .unwrap_or(1.0);
        match penalty > 0.0 {
            true => Ok(penalty),
            false => Err(wrong(NAME, "above 0: 1 penalizes nothing")),
        }
    }

    fn temperature(&self) -> Result<f64, ApiError> {
        let Some(value) = self.get("temperature") else {
            return Ok(1.0);
        };
        let allowed = |value: &f64| *value == 0.0 || (MIN_TEMPERATURE..=2.0).contains(value);
        value
            .as_f64()
            .filter(allowed)
            .ok_or_else(|| wrong("temperature", "0, which is greedy, or from 0.01 to 2"))
    }

    fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value
            .as_f64()
            .filter(|value| (least..=most).contains(value))
        {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(name, &format!("a number from {least} to {most}"))),
        }
    }

    fn top_log_probs(&self, api: Api) -> Result<usize, ApiError> {
        let name = if api == Api::Completions {
            "logprobs"
        } else {
            "top_logprobs"
        };
        let count = self.whole(name, 0, MAX_TOP_LOG_PROBS)?.unwrap_or(0) as usize;
        if count > 0 && api == Api::Chat && !self.flag("logprobs")? {
            return Err(ApiError::invalid(
                name,
                "`top_logprobs` needs `logprobs`: true",
            ));
        }
        Ok(count)
    }

    fn template(&self, effort: Option<&Json>) -> Result<Box<RequestedTemplate>, ApiError> {
        const SWITCH: &str = "enable_thinking";
        const NAME: &str = "chat_template_kwargs.enable_thinking";
        let mut kwargs = self.object(TEMPLATE_KWARGS)?.cloned().unwrap_or_default();
        let flag = |value: Json| value.as_bool().ok_or_else(|| wrong(NAME, "true or false"));
        let thinking = kwargs.remove(SWITCH).filter(|value| !value.is_null());
        let thinking = thinking.map(flag).transpose()?;
        if let Some((name, why)) = kwargs
            .keys()
            .find_map(|name| Some((name, refused_kwarg(name)?)))
        {
            return Err(ApiError::invalid(
                TEMPLATE_KWARGS,
                format!("`{TEMPLATE_KWARGS}.{name}` {why}"),
            ));
        }
        let requested = |thinking, effort| {
            Ok(Box::new(RequestedTemplate {
                thinking,
                effort,
                kwargs,
            }))
        };
        let Some(effort) = effort else {
            return requested(thinking, None);
        };
        let by_effort = match effort.as_str() {
            Some("none") => false,
            Some("minimal" | "low" | "medium" | "high" | "xhigh") => true,
            _ => {
                return Err(wrong(
                    "reasoning_effort",
                    "none, minimal, low, medium, high or xhigh",
                ));
            }
        };
        if thinking.is_some_and(|thinking| thinking != by_effort) {
            let message = format!("`reasoning_effort` and `{NAME}` differ: give one of them");
            return Err(ApiError::invalid("reasoning_effort", message));
        }
        let effort = effort.as_str().filter(|_| by_effort).map(str::to_owned);
        requested(Some(by_effort), effort)
    }

    fn log_probs(&self, api: Api) -> Result<bool, ApiError> {
        match api {
            Api::Chat | Api::Responses => self.flag("logprobs"),
            Api::Completions => Ok(self.get("logprobs").is_some()),
        }
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let expected = || {
            wrong(
                "stop",
                &format!(
                    "a text, or a list of at most {MAX_STOPS}, of 1 to {MAX_STOP_BYTES} bytes each"
                ),
            )
        };
        let Some(value) = self.get("stop") else {
            return Ok(Vec::new());
        };
        let texts = match value {
            Json::String(text) => vec![text.clone()],
            Json::Array(texts) if texts.len() <= MAX_STOPS => texts
                .iter()
                .map(|text| text.as_str().map(str::to_owned).ok_or_else(expected))
                .collect::<Result<Vec<_>, _>>()?,
            _ => return Err(expected()),
        };
        match texts
            .iter()
            .all(|text| (1..=MAX_STOP_BYTES).contains(&text.len()))
        {
            true => Ok(texts),
            false => Err(expected()),
        }
    }

    fn chat(&self) -> Result<Prompt, ApiError> {
        let messages = match self.get("messages") {
            None => return Err(ApiError::invalid("messages", "`messages` is missing")),
            Some(Json::Array(messages)) if (1..=MAX_MESSAGES).contains(&messages.len()) => messages,
            Some(_) => {
                return Err(wrong(
                    "messages",
                    &format!("a list of 1 to {MAX_MESSAGES} messages"),
                ));
            }
        };
        let messages = messages
            .iter()
            .enumerate()
            .map(|(index, turn)| message(&format!("messages.{index}"), turn));
        let tools = self.tools_of(self.get("tools"), self.get("tool_choice"))?;
        let template = self.template(self.get("reasoning_effort"))?;
        Ok(Prompt::Chat {
            messages: messages.collect::<Result<_, _>>()?,
            tools,
            template,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
