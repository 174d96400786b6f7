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

#[test]
fn token_ids_are_generated_as_texts_are() {
    const GENERATE: &str = "/inference/v1/generate";
    let server = Server::start(&["tiny"]);
    let prompt = server.post(
        "/tokenize",
        &json!({"model": "tiny", "prompt": "Invoice of Acme"}),
    )["tokens"]
        .clone();
    let parameters =
        json!({"n": 2, "seed": 4, "max_tokens": 30, "logprobs": 1, "skip_special_tokens": false});
    let body = json!({"model": "tiny", "token_ids": prompt, "sampling_params": parameters});
    let found = server.post(GENERATE, &body);
    let text = json!({"model": "tiny", "prompt": prompt, "n": 2, "seed": 4, "max_tokens": 30, "logprobs": 0, "return_token_ids": true});
    let text = server.post(TEXT, &text);
    assert_eq!(
        (&found["usage"], found["prompt_logprobs"].is_null()),
        (&text["usage"], true),
        "{found}"
    );
    for (found, text) in found["choices"]
        .as_array()
        .unwrap()
        .iter()
        .zip(text["choices"].as_array().unwrap())
    {
        assert_eq!(
            (&found["token_ids"], &found["finish_reason"]),
            (&text["token_ids"], &text["finish_reason"])
        );
        let told = found["logprobs"]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| &token["logprob"]);
        assert!(
            told.eq(text["logprobs"]["token_logprobs"].as_array().unwrap()),
            "{found}"
        );
        assert!(found.get("text").is_none());
    }
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
    let other =
        json!({"model": "tiny", "token_ids": prompt, "sampling_params": {"stop_token_ids": [5]}});
    let refused = server.refused(GENERATE, other.to_string().as_bytes(), 400);
    assert_eq!(refused["param"], "stop_token_ids", "{refused}");
}
