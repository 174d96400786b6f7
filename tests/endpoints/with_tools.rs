//! Tests: what an endpoint calls is answered by the task's tools, each conversation by itself.

use std::collections::HashMap;
use std::path::Path;

use grpo_tui::endpoint::{Answer, Endpoint, EndpointError, Progress, RequestForm, records};
use grpo_tui::environment::ChainEnd;
use grpo_tui::run::{EvalRecord, EvalSummary};
use grpo_tui::score::{Scorer, Task};
use serde_json::{Value, json};

use super::{GREEDY, Reply, Server, rows};

const TOML: &str = "name = \"shop\"\nsystem = \"Use the tools.\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\n\
                    database = \"shop.sql\"\n[tools]\nmax_calls = 2\nmax_turns = 5\nmax_context_tokens = 500\n[score]\nkind = \"state\"\n\
                    query = \"SELECT stock FROM item\"\n";
const PRICES: &str = "price_per_million_input = 1\nprice_per_million_output = 10";

fn shop(folder: &Path) -> Task {
    let sql = "CREATE TABLE item (stock INT, note TEXT); INSERT INTO item VALUES (5, 'ghp_16C7e42F292c6912E7710c838347Ae178B4a');";
    for (name, text) in [("task.toml", TOML), ("shop.sql", sql), ("train.jsonl", "")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    Task::load(folder).unwrap()
}

fn row(id: &str, more: Value) -> Value {
    let mut row = json!({"id": id, "messages": [{"role": "user", "content": format!("Sell one to {id}.")}], "expected": 4});
    row.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    row
}

/// A message that calls, with the server's counts.
fn calls(name: &str, sql: &str, usage: (usize, usize)) -> Reply {
    let arguments = json!({"sql": sql}).to_string();
    let call =
        json!({"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let usage = json!({"prompt_tokens": usage.0, "completion_tokens": usage.1});
    Reply::Body(
        json!({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage})
            .to_string(),
    )
}

fn sells() -> Reply {
    calls("execute", "UPDATE item SET stock = stock - 1", (30, 10))
}

type Asked = (
    Result<Vec<EvalRecord>, EndpointError>,
    HashMap<String, Answer>,
    usize,
);

/// The records, the answers by their questions, and the conversations that were told to have ended.
fn asked(
    endpoint: &Endpoint,
    task: &Task,
    lines: &[Value],
    known: HashMap<String, Answer>,
) -> Asked {
    let (form, scorer) = (
        RequestForm::new(endpoint, task, GREEDY).unwrap(),
        Scorer::new(task).unwrap(),
    );
    let rows = rows(lines);
    let questions = form
        .first("rows.jsonl", &rows, &["open".to_owned()])
        .unwrap();
    let (mut answers, mut ended) = (HashMap::new(), 0);
    let found = records(&form, &scorer, &rows, questions, known, |progress| {
        match progress {
            Progress::Turn { .. } => {}
            Progress::Answer(question, answer) => {
                _ = answers.insert(question.digest.clone(), answer.clone())
            }
            Progress::Answered => ended += 1,
        }
        Ok(())
    });
    (found, answers, ended)
}

#[test]
fn what_an_endpoint_calls_is_answered_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let task = shop(folder.path());
    let lines = [
        row("a", json!({})),
        row("b", json!({})),
        row("c", json!({})),
    ];
    let replies = [
        // A call, and an answer.
        sells(),
        Reply::Text("Sold."),
        // A function that there is not, and one call more than `max_calls`.
        calls("sell", "", (30, 10)),
        sells(),
        sells(),
        // A call, after which the server fails to the end.
        sells(),
        Reply::Status(400, "", String::new()),
    ];
    let server = Server::start(&replies);
    let (found, answers, ended) = asked(&server.endpoint(PRICES), &task, &lines, HashMap::new());
    let found = found.unwrap();
    let sent: Vec<Value> = server
        .requests()
        .into_iter()
        .map(|(_, body)| body["messages"].clone())
        .collect();
    assert_eq!(
        server.requests()[0].1["tools"][1]["function"]["name"],
        "execute"
    );
    let call = json!([{"id": "x", "type": "function", "function": {"name": "execute",
        "arguments": "{\"sql\":\"UPDATE item SET stock = stock - 1\"}"}}]);
    let told = json!([
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "Sell one to a."},
        {"role": "assistant", "content": "", "tool_calls": call},
        {"role": "tool", "content": "{\"changed\":1}", "tool_call_id": "x"},
    ]);
    assert_eq!(sent[1], told);
    let ends: Vec<_> = found
        .iter()
        .map(|record| record.chain.as_ref().map(|chain| chain.end))
        .collect();
    assert_eq!(
        ends,
        [Some(ChainEnd::Answer), Some(ChainEnd::MaxCalls), None]
    );
    let [right, over, failed] = found.as_slice() else {
        panic!("{found:?}")
    };
    let chain = right.chain.as_ref().unwrap();
    assert_eq!(
        (right.is_valid(), right.exact, right.completion.as_str()),
        (true, Some(true), "Sold.")
    );
    // 30 and 10 tokens before, 100 after.
    assert_eq!(
        (
            chain.steps[0].tokens,
            chain.steps[0].reply_tokens,
            right.tokens
        ),
        (10, 60, Some(30))
    );
    assert_eq!((right.call_seconds.len(), chain.states.len()), (1, 1));
    assert_eq!(
        (
            over.is_valid(),
            over.chain.as_ref().unwrap().calls().count()
        ),
        (false, 2)
    );
    // What was answered had its price, also where the conversation is in no rate.
    assert!(
        failed.is_endpoint_error()
            && failed.score["errors"][0]["message"]
                .as_str()
                .unwrap()
                .contains("400")
    );
    assert_eq!(
        (failed.tokens, failed.call.as_ref().unwrap().cost),
        (Some(10), Some((30.0 + 100.0) / 1e6))
    );
    let summary = EvalSummary::from_records(&found);
    assert_eq!(
        (summary.n, summary.valid, summary.endpoint_errors, ended),
        (2, 0.5, 1, 3)
    );
    // What is known is not asked again, in the middle of a conversation too.
    let (repeated, _, _) = asked(&server.endpoint(PRICES), &task, &lines[..1], answers);
    let repeated = EvalRecord {
        call_seconds: right.call_seconds.clone(),
        ..repeated.unwrap().remove(0)
    };
    assert_eq!((&repeated, server.requests().len()), (right, sent.len()));
}

#[test]
fn turns_limits_and_texts_with_calls_are_those_of_a_model_here() {
    let folder = tempfile::tempdir().unwrap();
    let task = shop(folder.path());
    let turns =
        json!({"turns": [{"messages": [{"role": "user", "content": "One more."}], "expected": 3}]});
    let replies = [
        sells(),
        Reply::Text("Sold."),
        // As a server that reads no calls returns them.
        Reply::Text(
            "<tool_call>\n{\"name\": \"execute\", \"arguments\": {\"sql\": \"UPDATE item SET stock = 3\"}}\n</tool_call>",
        ),
        Reply::Text("Sold again."),
        // More than 500 tokens before the reply.
        calls("query", "SELECT 1", (490, 20)),
        Reply::Text("<tool_call>\n{\"name\": \n</tool_call>"),
    ];
    let server = Server::start(&replies);
    let lines = [
        row("two", turns),
        row("long", json!({})),
        row("broken", json!({})),
    ];
    let (found, _, _) = asked(&server.endpoint(""), &task, &lines, HashMap::new());
    let found = found.unwrap();
    let sent = &server.requests()[3].1["messages"];
    let roles: Vec<&str> = sent
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
            "assistant",
            "tool"
        ]
    );
    let [two, long, broken] = found.as_slice() else {
        panic!("{found:?}")
    };
    let turns: Vec<_> = two
        .turns
        .iter()
        .map(|turn| (turn.completion.as_str(), turn.exact))
        .collect();
    assert_eq!(turns, [("Sold.", Some(true)), ("Sold again.", Some(true))]);
    assert!(
        two.chain.is_none()
            && two
                .turns
                .iter()
                .all(|turn| turn.chain.as_ref().unwrap().steps.len() == 1)
    );
    assert_eq!(long.chain.as_ref().unwrap().end, ChainEnd::MaxContextTokens);
    assert_eq!(broken.chain.as_ref().unwrap().end, ChainEnd::Unreadable);
}

#[test]
fn a_reply_with_a_secret_is_not_sent_unless_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let task = shop(folder.path());
    let reads = || calls("query", "SELECT note FROM item", (1, 1));
    let server = Server::start(&[reads(), reads(), Reply::Text("Read.")]);
    let (found, _, _) = asked(
        &server.endpoint(""),
        &task,
        &[row("a", json!({}))],
        HashMap::new(),
    );
    let error = found.unwrap_err().to_string();
    assert!(
        error.starts_with("what the tools reply to `a`: holds what looks like a secret"),
        "{error}"
    );
    assert!(
        error.contains("--allow-secret a") && !error.contains("16C7e42F"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 1);
    let (found, _, _) = asked(
        &server.endpoint(""),
        &task,
        &[row("open", json!({}))],
        HashMap::new(),
    );
    assert_eq!(
        (
            found.unwrap()[0].completion.as_str(),
            server.requests().len()
        ),
        ("Read.", 3)
    );
}
