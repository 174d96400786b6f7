//! Mistral's Tekken: texts have the same token ids in transformers, here, from an exported GGUF file and in llama.cpp, and as
//! `tekken.json` those of mistral-common, prompts by its chat templates included.

use std::path::{Path, PathBuf};

use grpo_tui::hub::{ModelSource, find_model};
use grpo_tui::text::{Message, TextError, Thinking, Tokenizer};
use serde_json::{Value, json};

use super::golden_folder;
use super::llama_cpp::{export, llama_cpp};
use super::model_commands::{model, text};
use crate::program::{copy_tree, sample_data, stdout};

/// What scripts/golden/tekken.py wrote.
fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden_folder().join("tekken.json")).unwrap())
        .unwrap()
}

/// The embedded model with the tokenizer, as a GGUF file.
fn exported(golden: &Value, work: &Path) -> PathBuf {
    let (folder, file) = (work.join("model"), work.join("model.gguf"));
    copy_tree(&sample_data("models/tiny"), &folder);
    std::fs::write(
        folder.join("tokenizer.json"),
        golden["tokenizer"].to_string(),
    )
    .unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0].content }}"});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    export(text(&folder), "f16", &file);
    file
}

#[test]
fn tekken_comes_back_from_gguf() {
    let (golden, work) = (golden(), tempfile::tempdir().unwrap());
    let (file, out) = (exported(&golden, work.path()), work.path().join("out"));
    stdout(&model(&["import", text(&file), "--out", text(&out)]));
    for folder in [work.path().join("model"), out] {
        let tokenizer = Tokenizer::load(&find_model(text(&folder)).unwrap()).unwrap();
        for case in golden["texts"].as_array().unwrap() {
            assert_eq!(
                json!(tokenizer.encode(case["text"].as_str().unwrap()).unwrap()),
                case["ids"],
                "{case}"
            );
        }
    }
}

#[test]
#[ignore = "nightly, with llama.cpp: scripts/nightly"]
fn llama_cpp_cuts_an_exported_tekken_as_transformers_does() {
    let (golden, work) = (golden(), tempfile::tempdir().unwrap());
    let file = exported(&golden, work.path());
    let cases = golden["texts"].as_array().unwrap();
    let texts: Vec<&Value> = cases.iter().map(|case| &case["text"]).collect();
    let found = llama_cpp(&json!({"model": text(&file), "texts": texts}));
    for (case, found) in cases.iter().zip(found.as_array().unwrap()) {
        // It cuts words at combining marks.
        assert_eq!(*found != case["ids"], case["has_marks"], "{case}: {found}");
    }
}

/// Thoughts in an answer are its text, between the marks of the tokens of mistral-common.
fn as_text(mut message: Value) -> Message {
    let block = |block: &Value| match block["thinking"].as_str() {
        Some(thought) => format!("[THINK]{thought}[/THINK]"),
        None => block["text"].as_str().unwrap().to_owned(),
    };
    let text = message["content"]
        .as_array()
        .map(|blocks| blocks.iter().map(block).collect::<String>());
    if let Some(text) = text {
        message["content"] = text.into();
    } else if message["content"].is_null() {
        message["content"] = "".into();
    }
    serde_json::from_value(message).unwrap()
}

#[test]
fn tekken_json_is_read_as_by_mistral_common() {
    let golden = std::fs::read_to_string(golden_folder().join("tekken-json.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    for own in golden["versions"].as_array().unwrap() {
        let (version, work) = (&own["version"], tempfile::tempdir().unwrap());
        let mut file = own["file"].clone();
        file["vocab"] = golden["vocab"].clone();
        std::fs::write(work.path().join("tekken.json"), file.to_string()).unwrap();
        let source = ModelSource::at("m", work.path());
        let bare = Tokenizer::load(&source).unwrap();
        assert_eq!(bare.stop_ids(), [2], "{version}");
        for case in own["texts"].as_array().unwrap() {
            let (text, ids) = (
                case["text"].as_str().unwrap(),
                bare.encode(case["text"].as_str().unwrap()).unwrap(),
            );
            assert_eq!(
                (json!(ids), bare.decode(&ids, true).unwrap().as_str()),
                (case["ids"].clone(), text),
                "{version}"
            );
        }
        let hello = [Message::new("user", "hello")];
        let error = bare
            .prompt_ids(&hello, None, &Thinking::Off.into())
            .unwrap_err();
        let says = error.to_string();
        assert!(
            matches!(error, TextError::NoTemplate { .. })
                && says.contains("convert_tokenizer_to_chat_template"),
            "{says}"
        );

        std::fs::write(
            work.path().join("chat_template.jinja"),
            own["template"].as_str().unwrap(),
        )
        .unwrap();
        let tokenizer = Tokenizer::load(&source).unwrap();
        let marks = if *version == "v13" {
            "[THINK]"
        } else {
            "<think>"
        };
        assert_eq!(tokenizer.think_marks().open, marks, "{version}");
        for case in own["conversations"].as_array().unwrap() {
            let turns: Vec<Message> = case["messages"]
                .as_array()
                .unwrap()
                .iter()
                .cloned()
                .map(as_text)
                .collect();
            let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
            let ids = tokenizer
                .prompt_ids(&turns, tools, &Thinking::Off.into())
                .unwrap();
            let text = tokenizer.decode(&ids, false).unwrap();
            assert_eq!(json!(ids), case["ids"], "{version}: {text}");
        }
    }
}
