//! A judge on this machine: polite answers say please, complete ones have four words.

use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::program::{HttpRequest, serve};

/// What the server does with one request, in place of grading.
#[derive(Clone)]
pub(crate) enum Reply {
    Text(String),
    Status(u16),
    /// At the limit of tokens.
    Truncated,
    HangUp,
}

#[derive(Default)]
struct State {
    replies: VecDeque<Reply>,
    /// Authorization and body, request by request.
    requests: Vec<(Option<String>, Value)>,
    wait: Duration,
    now: usize,
    most: usize,
}

pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        Self {
            address: format!("http://{}/v1", serve(state.clone(), answer)),
            state,
        }
    }

    pub(crate) fn requests(&self) -> Vec<(Option<String>, Value)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// For the next requests.
    pub(crate) fn reply(&self, replies: &[Reply]) {
        self.state
            .lock()
            .unwrap()
            .replies
            .extend(replies.iter().cloned());
    }

    pub(crate) fn wait(&self, wait: Duration) {
        self.state.lock().unwrap().wait = wait;
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.state.lock().unwrap().most
    }
}

/// The text of a judge's answer.
pub(crate) fn grades(of: &[(&str, Value)]) -> String {
    Value::Object(
        of.iter()
            .map(|(name, grade)| ((*name).to_owned(), grade.clone()))
            .collect(),
    )
    .to_string()
}

/// An answer to each criterion of the schema, or of each answer.
fn graded(content: &Value, schema: &Value) -> Value {
    let of_answer = |answer: &str, schema: &Value| {
        let grade = |(name, schema): (&String, &Value)| {
            let words = answer.split_whitespace().count().min(4);
            let grade = if schema["properties"]["verdict"].is_object() {
                let is_polite = answer.contains("please");
                let reason = if is_polite {
                    "it says please"
                } else {
                    "it lacks please"
                };
                json!({"reason": reason, "verdict": if is_polite { "yes" } else { "no" }})
            } else {
                json!({"reason": format!("{words} words"), "points": words})
            };
            (name.clone(), grade)
        };
        Value::Object(
            schema["properties"]
                .as_object()
                .unwrap()
                .iter()
                .map(grade)
                .collect::<Map<_, _>>(),
        )
    };
    match content["answers"].as_object() {
        Some(answers) => Value::Object(
            answers
                .iter()
                .map(|(name, answer)| {
                    (
                        name.clone(),
                        of_answer(answer.as_str().unwrap(), &schema["properties"][name]),
                    )
                })
                .collect(),
        ),
        None => of_answer(content["answer"].as_str().unwrap(), schema),
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = HttpRequest::read(&mut reader) {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let (reply, wait) = {
            let mut state = state.lock().unwrap();
            state
                .requests
                .push((request.header("authorization"), body.clone()));
            state.now += 1;
            state.most = state.most.max(state.now);
            (state.replies.pop_front(), state.wait)
        };
        std::thread::sleep(wait);
        let content: Value =
            serde_json::from_str(body["messages"][1]["content"].as_str().unwrap()).unwrap();
        let text = graded(&content, &body["response_format"]["json_schema"]["schema"]).to_string();
        let said = |text: &str, reason: &str| {
            let choice =
                json!({"message": {"role": "assistant", "content": text}, "finish_reason": reason});
            json!({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})
                .to_string()
        };
        let (status, body) = match reply {
            None => (200, said(&text, "stop")),
            Some(Reply::Text(text)) => (200, said(&text, "stop")),
            Some(Reply::Truncated) => (200, said(&text, "length")),
            Some(Reply::Status(status)) => (status, String::new()),
            Some(Reply::HangUp) => return,
        };
        state.lock().unwrap().now -= 1;
        // The client may have gone.
        let _ = write!(
            reader.get_mut(),
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}
