//! Formats and tools that completions must follow, beside completions that are free.

use super::*;

fn schema() -> Json {
    json!({"type": "array", "items": {"enum": [true, false, "maybe"]}, "minItems": 2, "maxItems": 4})
}

fn format(schema: &Json) -> Json {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

fn texts(answer: &Json) -> Vec<&str> {
    let text = |choice: &'_ Json| choice.get("text").is_some();
    let choices = answer["choices"].as_array().unwrap().iter();
    choices
        .map(|choice| {
            if text(choice) {
                &choice["text"]
            } else {
                &choice["message"]["content"]
            }
            .as_str()
            .unwrap()
        })
        .collect()
}

/// vLLM's fields for a schema, and tools of which some may be called.
#[test]
fn other_fields_constrain_as_well() {
    let server = Server::start(&["tiny-tools", "--threads", "1"]);
    let ask = |changes: Json| {
        let mut body = chat(json!({"model": "tiny-tools", "n": 4, "seed": 5, "max_tokens": 300}));
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    let words = json!({"enum": ["ab", "cd"]});
    for field in [
        json!({"guided_json": words}),
        json!({"structured_outputs": {"json": words.to_string()}}),
    ] {
        let answer = server.post(CHAT, &ask(field));
        let found = texts(&answer);
        assert!(
            found.iter().all(|text| ["\"ab\"", "\"cd\""].contains(text)),
            "{found:?}"
        );
    }
    let unknown = ask(json!({"guided_json": {"$ref": "#/missing"}})).to_string();
    assert_eq!(
        server.refused(CHAT, unknown.as_bytes(), 400)["param"],
        "guided_json"
    );
    let early = ask(json!({"guided_json": words, "min_tokens": 5})).to_string();
    assert_eq!(
        server.refused(CHAT, early.as_bytes(), 400)["param"],
        "min_tokens"
    );
    let tool = |name: &str| {
        let parameters = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let allowed = json!({"mode": "required", "tools": [named("ring")]});
    let choice = json!({"type": "allowed_tools", "allowed_tools": allowed});
    let body = ask(json!({"tools": [tool("dim"), tool("ring")], "tool_choice": choice}));
    let answer = server.post(CHAT, &body);
    for choice in answer["choices"].as_array().unwrap() {
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert!(
            calls.iter().all(|call| call["function"]["name"] == "ring"),
            "{choice}"
        );
    }
    // The model reads of all tools.
    let mut all = body.clone();
    all["tool_choice"] = "required".into();
    assert_eq!(
        server.post(CHAT, &all)["usage"]["prompt_tokens"],
        answer["usage"]["prompt_tokens"]
    );
}

#[test]
fn completions_follow_a_schema_beside_free_ones() {
    let server = Server::start(&["tiny", "--threads", "1"]);
    let free = chat(json!({"temperature": 0, "n": 3, "max_tokens": 60}));
    let alone = server.post(CHAT, &free);
    let bound = chat(
        json!({"response_format": format(&schema()), "n": 8, "seed": 5, "logprobs": true, "max_tokens": 400}),
    );
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let check = |answer: &Json| {
        for (text, choice) in texts(answer)
            .into_iter()
            .zip(answer["choices"].as_array().unwrap())
        {
            assert_eq!(choice["finish_reason"], "stop", "{text}");
            assert!(
                serde_json::from_str(text).is_ok_and(|value| validator.is_valid(&value)),
                "{text}"
            );
        }
    };
    // Side by side in one pass, the free ones as they are alone.
    let sockets = [&bound, &free, &bound]
        .map(|body| server.send("POST", CHAT, "", body.to_string().as_bytes()));
    let answers = sockets.map(|mut socket| {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        serde_json::from_str::<Json>(&answered(&answer).2).unwrap()
    });
    assert_eq!(
        (texts(&answers[1]), texts(&answers[0])),
        (texts(&alone), texts(&answers[2]))
    );
    check(&answers[0]);
    let tokens = answers[0]["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert!(
        tokens
            .iter()
            .all(|token| token["logprob"].as_f64().unwrap() <= 1e-6)
    );
    // In a stream the same, by and by.
    let mut streamed = bound.clone();
    streamed["stream"] = true.into();
    let mut joined = vec![String::new(); 8];
    let chunks = server.stream(CHAT, &streamed);
    for choice in chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap())
    {
        joined[choice["index"].as_u64().unwrap() as usize]
            .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(joined, texts(&answers[0]));
    assert!(chunks.len() > 8 * 3, "{} chunks", chunks.len());
    // Texts, and any object.
    check(&server.post(
        TEXT,
        &json!({"model": "tiny", "prompt": "Acme", "response_format": format(&schema()), "n": 4, "max_tokens": 400}),
    ));
    let object = chat(
        json!({"response_format": {"type": "json_object"}, "n": 8, "temperature": 0.2, "max_tokens": 200}),
    );
    let objects = server.post(CHAT, &object);
    for (text, choice) in texts(&objects)
        .iter()
        .zip(objects["choices"].as_array().unwrap())
    {
        let is_object = serde_json::from_str::<Json>(text).is_ok_and(|value| value.is_object());
        assert!(
            is_object || (choice["finish_reason"] == "length" && text.starts_with('{')),
            "{text}"
        );
    }
}

#[test]
fn a_schema_that_cannot_be_enforced_is_refused_with_place_and_keyword() {
    let server = Server::start(&["tiny"]);
    let refused = |changes: Json| server.refused(CHAT, chat(changes).to_string().as_bytes(), 400);
    let within = |schema: Json| json!({"type": "object", "properties": {"a/b": schema}});
    for (schema, parts) in [
        (
            within(json!({"not": {"items": {"type": "null"}}})),
            ["/properties/a~1b/not", "`not` cannot be enforced"],
        ),
        (
            within(json!({"pattern": "(?=a)b"})),
            ["/properties/a~1b/pattern", "look-around"],
        ),
        (
            within(json!({"$ref": "https://example.com/x.json"})),
            [
                "`response_format.json_schema.schema`",
                "https://example.com/x.json",
            ],
        ),
        (
            within(json!({"type": "text"})),
            ["/properties/a~1b/type", "text"],
        ),
        (
            json!({"properties": (0..1001).map(|n| (n.to_string(), json!({}))).collect::<serde_json::Map<_, _>>()}),
            [
                "`/properties: 1001 optional properties in a row cannot be enforced",
                "at most 1000 can",
            ],
        ),
        (
            json!({"enum": []}),
            ["`response_format.json_schema.schema`", "cannot be enforced"],
        ),
    ] {
        let error = refused(json!({"response_format": format(&schema)}));
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!("response_format"), &json!("invalid_request_error")),
            "{error}"
        );
        for part in parts {
            assert!(
                error["message"].as_str().unwrap().contains(part),
                "{error} lacks {part}"
            );
        }
    }
    // What is too large is found before anything is decoded.
    let many = |of: &str| -> Json {
        let all: serde_json::Map<String, Json> = (0..900)
            .map(|n| (format!("{of}{n}"), json!({"type": "string"})))
            .collect();
        json!({"type": "object", "properties": all, "additionalProperties": false})
    };
    let error = refused(
        json!({"response_format": format(&json!({"anyOf": (["p", "q", "r", "s"].map(many))}))}),
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("it is too large for a grammar"),
        "{error}"
    );
    let eos = refused(json!({"response_format": {"type": "json_object"}, "ignore_eos": true}));
    assert_eq!(eos["param"], "ignore_eos");
    let tool = |name: &str, schema: Json| json!({"type": "function", "function": {"name": name, "strict": true, "parameters": schema}});
    let tools = json!([
        tool("f", json!({})),
        tool("g", within(json!({"contains": {}})))
    ]);
    let error = refused(json!({"tools": tools}));
    assert_eq!(error["param"], "tools", "{error}");
    let place =
        "`tools`/1/function/parameters/properties/a~1b/contains: `contains` cannot be enforced";
    assert!(
        error["message"].as_str().unwrap().contains(place),
        "{error}"
    );
    // Of the functions that cannot be called nothing is asked.
    let mut other = chat(
        json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}, "max_tokens": 300}),
    );
    assert_eq!(
        called(&server.post(CHAT, &other)["choices"][0]),
        [("f".to_owned(), json!({}))]
    );
    other["tool_choice"] = json!({"type": "function", "function": {"name": "h"}});
    assert_eq!(
        server.refused(CHAT, other.to_string().as_bytes(), 400)["param"],
        "tool_choice"
    );
}

/// Names and arguments of the calls.
fn called(choice: &Json) -> Vec<(String, Json)> {
    let call = |call: &Json| {
        let function = &call["function"];
        let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        (function["name"].as_str().unwrap().to_owned(), arguments)
    };
    choice["message"]["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(call)
        .collect()
}

#[test]
fn tools_are_called_where_they_must_be_and_as_they_must_be() {
    // A model that knows of no tools.
    let server = Server::start(&["tiny"]);
    let tool = |name: &str, strict: bool| {
        let parameters = json!({"type": "object", "properties": {"on": {"type": "boolean"}, "level": {"enum": [1, 2]}}, "required": ["on"], "additionalProperties": false});
        json!({"type": "function", "function": {"name": name, "strict": strict, "parameters": parameters}})
    };
    let validator = jsonschema::validator_for(&tool("a", true)["function"]["parameters"]).unwrap();
    let body = |changes: Json| {
        let mut body = chat(
            json!({"tools": [tool("dim", true), tool("ring", false)], "n": 8, "seed": 3, "max_tokens": 300}),
        );
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    for (changes, names, single) in [
        (
            json!({"tool_choice": "required"}),
            &["dim", "ring"][..],
            false,
        ),
        (
            json!({"tool_choice": "required", "parallel_tool_calls": false}),
            &["dim", "ring"],
            true,
        ),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "ring"}}}),
            &["ring"],
            true,
        ),
    ] {
        let answer = server.post(CHAT, &body(changes.clone()));
        for choice in answer["choices"].as_array().unwrap() {
            // It may go on calling to its limit.
            if choice["finish_reason"] == "length" && !single {
                continue;
            }
            let calls = called(choice);
            assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
            assert!(
                !calls.is_empty() && (!single || calls.len() == 1),
                "{choice}"
            );
            for (name, arguments) in calls {
                assert!(
                    names.contains(&name.as_str()) && validator.is_valid(&arguments),
                    "{changes}: {name} {arguments}"
                );
            }
        }
    }
    // In a stream calls come as they are written, those of truncated completions, too.
    let many = body(json!({"tool_choice": "required"}));
    let mut streamed = many.clone();
    streamed["stream"] = true.into();
    let (whole, chunks) = (server.post(CHAT, &many), server.stream(CHAT, &streamed));
    let mut most = 0;
    for (index, choice) in (0..).zip(whole["choices"].as_array().unwrap()) {
        let calls = functions(
            choice["message"]["tool_calls"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default(),
        );
        most = most.max(calls.len());
        assert_eq!(streamed_calls(&chunks, index), calls);
    }
    assert!(most > 1, "none made several calls");
    let functions = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]["function"]);
    let (names, pieces): (Vec<&Json>, Vec<&Json>) = functions
        .filter(|function| function.is_object())
        .partition(|function| function["name"].is_string());
    assert!(
        pieces.len() > 3 * names.len(),
        "{} calls in {} pieces",
        names.len(),
        pieces.len()
    );
    // Text comes as it is sampled, though there are tools.
    let mut free = body(json!({"n": 1, "tools": [tool("ring", false)]}));
    let text = texts(&server.post(CHAT, &free))[0].to_owned();
    free["stream"] = true.into();
    let chunks = server.stream(CHAT, &free);
    let pieces: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(pieces.concat(), text);
    assert!(pieces.len() > 5, "{pieces:?}");
    // Left to itself it calls nothing, and says what it would say without a constraint.
    let free = server.post(
        CHAT,
        &body(json!({"temperature": 0, "tools": [tool("ring", false)], "n": 1})),
    );
    let strict = server.post(
        CHAT,
        &body(json!({"temperature": 0, "tools": [tool("ring", true)], "n": 1})),
    );
    assert_eq!(
        (texts(&free), called(&free["choices"][0])),
        (texts(&strict), vec![])
    );
    // A format beside tools: a value, or calls.
    let either = server.post(CHAT, &body(json!({"response_format": format(&schema())})));
    let values = jsonschema::validator_for(&schema()).unwrap();
    for choice in either["choices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|choice| choice["finish_reason"] == "stop")
    {
        let text = choice["message"]["content"].as_str().unwrap();
        assert!(
            values.is_valid(&serde_json::from_str(text).unwrap()),
            "{text}"
        );
    }
}

#[test]
fn a_think_block_is_told_apart_from_the_answer() {
    let server = Server::start(&["tiny"]);
    let thinking = json!({"enable_thinking": true});
    // The model knows of none, but likes it better than the other beginning.
    let mut body = chat(
        json!({"chat_template_kwargs": thinking, "response_format": format(&json!({"const": "Acme"})), "n": 8, "seed": 1, "max_tokens": 40}),
    );
    let whole = server.post(CHAT, &body);
    body["stream"] = true.into();
    let chunks = server.stream(CHAT, &body);
    let mut reasoned = 0;
    for choice in whole["choices"].as_array().unwrap() {
        let message = &choice["message"];
        let thought = message["reasoning_content"].as_str().unwrap_or_default();
        reasoned += usize::from(!thought.is_empty());
        assert!(
            !message["content"].as_str().unwrap().contains("think>") && !thought.contains("think>"),
            "{message}"
        );
        let choices = chunks
            .iter()
            .flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let own = choices.filter(|other| other["index"] == choice["index"]);
        let joined: String = own
            .filter_map(|other| other["delta"]["reasoning_content"].as_str())
            .collect();
        assert_eq!(joined, thought);
    }
    assert!(reasoned > 0, "none reasoned: {whole}");
}

/// The calls of a completion, each with its arguments, its text, and how it ended.
pub(super) type Completion = (Vec<(String, String)>, String, String);

/// The completions of a request; each put together from its chunks is the same.
pub(super) fn whole_and_streamed(server: &Server, mut body: Json) -> Vec<Completion> {
    let whole = server.post(CHAT, &body);
    body["stream"] = true.into();
    let chunks = server.stream(CHAT, &body);
    let check = |(index, choice): (u64, &Json)| {
        let message = &choice["message"];
        let calls = functions(
            message["tool_calls"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default(),
        );
        let text = message["content"].as_str().unwrap_or_default().to_owned();
        let own = || {
            chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap())
                .filter(move |own| own["index"] == index)
        };
        let streamed: String = own()
            .filter_map(|own| own["delta"]["content"].as_str())
            .collect();
        let finish: Vec<&str> = own()
            .filter_map(|own| own["finish_reason"].as_str())
            .collect();
        assert_eq!(
            (streamed_calls(&chunks, index), &streamed),
            (calls.clone(), &text),
            "{body}"
        );
        assert_eq!(
            finish,
            [choice["finish_reason"].as_str().unwrap()],
            "{body}"
        );
        (calls, text, finish[0].to_owned())
    };
    (0..)
        .zip(whole["choices"].as_array().unwrap())
        .map(check)
        .collect()
}

#[test]
fn a_call_that_breaks_off_has_a_part_of_its_arguments() {
    let server = Server::start(&["tiny"]);
    let tool = json!({"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties":
        {"on": {"type": "boolean"}, "level": {"enum": [1, 2]}}, "required": ["on", "level"]}}});
    let body = |changes: Json| {
        let mut body = chat(
            json!({"tools": [tool], "tool_choice": "required", "n": 4, "seed": 5, "max_tokens": 300}),
        );
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    let is_whole = |arguments: &str| serde_json::from_str::<Json>(arguments).is_ok();
    let (mut broken, mut nameless) = (0, 0);
    for limit in (4..60).step_by(4) {
        for (calls, text, finish) in whole_and_streamed(&server, body(json!({"max_tokens": limit})))
        {
            assert_eq!(finish, "length", "{calls:?}");
            let parts = calls
                .iter()
                .filter(|(_, arguments)| !is_whole(arguments))
                .count();
            assert!(
                parts == usize::from(calls.last().is_some_and(|last| !is_whole(&last.1))),
                "only the last: {calls:?}"
            );
            assert!(
                text.is_empty()
                    || parts == 0 && "<tool_call>".starts_with(&text[..11.min(text.len())]),
                "{text}"
            );
            broken += parts;
            nameless += usize::from(calls.is_empty());
        }
    }
    assert!(broken > 3 && nameless > 3, "{broken} {nameless}");
    for (calls, text, finish) in whole_and_streamed(&server, body(json!({"stop": ["\"level\""]}))) {
        let [(name, arguments)] = &*calls else {
            panic!("{calls:?}")
        };
        assert!(
            name == "ring" && arguments.starts_with('{') && !is_whole(arguments),
            "{arguments}"
        );
        assert_eq!(
            (&*text, &*finish),
            ("", "stop"),
            "a call that broke off is none to carry out"
        );
    }
    // A complete one is, though a text ends it.
    for (calls, _, finish) in whole_and_streamed(&server, body(json!({"stop": ["</tool_call>"]}))) {
        assert!(calls.len() == 1 && is_whole(&calls[0].1), "{calls:?}");
        assert_eq!(finish, "tool_calls");
    }
}

/// Beside a message, off by default; in a stream with its end.
#[test]
fn values_have_their_confidence_beside_the_message() {
    let server = Server::start(&["tiny", "--threads", "1"]);
    let schema = json!({"type": "object", "properties": {"paid": {"type": "boolean"}, "kind": {"enum": ["bill", "offer"]}},
        "required": ["paid", "kind"], "additionalProperties": false});
    let body = |changes: Json| {
        let mut body = chat(
            json!({"n": 3, "seed": 4, "max_tokens": 60, "response_format": format(&schema), "x_confidence": true}),
        );
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    let whole = server.post(CHAT, &body(json!({})));
    let choices = whole["choices"].as_array().unwrap();
    for choice in choices {
        let found = &choice["x_confidence"];
        let values = found["values"].as_array().unwrap();
        let paths: Vec<&str> = values
            .iter()
            .filter_map(|value| value["path"].as_str())
            .collect();
        assert_eq!(paths, ["/paid", "/kind"]);
        let known: Vec<f64> = values
            .iter()
            .map(|value| value["confidence"].as_f64().unwrap())
            .collect();
        assert_eq!(found["least"], known[0].min(known[1]));
        assert!(
            known.iter().all(|value| (0.0..=1.0).contains(value)) && found["unknown"].is_null()
        );
        assert!(values.iter().all(|value| value["among"] == "values"));
    }
    let chunks = server.stream(CHAT, &body(json!({"stream": true})));
    let mut ended = 0;
    for choice in chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap())
    {
        let index = choice["index"].as_u64().unwrap() as usize;
        assert_eq!(
            choice.get("x_confidence").is_some(),
            !choice["finish_reason"].is_null()
        );
        if let Some(found) = choice.get("x_confidence") {
            assert_eq!(*found, choices[index]["x_confidence"]);
            ended += 1;
        }
    }
    assert_eq!(ended, 3);
    // Without a format each token counts among the whole vocabulary; a text is not JSON.
    let free = server.post(
        CHAT,
        &body(json!({"response_format": null, "n": 1, "max_tokens": 3})),
    );
    let free = &free["choices"][0]["x_confidence"];
    assert!(
        free["least"].is_null() && free["unknown"].is_string(),
        "{free}"
    );
    // A schema that constrains nothing: the same completions, their values among what it allows.
    let text = |confidence: Json| {
        let body = json!({"model": "tiny", "prompt": "{\"paid\": ", "max_tokens": 8, "seed": 4, "temperature": 0,
            "x_confidence": confidence});
        server.post(TEXT, &body)["choices"][0].clone()
    };
    let under = |schema: Json| text(json!({"schema": schema}));
    let (free, described) = (text(json!(true)), under(json!({"type": "object"})));
    assert_eq!(free["text"], described["text"]);
    assert_eq!(
        described["x_confidence"]["unknown"],
        "the answer leaves the schema's grammar"
    );
    for (confidence, expected) in [
        (
            json!({"schema": 1}),
            "`x_confidence.schema` is not a JSON Schema",
        ),
        (
            json!({"schema": {}, "other": 1}),
            "`x_confidence`: unknown field `other`",
        ),
        (json!({"schema": {"enum": []}}), "`x_confidence`"),
    ] {
        let body = json!({"model": "tiny", "prompt": "{", "x_confidence": confidence}).to_string();
        let refused = server.refused(TEXT, body.as_bytes(), 400);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    let off = server.post(CHAT, &body(json!({"x_confidence": false, "n": 1})));
    assert!(off["choices"][0].get("x_confidence").is_none());
    let echo =
        json!({"model": "tiny", "prompt": "{", "echo": true, "x_confidence": true}).to_string();
    assert_eq!(
        server.refused(TEXT, echo.as_bytes(), 400)["param"],
        "x_confidence"
    );
}
