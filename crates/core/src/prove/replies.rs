//! What a server's answer holds, and how its text compares with the run's.

use serde_json::{Value, json};

use super::RunAnswer;
use crate::text::{ThinkMarks, Tokenizer};

/// What a server told of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Ids(Vec<u32>),
    Count(usize),
}

/// An answer with its parts.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    /// As the scorer reads it: calls as a message in JSON.
    pub(super) scored: String,
    pub(super) content: String,
    pub(super) has_calls: bool,
    pub(super) is_cut_at_limit: bool,
    pub(super) prompt: Option<Told>,
}

impl Reply {
    pub(super) fn read(document: &Value) -> Result<Self, String> {
        let choice = &document["choices"][0];
        let (message, text) = (&choice["message"], &choice["text"]);
        if !message.is_object() && !text.is_string() {
            return Err("the answer has no choices with a text".to_owned());
        }
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let content = match text.as_str().filter(|text| !text.is_empty()) {
            Some(text) => text.to_owned(),
            None => string(&message["content"]),
        };
        let calls = message["tool_calls"].as_array();
        let calls: Vec<Value> = calls.into_iter().flatten().map(call).collect();
        let has_calls = !calls.is_empty();
        let scored = match has_calls {
            true => json!({"content": content, "tool_calls": calls}).to_string(),
            false => content.clone(),
        };
        let ids = token_ids(&document["prompt_token_ids"]).map(Told::Ids);
        let count = document["usage"]["prompt_tokens"].as_u64();
        Ok(Self {
            scored,
            content,
            has_calls,
            is_cut_at_limit: choice["finish_reason"] == "length",
            prompt: ids.or(count.map(|count| Told::Count(count as usize))),
        })
    }

    /// Whether the text is the run's answer, or leaves it at a tie; `None` for calls that the server parsed, which have
    /// no text. `tie`: how much likelier a token may be than the second to change places with it, nats.
    pub(super) fn is_alike(
        &self,
        answer: &RunAnswer,
        tokenizer: &Tokenizer,
        tie: f32,
    ) -> Option<bool> {
        if self.has_calls {
            return None;
        }
        let marks = tokenizer.think_marks();
        let text = &answer.record.completion;
        let expected = spoken(text, marks).trim();
        let found = spoken(&self.content, marks).trim();
        if expected == found {
            return Some(true);
        }
        // Both were cut while they thought, and the server has the thoughts apart.
        if found.is_empty() && self.is_cut_at_limit && answer.record.truncated {
            return None;
        }
        let common = common_bytes(expected, found);
        let from = text.trim_end().len() - expected.len() + common;
        Some(leaves_at_tie(answer, from, tokenizer, tie))
    }
}

/// Whether the token of the run's answer that has the byte `at` was hardly likelier than the second.
fn leaves_at_tie(answer: &RunAnswer, at: usize, tokenizer: &Tokenizer, tie: f32) -> bool {
    let mut end = 0;
    for (index, margin) in answer.margins.iter().enumerate() {
        let ids = &answer.token_ids[..=index];
        end = tokenizer.decode(ids, true).map_or(end, |text| text.len());
        let is_last = index + 1 == answer.margins.len();
        if end > at || is_last {
            return *margin < tie;
        }
    }
    false
}

/// Without its id, and its arguments as JSON is written here: a stream has other white space.
fn call(call: &Value) -> Value {
    let function = &call["function"];
    let arguments = function["arguments"].as_str().unwrap_or_default();
    let arguments = match serde_json::from_str::<Value>(arguments) {
        Ok(value) => value.to_string(),
        Err(_) => arguments.to_owned(),
    };
    json!({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
}

/// The two likeliest tokens, this close, may change places by rounding alone.
pub(super) const TIE_NATS: f32 = 0.1;

fn common_bytes(one: &str, other: &str) -> usize {
    let pairs = one.bytes().zip(other.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

/// An answer without its think block.
pub(super) fn spoken<'t>(text: &'t str, marks: &ThinkMarks) -> &'t str {
    match text.rfind(marks.end()) {
        Some(at) => &text[at + marks.end().len()..],
        None => text,
    }
}

pub(super) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let ids = value.as_array().filter(|ids| !ids.is_empty())?;
    ids.iter()
        .map(|id| u32::try_from(id.as_u64()?).ok())
        .collect()
}

/// A sampled token with its log-prob, and its id where the server tells it.
#[derive(Debug, Clone)]
pub(super) struct SampledToken {
    pub(super) id: Option<u32>,
    pub(super) text: String,
    pub(super) log_prob: f64,
}

/// Log-probs of sampled tokens: `content` of chat and llama.cpp, `tokens` and `token_logprobs` of completions.
pub(super) fn sampled_tokens(document: &Value) -> Option<Vec<SampledToken>> {
    let found = &document["choices"][0]["logprobs"];
    if let Some(tokens) = found["content"].as_array() {
        return tokens
            .iter()
            .map(|token| {
                Some(SampledToken {
                    id: token["id"].as_u64().and_then(|id| u32::try_from(id).ok()),
                    text: token["token"].as_str().unwrap_or_default().to_owned(),
                    log_prob: token["logprob"].as_f64()?,
                })
            })
            .collect();
    }
    let (texts, values) = (
        found["tokens"].as_array()?,
        found["token_logprobs"].as_array()?,
    );
    texts
        .iter()
        .zip(values)
        .map(|(text, value)| {
            let text = text.as_str().unwrap_or_default();
            // vLLM's --return-tokens-as-token-ids
            let id = text.strip_prefix("token_id:");
            Some(SampledToken {
                id: id.and_then(|id| id.parse().ok()),
                text: text.to_owned(),
                log_prob: value.as_f64()?,
            })
        })
        .collect()
}

/// Log-probs of given tokens from `from` on, by `prompt_logprobs` (vLLM, ours) or `echo`.
pub(super) fn read_tokens(document: &Value, ids: &[u32], from: usize) -> Option<Vec<f64>> {
    let choice = &document["choices"][0];
    if let Some(told) = choice["prompt_logprobs"].as_array() {
        let value = |(place, id): (&Value, &u32)| place[&id.to_string()]["logprob"].as_f64();
        let is_whole = told.len() == ids.len();
        return told
            .iter()
            .zip(ids)
            .skip(from)
            .map(value)
            .collect::<Option<Vec<f64>>>()
            .filter(|_| is_whole);
    }
    let told = choice["logprobs"]["token_logprobs"].as_array()?;
    // One more was sampled where the server needs at least one.
    let is_whole = told.len() == ids.len() || told.len() == ids.len() + 1;
    let values = told.get(from..ids.len()).filter(|_| is_whole)?;
    values.iter().map(Value::as_f64).collect()
}
