//! Mistral's Tekken: texts have the same token ids in transformers, here, from an exported GGUF file and in llama.cpp.

use std::path::{Path, PathBuf};

use grpo_tui::hub::find_model;
use grpo_tui::text::Tokenizer;
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
