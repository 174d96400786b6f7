//! `grpo-tui serve` as its clients see it: answers of OpenAI's API, refusals in its shape, and rows that are freed.

mod adapters;
mod call_formats;
mod clients;
mod constraints;
mod prompt_log_probs;
mod responses;
mod robustness;
mod shaping;
mod socket;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

use super::program::{PROGRAM, program, until};

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| &[])
    }

    fn start_with(arguments: &[&str], environment: impl FnOnce(&Path) -> &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program(folder.path(), &["serve"]);
        command.envs(environment(folder.path()).iter().copied());
        Self::started(command, arguments, folder)
    }

    fn start_in(current: &Path, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program(folder.path(), &["serve"]);
        command.current_dir(current);
        Self::started(command, arguments, folder)
    }

    fn started(mut command: Command, arguments: &[&str], folder: tempfile::TempDir) -> Self {
        command.args(arguments).args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        Self {
            child,
            address: address
                .parse()
                .unwrap_or_else(|_| panic!("no address: {line:?}")),
            _folder: folder,
        }
    }

    /// As clients are configured with it.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Status, headers and body of an answer.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
        let mut socket = self.send(method, path, headers, body);
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answered(&answer)
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        // A server that refuses early may not read all of it.
        _ = socket.write_all(body);
        socket
    }

    pub(crate) fn post(&self, path: &str, body: &Json) -> Json {
        let (status, _, text) = self.ask("POST", path, "", body.to_string().as_bytes());
        assert_eq!(status, 200, "{body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The error of a body that is refused.
    fn refused(&self, path: &str, body: &[u8], expected: u16) -> Json {
        let (status, _, text) = self.ask("POST", path, "", body);
        assert_eq!(status, expected, "{text}");
        error_of(&text)
    }

    /// The documents of a stream, after which it was said to be over.
    fn stream(&self, path: &str, body: &Json) -> Vec<Json> {
        let (status, headers, text) = self.ask("POST", path, "", body.to_string().as_bytes());
        assert!(
            status == 200 && headers.contains("text/event-stream"),
            "{headers} {text}"
        );
        let mut events: Vec<&str> = text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        events
            .into_iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, _, text) = self.ask("GET", "/metrics", "", b"");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("grpo_tui_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Status, headers and body, put together from its chunks.
pub(crate) fn answered(answer: &str) -> (u16, String, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.contains("transfer-encoding: chunked") {
        return (status, head.to_owned(), body.to_owned());
    }
    let (mut rest, mut text) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").unwrap();
        if length == 0 {
            break;
        }
    }
    (status, head.to_owned(), text)
}

/// An error has OpenAI's shape.
fn error_of(text: &str) -> Json {
    let body: Json = serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text:?}"));
    let error = body["error"].clone();
    for key in ["message", "type", "param", "code"] {
        assert!(error.get(key).is_some(), "{error} lacks {key}");
    }
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
    );
    error
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const TEXT: &str = "/v1/completions";

fn chat(changes: Json) -> Json {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Invoice of Acme, total 12 EUR"}], "max_tokens": 24});
    body.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    body
}

#[test]
fn a_chat_is_answered_whole_and_in_chunks() {
    let server = Server::start(&["tiny"]);
    let whole = server.post(
        CHAT,
        &chat(json!({"seed": 7, "n": 3, "logprobs": true, "user": "u", "top_p": 1})),
    );
    assert_eq!(
        (&whole["object"], &whole["model"]),
        (&json!("chat.completion"), &json!("tiny"))
    );
    let choices = whole["choices"].as_array().unwrap();
    let text = |choice: &Json| choice["message"]["content"].as_str().unwrap().to_owned();
    let texts: Vec<String> = choices.iter().map(text).collect();
    assert_eq!(choices.len(), 3);
    let sampled: usize = choices
        .iter()
        .map(|choice| choice["logprobs"]["content"].as_array().unwrap().len())
        .sum();
    let usage = &whole["usage"];
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 5, "{usage}");
    // Stop tokens are counted, and have no text.
    let stopped = choices
        .iter()
        .filter(|choice| choice["finish_reason"] == "stop")
        .count();
    assert_eq!(
        usage["completion_tokens"].as_u64().unwrap() as usize,
        sampled + stopped
    );
    for choice in choices {
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        let joined: String = tokens
            .iter()
            .map(|token| token["token"].as_str().unwrap())
            .collect();
        assert_eq!(joined, text(choice));
        assert!(
            tokens
                .iter()
                .all(|token| token["logprob"].as_f64().is_some_and(|value| value <= 0.0))
        );
    }
    // A seed gives the same again, whatever the number of samples, and another seed something else.
    assert_eq!(
        text(&server.post(CHAT, &chat(json!({"seed": 7})))["choices"][0]),
        texts[0]
    );
    let other = server.post(CHAT, &chat(json!({"seed": 8, "n": 3})));
    assert_ne!(
        other["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect::<Vec<_>>(),
        texts
    );

    let chunks = server.stream(
        CHAT,
        &chat(
            json!({"seed": 7, "n": 3, "stream": true, "stream_options": {"include_usage": true}}),
        ),
    );
    let mut streamed = vec![String::new(); 3];
    let mut ends = 0;
    for choice in chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap())
    {
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        ends += usize::from(!choice["finish_reason"].is_null());
    }
    assert_eq!((streamed, ends), (texts, 3));
    assert_eq!(chunks.last().unwrap()["usage"], *usage);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["id"] == chunks[0]["id"]
                && chunk["object"] == "chat.completion.chunk")
    );
}

#[test]
fn completions_end_where_they_are_told_to() {
    let server = Server::start(&["tiny"]);
    let body = |changes: Json| {
        let mut body = json!({"model": "tiny", "prompt": "{\"vendor\": \"", "max_tokens": 40, "temperature": 0, "ignore_eos": true});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    let plain = server.post(TEXT, &body(json!({"logprobs": 0})));
    let text = plain["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(
        (
            &plain["choices"][0]["finish_reason"],
            &plain["usage"]["completion_tokens"]
        ),
        (&json!("length"), &json!(40))
    );
    let log_probs = &plain["choices"][0]["logprobs"];
    assert_eq!(
        (
            log_probs["tokens"].as_array().unwrap().len(),
            &log_probs["text_offset"][0]
        ),
        (40, &json!(0))
    );
    let middle: String = text.chars().skip(8).take(3).collect();
    let expected = &text[..text.find(&middle).unwrap()];
    let stopped = server.post(TEXT, &body(json!({"stop": [middle]})));
    assert_eq!(
        (
            stopped["choices"][0]["text"].as_str(),
            &stopped["choices"][0]["finish_reason"]
        ),
        (Some(expected), &json!("stop"))
    );
    assert!(stopped["usage"]["completion_tokens"].as_u64() < Some(40));
    let streamed = server.stream(TEXT, &body(json!({"stop": [middle], "stream": true})));
    let joined: String = streamed
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(joined, expected);
    // Several prompts, as text and as token ids: greedy completions do not depend on their neighbours.
    let both = server.post(
        TEXT,
        &body(json!({"prompt": ["{\"vendor\": \"", [5, 6, 7]], "n": 2})),
    );
    let choices = both["choices"].as_array().unwrap();
    assert_eq!(
        choices
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(
        (choices[0]["text"].as_str(), choices[1]["text"].as_str()),
        (Some(&*text), Some(&*text))
    );
    assert_eq!(choices[2]["text"], choices[3]["text"]);
}

/// Name and arguments of each call.
fn functions(calls: &[Json]) -> Vec<(String, String)> {
    let text = |call: &Json, key: &str| call["function"][key].as_str().unwrap().to_owned();
    calls
        .iter()
        .map(|call| (text(call, "name"), text(call, "arguments")))
        .collect()
}

/// As [`functions`], put together from the chunks of a completion as clients do it: a name comes first.
fn streamed_calls(chunks: &[Json], index: u64) -> Vec<(String, String)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    let choices = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let deltas = choices
        .filter(|choice| choice["index"] == index)
        .map(|choice| &choice["delta"]["tool_calls"]);
    for call in deltas.filter_map(Json::as_array).flatten() {
        let at = call["index"].as_u64().unwrap() as usize;
        if let Some(name) = call["function"]["name"].as_str() {
            assert!(at == calls.len() && call["id"].is_string(), "{call}");
            calls.push((name.to_owned(), String::new()));
        }
        calls[at]
            .1
            .push_str(call["function"]["arguments"].as_str().unwrap());
    }
    calls
}

#[test]
fn calls_of_tools_are_taken_out_of_the_text() {
    let server = Server::start(&["tiny-tools"]);
    let rows =
        std::fs::read_to_string(super::program::sample_data("tool-calls/eval.jsonl")).unwrap();
    let tools: Json = {
        let file = super::program::sample_data("tool-calls/tools.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let whole = |tool: &Json| {
        if tool.get("function").is_some() {
            tool.clone()
        } else {
            json!({"type": "function", "function": tool})
        }
    };
    let tools: Json = tools.as_array().unwrap().iter().map(whole).collect();
    let mut called = 0;
    for row in rows
        .lines()
        .take(4)
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
    {
        let body = json!({"model": "tiny-tools", "messages": row["messages"], "tools": tools, "temperature": 0, "max_tokens": 200});
        let choice = server.post(CHAT, &body)["choices"][0].clone();
        let mut streamed = body.clone();
        streamed["stream"] = true.into();
        let chunks = server.stream(CHAT, &streamed);
        let Some(calls) = choice["message"]["tool_calls"].as_array() else {
            assert_ne!(choice["finish_reason"], "tool_calls");
            continue;
        };
        called += 1;
        assert_eq!(choice["finish_reason"], "tool_calls");
        for call in calls {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            assert!(
                serde_json::from_str::<Json>(arguments).unwrap().is_object()
                    && call["id"].is_string()
            );
        }
        assert_eq!(streamed_calls(&chunks, 0), functions(calls));
    }
    assert!(called > 0, "the embedded model calls tools");
}

#[test]
fn models_health_and_metrics_are_told() {
    let server = Server::start(&["tiny"]);
    let get = |path: &str| server.ask("GET", path, "", b"");
    let models: Json = serde_json::from_str(&get("/v1/models").2).unwrap();
    assert_eq!(
        (&models["object"], &models["data"][0]["id"]),
        (&json!("list"), &json!("tiny"))
    );
    assert_eq!(
        serde_json::from_str::<Json>(&get("/v1/models/tiny").2).unwrap(),
        models["data"][0]
    );
    assert_eq!((get("/v1/models/gpt-4").0, get("/health").0), (404, 200));
    server.post(CHAT, &chat(json!({"ignore_eos": true})));
    assert_eq!(
        (
            server.metric("generation_tokens_total"),
            server.metric("running_rows")
        ),
        (24.0, 0.0)
    );
    assert_eq!(server.metric("time_to_first_token_seconds_count"), 1.0);
}

#[test]
fn only_who_has_the_key_is_served_beyond_this_machine() {
    let output =
        super::program::call_anywhere_in_process(&["serve", "tiny", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(super::program::stderr(&output).contains("--api-key-env"));
    let output = super::program::call_anywhere_in_process(&[
        "serve",
        "tiny",
        "--api-key-env",
        "NO_SUCH_KEY",
    ]);
    assert!(super::program::stderr(&output).contains("--api-key-env NO_SUCH_KEY"));
    let server = Server::start_with(&["tiny", "--api-key-env", "SERVE_KEY"], |_| {
        &[("SERVE_KEY", "sk-testing-1")]
    });
    let status = |header: &str, path: &str| server.ask("GET", path, header, b"").0;
    for wrong in [
        "",
        "Authorization: Bearer sk-testing-2\r\n",
        "Authorization: sk-testing-1\r\n",
        "Authorization: Bearer \r\n",
    ] {
        assert_eq!(status(wrong, "/v1/models"), 401, "{wrong}");
        assert_eq!(status(wrong, "/metrics"), 401);
    }
    assert_eq!(status("", "/health"), 200);
    for scheme in ["Bearer", "bearer", "BEARER "] {
        assert_eq!(
            status(
                &format!("Authorization: {scheme} sk-testing-1\r\n"),
                "/v1/models"
            ),
            200,
            "{scheme}"
        );
    }
    let (_, _, body) = server.ask(
        "POST",
        CHAT,
        "Authorization: Bearer sk-testing-2\r\n",
        b"{}",
    );
    assert_eq!(error_of(&body)["code"], "invalid_api_key");
}
