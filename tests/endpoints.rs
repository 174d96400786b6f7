//! Evals of an OpenAI-compatible server on this machine that answers well, refuses, hangs, hangs up and lies.

#[cfg(feature = "engine")]
mod command;
mod conversations;
mod with_tools;

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, load_from};
use grpo_tui::endpoint::{
    Answer, Endpoint, EndpointError, Question, RequestForm, Sampling, UnansweredQuestion, ask,
    records,
};
use grpo_tui::run::{EvalRecord, EvalSummary, LogProbs};
use grpo_tui::score::{Scorer, Task};
use serde_json::{Value, json};

use crate::program::{HttpRequest, serve};

const KEY: &str = "sk-test-0123456789abcdefghij";
const RIGHT: &str =
    r#"{"vendor": "Nordlys AS", "date": "2024-03-01", "currency": "EUR", "amount": 12.5}"#;

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// A completion.
    Text(&'static str),
    /// A whole document, with status 200.
    Body(String),
    /// Status, further headers, body.
    Status(u16, &'static str, String),
    /// Half of what the length promises.
    Truncated,
    /// Until the client has had enough.
    Hang,
    /// Before any answer.
    HangUp,
}

#[derive(Default)]
struct State {
    /// For the next requests; afterwards the server answers well.
    replies: VecDeque<Reply>,
    /// Authorization and body, request by request.
    requests: Vec<(Option<String>, Value)>,
}

struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(replies: &[Reply]) -> Self {
        let state = Arc::new(Mutex::new(State {
            replies: replies.iter().cloned().collect(),
            ..State::default()
        }));
        Self {
            address: format!("http://{}/v1", serve(state.clone(), answer)),
            state,
        }
    }

    fn requests(&self) -> Vec<(Option<String>, Value)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// For its next request.
    fn reply(&self, reply: Reply) {
        self.state.lock().unwrap().replies.push_back(reply);
    }

    /// An endpoint there, which asks one question at a time and hardly waits.
    fn endpoint(&self, more: &str) -> Endpoint {
        let text = format!(
            "[api]\nbase_url = \"{}\"\nmodel = \"m\"\nconcurrency = 1\ntimeout_seconds = 0.5\nretries = 1\n{more}\n",
            self.address
        );
        let mut endpoint = Endpoint::find("api", "endpoints.toml", &text, |name| {
            (name == "KEY").then(|| KEY.into())
        });
        endpoint.as_mut().unwrap().pause = Duration::from_millis(1);
        endpoint.unwrap()
    }
}

fn good(text: &str) -> String {
    let choice =
        json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    json!({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})
        .to_string()
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = HttpRequest::read(&mut reader) else {
        // As servers without TLS answer its first message.
        _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push((
            request.header("authorization"),
            serde_json::from_slice(&request.body).unwrap_or_default(),
        ));
        state.replies.pop_front().unwrap_or(Reply::Text(RIGHT))
    };
    let (status, more, body) = match reply {
        Reply::Text(text) => (200, "", good(text)),
        Reply::Body(body) => (200, "", body),
        Reply::Status(status, more, body) => (status, more, body),
        Reply::Truncated => {
            let body = good(RIGHT);
            let half = &body[..body.len() / 2];
            let _ = write!(
                stream,
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{half}",
                body.len()
            );
            return;
        }
        Reply::Hang => return drop(reader.read(&mut [0])),
        Reply::HangUp => return,
    };
    // The client may have gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    );
}

fn rows(lines: &[Value]) -> Vec<PromptRow> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    load_from("rows.jsonl", text.as_bytes()).unwrap()
}

fn prompt(id: &str) -> Value {
    json!({"id": id, "messages": [{"role": "user", "content": format!("invoice {id}")}]})
}

const GREEDY: Sampling = Sampling {
    samples: 1,
    max_completion_tokens: 64,
    temperature: 0.0,
};

fn asked(
    endpoint: &Endpoint,
    task: &str,
    rows: &[PromptRow],
) -> Result<Vec<Question>, EndpointError> {
    RequestForm::new(endpoint, &Task::embedded(task).unwrap(), GREEDY)?.first(
        "rows.jsonl",
        rows,
        &[],
    )
}

/// The records of an eval on these rows of the invoice task.
fn recorded(
    endpoint: &Endpoint,
    task: &Task,
    rows: &[PromptRow],
) -> Result<Vec<EvalRecord>, EndpointError> {
    let (form, scorer) = (
        RequestForm::new(endpoint, task, GREEDY)?,
        Scorer::new(task).unwrap(),
    );
    let questions = form.first("rows.jsonl", rows, &[])?;
    records(&form, &scorer, rows, questions, HashMap::new(), |_| Ok(()))
}

fn outcomes(
    endpoint: &Endpoint,
    rows: &[PromptRow],
) -> Result<Vec<Result<Answer, UnansweredQuestion>>, EndpointError> {
    ask(
        endpoint,
        &asked(endpoint, "invoice", rows).unwrap(),
        &HashMap::new(),
        |_, _| Ok(()),
    )
}

fn failing_replies() -> [(Reply, &'static str); 8] {
    let wait = "Retry-After: 0\r\n";
    [
        (
            Reply::Status(
                429,
                wait,
                json!({"error": {"message": "slow down"}}).to_string(),
            ),
            "the server answered 429: slow down",
        ),
        (
            Reply::Status(500, "", "oops".to_owned()),
            "the server answered 500",
        ),
        (Reply::Truncated, "disconnected"),
        (Reply::Hang, "the server does not respond"),
        (Reply::HangUp, "disconnected"),
        (Reply::Body("<html>".to_owned()), "the answer is not JSON"),
        (
            Reply::Body(json!({"error": {"message": "no room"}}).to_string()),
            "the answer has no choices: no room",
        ),
        (
            Reply::Body(json!({"choices": [{}]}).to_string()),
            "the first choice has no text",
        ),
    ]
}

#[test]
fn what_fails_once_is_asked_again() {
    let prompts = rows(&[prompt("a")]);
    for (reply, reason) in failing_replies() {
        let server = Server::start(&[reply]);
        let found = outcomes(&server.endpoint(""), &prompts).unwrap();
        let answer = found[0]
            .as_ref()
            .unwrap_or_else(|failed| panic!("{reason}: {failed:?}"));
        assert_eq!(
            (answer.text.as_str(), answer.attempts),
            (RIGHT, 2),
            "{reason}"
        );
        assert_eq!(
            (answer.prompt_tokens, answer.tokens),
            (Some(100), Some(20)),
            "{reason}"
        );
    }
}

#[test]
fn what_fails_to_the_end_is_an_error_of_the_endpoint_in_no_rate() {
    let prompts = rows(&[prompt("a"), prompt("b"), prompt("c")]);
    let task = Task::embedded("invoice").unwrap();
    for (reply, reason) in failing_replies() {
        let server = Server::start(&[Reply::Text("no"), reply.clone(), reply]);
        let endpoint =
            server.endpoint("price_per_million_input = 1\nprice_per_million_output = 10");
        let found = recorded(&endpoint, &task, &prompts).unwrap();
        let said = found[1].score["errors"][0]["message"].as_str().unwrap();
        assert!(said.contains(reason), "{said:?} lacks {reason:?}");
        assert!(
            found[1].is_endpoint_error() && found[1].reward.is_nan() && found[1].tokens.is_none()
        );
        let summary = EvalSummary::from_records(&found);
        assert_eq!(
            (summary.n, summary.endpoint_errors, summary.scorer_errors),
            (2, 1, 0),
            "{reason}"
        );
        assert_eq!(
            (summary.valid, summary.mean_tokens),
            (0.5, 20.0),
            "{reason}"
        );
        let endpoint = summary.endpoint.unwrap();
        assert_eq!(
            (endpoint.answers, endpoint.cost),
            (2, Some(2.0 * (100.0 + 200.0) / 1e6))
        );
        assert_eq!(endpoint.cost_per_1000_answers, Some(0.3));
        assert!(endpoint.latency_p95_seconds >= endpoint.latency_median_seconds);
    }
}

#[test]
fn retry_after_is_obeyed() {
    let server = Server::start(&[Reply::Status(429, "Retry-After: 1\r\n", String::new())]);
    let start = Instant::now();
    assert!(outcomes(&server.endpoint(""), &rows(&[prompt("a")])).unwrap()[0].is_ok());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_server_that_answers_nothing_ends_the_eval_with_the_first_reason() {
    let all: Vec<Value> = (0..40).map(|index| prompt(&index.to_string())).collect();
    let server = Server::start(&vec![Reply::Status(503, "", String::new()); 100]);
    let error = outcomes(&server.endpoint(""), &rows(&all))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "endpoint `api` gave no answer to 8 prompts, after 2 attempts at the first: the server answered 503"
    );
    assert!(server.requests().len() <= 18, "{}", server.requests().len());
}

#[test]
fn a_refused_key_ends_the_eval_at_once_and_is_not_repeated() {
    let said = json!({"error": {"message": format!("wrong key {KEY}")}}).to_string();
    let server = Server::start(&[Reply::Status(401, "", said)]);
    let endpoint = server.endpoint("api_key_env = \"KEY\"");
    let error = outcomes(&endpoint, &rows(&[prompt("a"), prompt("b")]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("401: wrong key ***; check api_key_env"),
        "{error}"
    );
    assert!(!format!("{endpoint:?}").contains(KEY));
    assert_eq!(
        server.requests()[0].0.as_deref(),
        Some(format!("Bearer {KEY}").as_str())
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(&[]);
    let location: &'static str =
        format!("Location: {}/chat/completions\r\n", elsewhere.address).leak();
    let server = Server::start(&[Reply::Status(307, location, String::new())]);
    let error = outcomes(
        &server.endpoint("api_key_env = \"KEY\""),
        &rows(&[prompt("a")]),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("redirects to 127.0.0.1 (307), and redirects are not followed"),
        "{error}"
    );
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_server_without_tls_is_not_asked_twice_by_https() {
    let mut server = Server::start(&[]);
    server.address = server.address.replace("http://", "https://");
    let error = outcomes(&server.endpoint(""), &rows(&[prompt("a")]))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("check base_url and SSL_CERT_FILE"),
        "{error}"
    );
}

#[test]
fn counts_that_are_none_are_unknown() {
    let prompts = rows(&[prompt("a")]);
    for usage in [
        json!(null),
        json!("much"),
        json!({"prompt_tokens": -1, "completion_tokens": 1e30}),
    ] {
        let choice = json!({"message": {"content": RIGHT}, "finish_reason": "length"});
        let server = Server::start(&[Reply::Body(
            json!({"choices": [choice], "usage": usage}).to_string(),
        )]);
        let endpoint = server.endpoint("price_per_million_input = 1\nprice_per_million_output = 1");
        let found = recorded(&endpoint, &Task::embedded("invoice").unwrap(), &prompts).unwrap();
        assert_eq!((found[0].tokens, found[0].truncated), (None, true));
        let summary = EvalSummary::from_records(&found);
        assert!(summary.mean_tokens.is_nan() && summary.endpoint.as_ref().unwrap().cost.is_none());
        let stored: EvalSummary = serde_json::from_value(json!(summary)).unwrap();
        assert!(stored.mean_tokens.is_nan());
    }
}

#[test]
fn log_probs_are_recorded_where_they_were_asked_for_and_given() {
    let task = Task::embedded("invoice").unwrap();
    let reply = |logprobs: Value| {
        let choice = json!({"message": {"content": RIGHT}, "text": RIGHT, "logprobs": logprobs});
        Reply::Body(json!({"choices": [choice]}).to_string())
    };
    let chat = |values: &[f64]| {
        let tokens: Vec<Value> = values
            .iter()
            .map(|value| json!({"logprob": value}))
            .collect();
        json!({ "content": tokens })
    };
    let check = |more: &str, replies: &[Reply], rows: &[PromptRow], expected: Option<LogProbs>| {
        let found = recorded(&Server::start(replies).endpoint(more), &task, rows).unwrap();
        assert_eq!(
            EvalSummary::from_records(&found).endpoint.unwrap().logprobs,
            expected,
            "{more}"
        );
        found
    };
    let given = |mean: f64, tokens, answers| {
        Some(LogProbs {
            mean: Some(mean),
            tokens,
            answers,
        })
    };
    let (both, none) = (rows(&[prompt("a"), prompt("b")]), Some(LogProbs::default()));
    let replies = [reply(chat(&[-0.5])), reply(chat(&[-1.0, -1.0, -1.0]))];
    let found = check("logprobs = true", &replies, &both, given(-0.875, 4, 2));
    assert_eq!(found[1].call.as_ref().unwrap().logprobs, given(-1.0, 3, 1));
    check("extra_body = { logprobs = true }", &replies, &both, None);
    let replies = [
        reply(json!({"token_logprobs": [-0.5, -1.5]})),
        reply(json!(null)),
    ];
    check(
        "logprobs = true\nkind = \"completions\"",
        &replies,
        &both,
        given(-1.0, 2, 1),
    );
    // Asked and not given is unknown, and no failure.
    let found = check("logprobs = true", &[], &both, none);
    assert!(found.iter().all(EvalRecord::is_valid));
    // Of a conversation each answer has its own.
    let two = rows(&[conversation("a", "again")]);
    let replies = [reply(chat(&[-0.5])), reply(chat(&[-1.5]))];
    let found = check("logprobs = true", &replies, &two, given(-1.0, 2, 2));
    assert_eq!(found[0].turns[1].logprobs, given(-1.5, 1, 1));
}

#[test]
fn a_request_says_what_the_eval_asks_for() {
    let server = Server::start(&[]);
    let check = |more: &str, field: &str, expected: Value| {
        let question = &asked(&server.endpoint(more), "invoice", &rows(&[prompt("a")])).unwrap()[0];
        let body: Value = serde_json::from_str(&question.body).unwrap();
        assert_eq!(
            body.pointer(field),
            (!expected.is_null()).then_some(&expected),
            "{more} {body}"
        );
    };
    check("", "/model", json!("m"));
    check("", "/messages/1/content", json!("invoice a"));
    check("", "/temperature", json!(0.0));
    check("", "/max_tokens", json!(64));
    check("", "/response_format", Value::Null);
    check(
        "json_mode = true",
        "/response_format/type",
        json!("json_object"),
    );
    check(
        "strict_schema = true",
        "/response_format/json_schema/strict",
        json!(true),
    );
    check(
        "strict_schema = true",
        "/response_format/json_schema/schema/type",
        json!("object"),
    );
    check(
        "extra_body = { temperature = 1, top_k = 5 }",
        "/temperature",
        json!(1),
    );
    check(
        "extra_body = { max_completion_tokens = 9 }",
        "/max_tokens",
        Value::Null,
    );
    check("kind = \"completions\"", "/messages", Value::Null);
    check("", "/logprobs", Value::Null);
    check("logprobs = true", "/logprobs", json!(true));
    check(
        "logprobs = true\nkind = \"completions\"",
        "/logprobs",
        json!(0),
    );
    check(
        "logprobs = true\nextra_body = { logprobs = 5 }",
        "/logprobs",
        json!(5),
    );
    let error = asked(
        &server.endpoint("strict_schema = true"),
        "sql",
        &rows(&[prompt("a")]),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("strict_schema needs a task with a JSON Schema"),
        "{error}"
    );
}

#[test]
fn calls_of_tools_go_both_ways() {
    let earlier = json!({"id": "a", "messages": [{"role": "user", "content": "Is it raining?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "content": "rain"}], "tools": [{"name": "weather"}]});
    let calls = json!([{"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bergen\"}"}}]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    let server = Server::start(&[Reply::Body(
        json!({"choices": [{"message": message}]}).to_string(),
    )]);
    let endpoint = server.endpoint("");
    let questions = asked(&endpoint, "tool-calls", &rows(&[earlier])).unwrap();
    let found = ask(&endpoint, &questions, &HashMap::new(), |_, _| Ok(())).unwrap();
    let text: Value = serde_json::from_str(&found[0].as_ref().unwrap().text).unwrap();
    assert_eq!(text, json!({"content": null, "tool_calls": calls}));
    let sent = &server.requests()[0].1;
    assert_eq!(sent["tools"][0]["function"]["name"], "weather");
    let messages: Vec<&Value> = sent["messages"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .take(2)
        .collect();
    assert_eq!(
        messages[1]["tool_calls"][0]["function"]["arguments"],
        "{\"city\":\"Oslo\"}"
    );
    assert_eq!(
        messages[1]["tool_calls"][0]["id"],
        messages[0]["tool_call_id"]
    );
}

#[test]
fn a_prompt_with_a_secret_is_not_sent_unless_it_is_allowed() {
    let secret = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let row = json!({"id": "leaky", "messages": [{"role": "user", "content": format!("token {secret}")}]});
    let (server, prompts) = (Server::start(&[]), rows(&[prompt("a"), row]));
    let endpoint = server.endpoint("");
    let error = asked(&endpoint, "invoice", &prompts)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("rows.jsonl line 2 (`leaky`)") && error.contains("--allow-secret leaky"),
        "{error}"
    );
    assert!(!error.contains(secret), "{error}");
    let task = Task::embedded("invoice").unwrap();
    let allowed = ["leaky".to_owned()];
    let form = RequestForm::new(&endpoint, &task, GREEDY).unwrap();
    assert_eq!(
        form.first("rows.jsonl", &prompts, &allowed).unwrap().len(),
        2
    );
    let later = conversation("c", &format!("token {secret}"));
    let error = asked(&endpoint, "invoice", &rows(&[later]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("rows.jsonl line 1 (`c`)") && error.contains("--allow-secret c"),
        "{error}"
    );
    assert!(server.requests().is_empty());
}

/// A row of two turns.
fn conversation(id: &str, second: &str) -> Value {
    let later = json!([{"messages": [{"role": "user", "content": second}]}]);
    json!({"id": id, "messages": [{"role": "user", "content": format!("invoice {id}")}], "turns": later})
}

#[test]
fn a_bad_endpoints_file_is_refused_with_its_place() {
    let check = |lines: &str, expected: &str| {
        let text = format!("[api]\nbase_url = \"https://a.org/v1\"\nmodel = \"m\"\n{lines}\n");
        let error = Endpoint::find("api", "endpoints.toml", &text, |_| None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        assert!(!error.contains("sk-secret"), "{error}");
    };
    check(
        "modle = 1",
        "endpoints.toml line 4 column 1: unknown key `api.modle`; did you mean `model`?",
    );
    check(
        "retries = 1.5",
        "line 4 column 11: `api.retries` must be a whole number, not 1.5",
    );
    check(
        "logprobs = 1",
        "line 4 column 12: `api.logprobs` must be true or false, not the number 1",
    );
    check(
        "concurrency = 0",
        "`api.concurrency` must be between 1 and 512, not 0",
    );
    check(
        "kind = \"responses\"",
        "must be \"chat\" or \"completions\", not \"responses\"",
    );
    check(
        "json_mode = true\nstrict_schema = true",
        "`api.json_mode` is part of `strict_schema`",
    );
    check("extra_body = { stream = true }", "must not hold `stream`");
    check(
        "api_key_env = \"sk-secret\"",
        "must be the name of an environment variable",
    );
    check(
        "api_key_env = \"NO_KEY\"",
        "endpoints.toml `[api]`: the environment variable NO_KEY is not set; export it",
    );
    check(
        "[other]\nmodel = \"m\"",
        "line 4 column 2: `[other]` needs base_url",
    );
    check(
        "[other]\nbase_url = \"http://10.0.0.1/v1\"",
        "would send prompts and key unencrypted",
    );
    check(
        "[other]\nbase_url = \"https://me:x@a.org/v1\"",
        "without user, password and query",
    );
    check("x = [", "endpoints.toml line 4");
    let error = Endpoint::find(
        "apu",
        "e.toml",
        "[api]\nbase_url = \"http://[::1]:8/v1\"\nmodel = \"m\"",
        |_| None,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "no endpoint `apu` in e.toml: it has api; did you mean `api`?"
    );
    let own = "[api]\nbase_url = \"http://10.0.0.1/v1\"\nmodel = \"m\"\ninsecure_http = true";
    assert!(Endpoint::find("api", "e.toml", own, |_| None).is_ok());
}
