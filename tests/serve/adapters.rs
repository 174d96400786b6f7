//! Several adapters of one base, each row with its own.

use candle_core::{Device, Tensor};
use grpo_tui::checkpoint::{ExportedAdapter, export_adapter};
use grpo_tui::config::Layers;
use grpo_tui::hub::find_model;
use grpo_tui::model::fresh_adapters;

use super::*;

/// An adapter that changes what a model says, on its experts, too, where it has some.
fn write_adapter(folder: &Path, base: &str, rank: usize, seed: usize) -> String {
    let parameters =
        fresh_adapters(&find_model(base).unwrap().config().unwrap(), rank, true).unwrap();
    let count = parameters.count();
    let noise = (0..count).map(|i| (((i + 7 * seed) * 37 % 101) as f32 / 101.0 - 0.5) * 0.3);
    parameters
        .restore(&Tensor::from_iter(noise, &Device::Cpu).unwrap())
        .unwrap();
    let path = folder.join(format!("adapter-{seed}"));
    let adapter = ExportedAdapter::new(&parameters, base, rank, 2.0 * rank as f64);
    export_adapter(&path, &adapter, &[]).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn adapters_of_one_base_are_decoded_side_by_side() {
    check_side_by_side("tiny");
}

#[test]
fn adapters_of_experts_are_decoded_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"architectures":["Qwen3MoeForCausalLM"],"vocab_size":1024,"hidden_size":48,"intermediate_size":64,"num_hidden_layers":2,
        "num_attention_heads":3,"num_key_value_heads":1,"head_dim":16,"num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":24,
        "tie_word_embeddings":true,"max_position_embeddings":1024}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let config = folder.path().join("config.json");
    let sparse = folder.path().join("sparse");
    let more = ["--config", config.to_str().unwrap(), "--updates", "1"];
    super::super::program::pretrain("invoice", &sparse, &more);
    check_side_by_side(sparse.to_str().unwrap());
}

fn check_side_by_side(base: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] =
        [(4, 1), (16, 2)].map(|(rank, seed)| write_adapter(folder.path(), base, rank, seed));
    let body = |model: &str, prompt: usize| {
        let prompts = ["{\"vendor\": \"", "{\"total\": 1", "Acme", "- 12.50"];
        json!({"model": model, "prompt": prompts[prompt], "max_tokens": 30, "temperature": 0, "ignore_eos": true, "n": 2})
    };
    let text = |answer: &Json| answer["choices"][0]["text"].as_str().unwrap().to_owned();
    let alone = [(base, base), (&*a, "a"), (&*b, "b")].map(|(served, name)| {
        let server = Server::start(&[served]);
        (
            name,
            (0..4)
                .map(|prompt| text(&server.post(TEXT, &body(served, prompt))))
                .collect::<Vec<String>>(),
        )
    });
    assert!(
        alone[0].1 != alone[1].1 && alone[1].1 != alone[2].1,
        "the adapters change what is said"
    );
    let [first, second] = [format!("a={a}"), format!("b={b}")];
    // One thread, so that all are decoded together.
    let server = Server::start(&[
        base,
        "--adapter",
        &first,
        "--adapter",
        &second,
        "--threads",
        "1",
    ]);
    let models: Json = serde_json::from_str(&server.ask("GET", "/v1/models", "", b"").2).unwrap();
    let names: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    let own_name = Path::new(base).file_name().and_then(|name| name.to_str());
    assert_eq!(names, [own_name.unwrap(), "a", "b"]);
    std::thread::scope(|scope| {
        let asked = alone.iter().flat_map(|(name, texts)| {
            (0..4)
                .map(|prompt| (*name, prompt, &texts[prompt]))
                .collect::<Vec<_>>()
        });
        for (name, prompt, expected) in asked {
            let (server, body) = (&server, body(name, prompt));
            scope.spawn(move || {
                assert_eq!(
                    text(&server.post(TEXT, &body)),
                    *expected,
                    "{name}, prompt {prompt}"
                )
            });
        }
    });
    // An adapter with its own base, to which another is added.
    let server = Server::start(&[&a, "--adapter", &second]);
    for (served, name) in [(&*a, 1), ("b", 2)] {
        assert_eq!(text(&server.post(TEXT, &body(served, 0))), alone[name].1[0]);
    }
    if base != "tiny" {
        return;
    }
    let refused = |arguments: &[&str]| {
        super::super::program::stderr(&super::super::program::call_anywhere_in_process(arguments))
    };
    assert!(refused(&["serve", "tiny-sql", "--adapter", &first]).contains("another base"));
    assert!(refused(&["serve", "tiny", "--adapter", "x=tiny-sql"]).contains("is no adapter"));
    assert!(refused(&["serve", "tiny", "--adapter", "tiny=tiny"]).contains("served already"));
    assert!(refused(&["serve", "tiny", "--adapter", "x"]).contains("NAME=RUN"));
}

/// What a server answers for a model at every address; the log-probs that it tells of a prompt are those with which it
/// sampled it.
fn all_routes(server: &Server, model: &str) -> Vec<Json> {
    let prompt = [5, 60, 70, 80, 90, 100, 110];
    let ask = |path: &str, changes: Json| {
        let mut body = json!({"model": model, "temperature": 0, "max_tokens": 16});
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        server.post(path, &body)
    };
    let text = |changes: Json| ask(TEXT, changes)["choices"][0].clone();
    let sampled = text(
        json!({"prompt": prompt, "logprobs": 0, "return_token_ids": true, "ignore_eos": true}),
    );
    let own = sampled["token_ids"].as_array().unwrap();
    let mut whole: Vec<Json> = prompt.iter().map(|id| json!(id)).collect();
    whole.extend(own.iter().cloned());
    let read = text(json!({"prompt": whole, "max_tokens": 1, "prompt_logprobs": 0}));
    let echoed = text(json!({"prompt": whole, "max_tokens": 0, "echo": true, "logprobs": 1}));
    let expected = sampled["logprobs"]["token_logprobs"].as_array().unwrap();
    for (at, (id, expected)) in own.iter().zip(expected).enumerate() {
        let at = prompt.len() + at;
        let told = &read["prompt_logprobs"][at][id.to_string()]["logprob"];
        for told in [told, &echoed["logprobs"]["token_logprobs"][at]] {
            let difference = told.as_f64().unwrap() - expected.as_f64().unwrap();
            assert!(
                difference.abs() < 1e-4,
                "{model}: {told}, sampled with {expected}"
            );
        }
    }
    let messages = json!([{"role": "user", "content": "Acme, 12 EUR"}]);
    let kwargs = json!({"enable_thinking": false});
    let responses = json!({"model": model, "input": messages, "max_output_tokens": 16, "temperature": 0, "chat_template_kwargs": kwargs});
    let chat = json!({"messages": messages, "chat_template_kwargs": kwargs});
    let mut tokens = chat.clone();
    tokens["model"] = model.into();
    let tokens = server.post("/tokenize", &tokens);
    let chat = ask(CHAT, chat);
    assert_eq!(tokens["count"], chat["usage"]["prompt_tokens"]);
    vec![
        sampled["token_ids"].clone(),
        chat["choices"][0]["message"]["content"].clone(),
        server.post("/v1/responses", &responses)["output"][0]["content"][0]["text"].clone(),
    ]
}

#[test]
fn every_route_uses_the_adapter_of_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] =
        [(4, 1), (16, 2)].map(|(rank, seed)| write_adapter(folder.path(), "tiny", rank, seed));
    let alone = ["tiny", &a, &b].map(|model| all_routes(&Server::start(&[model]), model));
    assert!(alone[0][0] != alone[1][0] && alone[1][0] != alone[2][0]);
    let [first, second] = [format!("a={a}"), format!("b={b}")];
    let one = Server::start(&["tiny", "--adapter", &first]);
    let two = Server::start(&["tiny", "--adapter", &first, "--adapter", &second]);
    for (server, model, expected) in [
        (&one, "tiny", 0),
        (&one, "a", 1),
        (&two, "tiny", 0),
        (&two, "a", 1),
        (&two, "b", 2),
    ] {
        assert_eq!(all_routes(server, model), alone[expected], "{model}");
    }
    // A folder is listed by its own name, and answers to its path, too.
    let server = Server::start(&[&a]);
    let models: Json = serde_json::from_str(&server.ask("GET", "/v1/models", "", b"").2).unwrap();
    assert_eq!(models["data"][0]["id"], "adapter-1");
    assert_eq!(all_routes(&server, "adapter-1"), alone[1]);
}

#[test]
fn a_promoted_checkpoint_is_served_as_its_run_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = write_adapter(folder.path(), "tiny", 4, 3);
    let set = Layers {
        set: vec!["max_completion_tokens=7".to_owned()],
        ..Layers::default()
    };
    let provenance = json!({"config": set.resolve().unwrap().config, "thinking": false});
    std::fs::write(
        Path::new(&adapter).join("provenance.json"),
        provenance.to_string(),
    )
    .unwrap();
    // As its model card says it.
    let server = Server::start_in(Path::new(&adapter), &["."]);
    let ask = |thinking: Json| {
        let body = json!({"model": "adapter-3", "messages": [{"role": "user", "content": "u"}], "chat_template_kwargs": thinking, "ignore_eos": true});
        server.post(CHAT, &body)["usage"].clone()
    };
    let usage = ask(Json::Null);
    assert_eq!(
        (&usage, &usage["completion_tokens"]),
        (&ask(json!({"enable_thinking": false})), &json!(7))
    );
    assert_ne!(
        usage["prompt_tokens"],
        ask(json!({"enable_thinking": true}))["prompt_tokens"]
    );
}
