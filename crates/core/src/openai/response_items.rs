//! Streams an answer of `/v1/responses`: items as events, and the whole.

use serde_json::{Map, Value as Json, json};

use super::answer::{Finish, TokenLogProb, Usage, chat_log_prob};

/// Output items of a request's single completion.
#[derive(Debug)]
pub struct ResponseItems {
    /// Part of all ids.
    key: String,
    model: String,
    created: u64,
    repeated: Map<String, Json>,
    output: Vec<Json>,
    open: Option<OpenItem>,
    sequence: usize,
}

#[derive(Debug)]
enum OpenItem {
    Thought(String),
    Text(String, Vec<Json>),
    Call { name: String, arguments: String },
}

impl ResponseItems {
    pub fn new(key: String, model: String, created: u64, repeated: Map<String, Json>) -> Self {
        Self {
            key,
            model,
            created,
            repeated,
            output: Vec::new(),
            open: None,
            sequence: 0,
        }
    }

    pub fn begin(&mut self) -> Vec<Json> {
        ["response.created", "response.in_progress"]
            .map(|kind| {
                let response = self.response("in_progress", None);
                self.event(kind, json!({"response": response}))
            })
            .into()
    }

    pub fn thought(&mut self, text: &str) -> Vec<Json> {
        let mut events = self.opened(
            |open| matches!(open, OpenItem::Thought(_)),
            || OpenItem::Thought(String::new()),
        );
        if let Some(OpenItem::Thought(whole)) = &mut self.open {
            whole.push_str(text);
        }
        events.push(self.item_event(
            "response.reasoning_text.delta",
            json!({"content_index": 0, "delta": text}),
        ));
        events
    }

    pub fn text(&mut self, text: &str, tokens: &[TokenLogProb]) -> Vec<Json> {
        let is_text = |open: &OpenItem| matches!(open, OpenItem::Text(..));
        let mut events = self.opened(is_text, || OpenItem::Text(String::new(), Vec::new()));
        let log_probs: Vec<Json> = tokens.iter().map(chat_log_prob).collect();
        if let Some(OpenItem::Text(whole, all)) = &mut self.open {
            whole.push_str(text);
            all.extend(log_probs.iter().cloned());
        }
        let delta = json!({"content_index": 0, "delta": text, "logprobs": log_probs});
        events.push(self.item_event("response.output_text.delta", delta));
        events
    }

    pub fn call(&mut self, name: &str) -> Vec<Json> {
        self.opened(
            |_| false,
            || OpenItem::Call {
                name: name.to_owned(),
                arguments: String::new(),
            },
        )
    }

    pub fn arguments(&mut self, text: &str) -> Vec<Json> {
        if let Some(OpenItem::Call { arguments, .. }) = &mut self.open {
            arguments.push_str(text);
        }
        vec![self.item_event(
            "response.function_call_arguments.delta",
            json!({"delta": text}),
        )]
    }

    /// Closing events; the last contains the whole answer.
    pub fn end(
        &mut self,
        finish: Finish,
        is_broken_call: bool,
        (usage, thought_tokens): (Usage, usize),
    ) -> Vec<Json> {
        let is_complete = finish != Finish::Length;
        let mut events = Vec::new();
        if self.output.is_empty() && self.open.is_none() {
            events.extend(self.opened(|_| false, || OpenItem::Text(String::new(), Vec::new())));
        }
        events.extend(self.close(is_complete && !is_broken_call));
        let usage = json!({
            "input_tokens": usage.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.completion_tokens, "output_tokens_details": {"reasoning_tokens": thought_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        });
        let status = if is_complete {
            "completed"
        } else {
            "incomplete"
        };
        let response = self.response(status, Some(usage));
        events.push(self.event(&format!("response.{status}"), json!({"response": response})));
        events
    }

    pub fn failed(&mut self, why: &str) -> Json {
        let mut response = self.response("failed", None);
        response["error"] = json!({"code": "server_error", "message": why});
        self.event("response.failed", json!({"response": response}))
    }

    /// Continues the open item, or closes it and opens another.
    fn opened(
        &mut self,
        goes_on: impl Fn(&OpenItem) -> bool,
        open: impl FnOnce() -> OpenItem,
    ) -> Vec<Json> {
        if self.open.as_ref().is_some_and(goes_on) {
            return Vec::new();
        }
        let mut events = self.close(true);
        self.open = Some(open());
        let item = self.item("in_progress");
        events.push(self.event(
            "response.output_item.added",
            json!({"output_index": self.output.len(), "item": item}),
        ));
        if let Some(part) = self.part() {
            events.push(self.item_event(
                "response.content_part.added",
                json!({"content_index": 0, "part": part}),
            ));
        }
        events
    }

    fn close(&mut self, is_complete: bool) -> Vec<Json> {
        let (kind, whole) = match &self.open {
            None => return Vec::new(),
            Some(OpenItem::Thought(text)) => (
                "response.reasoning_text.done",
                json!({"content_index": 0, "text": text}),
            ),
            Some(OpenItem::Text(text, log_probs)) => (
                "response.output_text.done",
                json!({"content_index": 0, "text": text, "logprobs": log_probs}),
            ),
            Some(OpenItem::Call { name, arguments }) => (
                "response.function_call_arguments.done",
                json!({"name": name, "arguments": arguments}),
            ),
        };
        let mut events = vec![self.item_event(kind, whole)];
        if let Some(part) = self.part() {
            events.push(self.item_event(
                "response.content_part.done",
                json!({"content_index": 0, "part": part}),
            ));
        }
        let item = self.item(if is_complete {
            "completed"
        } else {
            "incomplete"
        });
        let index = self.output.len();
        events.push(self.event(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        ));
        self.output.push(item);
        self.open = None;
        events
    }

    /// Content of the open item; calls have no parts.
    fn part(&self) -> Option<Json> {
        match self.open.as_ref()? {
            OpenItem::Thought(text) => Some(json!({"type": "reasoning_text", "text": text})),
            OpenItem::Text(text, log_probs) => Some(
                json!({"type": "output_text", "text": text, "annotations": [], "logprobs": log_probs}),
            ),
            OpenItem::Call { .. } => None,
        }
    }

    fn item_id(&self) -> String {
        let kind = match self.open {
            Some(OpenItem::Thought(_)) => "rs",
            Some(OpenItem::Call { .. }) => "fc",
            _ => "msg",
        };
        format!("{kind}_{}_{}", self.key, self.output.len())
    }

    /// The open item; parts in progress are sent as separate events.
    fn item(&self, status: &str) -> Json {
        let id = self.item_id();
        let content: Vec<Json> = self
            .part()
            .filter(|_| status != "in_progress")
            .into_iter()
            .collect();
        match &self.open {
            Some(OpenItem::Thought(_)) => {
                json!({"type": "reasoning", "id": id, "summary": [], "content": content, "status": status})
            }
            Some(OpenItem::Call { name, arguments }) => {
                let call_id = format!("call_{}_{}", self.key, self.output.len());
                json!({"type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments, "status": status})
            }
            _ => {
                json!({"type": "message", "id": id, "role": "assistant", "content": content, "status": status})
            }
        }
    }

    fn item_event(&mut self, kind: &str, mut fields: Json) -> Json {
        fields["item_id"] = self.item_id().into();
        fields["output_index"] = self.output.len().into();
        self.event(kind, fields)
    }

    fn event(&mut self, kind: &str, fields: Json) -> Json {
        let mut event = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Json::Object(event), Json::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        event
    }

    fn response(&self, status: &str, usage: Option<Json>) -> Json {
        let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let mut response = json!({
            "id": format!("resp_{}", self.key), "object": "response", "created_at": self.created, "status": status,
            "error": null, "incomplete_details": incomplete, "model": self.model, "output": self.output, "usage": usage,
            "instructions": null, "max_output_tokens": null, "metadata": {}, "parallel_tool_calls": true,
            "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": false,
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled",
        });
        if let Json::Object(response) = &mut response {
            response.extend(self.repeated.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_as_they_come_and_whole_at_the_end() {
        let repeated = Map::from_iter([("temperature".to_owned(), json!(0.5))]);
        let mut items = ResponseItems::new("7".to_owned(), "m".to_owned(), 5, repeated);
        let usage = (
            Usage {
                prompt_tokens: 3,
                completion_tokens: 9,
            },
            2,
        );
        let token = TokenLogProb {
            token: "a".to_owned(),
            log_prob: Some(-0.5),
            alternatives: Vec::new(),
        };
        let mut events = items.begin();
        events.extend(items.thought("so"));
        events.extend(items.text("a", &[token]));
        events.extend(items.text("b", &[]));
        events.extend(items.call("f"));
        events.extend(items.arguments("{\"x\""));
        events.extend(items.end(Finish::Length, true, usage));
        let kinds: Vec<&str> = events
            .iter()
            .filter_map(|event| event["type"].as_str()?.strip_prefix("response."))
            .collect();
        assert_eq!(
            kinds.join(" "),
            "created in_progress \
             output_item.added content_part.added reasoning_text.delta reasoning_text.done content_part.done output_item.done \
             output_item.added content_part.added output_text.delta output_text.delta output_text.done content_part.done output_item.done \
             output_item.added function_call_arguments.delta function_call_arguments.done output_item.done incomplete"
        );
        let numbers = events
            .iter()
            .enumerate()
            .all(|(index, event)| event["sequence_number"] == index);
        assert!(numbers, "{events:?}");
        let response = &events[events.len() - 1]["response"];
        assert_eq!(
            response["incomplete_details"]["reason"],
            "max_output_tokens"
        );
        assert_eq!(
            (
                &response["temperature"],
                &response["usage"]["output_tokens_details"]["reasoning_tokens"]
            ),
            (&json!(0.5), &json!(2))
        );
        let log_prob = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []});
        assert_eq!(
            response["output"],
            json!([
                {"type": "reasoning", "id": "rs_7_0", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}], "status": "completed"},
                {"type": "message", "id": "msg_7_1", "role": "assistant", "status": "completed",
                 "content": [{"type": "output_text", "text": "ab", "annotations": [], "logprobs": [log_prob]}]},
                {"type": "function_call", "id": "fc_7_2", "call_id": "call_7_2", "name": "f", "arguments": "{\"x\"", "status": "incomplete"},
            ])
        );
        // An empty answer has an item too.
        let mut items = ResponseItems::new("8".to_owned(), "m".to_owned(), 5, Map::new());
        let events = items.end(Finish::Stop, false, usage);
        let response = &events[events.len() - 1]["response"];
        assert_eq!(
            (
                &response["status"],
                &response["output"][0]["content"][0]["text"]
            ),
            (&json!("completed"), &json!(""))
        );
        assert_eq!(items.failed("why")["response"]["error"]["message"], "why");
    }
}
