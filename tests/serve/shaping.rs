//! Fields that shape what is drawn, and pages of a named origin.

use super::*;

fn tokens(choice: &Json) -> &Vec<Json> {
    choice["logprobs"]["content"].as_array().unwrap()
}

#[test]
fn top_p_penalties_and_alternatives_are_honoured() {
    let server = Server::start(&["tiny"]);
    let ask = |changes: Json| {
        let mut body = chat(json!({"seed": 3, "n": 2, "logprobs": true, "temperature": 1.5}));
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post(CHAT, &body)
    };
    let text =
        |answer: &Json, choice: usize| answer["choices"][choice]["message"]["content"].clone();
    let plain = ask(json!({}));
    // What is told beside a token changes nothing; the sampled one has its log-probability among them.
    let told = ask(json!({"top_logprobs": 20}));
    for choice in 0..2 {
        assert_eq!(text(&told, choice), text(&plain, choice));
        for token in tokens(&told["choices"][choice]) {
            let top = token["top_logprobs"].as_array().unwrap();
            let values: Vec<f64> = top
                .iter()
                .map(|other| other["logprob"].as_f64().unwrap())
                .collect();
            assert!(
                top.len() == 20 && values.is_sorted_by(|a, b| a >= b),
                "{token}"
            );
            assert!(values.iter().map(|value| value.exp()).sum::<f64>() < 1.0001);
            if let Some(own) = top.iter().find(|other| other["token"] == token["token"]) {
                assert!(
                    (own["logprob"].as_f64().unwrap() - token["logprob"].as_f64().unwrap()).abs()
                        < 1e-4,
                    "{token}"
                );
            }
        }
    }
    // The likeliest alone is what temperature 0 gives.
    let least = ask(json!({"top_p": 0}));
    let greedy = ask(json!({"temperature": 0}));
    assert_eq!(
        (text(&least, 0), text(&least, 1)),
        (text(&greedy, 0), text(&greedy, 0))
    );
    assert!(
        tokens(&least["choices"][0])
            .iter()
            .all(|token| token["logprob"].as_f64() == Some(0.0))
    );
    let half = ask(json!({"top_p": 0.5, "top_logprobs": 20}));
    let counts = tokens(&half["choices"][0])
        .iter()
        .map(|token| token["top_logprobs"].as_array().unwrap().len());
    assert!(counts.clone().all(|count| count >= 1) && counts.min() < Some(20));
    // A strong penalty leaves no token twice, in a stream as well.
    let penalized = json!({"prompt": "a a a", "model": "tiny", "max_tokens": 60, "temperature": 0, "presence_penalty": 2, "frequency_penalty": 2, "ignore_eos": true, "logprobs": 2});
    let most = |body: &Json| {
        let answer = server.post(TEXT, body)["choices"][0].clone();
        let tokens = answer["logprobs"]["tokens"].as_array().unwrap().clone();
        assert_eq!(
            answer["logprobs"]["top_logprobs"][0]
                .as_object()
                .unwrap()
                .len(),
            2
        );
        let most = tokens
            .iter()
            .map(|token| tokens.iter().filter(|other| *other == token).count())
            .max()
            .unwrap();
        (most, answer["text"].clone())
    };
    let mut free = penalized.clone();
    (free["presence_penalty"], free["frequency_penalty"]) = (0.into(), 0.into());
    assert!(
        most(&penalized).0 < most(&free).0,
        "{:?} {:?}",
        most(&penalized),
        most(&free)
    );
    let mut streamed = penalized.clone();
    streamed["stream"] = true.into();
    let chunks = server.stream(TEXT, &streamed);
    let joined: String = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(json!(joined), most(&penalized).1);
    // One token that is left is the likeliest.
    for one in [json!({"top_k": 1}), json!({"min_p": 1})] {
        assert_eq!(text(&ask(one), 0), text(&greedy, 0));
    }
    let few = ask(json!({"top_k": 3, "top_logprobs": 20}));
    let few = tokens(&few["choices"][0]).iter();
    assert!(
        few.clone()
            .all(|token| token["top_logprobs"].as_array().unwrap().len() == 3)
    );
    let mut repeated = free.clone();
    repeated["repetition_penalty"] = json!(5);
    assert!(most(&repeated).0 < most(&free).0);
    // No stop token comes before its time, and no more tokens than the server has.
    let least = ask(json!({"min_tokens": 24, "n": 8}));
    assert_eq!(least["usage"]["completion_tokens"], 8 * 24);
    let short = Server::start(&["tiny", "--max-completion-tokens", "9"]);
    let all = short.post(
        CHAT,
        &chat(json!({"max_tokens": 1_000_000, "ignore_eos": true})),
    );
    assert_eq!(all["usage"]["completion_tokens"], 9);
    // Beside a format: what is drawn is allowed.
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["ab", "cd"]}}});
    let answer = ask(json!({"response_format": format, "top_p": 0.9, "top_logprobs": 3}));
    assert!(
        ["\"ab\"", "\"cd\""].contains(&text(&answer, 0).as_str().unwrap()),
        "{answer}"
    );
    // The template's switch by its other name.
    let prompt = |changes: Json| ask(changes)["usage"]["prompt_tokens"].clone();
    let effort = prompt(json!({"reasoning_effort": "none"}));
    assert_eq!(
        effort,
        prompt(json!({"chat_template_kwargs": {"enable_thinking": false}}))
    );
    assert_ne!(effort, prompt(json!({"reasoning_effort": "high"})));
}

#[test]
fn pages_of_a_named_origin_may_ask() {
    let origin = "https://chat.example";
    let server = Server::start_with(
        &[
            "tiny",
            "--cors-origin",
            origin,
            "--api-key-env",
            "SERVE_KEY",
        ],
        |_| &[("SERVE_KEY", "sk-testing-1")],
    );
    let asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-stainless-os\r\n";
    let (status, headers, _) = server.ask(
        "OPTIONS",
        CHAT,
        &format!("Origin: {origin}\r\n{asked}"),
        b"",
    );
    assert_eq!(status, 204);
    for expected in [
        "allow-origin: https://chat.example",
        "allow-headers: authorization,x-stainless-os",
        "allow-methods: GET, POST",
    ] {
        assert!(
            headers.contains(&format!("access-control-{expected}")),
            "{headers}"
        );
    }
    let get = |headers: &str| server.ask("GET", "/v1/models", headers, b"");
    let key = "Authorization: Bearer sk-testing-1\r\n";
    assert!(
        get(&format!("Origin: {origin}\r\n{key}"))
            .1
            .contains("access-control-allow-origin: https://chat.example")
    );
    // A refusal may be read, too; other origins get no leave.
    let (status, headers, _) = get(&format!("Origin: {origin}\r\n"));
    assert!(
        status == 401 && headers.contains("access-control-allow-origin"),
        "{headers}"
    );
    let other = "Origin: https://evil.example\r\n";
    assert!(!get(&format!("{other}{key}")).1.contains("access-control"));
    assert_eq!(
        server
            .ask("OPTIONS", CHAT, &format!("{other}{asked}"), b"")
            .0,
        401
    );
    // On loopback without a key, too.
    let server = Server::start(&["tiny", "--cors-origin", origin]);
    assert_eq!(
        server
            .ask("GET", "/v1/models", &format!("Origin: {origin}\r\n"), b"")
            .0,
        200
    );
    assert_eq!(server.ask("GET", "/v1/models", other, b"").0, 403);
    for wrong in ["*", "https://chat.example/", "chat.example"] {
        let output = super::super::program::call_anywhere_in_process(&[
            "serve",
            "tiny",
            "--cors-origin",
            wrong,
        ]);
        assert!(
            super::super::program::stderr(&output).contains("write scheme, host and port"),
            "{wrong}"
        );
    }
}
