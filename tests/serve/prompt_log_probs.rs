//! Log-probs of a prompt's tokens, token ids of a text, and token ids in and out, in vLLM's form.

use super::*;

#[test]
fn a_prompt_s_log_probs_are_those_with_which_it_was_sampled() {
    let server = Server::start(&["tiny"]);
    let tokens = server.post(
        "/tokenize",
        &json!({"model": "tiny", "prompt": "Invoice of Acme"}),
    );
    let prompt: Vec<u64> = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    assert!(
        prompt.len() > 2 && tokens["count"] == prompt.len() && tokens["max_model_len"] == 1024,
        "{tokens}"
    );
    let ask = |changes: Json| {
        let mut body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 30, "seed": 4, "logprobs": 0, "return_token_ids": true});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post(TEXT, &body)["choices"].clone()
    };
    let sampled = ask(json!({}))[0].clone();
    let own: Vec<u64> = sampled["token_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    let whole = [&prompt[..], &own].concat();
    let choices =
        ask(json!({"prompt": [whole, prompt], "n": 2, "max_tokens": 1, "prompt_logprobs": 0}));
    assert_eq!(choices.as_array().unwrap().len(), 4);
    assert_eq!(choices[0]["prompt_logprobs"], choices[1]["prompt_logprobs"]);
    let told = choices[0]["prompt_logprobs"].as_array().unwrap();
    assert!(told.len() == whole.len() && told[0].is_null(), "{told:?}");
    assert_eq!(
        choices[2]["prompt_logprobs"].as_array().unwrap().len(),
        prompt.len()
    );
    let expected = sampled["logprobs"]["token_logprobs"].as_array().unwrap();
    for (at, (id, expected)) in own.iter().zip(expected).enumerate() {
        let found = &told[prompt.len() + at][id.to_string()];
        let difference = found["logprob"].as_f64().unwrap() - expected.as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{found}, sampled with {expected}");
        assert!(found["decoded_token"].is_string(), "{found}");
    }
    assert!(ask(json!({}))[0].get("prompt_logprobs").is_none());
    let refused = |changes: Json| {
        let mut body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.refused(TEXT, body.to_string().as_bytes(), 400)["param"].clone()
    };
    assert_eq!(refused(json!({"prompt_logprobs": 5})), "prompt_logprobs");
    assert_eq!(
        refused(json!({"prompt_logprobs": 0, "stream": true})),
        "prompt_logprobs"
    );
    assert_eq!(
        server.refused("/tokenize", b"{\"prompt\": 3}", 400)["param"],
        "prompt"
    );
}

/// As lm-evaluation-harness asks: the log-probs of a prompt's tokens, and whether they are the likeliest.
#[test]
fn a_prompt_is_echoed_with_its_log_probs() {
    let server = Server::start(&["tiny"]);
    let ask = |changes: Json| {
        let mut body = json!({"model": "tiny", "prompt": [5, 60, 70, 80], "max_tokens": 1, "temperature": 0, "echo": true});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post(TEXT, &body)
    };
    let told = ask(json!({"logprobs": 2}))["choices"][0]["logprobs"].clone();
    let list = |name: &str| told[name].as_array().unwrap();
    let (tokens, log_probs) = (list("tokens"), list("token_logprobs"));
    assert_eq!((tokens.len(), log_probs.len()), (5, 5));
    assert!(log_probs[0].is_null() && list("top_logprobs")[0].is_null());
    assert_eq!(list("text_offset")[1], tokens[0].as_str().unwrap().len());
    let likeliest = |at: usize| {
        let top = list("top_logprobs")[at].as_object().unwrap();
        assert_eq!(top.len(), 2);
        top.iter()
            .max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()))
            .map(|(token, value)| (json!(token), value.as_f64().unwrap()))
            .unwrap()
    };
    // The one after the prompt is the likeliest, and no token is likelier than the likeliest.
    assert_eq!(likeliest(4).0, tokens[4]);
    assert!((1..5).all(|at| log_probs[at].as_f64().unwrap() < likeliest(at).1 + 1e-4));
    let prompt = ask(json!({"logprobs": 2, "max_tokens": 0}));
    assert_eq!(
        prompt["choices"][0]["logprobs"]["token_logprobs"]
            .as_array()
            .unwrap()[..],
        log_probs[..4]
    );
    assert_eq!(prompt["usage"]["completion_tokens"], 0);
    let text = ask(json!({"prompt": "Acme", "n": 2, "max_tokens": 3}));
    for choice in text["choices"].as_array().unwrap() {
        let text = choice["text"].as_str().unwrap();
        assert!(text.starts_with("Acme") && text.len() > 4, "{choice}");
        assert!(choice["logprobs"].is_null());
    }
}

/// A tokenizer whose post-processor puts a token before each text, as those of Llama and Gemma.
#[test]
fn texts_get_the_special_tokens_that_the_tokenizer_adds() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("with-bos");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(super::super::program::sample_data("models/tiny")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let path = model.join("tokenizer.json");
    let mut tokenizer: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let token = "<|endoftext|>";
    let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [bos, text], "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [0], "tokens": [token]}}});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let server = Server::start(&[model.to_str().unwrap()]);
    let tokens = |changes: Json| {
        let mut body = json!({"model": "with-bos"});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post("/tokenize", &body)
    };
    let plain = tokens(json!({"prompt": "Acme", "add_special_tokens": false}));
    let plain = plain["tokens"].as_array().unwrap().clone();
    let with_bos = Json::from([&[json!(0)], &plain[..]].concat());
    for changes in [json!({}), json!({"add_special_tokens": true})] {
        let mut body = json!({"prompt": "Acme", "return_token_strs": true});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let found = tokens(body);
        assert_eq!(found["tokens"], with_bos);
        assert_eq!(found["token_strs"][0], token);
    }
    // A chat template writes its own.
    let chat = json!([{"role": "user", "content": "Acme"}]);
    let count = |changes: Json| {
        let mut body = json!({"messages": chat});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        tokens(body)["count"].as_u64().unwrap()
    };
    assert_eq!(
        count(json!({})) + 1,
        count(json!({"add_special_tokens": true}))
    );
    let used = |changes: Json| {
        let mut body = json!({"model": "with-bos", "prompt": "Acme", "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post(TEXT, &body)["usage"]["prompt_tokens"].clone()
    };
    assert_eq!(used(json!({})), plain.len() + 1);
    assert_eq!(used(json!({"add_special_tokens": false})), plain.len());
    let unknown = json!({"model": "other", "prompt": "Acme"}).to_string();
    assert_eq!(
        server.refused("/tokenize", unknown.as_bytes(), 404)["code"],
        "model_not_found"
    );
}

#[test]
fn a_sample_is_drawn_alone_as_among_others() {
    let server = Server::start(&["tiny"]);
    let prompt = server.post(
        "/tokenize",
        &json!({"model": "tiny", "prompt": "Invoice of Acme"}),
    )["tokens"]
        .clone();
    let text = json!({"model": "tiny", "prompt": prompt, "n": 2, "seed": 4, "max_tokens": 30});
    let text = server.post(TEXT, &text);
    let first = |first_sample: u32| {
        let body = json!({"model": "tiny", "prompt": prompt, "seed": 4, "max_tokens": 30, "first_sample": first_sample});
        server.post(TEXT, &body)["choices"][0]["text"].clone()
    };
    assert_eq!(
        [first(0), first(1)],
        [
            text["choices"][0]["text"].clone(),
            text["choices"][1]["text"].clone()
        ]
    );
}
