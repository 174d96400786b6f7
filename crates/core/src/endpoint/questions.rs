//! Prompt rows as requests in OpenAI's form; rejects prompts with secrets.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{Api, Endpoint, EndpointError, ResponseFormat};
use crate::dataset::{PromptRow, row_schema};
use crate::prompts::{tools_of, turns_of};
use crate::run::sha256;
use crate::score::Task;
use crate::secrets::scan;
use crate::text::Message;

#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// Requests per prompt.
    pub samples: usize,
    pub max_completion_tokens: usize,
    pub temperature: f64,
}

#[derive(Debug, Clone)]
pub struct Question {
    pub row: usize,
    /// Index among the prompt's samples, from 0.
    pub sample: usize,
    /// JSON.
    pub body: String,
    /// Digest of server, request and sample.
    pub digest: String,
    /// Whether it is sent even with secrets.
    pub(super) may_hold_secrets: bool,
}

#[derive(Debug)]
pub struct RequestForm<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) task: &'a Task,
    sampling: Sampling,
    response_format: Option<Value>,
}

impl<'a> RequestForm<'a> {
    pub fn new(
        endpoint: &'a Endpoint,
        task: &'a Task,
        sampling: Sampling,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            endpoint,
            task,
            sampling,
            response_format: response_format(endpoint, task)?,
        })
    }

    /// Requests for the first turn of `rows`, which were read from `label`: by row, then by sample.
    /// Rows with an id in `allowed` may hold secrets in any turn.
    pub fn first(
        &self,
        label: &str,
        rows: &[PromptRow],
        allowed: &[String],
    ) -> Result<Vec<Question>, EndpointError> {
        let mut found = Vec::with_capacity(rows.len() * self.sampling.samples);
        for (index, row) in rows.iter().enumerate() {
            // A server's answers go back to that server alone.
            for turn in row
                .all_turns(|_, _| None)
                .iter()
                .filter(|_| !allowed.contains(&row.id))
            {
                if let Some(secret) = self
                    .prompt(turn, row)?
                    .values()
                    .find_map(|value| first_secret(value, ""))
                {
                    let place = format!("{label} line {} (`{}`)", row.line, row.id);
                    return Err(EndpointError::Secret {
                        place,
                        id: row.id.clone(),
                        secret,
                    });
                }
            }
            let body = self.body(row, row)?;
            let samples = 0..self.sampling.samples;
            let may_hold_secrets = allowed.contains(&row.id);
            let question = |sample| Question {
                may_hold_secrets,
                ..self.question(index, sample, body.clone())
            };
            found.extend(samples.map(question));
        }
        Ok(found)
    }

    pub(super) fn later(
        &self,
        index: usize,
        sample: usize,
        turn: &PromptRow,
        row: &PromptRow,
    ) -> Result<Question, EndpointError> {
        Ok(self.question(index, sample, self.body(turn, row)?))
    }

    fn question(&self, row: usize, sample: usize, body: String) -> Question {
        let Endpoint { base_url, api, .. } = self.endpoint;
        let digest = sha256(format!("{base_url}\n{api:?}\n{sample}\n{body}").as_bytes());
        Question {
            row,
            sample,
            body,
            digest,
            may_hold_secrets: false,
        }
    }

    fn prompt(
        &self,
        turn: &PromptRow,
        row: &PromptRow,
    ) -> Result<Map<String, Value>, EndpointError> {
        let Self { endpoint, task, .. } = self;
        let tools = tools_of(task, Some(turn))?;
        if endpoint.api == Api::Completions && tools.is_some() {
            return Err(EndpointError::Other(format!(
                "endpoint `{}`: kind = \"completions\" does not support tools: use kind = \"chat\"",
                endpoint.name
            )));
        }
        let mut messages = turn.messages.clone();
        if endpoint.api == Api::Chat {
            // After the row's own.
            messages
                .iter_mut()
                .skip(row.messages.len())
                .for_each(with_its_calls);
        }
        let messages = turns_of(task, None, &messages)?;
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(endpoint.model));
        match endpoint.api {
            Api::Chat => body.insert("messages".to_owned(), openai_messages(&messages)),
            Api::Completions => body.insert("prompt".to_owned(), json!(plain_prompt(&messages))),
        };
        body.extend(tools.map(|tools| ("tools".to_owned(), tools)));
        Ok(body)
    }

    fn body(&self, turn: &PromptRow, row: &PromptRow) -> Result<String, EndpointError> {
        let Self {
            endpoint, sampling, ..
        } = self;
        let mut body = self.prompt(turn, row)?;
        body.insert("temperature".to_owned(), json!(sampling.temperature));
        // OpenAI's newer models reject the old name next to the new one.
        if !endpoint.extra_body.contains_key("max_completion_tokens") {
            body.insert(
                "max_tokens".to_owned(),
                json!(sampling.max_completion_tokens),
            );
        }
        if endpoint.logprobs {
            // In the completions API: the number of alternatives.
            let field = if endpoint.api == Api::Chat {
                json!(true)
            } else {
                json!(0)
            };
            body.insert("logprobs".to_owned(), field);
        }
        let format = self.format_of(row)?;
        body.extend(format.map(|format| ("response_format".to_owned(), format)));
        body.extend(endpoint.extra_body.clone());
        Ok(Value::Object(body).to_string())
    }

    /// With the row's own schema, if it has one.
    fn format_of(&self, row: &PromptRow) -> Result<Option<Value>, EndpointError> {
        let mut format = self.response_format.clone();
        if let (Some(format), ResponseFormat::Schema) = (&mut format, self.endpoint.format)
            && let Some(own) = row_schema(self.task, row)
        {
            let own = own
                .map_err(|problem| EndpointError::Other(format!("row `{}`: {problem}", row.id)))?;
            format["json_schema"]["schema"] = own;
        }
        Ok(format)
    }
}

/// Turns an answer of calls, which the scorer reads as OpenAI's message in JSON, into that message.
fn with_its_calls(message: &mut Message) {
    let said = serde_json::from_str::<Map<String, Value>>(&message.content).unwrap_or_default();
    if message.role == "assistant"
        && let Some(calls) = said.get("tool_calls").filter(|calls| calls.is_array())
    {
        message.other.insert("tool_calls".to_owned(), calls.clone());
        message.content = said["content"].as_str().unwrap_or_default().to_owned();
    }
}

fn response_format(endpoint: &Endpoint, task: &Task) -> Result<Option<Value>, EndpointError> {
    Ok(match endpoint.format {
        ResponseFormat::Free => None,
        ResponseFormat::Json => Some(json!({"type": "json_object"})),
        ResponseFormat::Schema => {
            // A notation other than JSON has a schema and no grammar.
            let schema = task.schema().filter(|_| task.grammar().is_some()).ok_or_else(|| EndpointError::Other(format!(
                "endpoint `{}`: strict_schema needs a task with a JSON Schema, but {} is of the kind `{}`: remove the key",
                endpoint.name,
                task.name,
                task.kind()
            )))?;
            // The name may not contain a dot or exceed 64 letters.
            let name: String = task.name.replace('.', "_").chars().take(64).collect();
            Some(
                json!({"type": "json_schema", "json_schema": {"name": name, "strict": true, "schema": schema}}),
            )
        }
    })
}

/// OpenAI's form has call ids, arguments as text, and results that name their call.
fn openai_messages(messages: &[Message]) -> Value {
    let mut calls = 0;
    let mut open: VecDeque<String> = VecDeque::new();
    let messages = messages.iter().map(|message| {
        let mut turn = json!(message);
        if let Some(own) = turn["tool_calls"].as_array_mut() {
            for call in own {
                calls += 1;
                let id = call["id"].as_str().map_or_else(|| format!("call_{calls}"), str::to_owned);
                let function = if call["function"].is_object() { &call["function"] } else { &*call };
                let arguments = match &function["arguments"] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                *call = json!({"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}});
                open.push_back(id);
            }
        }
        if message.role == "tool" && turn["tool_call_id"].is_null() {
            turn["tool_call_id"] = json!(open.pop_front());
        }
        // Mutable indexing of a missing `turn["…"]` would leave a null.
        if let Some(fields) = turn.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        turn
    });
    Value::Array(messages.collect())
}

/// The messages' text, which a model without chat template continues.
fn plain_prompt(messages: &[Message]) -> String {
    messages
        .iter()
        .map(|message| format!("{}\n\n", message.content))
        .collect()
}

/// Describes the first secret in a value's texts; `"password": "…"` is read as one text.
pub(super) fn first_secret(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::String(text) => {
            let secret = scan(&format!("{name}{text}")).into_iter().next()?;
            Some(format!(
                "holds what looks like a secret ({}, {})",
                secret.rule, secret.masked
            ))
        }
        Value::Array(values) => values.iter().find_map(|value| first_secret(value, "")),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(name, value)| first_secret(value, &format!("{name}: "))),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
