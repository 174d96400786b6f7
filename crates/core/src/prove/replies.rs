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
    pub(super) reasoning: String,
    pub(super) has_calls: bool,
    pub(super) is_cut_at_limit: bool,
    pub(super) prompt: Option<Told>,
    pub(super) is_stream: bool,
    /// A stream with chunks that are not JSON, or without an end.
    pub(super) is_broken: bool,
}

/// How a text compares with the run's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    Same,
    /// It leaves the run's answer where two tokens are as likely.
    Tie,
    /// It goes on where the run's answer ends.
    Longer,
    Shorter,
    Other,
    /// Calls that the server parsed have no text.
    Unknown,
}

impl Likeness {
    pub(super) fn is_alike(self) -> bool {
        matches!(self, Self::Same | Self::Tie)
    }
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
        let reasoning = match &message["reasoning_content"] {
            Value::Null => string(&message["reasoning"]),
            text => string(text),
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
            reasoning,
            has_calls,
            is_cut_at_limit: choice["finish_reason"] == "length",
            prompt: ids.or(count.map(|count| Told::Count(count as usize))),
            is_stream: document["done"].is_boolean(),
            is_broken: document["broken_chunks"].as_u64().unwrap_or(0) > 0
                || document["done"] == false,
        })
    }

    /// `is_raw`: the text as sampled, with the think block that a chat answer has apart. `tie`: how
    /// much likelier a token may be than the second to change places with it, nats.
    pub(super) fn likeness(
        &self,
        answer: &RunAnswer,
        is_raw: bool,
        tokenizer: &Tokenizer,
        tie: f32,
    ) -> Likeness {
        if self.has_calls {
            return Likeness::Unknown;
        }
        let marks = tokenizer.think_marks();
        let text = &answer.record.completion;
        let (expected, found) = match is_raw {
            true => (text.as_str(), self.content.as_str()),
            false => (spoken(text, marks), spoken(&self.content, marks)),
        };
        let (expected, found) = (expected.trim(), found.trim());
        if expected == found {
            return Likeness::Same;
        }
        // Both were cut while they thought, and the server has the thoughts apart.
        if found.is_empty() && self.is_cut_at_limit && answer.record.truncated {
            return Likeness::Unknown;
        }
        let common = common_bytes(expected, found);
        let from = text.trim_end().len() - expected.len() + common;
        if self.leaves_at_tie(answer, from, tokenizer, tie) {
            return Likeness::Tie;
        }
        match common {
            _ if found.is_empty() => Likeness::Other,
            common if common == expected.len() && !answer.record.truncated => Likeness::Longer,
            common if common == found.len() && !self.is_cut_at_limit => Likeness::Shorter,
            _ => Likeness::Other,
        }
    }

    /// Whether the token of the run's answer that has the byte `at` was hardly likelier than the second.
    fn leaves_at_tie(
        &self,
        answer: &RunAnswer,
        at: usize,
        tokenizer: &Tokenizer,
        tie: f32,
    ) -> bool {
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
}

/// Whether a text has a think block that says something; `is_open`: the prompt has opened one.
fn has_thoughts(text: &str, marks: &ThinkMarks, is_open: bool) -> bool {
    let block = match text.split_once(marks.open) {
        Some((before, rest)) if before.trim().is_empty() => rest,
        _ if is_open => text,
        _ => return false,
    };
    let thoughts = block.split(marks.end()).next().unwrap_or_default();
    !thoughts.trim().is_empty()
}

impl Reply {
    /// Whether it has thoughts: apart, or in its text.
    pub(super) fn thinks(&self, marks: &ThinkMarks) -> bool {
        // Some servers leave the opening mark to the template.
        let is_open = self.content.contains(marks.end());
        !self.reasoning.trim().is_empty() || has_thoughts(&self.content, marks, is_open)
    }
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

impl RunAnswer {
    pub(super) fn thinks(&self, marks: &ThinkMarks) -> bool {
        let text = &self.record.completion;
        // The template may have opened the block.
        has_thoughts(text, marks, text.contains(marks.end()))
    }

    /// Whether a token of it was hardly likelier than the second.
    pub(super) fn has_tie(&self) -> bool {
        self.margins.iter().any(|margin| *margin < TIE_NATS)
    }
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
