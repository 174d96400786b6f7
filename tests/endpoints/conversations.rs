//! Tests: conversations of several turns, asked of an endpoint turn by turn.

use grpo_tui::run::{EvalRecord, EvalSummary};
use grpo_tui::score::Task;
use serde_json::{Value, json};

use super::{RIGHT, Reply, Server, conversation, recorded, rows};

#[test]
fn a_conversation_is_asked_turn_by_turn_with_the_endpoints_own_answers() {
    let task = Task::embedded("invoice").unwrap();
    let two = rows(&[conversation("a", "again"), conversation("b", "once more")]);
    let more = "price_per_million_input = 1\nprice_per_million_output = 10";
    // The first turns of both, then the second of b alone: a's first answer is not valid.
    let server = Server::start(&[Reply::Text("no"), Reply::Text(RIGHT), Reply::Text(RIGHT)]);
    let found = recorded(&server.endpoint(more), &task, &two).unwrap();
    let sent: Vec<_> = server
        .requests()
        .into_iter()
        .map(|(_, body)| body["messages"].as_array().unwrap().clone())
        .collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 4]);
    let said = |message: &Value| (message["role"].clone(), message["content"].clone());
    assert_eq!(said(&sent[2][2]), (json!("assistant"), json!(RIGHT)));
    assert_eq!(said(&sent[2][3]), (json!("user"), json!("once more")));
    let shown = |record: &EvalRecord| {
        (
            record.turns.len(),
            record.unanswered,
            record.is_valid(),
            record.tokens,
        )
    };
    assert_eq!(
        found.iter().map(shown).collect::<Vec<_>>(),
        [(1, 1, false, Some(20)), (2, 0, true, Some(40))]
    );
    let summary = EvalSummary::from_records(&found);
    let (endpoint, answers) = (summary.endpoint.unwrap(), summary.answers.unwrap());
    assert_eq!(
        (summary.n, summary.valid, answers.n, endpoint.answers),
        (2, 0.5, 3, 3)
    );
    assert_eq!(endpoint.cost, Some(3.0 * (100.0 + 200.0) / 1e6));
    // A turn that stays without an answer takes its conversation out of every rate; what was answered had its price.
    let server = Server::start(&[
        Reply::Text(RIGHT),
        Reply::Text(RIGHT),
        Reply::Status(400, "", String::new()),
    ]);
    let found = recorded(&server.endpoint(more), &task, &two).unwrap();
    let reason = found[0].score["errors"][0]["message"].as_str().unwrap();
    assert!(
        reason.starts_with("turn 2: the server answered 400"),
        "{reason}"
    );
    assert_eq!(
        (found[0].turns.len(), found[0].unanswered, found[0].exact),
        (1, 1, None)
    );
    let summary = EvalSummary::from_records(&found);
    let endpoint = summary.endpoint.unwrap();
    assert_eq!(
        (
            summary.n,
            summary.valid,
            summary.endpoint_errors,
            summary.answers.unwrap().n
        ),
        (1, 1.0, 1, 2)
    );
    assert_eq!(
        (endpoint.answers, endpoint.cost),
        (3, Some(3.0 * (100.0 + 200.0) / 1e6))
    );
}

#[test]
fn calls_of_an_earlier_turn_go_back_as_calls() {
    let row = json!({"id": "a", "messages": [{"role": "user", "content": "Is it raining?"}], "tools": [{"name": "weather"}],
        "turns": [{"messages": [{"role": "tool", "content": "rain"}]}]});
    let calls = json!([{"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    let server = Server::start(&[Reply::Body(
        json!({"choices": [{"message": message}]}).to_string(),
    )]);
    let found = recorded(
        &server.endpoint(""),
        &Task::embedded("tool-calls").unwrap(),
        &rows(&[row]),
    )
    .unwrap();
    assert_eq!(
        (found[0].turns.len(), found[0].turns[0].tier.name()),
        (2, "valid")
    );
    let messages = &server.requests()[1].1["messages"];
    let [.., answer, result] = messages.as_array().unwrap().as_slice() else {
        panic!("{messages}")
    };
    assert_eq!(
        (&answer["tool_calls"], &answer["content"]),
        (&calls, &json!(""))
    );
    assert_eq!(
        (&result["role"], &result["tool_call_id"]),
        (&json!("tool"), &json!("x"))
    );
}
