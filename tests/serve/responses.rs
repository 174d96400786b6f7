//! `/v1/responses`: the subset that needs nothing stored.

use super::*;

const RESPONSES: &str = "/v1/responses";

fn body(changes: Json) -> Json {
    let mut body = json!({"model": "tiny", "input": "Invoice of Acme, total 12 EUR", "max_output_tokens": 40, "temperature": 0});
    body.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    body
}

/// The events of a stream, each under its own name.
fn events(server: &Server, body: &Json) -> Vec<Json> {
    let (status, _, text) = server.ask("POST", RESPONSES, "", body.to_string().as_bytes());
    assert_eq!(status, 200, "{text}");
    let event = |event: &str| {
        let (name, data) = event
            .strip_prefix("event: ")
            .unwrap()
            .split_once("\ndata: ")
            .unwrap();
        let data: Json = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        data
    };
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(event)
        .collect()
}

#[test]
fn a_response_is_answered_whole_and_by_events() {
    let server = Server::start(&["tiny"]);
    let whole = server.post(
        RESPONSES,
        &body(json!({"instructions": "Answer in JSON.", "top_logprobs": 1})),
    );
    let chat = server.post(
        CHAT,
        &json!({"model": "tiny", "max_tokens": 40, "temperature": 0, "messages": [
            {"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "Invoice of Acme, total 12 EUR"}]}),
    );
    let text = &whole["output"][0]["content"][0]["text"];
    assert_eq!(*text, chat["choices"][0]["message"]["content"]);
    assert_eq!(
        whole["usage"]["input_tokens"],
        chat["usage"]["prompt_tokens"]
    );
    let (status, why) = match chat["choices"][0]["finish_reason"].as_str() {
        Some("length") => ("incomplete", json!({"reason": "max_output_tokens"})),
        _ => ("completed", Json::Null),
    };
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]),
        (&json!(status), &why)
    );
    assert_eq!(
        (&whole["store"], &whole["instructions"]),
        (&json!(false), &json!("Answer in JSON."))
    );
    assert!(
        whole["output"][0]["content"][0]["logprobs"][0]["top_logprobs"][0]["token"].is_string()
    );

    let streamed = events(
        &server,
        &body(json!({"instructions": "Answer in JSON.", "stream": true})),
    );
    let deltas = streamed
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta");
    let joined: String = deltas
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(json!(joined), *text);
    let last = streamed.last().unwrap();
    assert_eq!(
        (
            &last["response"]["output"][0]["content"][0]["text"],
            &last["response"]["usage"]
        ),
        (text, &whole["usage"])
    );
    // A format is enforced.
    let format = json!({"format": {"type": "json_schema", "name": "n", "strict": true, "schema": {"enum": ["ab"]}}});
    assert_eq!(
        server.post(RESPONSES, &body(json!({"text": format})))["output"][0]["content"][0]["text"],
        "\"ab\""
    );
}

#[test]
fn calls_are_items_and_go_back_as_items() {
    let server = Server::start(&["tiny"]);
    let schema = json!({"type": "object", "properties": {"n": {"enum": [17, 18]}}, "required": ["n"], "additionalProperties": false});
    let tools = json!([{"type": "function", "name": "pay", "parameters": schema, "strict": true}]);
    let asked = body(
        json!({"tools": tools, "tool_choice": {"type": "function", "name": "pay"}, "max_output_tokens": 400}),
    );
    let whole = server.post(RESPONSES, &asked);
    let call = whole["output"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["type"] == "function_call")
        .unwrap()
        .clone();
    let arguments: Json = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(
        (&call["name"], &call["status"]) == (&json!("pay"), &json!("completed"))
            && arguments["n"].is_u64(),
        "{call}"
    );
    let mut streamed = asked.clone();
    streamed["stream"] = true.into();
    let streamed = events(&server, &streamed);
    let deltas = streamed
        .iter()
        .filter(|event| event["type"] == "response.function_call_arguments.delta");
    let joined: String = deltas
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(json!(joined), call["arguments"]);
    // The turns of a chat are the same prompt.
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Pay it."}]}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "paid"},
    ]);
    let function = json!({"name": "pay", "arguments": call["arguments"]});
    let chat = json!({"model": "tiny", "max_tokens": 4, "messages": [
        {"role": "user", "content": "Pay it."},
        {"role": "assistant", "tool_calls": [{"id": call["call_id"], "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call["call_id"], "content": "paid"},
    ]});
    let back = server.post(
        RESPONSES,
        &body(json!({"input": input, "max_output_tokens": 4})),
    );
    assert_eq!(
        back["usage"]["input_tokens"],
        server.post(CHAT, &chat)["usage"]["prompt_tokens"]
    );
}

#[test]
fn what_would_be_stored_is_refused_by_its_name() {
    let server = Server::start(&["tiny"]);
    for (changes, name) in [
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id",
        ),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"include": ["file_search_call.results"]}), "include"),
        (json!({"tools": [{"type": "web_search"}]}), "tools"),
        (json!({"n": 2}), "n"),
        (json!({"input": []}), "input"),
        (
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
            "input.0.type",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input.0.content",
        ),
        (
            json!({"text": {"format": {"type": "json_schema"}}}),
            "text.format.schema",
        ),
        (json!({"reasoning": {"effort": "much"}}), "reasoning_effort"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
    ] {
        let refused = server.refused(RESPONSES, body(changes.clone()).to_string().as_bytes(), 400);
        assert_eq!(refused["param"], name, "{changes}: {refused}");
    }
    let refused = server.refused(
        RESPONSES,
        body(json!({"tools": [{"type": "web_search"}]}))
            .to_string()
            .as_bytes(),
        400,
    );
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("`web_search`"), "{message}");
    // What official clients send by default.
    let defaults = json!({"store": true, "background": false, "include": [], "metadata": {}, "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": true, "stream": true, "stream_options": {"include_obfuscation": true}});
    let (status, _, text) =
        server.ask("POST", RESPONSES, "", body(defaults).to_string().as_bytes());
    assert_eq!(status, 200, "{text}");
    server.post(
        RESPONSES,
        &body(json!({"store": false, "truncation": "disabled", "include": ["reasoning.encrypted_content"]})),
    );
}
