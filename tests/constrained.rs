//! Constrained decoding: an untrained model's completions are what the schema, the tools or the pattern take.

mod confidence;
mod maskbench;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use grpo_tui::config::{ThinkingBudget, ThinkingEnd};
use grpo_tui::constraint::{Answer, Constraint, Reasoning, TaskConstraints, Vocabulary};
use grpo_tui::dataset::read_rows;
use grpo_tui::hub::ModelConfig;
use grpo_tui::kernels::philox::{SampleKey, uniform};
use grpo_tui::kernels::sampler::{
    LIKELIEST, SampleParams, SampledToken, mask_words, sample_masked, sample_tokens,
};
use grpo_tui::model::{Adapters, Decoder, Trainable, Weights};
use grpo_tui::rollout::{
    Completion, Request, RolloutMemory, Sampling, StopReason, ThinkingLimit, ThreadPool, generate,
};
use grpo_tui::score::{Scorer, Task};
use grpo_tui::text::{CHAT_TEMPLATE, Tokenizer, train_tokenizer};
use serde_json::{Value, json};

fn tokenizer() -> Tokenizer {
    let text =
        "{\"vendor\": \"Acme\", \"total\": [12.50, 3], \"paid\": true, \"note\": null} 2024-05-17"
            .to_owned();
    Tokenizer::from_files(
        &train_tokenizer(std::iter::repeat_n(text, 30), 380, CHAT_TEMPLATE).unwrap(),
    )
    .unwrap()
}

/// Of fresh weights, sharpened so that some tokens are much likelier than others.
fn model(vocabulary: usize) -> Decoder {
    let json = json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": vocabulary, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "max_position_embeddings": 512,
        "hidden_act": "silu", "attention_bias": false});
    let config = ModelConfig::parse(&json.to_string(), "config.json").unwrap();
    let model = Decoder::new(
        &config,
        &Weights::fresh(&config, 5),
        Trainable::Full,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let tensors = model
        .parameters()
        .named()
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            let factor = if name.contains("lm_head") { 20.0 } else { 1.5 };
            (name, tensor.affine(factor, 0.0).unwrap())
        });
    Decoder::new(
        &config,
        &Weights::from_tensors(tensors, "test"),
        Trainable::Frozen,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap()
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": -5, "maximum": 5}, "b": {"enum": ["x", 1.5, null]}},
            "required": ["a", "b"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}),
        json!({"anyOf": [{"type": "string", "pattern": "^[a-c]{2,5}$"}, {"type": "null"}]}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}},
            "additionalProperties": false}}}),
        json!({"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}, {"type": "string", "maxLength": 3}],
            "type": ["object", "string"], "maxProperties": 1}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.25}),
    ]
}

/// Four prompts, three completions each, one prompt of them greedy and the last one free.
fn requests(constraint: Option<&Arc<Constraint>>) -> Vec<Request> {
    let prompt = |n: u32| (0..4 + n * 3).map(|i| 10 + (i * 7 + n) % 90).collect();
    let request = |n: u32| Request {
        greedy: n == 2,
        constraint: constraint.filter(|_| n < 3).cloned(),
        ..Request::new(prompt(n), n, 4, 3)
    };
    (0..4).map(request).collect()
}

fn sample(
    model: &Decoder,
    requests: &[Request],
    sampling: &Sampling,
    threads: usize,
) -> (Vec<Vec<Completion>>, RolloutMemory) {
    let (memory, threads) = (RolloutMemory::default(), ThreadPool::new(threads).unwrap());
    (
        generate(model, Adapters::On, requests, sampling, &memory, &threads)
            .unwrap()
            .completions,
        memory,
    )
}

#[test]
fn completions_of_an_untrained_model_are_valid_unless_truncated() {
    let tokenizer = tokenizer();
    // More rows than tokens, as models have them.
    let (model, vocabulary) = (
        model(tokenizer.vocab_size() + 20),
        Vocabulary::new(&tokenizer).unwrap(),
    );
    let sampling = Sampling {
        draft_tokens: 4,
        ..Sampling::new(&tokenizer, 1.0, 120, 7)
    };
    let free = sample(&model, &requests(None), &sampling, 1).0;
    let (mut ended, mut truncated) = (0, 0);
    for schema in schemas() {
        let constraint = Constraint::compile(
            &vocabulary,
            &Answer::schema("schema", &schema),
            Reasoning::Off,
        )
        .unwrap();
        let requests = requests(Some(&Arc::new(constraint)));
        let (groups, memory) = sample(&model, &requests, &sampling, 1);
        assert_eq!(
            groups,
            sample(&model, &requests, &sampling, 3).0,
            "{schema}: on other threads"
        );
        let undrafted = Sampling {
            draft_tokens: 0,
            ..sampling.clone()
        };
        assert_eq!(
            tokens(&groups),
            tokens(&sample(&model, &requests, &undrafted, 1).0),
            "{schema}: without drafts"
        );
        assert_eq!(
            tokens(&groups[3..]),
            tokens(&free[3..]),
            "{schema}: a free row beside"
        );
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut masks = 0;
        for completion in groups[..3].iter().flatten() {
            let text = tokenizer.decode(&completion.token_ids, true).unwrap();
            masks += completion.token_ids.len() as u64;
            assert!(
                completion
                    .log_probs
                    .iter()
                    .all(|log_prob| *log_prob <= 1e-6),
                "{text}"
            );
            match completion.stop {
                StopReason::Length => truncated += 1,
                _ => {
                    let value: Value = serde_json::from_str(&text)
                        .unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
                    assert!(validator.is_valid(&value), "{schema}: {text}");
                    ended += 1;
                }
            }
        }
        assert_eq!(memory.mask_overhead.masks(), masks, "one mask a token");
        assert_eq!(groups[2][0], groups[2][1], "greedy");
    }
    assert!(ended > 30, "{ended} ended, {truncated} truncated");
    let texts = free[..3]
        .iter()
        .flatten()
        .map(|completion| tokenizer.decode(&completion.token_ids, true).unwrap());
    assert_eq!(
        texts
            .filter(|text| serde_json::from_str::<Value>(text).is_ok())
            .count(),
        0,
        "free ones are no JSON"
    );
}

/// What precedes the limit is what is sampled without one; what follows the closing tokens is what the model says after
/// them; drafts and rows beside change nothing.
#[test]
fn a_think_block_ends_at_its_limit() {
    const MOST: usize = 9;
    let tokenizer = Arc::new(tokenizer());
    let (model, vocabulary) = (
        model(tokenizer.vocab_size()),
        Vocabulary::new(&tokenizer).unwrap(),
    );
    let asked = |text: &str| tokenizer.encode(text).unwrap();
    let thinking = asked("<|im_start|>assistant\n<think>\n");
    let schema = Answer::schema("schema", &json!({"enum": [1, 2]}));
    let constraint = Arc::new(Constraint::compile(&vocabulary, &schema, Reasoning::Open).unwrap());
    let request = |prompt: &[u32], number| Request::new(prompt.to_vec(), number, 4, 3);
    let requests = [
        request(&thinking, 0),
        request(&asked("<|im_start|>assistant\n"), 1),
        Request {
            greedy: true,
            ..request(&thinking, 2)
        },
        Request {
            constraint: Some(constraint),
            ..request(&thinking, 3)
        },
    ];
    let free = Sampling {
        stop_ids: vec![tokenizer.vocab_size() as u32 - 1],
        ..Sampling::new(&tokenizer, 1.0, 40, 7)
    };
    let limited = |end| {
        let limit = ThinkingLimit::new(
            &tokenizer,
            ThinkingBudget {
                max_tokens: MOST,
                end,
            },
        )
        .unwrap();
        Sampling {
            thinking: Some(limit),
            ..free.clone()
        }
    };
    let unlimited = sample(&model, &requests, &free, 1).0;
    let closing = asked("\n</think>\n\n");
    for end in [ThinkingEnd::Truncate, ThinkingEnd::Force] {
        let sampling = limited(end);
        let groups = sample(&model, &requests, &sampling, 1).0;
        let undrafted = Sampling {
            draft_tokens: 0,
            ..sampling.clone()
        };
        assert_eq!(
            tokens(&groups),
            tokens(&sample(&model, &requests, &undrafted, 1).0),
            "{end:?}: without drafts"
        );
        assert_eq!(
            groups,
            sample(&model, &requests, &sampling, 3).0,
            "{end:?}: on other threads"
        );
        assert_eq!(
            tokens(&groups[1..2]),
            tokens(&unlimited[1..2]),
            "{end:?}: completions that do not think"
        );
        let thought = [0, 2, 3].map(|request| groups[request].iter().zip(&unlimited[request]));
        for (found, free) in thought.into_iter().flatten() {
            assert!(found.has_thought_to_the_limit());
            assert_eq!(found.token_ids[..MOST], free.token_ids[..MOST], "{end:?}");
            let text = tokenizer.decode(&found.token_ids, true).unwrap();
            if end == ThinkingEnd::Truncate {
                assert_eq!(
                    (found.token_ids.len(), found.stop),
                    (MOST, StopReason::Thinking),
                    "{text}"
                );
                continue;
            }
            // A character of several bytes is written to its end.
            let forced = found.forced.clone();
            assert!((MOST..=MOST + 3).contains(&forced.start), "{forced:?}");
            assert_eq!(found.token_ids[forced.clone()], closing, "{text}");
            assert!(
                found.log_probs[forced]
                    .iter()
                    .all(|log_prob| *log_prob == 0.0)
            );
            assert_eq!(
                found.sampled_log_probs().count(),
                found.token_ids.len() - closing.len()
            );
        }
        if end == ThinkingEnd::Force {
            let (greedy, answer) = (&groups[2][0].token_ids, groups[2][0].forced.end);
            let prompt = [&thinking[..], &greedy[..answer]].concat();
            let alone = sample(
                &model,
                &[Request {
                    greedy: true,
                    ..request(&prompt, 2)
                }],
                &free,
                1,
            )
            .0;
            assert_eq!(
                greedy[answer..],
                alone[0][0].token_ids[..greedy.len() - answer]
            );
            for constrained in &groups[3] {
                let text = tokenizer
                    .decode(&constrained.token_ids[constrained.forced.end..], true)
                    .unwrap();
                assert!(["1", "2"].contains(&text.trim()), "{text:?}");
            }
        }
    }
}

fn tokens(groups: &[Vec<Completion>]) -> Vec<&[u32]> {
    groups
        .iter()
        .flatten()
        .map(|completion| completion.token_ids.as_slice())
        .collect()
}

#[test]
fn tools_and_patterns_constrain_as_well() {
    let tokenizer = tokenizer();
    let (model, vocabulary) = (
        model(tokenizer.vocab_size()),
        Vocabulary::new(&tokenizer).unwrap(),
    );
    let sampling = Sampling::new(&tokenizer, 1.0, 200, 7);
    let tools = json!([{"name": "pay", "parameters": {"properties": {"n": {"type": "boolean"}}, "required": ["n"]}}]);
    let calls = Answer::calls(
        ("tools", &tools.to_string()),
        &tools,
        tokenizer.call_format(),
        false,
    )
    .unwrap();
    let pattern = Answer::Text {
        pattern: r"^\d{2}-(a|b)$".to_owned(),
        label: "task.toml".to_owned(),
    };
    let call = r#"^\{ ?"name" ?: ?"pay" ?, ?"arguments" ?: ?\{ ?"n" ?: ?(true|false) ?\} ?\}$"#;
    let call = regex::Regex::new(call).unwrap();
    let is_calls = |text: &str| {
        let blocks: Vec<&str> = text.split("<tool_call>").skip(1).collect();
        !blocks.is_empty()
            && blocks.iter().all(|block| {
                let json = block.trim().strip_suffix("</tool_call>").map(str::trim);
                json.is_some_and(|json| {
                    call.is_match(&json.split_whitespace().collect::<Vec<_>>().join(" "))
                })
            })
    };
    let is_found = |text: &str| regex::Regex::new(r"^\d{2}-(a|b)$").unwrap().is_match(text);
    for (answer, is_valid) in [
        (calls, &is_calls as &dyn Fn(&str) -> bool),
        (pattern, &is_found),
    ] {
        let constraint =
            Arc::new(Constraint::compile(&vocabulary, &answer, Reasoning::Off).unwrap());
        let groups = sample(&model, &requests(Some(&constraint)), &sampling, 1).0;
        let ended: Vec<_> = groups[..3]
            .iter()
            .flatten()
            .filter(|found| found.stop == StopReason::Stop)
            .collect();
        assert!(!ended.is_empty());
        for completion in ended {
            let text = tokenizer.decode(&completion.token_ids, true).unwrap();
            assert!(is_valid(&text), "{text:?}");
        }
    }
}

/// A completion of tokens drawn at random from what a constraint allows, which ends where it can; `None` where it goes on.
fn random_completion(constraint: &Constraint, tokenizer: &Tokenizer, seed: u32) -> Option<String> {
    let closing: Vec<u32> = ["\"", "}", "]", "\"}"]
        .iter()
        .flat_map(|text| tokenizer.encode(text).unwrap())
        .collect();
    let mut words = vec![0; tokenizer.vocab_size().div_ceil(32)];
    let (mut progress, mut taken) = (constraint.begin(), Vec::new());
    for position in 0..400 {
        progress.mask(&mut words).unwrap();
        let allows = |id: &u32| words[*id as usize / 32] >> (id % 32) & 1 == 1;
        if tokenizer.stop_ids().iter().any(allows) {
            return Some(tokenizer.decode(&taken, true).unwrap());
        }
        let draw = uniform(
            7,
            SampleKey {
                step: 0,
                prompt: seed,
                sample: 0,
                position,
            },
        );
        let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(allows).collect();
        let near: Vec<u32> = closing.iter().copied().filter(allows).collect();
        let from = if near.is_empty() || draw < 0.5 {
            all
        } else {
            near
        };
        let id = from[(draw * 1e6) as usize % from.len()];
        progress.push(id).unwrap();
        taken.push(id);
    }
    None
}

/// A task of requests to an API.
fn requests_task(document: &Value, lines: &str) -> (tempfile::TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "name = \"api\"\n[score]\nkind = \"http_request\"\nopenapi = \"openapi.json\"\n{lines}"
    );
    std::fs::write(folder.path().join("task.toml"), toml).unwrap();
    std::fs::write(
        folder.path().join("openapi.json"),
        serde_json::to_string_pretty(document).unwrap(),
    )
    .unwrap();
    let task = Task::load(folder.path()).unwrap();
    (folder, task)
}

fn document() -> Value {
    let mut document: Value =
        serde_json::from_str(include_str!("scoring/http_request/openapi.json")).unwrap();
    let path = |name: &str, schema: Value| json!({"name": name, "in": "path", "required": true, "schema": schema});
    document["paths"]["/v{version}/files/{name}"] = json!({
        "parameters": [path("version", json!({"enum": [1, 2]})), path("name", json!({"type": "string", "minLength": 2, "maxLength": 6}))],
        "get": {"responses": {}}, "put": {"requestBody": {"content": {"application/json": {"schema": {"type": "boolean"}}}}, "responses": {}},
    });
    document
}

#[test]
fn requests_are_of_the_operations_of_their_document() {
    let tokenizer = tokenizer();
    let row = read_rows(
        "train.jsonl",
        &br#"{"messages":[{"role":"user","content":"u"}]}"#[..],
    )
    .next()
    .unwrap()
    .unwrap();
    for (lines, least) in [
        ("", 4),
        ("operation = \"createInvoice\"", 1),
        ("operation = \"GET /invoices/{id}\"", 1),
    ] {
        let (_folder, task) = requests_task(&document(), lines);
        let scorer = Scorer::new(&task).unwrap();
        let constraint = TaskConstraints::new(&task, &tokenizer)
            .unwrap()
            .for_row(&row, "")
            .unwrap();
        let found: Vec<String> = (0..200)
            .filter_map(|seed| random_completion(&constraint, &tokenizer, seed))
            .collect();
        assert!(found.len() > 20, "{lines}: {} ended", found.len());
        let mut kinds = std::collections::BTreeSet::new();
        for completion in &found {
            let score = scorer.score(completion, None);
            assert_eq!(
                score.tier.name(),
                "valid",
                "{lines}: {completion}: {:?}",
                score.errors
            );
            let value: Value = serde_json::from_str(completion).unwrap();
            kinds.insert(format!(
                "{} {}",
                value["method"],
                value["path"].as_str().unwrap().matches('/').count()
            ));
        }
        assert!(kinds.len() >= least, "{lines}: {kinds:?}");
    }
}

#[test]
fn requests_that_cannot_be_told_apart_are_refused_with_their_place() {
    let tokenizer = tokenizer();
    let refused = |change: &dyn Fn(&mut Value), lines: &str| {
        let mut document = document();
        change(&mut document);
        let (_folder, task) = requests_task(&document, lines);
        TaskConstraints::new(&task, &tokenizer)
            .unwrap_err()
            .to_string()
    };
    let set = |pointer: &'static str, value: Value| {
        move |document: &mut Value| *document.pointer_mut(pointer).unwrap() = value.clone()
    };
    let id = "/components/parameters/Id/schema";
    for (pointer, value, parts) in [
        (
            id,
            json!({"type": "string"}),
            ["(/components/parameters/Id", "may make it /invoices/latest"],
        ),
        (
            id,
            json!({"type": "integer", "minimum": 7}),
            [
                "(/components/parameters/Id/schema/minimum)",
                "`minimum` of a variable",
            ],
        ),
        (
            id,
            json!({"type": "string", "pattern": "^.+$"}),
            ["/pattern)", "cannot be enforced"],
        ),
        (
            "/components/schemas/Line/properties/sku",
            json!({"not": {"pattern": "x"}}),
            [
                "(/components/schemas/Line/properties/sku/not)",
                "`not` cannot be enforced",
            ],
        ),
    ] {
        let error = refused(&set(pointer, value.clone()), "");
        for part in parts {
            assert!(
                error.contains(part) && error.contains("openapi.json line "),
                "{pointer} {value}: {error} lacks {part}"
            );
        }
    }
    assert!(
        refused(&|_| {}, "part = \"response\"\noperation = \"latest\"")
            .contains("responses cannot be enforced")
    );
}

/// The tokens of which `allows` holds.
fn mask(vocabulary: usize, allows: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut words = vec![0; mask_words(vocabulary)];
    (0..vocabulary)
        .filter(|id| allows(*id))
        .for_each(|id| words[id / 32] |= 1 << (id % 32));
    words
}

#[test]
fn the_masked_sampler_follows_its_distribution() {
    let (vocabulary, draws) = (3_001_usize, 40_000_usize);
    let logits: Vec<f32> = (0..vocabulary)
        .map(|i| -1.1 * (((i * 7919) % vocabulary) as f32 + 1.0).ln())
        .collect();
    let allows = |id: usize| id % 3 == 1;
    let weight = |id: usize| {
        if allows(id) {
            (f64::from(logits[id]) / 0.8).exp()
        } else {
            0.0
        }
    };
    let total: f64 = (0..vocabulary).map(weight).sum();
    let batch = Tensor::from_slice(&logits, (1, vocabulary), &Device::Cpu)
        .unwrap()
        .repeat((50, 1))
        .unwrap();
    let masks = mask(vocabulary, allows).repeat(50);
    let mut counts = vec![0_usize; vocabulary];
    for chunk in 0..draws / 50 {
        let place = |i: usize| SampleKey {
            step: 0,
            prompt: chunk as u32,
            sample: i as u32,
            position: 0,
        };
        let draws: Vec<SampleParams> = (0..50)
            .map(|i| SampleParams {
                uniform: uniform(42, place(i)),
                temperature: 0.8,
            })
            .collect();
        for drawn in sample_masked(&batch, &draws, &masks).unwrap() {
            let id = drawn.token_id as usize;
            assert!((f64::from(drawn.log_prob) - (weight(id) / total).ln()).abs() < 1e-4);
            counts[id] += 1;
        }
    }
    let (mut statistic, mut cells) = (0.0, 0_usize);
    for (id, &count) in counts.iter().enumerate() {
        let expected = weight(id) / total * draws as f64;
        assert!(count == 0 || allows(id));
        if expected >= 20.0 {
            statistic += (count as f64 - expected).powi(2) / expected;
            cells += 1;
        }
    }
    // As for the sampler without masks (tests/rollout.rs).
    let limit = cells as f64 + 5.0 * (2.0 * cells as f64).sqrt();
    assert!(
        cells > 100 && statistic < limit,
        "chi-square {statistic:.0} over {cells} cells, limit {limit:.0}"
    );
}

#[test]
fn masks_that_allow_all_or_one_or_none() {
    for vocabulary in [1_usize, 31, 64, 1000] {
        let logits: Vec<f32> = (0..vocabulary).map(|i| ((i * 37) % 11) as f32).collect();
        let row = Tensor::from_slice(&logits, (1, vocabulary), &Device::Cpu).unwrap();
        for uniform in [0.0, 0.3, 1.0 - f64::EPSILON / 2.0, LIKELIEST] {
            for temperature in [0.7, 0.0] {
                let draw = [SampleParams {
                    uniform,
                    temperature,
                }];
                let all = sample_masked(&row, &draw, &mask(vocabulary, |_| true)).unwrap();
                assert_eq!(
                    all,
                    sample_tokens(&row, &draw).unwrap(),
                    "{vocabulary} {uniform}"
                );
                let only = vocabulary / 2;
                let one = sample_masked(&row, &draw, &mask(vocabulary, |id| id == only)).unwrap();
                assert_eq!(
                    one,
                    [SampledToken {
                        token_id: only as u32,
                        log_prob: 0.0
                    }]
                );
                let first = sample_masked(&row, &draw, &mask(vocabulary, |id| id < 5)).unwrap();
                assert!(first[0].token_id < 5, "rounding at the end");
                let none = sample_masked(&row, &draw, &mask(vocabulary, |_| false)).unwrap_err();
                assert!(none.to_string().contains("allows no token"), "{none}");
            }
        }
    }
    let row = Tensor::new(&[[0.0_f32, f32::NAN, 1.0]], &Device::Cpu).unwrap();
    let draw = [SampleParams {
        uniform: 0.5,
        temperature: 1.0,
    }];
    assert!(sample_masked(&row, &draw, &mask(3, |id| id != 1)).is_ok());
    assert!(
        sample_masked(&row, &draw, &mask(3, |id| id != 0))
            .unwrap_err()
            .to_string()
            .contains("not finite")
    );
    assert!(
        sample_masked(&row, &draw, &[0, 0]).is_err(),
        "two words for three tokens"
    );
}
