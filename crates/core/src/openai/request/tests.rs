//! Tests of parsing and of the names in rejections.

use serde_json::json;

use super::*;

fn chat(changes: Json) -> Result<GenerationRequest, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "u"}]});
    body.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    GenerationRequest::parse(Api::Chat, body.to_string().as_bytes())
}

fn completion(changes: Json) -> Result<GenerationRequest, ApiError> {
    let mut body = json!({"model": "m", "prompt": "p"});
    body.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    GenerationRequest::parse(Api::Completions, body.to_string().as_bytes())
}

#[test]
fn a_body_is_read_with_its_defaults() {
    let plain = chat(json!({})).unwrap();
    assert_eq!(
        (
            plain.samples,
            plain.temperature,
            plain.max_tokens,
            plain.seed
        ),
        (1, 1.0, None, None)
    );
    assert_eq!(
        plain.prompt,
        Prompt::Chat {
            messages: vec![Message::new("user", "u")],
            tools: None,
            template: Box::default()
        }
    );
    let full = chat(json!({
        "n": 3, "seed": -1, "stop": ["a", "b"], "max_completion_tokens": 7, "temperature": 0, "logprobs": true, "stream": true,
        "stream_options": {"include_usage": true, "include_obfuscation": true}, "top_p": 1, "presence_penalty": 0, "logit_bias": {}, "user": "x", "metadata": {"a": "b"},
        "store": false, "tool_choice": "auto", "parallel_tool_calls": true, "response_format": {"type": "text"}, "ignore_eos": true, "verbosity": "low",
        "chat_template_kwargs": {"enable_thinking": false},
    }))
    .unwrap();
    assert_eq!(
        (full.samples, full.seed, full.max_tokens, full.temperature),
        (3, Some(u64::MAX), Some(7), 0.0)
    );
    assert!(
        full.log_probs
            && full.stream
            && full.include_usage
            && full.ignore_eos
            && full.stop == ["a", "b"]
    );
    assert!(
        matches!(full.prompt, Prompt::Chat { template, .. } if template.thinking == Some(false))
    );
    let texts = |prompt: Json| completion(json!({"prompt": prompt})).unwrap().prompt;
    let tokens = |ids: &[u32]| TextPrompt::Tokens(ids.to_vec());
    assert_eq!(texts(json!([1, 2])), Prompt::Texts(vec![tokens(&[1, 2])]));
    assert_eq!(
        texts(json!(["a", [3]])),
        Prompt::Texts(vec![TextPrompt::Text("a".to_owned()), tokens(&[3])])
    );
    let shaped = chat(
        json!({"top_p": 0.9, "presence_penalty": -1, "frequency_penalty": 0.5, "logprobs": true, "top_logprobs": 5}),
    );
    let shaped = shaped.unwrap();
    assert_eq!(
        (
            shaped.top_p,
            shaped.presence_penalty,
            shaped.frequency_penalty
        ),
        (0.9, -1.0, 0.5)
    );
    assert_eq!(
        (
            shaped.top_log_probs,
            completion(json!({"logprobs": 3})).unwrap().top_log_probs
        ),
        (5, 3)
    );
    for (effort, expected) in [("none", false), ("minimal", true), ("high", true)] {
        let Prompt::Chat { template, .. } =
            chat(json!({"reasoning_effort": effort})).unwrap().prompt
        else {
            unreachable!()
        };
        assert_eq!(template.thinking, Some(expected), "{effort}");
    }
    // Null means absent.
    assert_eq!(
        chat(json!({"stop": null, "seed": null, "top_p": null, "tools": null, "logit_bias": null, "chat_template_kwargs": {"enable_thinking": null}}))
            .unwrap(),
        plain
    );
}

#[test]
fn sampling_parameters_of_other_servers_are_read() {
    let read = chat(json!({"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 3}));
    let read = read.unwrap();
    assert_eq!(
        (
            read.top_k,
            read.min_p,
            read.repetition_penalty,
            read.min_tokens
        ),
        (40, 0.1, 1.2, 3)
    );
    let none = json!({"top_k": -1, "min_p": 0, "repetition_penalty": 1, "min_tokens": 0});
    assert_eq!(chat(none).unwrap(), chat(json!({})).unwrap());
    let schema = json!({"type": "object"});
    for (body, field) in [
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
            "response_format",
        ),
        (json!({"guided_json": schema}), "guided_json"),
        (json!({"guided_json": schema.to_string()}), "guided_json"),
        (
            json!({"structured_outputs": {"json": schema, "regex": null}}),
            "structured_outputs",
        ),
    ] {
        let read = chat(body).unwrap();
        assert_eq!(read.format_field, field);
        assert_eq!(
            read.response_format,
            ResponseFormat::JsonSchema(schema.clone())
        );
    }
    let described =
        json!({"schema": schema, "references": {"task:///a.json": {}}, "thinking": true});
    let asked = completion(json!({"x_confidence": described})).unwrap();
    let expected = AnswerSchema {
        schema,
        references: [("task:///a.json".to_owned(), json!({}))].into(),
        thinking: true,
        ..AnswerSchema::default()
    };
    assert_eq!(
        (asked.confidence, asked.confidence_schema),
        (true, Some(Box::new(expected)))
    );
    let echo = completion(json!({"echo": true, "max_tokens": 0, "add_special_tokens": false}));
    let echo = echo.unwrap();
    assert_eq!(
        (echo.echo, echo.max_tokens, echo.add_special_tokens),
        (true, Some(0), false)
    );
    assert!(completion(json!({})).unwrap().add_special_tokens);
}

#[test]
fn bodies_of_tokenize_are_read_or_refused_by_name() {
    let read = |body: Json| TokenizeRequest::parse(body.to_string().as_bytes());
    for (body, expected) in [
        (json!({"prompt": "p"}), true),
        (json!({"prompt": "p", "add_special_tokens": false}), false),
        (
            json!({"messages": [{"role": "user", "content": "u"}]}),
            false,
        ),
    ] {
        assert_eq!(read(body).unwrap().add_special_tokens, expected);
    }
    for (body, name) in [
        (json!({"prompt": 3}), "prompt"),
        (json!({}), "prompt"),
        (
            json!({"prompt": "p", "messages": [{"role": "user", "content": "u"}]}),
            "prompt",
        ),
        (json!({"prompt": "p", "frobnicate": 1}), "frobnicate"),
        (
            json!({"prompt": "p", "add_special_tokens": 1}),
            "add_special_tokens",
        ),
        (json!({"messages": []}), "messages"),
        (
            json!({"messages": [{"role": "user", "content": "u"}], "add_generation_prompt": false}),
            "add_generation_prompt",
        ),
    ] {
        let error = read(body.clone()).unwrap_err();
        assert_eq!(error.parameter.as_deref(), Some(name), "{body}: {error}");
    }
}

/// Replayed answers: nulls are absent fields, others do not belong in a prompt.
#[test]
fn answers_that_clients_replay_are_the_same_turns() {
    let read = |turn: Json| {
        let Prompt::Chat { messages, .. } = chat(json!({"messages": [turn]})).unwrap().prompt
        else {
            unreachable!()
        };
        messages
    };
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let plain = json!({"role": "assistant", "content": "a", "tool_calls": [call]});
    let call = json!({"id": "c", "type": "function", "index": 0, "provider_specific_fields": null,
        "function": {"name": "f", "arguments": "{}", "provider_specific_fields": null}});
    for added in [
        json!({"refusal": null, "annotations": null, "audio": null, "function_call": null}),
        json!({"annotations": [], "images": [], "thinking_blocks": [], "reasoning_content": null}),
        json!({"provider_specific_fields": {"refusal": null, "x": 1}, "reasoning_items": null}),
        json!({"name": null, "tool_call_id": null, "reasoning": null, "function_call": {}}),
        json!({"type": "text"}),
        json!({"type": "message"}),
    ] {
        let mut turn = plain.clone();
        turn["tool_calls"] = json!([call]);
        turn.as_object_mut()
            .unwrap()
            .extend(added.as_object().unwrap().clone());
        assert_eq!(read(turn), read(plain.clone()), "{added}");
    }
    let tools = |function: Json| {
        let tools = json!([{"type": "function", "function": function, "x": null}]);
        let Prompt::Chat { tools, .. } = chat(json!({"tools": tools})).unwrap().prompt else {
            unreachable!()
        };
        tools.unwrap().list
    };
    let schema = json!({"properties": {"a": {"default": null}}});
    assert_eq!(
        tools(json!({"name": "f", "parameters": schema, "description": null, "strict": null})),
        tools(json!({"name": "f", "parameters": schema}))
    );
    for (turn, name) in [
        (
            json!({"function_call": {"name": "f"}}),
            "messages.0.function_call",
        ),
        (
            json!({"thinking_blocks": [1]}),
            "messages.0.thinking_blocks",
        ),
        (json!({"audio": {"id": "a"}}), "messages.0.audio"),
        (json!({"type": "image"}), "messages.0.type"),
    ] {
        let mut whole = plain.clone();
        whole
            .as_object_mut()
            .unwrap()
            .extend(turn.as_object().unwrap().clone());
        let error = chat(json!({"messages": [whole]})).unwrap_err();
        assert_eq!(error.parameter.as_deref(), Some(name), "{error}");
    }
    let items = |items: Json| {
        let body = json!({"model": "m", "input": items}).to_string();
        GenerationRequest::parse(Api::Responses, body.as_bytes())
            .unwrap()
            .prompt
    };
    let text = json!([{"type": "output_text", "text": "a"}]);
    assert_eq!(
        items(json!([
            {"type": "reasoning", "id": "r", "summary": [], "content": null, "encrypted_content": null, "status": null},
            {"type": "message", "role": "assistant", "content": text, "id": "m", "status": null, "phase": null, "x": null},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": null, "status": null},
            {"type": "function_call_output", "call_id": "c", "output": "o", "id": null, "caller": null},
        ])),
        items(json!([
            {"type": "message", "role": "assistant", "content": text},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "o"},
        ]))
    );
}

#[test]
fn turns_are_read_as_templates_take_them() {
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let turns = json!([
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
    ]);
    let Prompt::Chat { messages, .. } = chat(json!({"messages": turns})).unwrap().prompt else {
        unreachable!()
    };
    assert_eq!(
        (messages[0].role.as_str(), messages[0].content.as_str()),
        ("system", "ab")
    );
    assert_eq!(
        messages[1].tool_calls()[0].pointer("/function/arguments"),
        Some(&json!({"a": 1}))
    );
    assert_eq!(messages[2].other["tool_call_id"], "1");
}

#[test]
fn tools_are_read_with_how_they_may_be_called() {
    let read = |changes: Json| {
        let tools = json!([{"type": "function", "function": {"name": "f", "strict": true}}, {"type": "function", "function": {"name": "g", "strict": null}}]);
        let mut body = json!({"tools": tools});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let Prompt::Chat { tools, .. } = chat(body).unwrap().prompt else {
            unreachable!()
        };
        tools
    };
    let tools = read(json!({})).unwrap();
    assert_eq!(
        (tools.choice, tools.parallel, tools.strict),
        (ToolChoice::Auto, true, vec!["f".to_owned()])
    );
    assert_eq!(
        tools.list[0],
        json!({"type": "function", "function": {"name": "f"}})
    );
    let one = read(
        json!({"tool_choice": {"type": "function", "function": {"name": "g"}}, "parallel_tool_calls": false}),
    );
    let one = one.unwrap();
    assert_eq!(
        (one.choice, one.parallel),
        (ToolChoice::Function("g".to_owned()), false)
    );
    assert_eq!(
        read(json!({"tool_choice": "required"})).unwrap().choice,
        ToolChoice::Required
    );
    let allowed = |mode: &str, names: &[&str]| {
        let tools: Vec<Json> = names
            .iter()
            .map(|name| json!({"type": "function", "function": {"name": name}}))
            .collect();
        let choice =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
        let tools = read(json!({"tool_choice": choice})).unwrap();
        (tools.choice, tools.allowed)
    };
    assert_eq!(
        allowed("required", &["g"]),
        (ToolChoice::Required, vec!["g".to_owned()])
    );
    assert_eq!(allowed("auto", &["g", "f"]), (ToolChoice::Auto, Vec::new()));
    assert_eq!(
        (
            read(json!({"tool_choice": "none"})),
            read(json!({"tools": []}))
        ),
        (None, None)
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let check = |body: Json, name: &str| {
        let error = chat(body.clone()).unwrap_err();
        assert_eq!(
            (error.status, error.parameter.as_deref()),
            (400, Some(name)),
            "{body}: {error}"
        );
    };
    for (body, name) in [
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 1.5}), "top_k"),
        (json!({"min_p": 1.1}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": 101}), "repetition_penalty"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (json!({"min_tokens": 6, "max_tokens": 5}), "min_tokens"),
        (json!({"min_tokens": 6, "stop": "a"}), "min_tokens"),
        (json!({"guided_json": 5}), "guided_json"),
        (json!({"guided_regex": "a+"}), "guided_regex"),
        (
            json!({"structured_outputs": {"regex": "a+"}}),
            "structured_outputs.regex",
        ),
        (
            json!({"structured_outputs": {"x": 1}}),
            "structured_outputs.x",
        ),
        (
            json!({"structured_outputs": {"json": 1}}),
            "structured_outputs.json",
        ),
        (json!({"structured_outputs": {}}), "structured_outputs"),
        (
            json!({"guided_json": {}, "response_format": {"type": "json_object"}}),
            "guided_json",
        ),
        (json!({"top_logprobs": 5}), "top_logprobs"),
        (
            json!({"top_logprobs": 21, "logprobs": true}),
            "top_logprobs",
        ),
        (json!({"presence_penalty": 2.1}), "presence_penalty"),
        (json!({"frequency_penalty": "1"}), "frequency_penalty"),
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"verbosity": "none"}), "verbosity"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": "any"}), "tool_choice"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "tool_choice",
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools"}}),
            "tool_choice",
        ),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]}),
            "tools.function.strict",
        ),
        (json!({"functions": []}), "functions"),
        (json!({"reasoning_effort": "much"}), "reasoning_effort"),
        (
            json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}}),
            "reasoning_effort",
        ),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "chat_template_kwargs",
        ),
        (json!({"thinking_token_budget": 0}), "thinking_token_budget"),
        (
            json!({"thinking_token_budget": 5, "thinking_end": "stop"}),
            "thinking_end",
        ),
        (json!({"thinking_end": "force"}), "thinking_end"),
        (json!({"modalities": ["audio"]}), "modalities"),
        (json!({"frobnicate": 1}), "frobnicate"),
        (json!({"prompt": "p"}), "prompt"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"n": "1"}), "n"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": [1]}), "stop"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 6}),
            "max_completion_tokens",
        ),
        (json!({"temperature": 1e-6}), "temperature"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"stream": 1}), "stream"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"x": true}}),
            "stream_options.x",
        ),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (json!({"messages": []}), "messages"),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages.0.content",
        ),
        (
            json!({"messages": [{"role": "x", "content": ""}]}),
            "messages.0.role",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages.0.content",
        ),
        (
            json!({"messages": [{"role": "user", "content": "", "x": 1}]}),
            "messages.0.x",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
            "messages.0.tool_calls",
        ),
        (json!({"tools": [{"name": "f"}]}), "tools"),
    ] {
        check(body, name);
    }
    for (body, name) in [
        (json!({"logprobs": 30}), "logprobs"),
        (json!({"echo": true, "stream": true}), "echo"),
        (json!({"echo": 1}), "echo"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"messages": []}), "messages"),
        (json!({"prompt": [[1], "a", {}]}), "prompt"),
        (json!({"prompt": [1, -2]}), "prompt"),
        (json!({"prompt": []}), "prompt"),
    ] {
        assert_eq!(
            completion(body).unwrap_err().parameter.as_deref(),
            Some(name)
        );
    }
    for body in [
        "",
        "[]",
        "{",
        "{\"model\": \"m\"",
        "\u{0}",
        "{\"messages\": []}",
    ] {
        assert_eq!(
            GenerationRequest::parse(Api::Chat, body.as_bytes())
                .unwrap_err()
                .status,
            400,
            "{body}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        GenerationRequest::parse(Api::Chat, deep.as_bytes())
            .unwrap_err()
            .status,
        400
    );
}
