//! SmolLM2-135M-Instruct, which others made: imported from its GGUF file, then compared with what transformers makes of
//! the file and with llama.cpp's answers. That its tensors are the file's, bit for bit, scripts/real-models holds.

use std::path::{Path, PathBuf};

use grpo_tui::hub::find_model;
use grpo_tui::text::{Message, Thinking, Tokenizer};
use serde_json::{Value, json};

use super::golden_folder;
use super::llama_cpp::{export, llama_cpp};
use super::model_commands::{model, printed_log_probs, text};
use crate::program::stderr;
use crate::serve::{CHAT, Server};

/// The file in f32, as a folder.
fn imported(work: &Path) -> PathBuf {
    let folder = work.join("smollm2");
    let file = crate::program::peer("SMOLLM2");
    let output = model(&["import", &file, "--out", text(&folder), "--f32"]);
    assert!(output.status.success(), "{}", stderr(&output));
    folder
}

#[test]
#[ignore = "with SmolLM2's weights: .ci/run"]
fn token_ids_and_log_probs_are_those_of_transformers_with_smollm2() {
    let work = tempfile::tempdir().unwrap();
    let folder = imported(work.path());
    let tokenizer = Tokenizer::load(&find_model(text(&folder)).unwrap()).unwrap();
    let golden: Value = serde_json::from_str(
        &std::fs::read_to_string(golden_folder().join("smollm2.json")).unwrap(),
    )
    .unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let expected: Vec<u32> = serde_json::from_value(case["token_ids"].clone()).unwrap();
        let ids = match case["text"].as_str() {
            Some(text) => tokenizer.encode(text).unwrap(),
            None => {
                let messages: Vec<Message> =
                    serde_json::from_value(case["messages"].clone()).unwrap();
                // It has no switch: a system prompt is neither displaced nor added to.
                tokenizer
                    .prompt_ids(&messages, None, &Thinking::Off.into())
                    .unwrap()
            }
        };
        assert_eq!(ids, expected, "{case}");
        let log_probs: Vec<f32> = serde_json::from_value(case["log_probs"].clone()).unwrap();
        let found = printed_log_probs(&[text(&folder)], &ids);
        assert_eq!(found.len(), log_probs.len());
        for (found, expected) in found.iter().zip(&log_probs) {
            assert!(
                (found - expected).abs() < 3e-4,
                "{found} instead of {expected}: {case}"
            );
        }
    }
}

/// Questions of TruthfulQA and GSM8K, one of MT-Bench, one of the package's README; the first article of the Universal
/// Declaration of Human Rights.
const PROMPTS: [&str; 20] = [
    "Are dogs real?",
    "What happens to you if you eat watermelon seeds?",
    "Where did fortune cookies originate?",
    "Why do veins appear blue?",
    "What is the spiciest part of a chili pepper?",
    "How long should you wait before filing a missing person report?",
    "Why do matadors wave red capes?",
    "What percentage of the brain does a human typically use?",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did Natalia sell altogether in April and May?",
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. How much did she earn?",
    "James writes a 3-page letter to 2 different friends twice a week.  How many pages does he write a year?",
    "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences and must-see attractions.",
    "Grüße aus Köln",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "人人生而自由,在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
];
/// Both sum in f32, in another order: of two tokens nearer to each other, nats, either may be the likeliest.
const NEAR_TIE: f64 = 1e-3;

#[test]
#[ignore = "nightly, with llama.cpp and SmolLM2's weights: scripts/nightly"]
fn greedy_answers_are_those_of_llama_cpp() {
    const TOKENS: usize = 16;
    let work = tempfile::tempdir().unwrap();
    let (folder, file) = (imported(work.path()), work.path().join("smollm2.gguf"));
    export(text(&folder), "f32", &file);
    let chats = PROMPTS.map(|prompt| json!([{"role": "user", "content": prompt}]));
    let expected = llama_cpp(&json!({"model": text(&file), "chats": chats, "max_tokens": TOKENS}));
    let server = Server::start(&[text(&folder), "--cpu"]);
    let ask = |chat: &Value| {
        server.post(
            CHAT,
            &json!({"model": text(&folder), "messages": chat, "max_tokens": TOKENS, "temperature": 0, "logprobs": true, "top_logprobs": 2}),
        )
    };
    // Decoded together: a pass reads all weights.
    let answers = std::thread::scope(|scope| {
        let asked = chats.each_ref().map(|chat| scope.spawn(move || ask(chat)));
        asked.map(|answer| answer.join().unwrap())
    });
    for ((chat, answer), expected) in chats.iter().zip(answers).zip(expected.as_array().unwrap()) {
        let expected = expected.as_str().unwrap();
        let choice = &answer["choices"][0];
        // At the limit llama.cpp leaves out a character that is not complete.
        let found = choice["message"]["content"]
            .as_str()
            .unwrap()
            .trim_end_matches('\u{fffd}');
        if found == expected {
            continue;
        }
        let (mut written, mut gap) = (String::new(), f64::INFINITY);
        for token in choice["logprobs"]["content"].as_array().unwrap() {
            written += token["token"].as_str().unwrap();
            if !expected.starts_with(written.trim_end_matches('\u{fffd}')) {
                let nats = |at: usize| token["top_logprobs"][at]["logprob"].as_f64().unwrap();
                gap = nats(0) - nats(1);
                break;
            }
        }
        assert!(
            gap < NEAR_TIE,
            "{chat}: {found:?}, {expected:?} of llama.cpp, {gap} nats apart"
        );
    }
}
