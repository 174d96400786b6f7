//! Answers, whole or in chunks, as the API's JSON.

use serde_json::{Value as Json, json};

use crate::config::choices;

/// An API of OpenAI's, or of vLLM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/responses`; answered by [`super::ResponseItems`].
    Responses,
}

choices! {
    Finish {
        /// A stop token or a `stop` string.
        Stop = "stop",
        Length = "length",
        ToolCalls = "tool_calls",
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogProb {
    pub token: String,
    /// `None` for the first token of a prompt.
    pub log_prob: Option<f32>,
    /// Most likely tokens at this position with log-probs, if requested.
    pub alternatives: Vec<(String, f32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    /// A JSON object, or a prefix of one if truncated.
    pub arguments: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<ToolCall>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

impl Usage {
    fn json(self) -> Json {
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }
}

pub(super) fn chat_log_prob(
    TokenLogProb {
        token,
        log_prob,
        alternatives,
    }: &TokenLogProb,
) -> Json {
    let told = |token: &str, log_prob: Option<f32>| {
        // A token may be part of a character.
        let bytes = (!token.contains(char::REPLACEMENT_CHARACTER)).then_some(token.as_bytes());
        json!({"token": token, "logprob": log_prob, "bytes": bytes})
    };
    let mut whole = told(token, *log_prob);
    whole["top_logprobs"] = alternatives
        .iter()
        .map(|(token, log_prob)| told(token, Some(*log_prob)))
        .collect();
    whole
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub api: Api,
    /// Unique, with prefix `chatcmpl-` or `cmpl-`.
    pub id: String,
    pub model: String,
    /// Unix time in seconds.
    pub created: u64,
}

impl Answer {
    pub fn choice(
        &self,
        index: usize,
        Content {
            reasoning,
            text,
            calls,
        }: &Content,
        log_probs: Option<&[TokenLogProb]>,
        finish: Finish,
    ) -> Json {
        let log_probs = log_probs.map(|tokens| self.log_probs(tokens, 0));
        match self.api {
            Api::Chat | Api::Responses => {
                let content = if text.is_empty() && !calls.is_empty() {
                    Json::Null
                } else {
                    text.as_str().into()
                };
                let mut message = json!({"role": "assistant", "content": content, "refusal": null});
                if !reasoning.is_empty() {
                    message["reasoning_content"] = reasoning.as_str().into();
                }
                if !calls.is_empty() {
                    let call = |(number, call): (usize, &ToolCall)| {
                        let function = json!({"name": call.name, "arguments": call.arguments});
                        json!({"id": self.call_id(index, number), "type": "function", "function": function})
                    };
                    message["tool_calls"] = calls.iter().enumerate().map(call).collect();
                }
                json!({"index": index, "message": message, "logprobs": log_probs, "finish_reason": finish.name()})
            }
            Api::Completions => {
                json!({"index": index, "text": text, "logprobs": log_probs, "finish_reason": finish.name()})
            }
        }
    }

    pub fn whole(&self, choices: Vec<Json>, usage: Usage) -> Json {
        let mut whole = self.head(
            if self.api == Api::Chat {
                "chat.completion"
            } else {
                "text_completion"
            },
            choices,
        );
        whole["usage"] = usage.json();
        whole
    }

    /// First chunk of a chat completion; `None` for the completions API.
    pub fn first_chunk(&self, index: usize) -> Option<Json> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        let choice =
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        (self.api == Api::Chat).then(|| self.chunk(vec![choice]))
    }

    /// Chunk of text after `text_bytes` bytes.
    pub fn text_chunk(
        &self,
        index: usize,
        text: &str,
        log_probs: Option<&[TokenLogProb]>,
        text_bytes: usize,
    ) -> Json {
        let log_probs = log_probs.map(|tokens| self.log_probs(tokens, text_bytes));
        self.chunk(vec![match self.api {
            Api::Chat | Api::Responses => {
                json!({"index": index, "delta": {"content": text}, "logprobs": log_probs, "finish_reason": null})
            }
            Api::Completions => {
                json!({"index": index, "text": text, "logprobs": log_probs, "finish_reason": null})
            }
        }])
    }

    /// Chunk of a think block.
    pub fn reasoning_chunk(&self, index: usize, text: &str) -> Json {
        let delta = json!({"reasoning_content": text});
        self.chunk(vec![
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}),
        ])
    }

    pub fn call_chunk(&self, index: usize, number: usize, name: &str) -> Json {
        let function = json!({"name": name, "arguments": ""});
        let id = self.call_id(index, number);
        self.tool_chunk(
            index,
            &json!({"index": number, "id": id, "type": "function", "function": function}),
        )
    }

    pub fn arguments_chunk(&self, index: usize, number: usize, arguments: &str) -> Json {
        self.tool_chunk(
            index,
            &json!({"index": number, "function": {"arguments": arguments}}),
        )
    }

    fn tool_chunk(&self, index: usize, call: &Json) -> Json {
        let delta = json!({"tool_calls": [call]});
        self.chunk(vec![
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}),
        ])
    }

    pub fn last_chunk(&self, index: usize, finish: Finish) -> Json {
        self.chunk(vec![match self.api {
            Api::Chat | Api::Responses => {
                json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish.name()})
            }
            Api::Completions => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish.name()})
            }
        }])
    }

    pub fn usage_chunk(&self, usage: Usage) -> Json {
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage.json();
        chunk
    }

    fn chunk(&self, choices: Vec<Json>) -> Json {
        self.head(
            if self.api == Api::Chat {
                "chat.completion.chunk"
            } else {
                "text_completion"
            },
            choices,
        )
    }

    fn head(&self, object: &str, choices: Vec<Json>) -> Json {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    fn log_probs(&self, tokens: &[TokenLogProb], text_bytes: usize) -> Json {
        match self.api {
            Api::Chat | Api::Responses => {
                json!({"content": tokens.iter().map(chat_log_prob).collect::<Vec<_>>(), "refusal": null})
            }
            Api::Completions => {
                let mut end = text_bytes;
                let start = |token: &TokenLogProb| {
                    end += token.token.len();
                    end - token.token.len()
                };
                let offsets: Vec<usize> = tokens.iter().map(start).collect();
                let top = |token: &TokenLogProb| -> Json {
                    let mut top = serde_json::Map::new();
                    // Of tokens with equal text, report the most likely.
                    for (text, log_prob) in &token.alternatives {
                        top.entry(text).or_insert_with(|| json!(log_prob));
                    }
                    token.log_prob.map_or(Json::Null, |_| top.into())
                };
                let has_top = tokens.iter().any(|token| !token.alternatives.is_empty());
                let top = has_top.then(|| tokens.iter().map(top).collect::<Vec<_>>());
                json!({
                    "tokens": tokens.iter().map(|token| &token.token).collect::<Vec<_>>(),
                    "token_logprobs": tokens.iter().map(|token| token.log_prob).collect::<Vec<_>>(),
                    "top_logprobs": top, "text_offset": offsets,
                })
            }
        }
    }

    fn call_id(&self, choice: usize, number: usize) -> String {
        format!(
            "call_{}_{choice}_{number}",
            self.id.rsplit('-').next().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_shape_of_the_api() {
        let answer = |api| Answer {
            api,
            id: "cmpl-7".to_owned(),
            model: "m".to_owned(),
            created: 5,
        };
        let (chat, text) = (answer(Api::Chat), answer(Api::Completions));
        let tokens = [("é", -0.5), ("\u{fffd}", -1.5)].map(|(token, log_prob)| TokenLogProb {
            token: token.to_owned(),
            log_prob: Some(log_prob),
            alternatives: Vec::new(),
        });
        let call = ToolCall {
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        };
        let content = Content {
            calls: vec![call.clone()],
            reasoning: "so".to_owned(),
            ..Content::default()
        };
        assert_eq!(
            chat.choice(1, &content, Some(&tokens), Finish::ToolCalls),
            json!({"index": 1, "message": {"role": "assistant", "content": null, "refusal": null, "reasoning_content": "so", "tool_calls": [
                {"id": "call_7_1_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                "logprobs": {"content": [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []},
                    {"token": "\u{fffd}", "logprob": -1.5, "bytes": null, "top_logprobs": []}], "refusal": null},
                "finish_reason": "tool_calls"})
        );
        let top = [TokenLogProb {
            alternatives: vec![("a".to_owned(), -0.5)],
            ..tokens[0].clone()
        }];
        assert_eq!(
            text.choice(0, &content, Some(&top), Finish::Stop)["logprobs"]["top_logprobs"],
            json!([{"a": -0.5}])
        );
        assert_eq!(
            chat.choice(0, &content, Some(&top), Finish::Stop)["logprobs"]["content"][0]["top_logprobs"],
            json!([{"token": "a", "logprob": -0.5, "bytes": [97]}])
        );
        let content = Content {
            text: "é?".to_owned(),
            ..Content::default()
        };
        let choice = text.choice(0, &content, Some(&tokens), Finish::Length);
        assert_eq!(choice["logprobs"]["text_offset"], json!([0, 2]));
        let whole = text.whole(
            vec![choice],
            Usage {
                prompt_tokens: 3,
                completion_tokens: 2,
            },
        );
        assert_eq!(
            (&whole["object"], &whole["usage"]["total_tokens"]),
            (&json!("text_completion"), &json!(5))
        );
        assert_eq!(
            chat.text_chunk(0, "x", None, 0)["choices"][0]["delta"],
            json!({"content": "x"})
        );
        assert_eq!(
            chat.last_chunk(0, Finish::Stop)["choices"][0]["finish_reason"],
            "stop"
        );
        assert_eq!(
            chat.reasoning_chunk(0, "x")["choices"][0]["delta"],
            json!({"reasoning_content": "x"})
        );
        let calls = [
            chat.call_chunk(0, 2, &call.name),
            chat.arguments_chunk(0, 2, &call.arguments),
        ]
        .map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].clone());
        let function = json!({"name": "f", "arguments": ""});
        assert_eq!(
            calls[0],
            json!([{"index": 2, "id": "call_7_0_2", "type": "function", "function": function}])
        );
        assert_eq!(
            calls[1],
            json!([{"index": 2, "function": {"arguments": "{}"}}])
        );
        assert!(text.first_chunk(0).is_none() && chat.first_chunk(0).is_some());
        assert_eq!(chat.usage_chunk(Usage::default())["choices"], json!([]));
    }
}
