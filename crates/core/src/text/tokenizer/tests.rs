//! Tokenizers load, encode, decode and refuse.

use super::*;
use crate::text::{CHAT_TEMPLATE, train_tokenizer};

fn trained() -> TokenizerFiles {
    let texts = [
        "Invoice from Acme, 2024-05-17: 1,234.50 EUR",
        "{\"vendor\": \"Acme\"}",
    ]
    .map(str::to_owned);
    train_tokenizer(texts.into_iter().cycle().take(20), 300, CHAT_TEMPLATE).unwrap()
}

/// A model folder of a trained tokenizer with some files replaced or (by none) left out.
fn folder(changes: &[(&str, Option<&str>)]) -> (tempfile::TempDir, ModelSource) {
    let files = trained();
    let work = tempfile::tempdir().unwrap();
    let defaults = [
        ("tokenizer.json", files.tokenizer_json.as_str()),
        ("tokenizer_config.json", &files.tokenizer_config_json),
    ];
    let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
    for (name, text) in defaults.into_iter().filter(|(name, _)| !changed(name)) {
        std::fs::write(work.path().join(name), text).unwrap();
    }
    for (name, text) in changes
        .iter()
        .filter_map(|(name, text)| Some((name, (*text)?)))
    {
        std::fs::write(work.path().join(name), text).unwrap();
    }
    let source = ModelSource::at("m", work.path());
    (work, source)
}

fn hello() -> Vec<Message> {
    vec![Message::new("user", "Acme")]
}

#[test]
fn a_folder_and_its_files_give_the_same_tokenizer() {
    let (_work, source) = folder(&[("config.json", Some(r#"{"vocab_size":300}"#))]);
    let (loaded, direct) = (
        Tokenizer::load(&source).unwrap(),
        Tokenizer::from_files(&trained()).unwrap(),
    );
    let ids = loaded
        .prompt_ids(&hello(), None, &Thinking::Off.into())
        .unwrap();
    assert_eq!(
        ids,
        direct
            .prompt_ids(&hello(), None, &Thinking::Off.into())
            .unwrap()
    );
    assert_eq!(
        loaded.decode(&ids, false).unwrap(),
        "<|im_start|>user\nAcme<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
    assert_eq!(loaded.stop_ids(), direct.stop_ids());
    assert!(loaded.has_thinking_switch());
}

#[test]
fn special_tokens_are_found_where_they_stand() {
    let tokenizer = Tokenizer::from_files(&trained()).unwrap();
    let text = "<|im_start|>user\nGröner <|im_end|>\n<think>x<|im_end";
    let found: Vec<&str> = tokenizer
        .special_places(text)
        .unwrap()
        .into_iter()
        .map(|place| &text[place])
        .collect();
    assert_eq!(found, ["<|im_start|>", "<|im_end|>", "<think>"]);
}

#[test]
fn stop_ids_come_from_every_file_that_names_one() {
    let check = |changes: &[(&str, Option<&str>)], expected: &[u32]| {
        let (_work, source) = folder(changes);
        assert_eq!(
            Tokenizer::load(&source).unwrap().stop_ids(),
            expected,
            "{changes:?}"
        );
    };
    check(&[], &[0, 2]);
    check(
        &[("generation_config.json", Some(r#"{"eos_token_id":[7,2]}"#))],
        &[0, 2, 7],
    );
    check(
        &[
            ("config.json", Some(r#"{"eos_token_id":9}"#)),
            ("generation_config.json", Some(r#"{"eos_token_id":null}"#)),
        ],
        &[0, 2, 9],
    );
    check(&[("tokenizer_config.json", None)], &[0, 2]);
    check(
        &[(
            "tokenizer_config.json",
            Some(r#"{"eos_token":{"content":"</think>"}}"#),
        )],
        &[0, 2, 4],
    );
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let check = |changes: &[(&str, Option<&str>)], expected: &[&str]| {
        let (_work, source) = folder(changes);
        let message = Tokenizer::load(&source)
            .and_then(|tokenizer| tokenizer.render(&hello(), None, &Thinking::Off.into()))
            .unwrap_err()
            .to_string();
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check(
        &[("tokenizer.json", None)],
        &["tokenizer.json: no such file"],
    );
    check(
        &[("tokenizer.json", None), ("vocab.json", Some("{}"))],
        &["older tokenizer format", "save_pretrained"],
    );
    check(
        &[("tokenizer.json", Some("{"))],
        &["tokenizer.json: not a tokenizer", "again"],
    );
    check(
        &[("tokenizer_config.json", Some("{"))],
        &["tokenizer_config.json: not valid JSON"],
    );
    check(
        &[("tokenizer_config.json", Some("{}"))],
        &["no chat template", "chat_template.jinja"],
    );
    check(&[("tokenizer_config.json", None)], &["no chat template"]);
    check(
        &[("chat_template.jinja", Some("\n{% if %}"))],
        &["chat_template.jinja", "line 2"],
    );
    check(
        &[("config.json", Some(r#"{"vocab_size":10}"#))],
        &["`vocab_size` = 10", "different models"],
    );
}

/// The trained tokenizer with some members of its file replaced.
fn altered(changes: &[(&str, Json)]) -> (tempfile::TempDir, ModelSource) {
    let mut json: Json = serde_json::from_str(&trained().tokenizer_json).unwrap();
    for (key, value) in changes {
        json.as_object_mut()
            .unwrap()
            .insert((*key).to_owned(), value.clone());
    }
    folder(&[("tokenizer.json", Some(&json.to_string()))])
}

#[test]
fn rules_that_would_fill_the_memory_or_panic_are_errors() {
    let replace = |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let sequence = |key: &str, rule: Json| {
        let mut sequence = serde_json::json!({"type": "Sequence"});
        sequence[key] = Json::Array(vec![rule; 7]);
        sequence
    };
    // Already when it is read, for the sake of its added tokens; and each text.
    let (_work, source) = altered(&[(
        "normalizer",
        sequence("normalizers", replace("a", &"a".repeat(100))),
    )]);
    let message = Tokenizer::load(&source).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json: its normalizers can make"),
        "{message}"
    );
    let (_work, source) = altered(&[("normalizer", replace("a", &"b".repeat(10_000)))]);
    let tokenizer = Tokenizer::load(&source).unwrap();
    let message = tokenizer
        .encode(&"a".repeat(100_000))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(
            "cannot encode a text: its normalizers can make 20000 bytes of one; of 100000 bytes"
        ),
        "{message}"
    );
    let (_work, source) = altered(&[(
        "decoder",
        sequence("decoders", replace("a", &"a".repeat(100))),
    )]);
    let message = Tokenizer::load(&source)
        .unwrap()
        .decode(&[100, 101], false)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("its decoders can make 100000000000000 bytes of one"),
        "{message}"
    );
    let split = serde_json::json!({"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": false});
    let (_work, source) = altered(&[("pre_tokenizer", split)]);
    let tokenizer = Tokenizer::load(&source).unwrap();
    let message = tokenizer.encode(&"x".repeat(60)).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer failed: Onig: Regex search error"),
        "{message}"
    );
    assert!(tokenizer.encode("Acme").is_ok());
}

#[test]
fn a_tokenizer_that_gives_other_ids_each_time_is_refused() {
    let mut json: Json = serde_json::from_str(&trained().tokenizer_json).unwrap();
    json["model"]["dropout"] = serde_json::json!(0.1);
    let (_work, source) = folder(&[("tokenizer.json", Some(&json.to_string()))]);
    let message = Tokenizer::load(&source).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json: `dropout` = 0.1") && message.contains("set it to null"),
        "{message}"
    );
    json["model"]["dropout"] = serde_json::json!(0.0);
    let (_work, source) = folder(&[("tokenizer.json", Some(&json.to_string()))]);
    Tokenizer::load(&source).unwrap();
}

#[test]
fn a_template_file_wins_over_the_configuration() {
    let (_work, source) = folder(&[(
        "chat_template.jinja",
        Some("{{ messages[0].content }}{{ eos_token }}"),
    )]);
    let tokenizer = Tokenizer::load(&source).unwrap();
    assert_eq!(
        tokenizer
            .render(&hello(), None, &Thinking::Off.into())
            .unwrap(),
        "Acme<|im_end|>"
    );
    assert!(!tokenizer.has_thinking_switch());
}

#[test]
fn a_text_of_so_many_tokens_has_a_longest_length_where_rules_drop_nothing() {
    let bound = |changes: &[(&str, Json)]| {
        let (_work, source) = altered(changes);
        Tokenizer::load(&source).unwrap().longest_text_bytes(10)
    };
    let longest = "<|endoftext|>".len();
    assert_eq!(bound(&[]), Some(10 * longest));
    assert_eq!(
        bound(&[("normalizer", serde_json::json!({"type": "NFC"}))]),
        Some(30 * longest)
    );
    let strip = serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true});
    assert_eq!(bound(&[("normalizer", strip)]), None);
    let removed = serde_json::json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": false});
    assert_eq!(bound(&[("pre_tokenizer", removed)]), None);
    assert_eq!(bound(&[("decoder", Json::Null)]), None);
}

#[test]
fn padding_and_truncation_of_the_file_are_ignored() {
    let mut json: Json = serde_json::from_str(&trained().tokenizer_json).unwrap();
    json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    let (_work, source) = folder(&[("tokenizer.json", Some(&json.to_string()))]);
    let text = "123456789";
    assert_eq!(
        Tokenizer::load(&source)
            .unwrap()
            .encode(text)
            .unwrap()
            .len(),
        text.len()
    );
}
