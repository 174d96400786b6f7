//! Parity with transformers: its numbers and texts lie in tests/parity, beside the names of the scripts that made them.

mod adapters;
mod decoder;
mod export;
mod gguf_export;
mod gguf_import;
mod llama_cpp;
mod model_commands;
mod one_prompt;
mod smollm2;
mod tekken;

use std::path::{Path, PathBuf};

use grpo_tui::hub::find_model;
use grpo_tui::text::{CHAT_TEMPLATE, ChatTemplate, Thinking};
use serde_json::Value;

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity")
}

fn chat_template_cases() -> Vec<Value> {
    let text = std::fs::read_to_string(golden_folder().join("chat_templates.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

/// What our renderer makes of a case: the text, or the message of its refusal.
fn render(case: &Value) -> Result<String, String> {
    let tokens = case["special_tokens"].as_object().unwrap().iter();
    let tokens = tokens
        .map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned()))
        .collect();
    let thinking = case["enable_thinking"]
        .as_bool()
        .map(|on| if on { Thinking::On } else { Thinking::Off });
    let template = ChatTemplate::new(case["template"].as_str().unwrap(), tokens, "golden")
        .map_err(|error| error.to_string())?;
    template
        .render_json(&case["messages"], &case["tools"], thinking)
        .map_err(|error| error.to_string())
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let cases = chat_template_cases();
    assert!(cases.len() >= 15, "{} cases", cases.len());
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        match (
            render(case),
            case["expected"].as_str(),
            case["refused"].as_str(),
        ) {
            (Ok(text), Some(expected), None) => assert_eq!(text, expected, "{name}"),
            (Err(message), None, Some(refusal)) => {
                assert!(
                    message.contains(refusal),
                    "{name}: {message:?} lacks {refusal:?}"
                )
            }
            (result, expected, refusal) => {
                panic!("{name}: {result:?} instead of {expected:?} or the refusal {refusal:?}")
            }
        }
    }
}

#[test]
fn the_template_of_our_own_tokenizers_is_among_the_cases() {
    let ours: Vec<Value> = chat_template_cases()
        .into_iter()
        .filter(|case| case["name"].as_str().unwrap().starts_with("ours"))
        .collect();
    assert!(ours.len() >= 4);
    for case in ours {
        assert_eq!(
            case["template"], CHAT_TEMPLATE,
            "{}: run scripts/golden/chat_templates.py again after changing it",
            case["name"]
        );
    }
}

#[test]
fn the_template_of_imported_gemma_models_is_among_the_cases() {
    let cases = chat_template_cases();
    let gemma: Vec<&Value> = cases
        .iter()
        .filter(|case| case["name"].as_str().unwrap().starts_with("gemma"))
        .collect();
    assert!(gemma.len() >= 3);
    for case in gemma {
        let (name, written) = (
            &case["name"],
            include_str!("../crates/engine/src/checkpoint/gemma_turns.jinja"),
        );
        assert_eq!(
            case["template"], written,
            "{name}: run scripts/golden/chat_templates.py again after changing it"
        );
    }
}

#[test]
fn the_golden_checkpoints_are_what_their_names_say() {
    let check = |name: &str,
                 heads: (usize, usize, usize),
                 tied: bool,
                 rope_theta: f64,
                 element_type: &str| {
        let source = find_model(golden_folder().join(name).to_str().unwrap()).unwrap();
        let config = source.config().unwrap();
        assert_eq!(
            (
                config.num_attention_heads,
                config.num_key_value_heads,
                config.head_dim
            ),
            heads,
            "{name}"
        );
        assert_eq!(
            (config.tie_word_embeddings, config.rope_theta),
            (tied, rope_theta),
            "{name}"
        );
        let tensors = source.tensors(&source.weight_files().unwrap()[0]).unwrap();
        assert!(
            tensors
                .iter()
                .all(|tensor| tensor.element_type == element_type),
            "{name}"
        );
        assert_eq!(
            tensors.iter().any(|tensor| tensor.name == "lm_head.weight"),
            !tied,
            "{name}"
        );
    };
    check("grouped-untied", (4, 2, 16), false, 1e4, "F32");
    check("tied", (2, 1, 16), true, 5e5, "F32");
    check("multi-query-bfloat16", (4, 1, 16), false, 1e6, "BF16");
    check("mistral-wide-heads", (3, 3, 16), false, 1e6, "F32");
}
