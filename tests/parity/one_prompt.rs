//! One prompt everywhere: training, evals, samples, clients of `serve`, and the exported model in transformers and
//! llama.cpp see the same token ids, for each golden chat template, with thinking on and off.

use std::path::{Path, PathBuf};

use grpo_tui::hub::find_model;
use grpo_tui::run::{read_evals, read_step};
use grpo_tui::text::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::golden_folder;
use super::llama_cpp::{export, llama_cpp};
use super::model_commands::text;
use crate::program::{NANO, call_anywhere, copy_tree, json_lines};
use crate::serve::{CHAT, Server, TEXT};
use crate::training::small_task::{create_of, work, write};

/// A chat template with what transformers makes of it (scripts/golden/chat_templates.py).
#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    special_tokens: serde_json::Map<String, Value>,
    prompts: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    messages: Value,
    /// What a client of another server sends, if not `messages`.
    sent: Option<Value>,
    enable_thinking: bool,
    token_ids: Vec<u32>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(golden_folder().join("prompt_ids.json")).unwrap();
    let mut golden: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(golden["cases"].take()).unwrap()
}

impl Case {
    /// The test model with this template, as a folder.
    fn model(&self, work: &Path) -> PathBuf {
        let folder = work.join("model");
        copy_tree(Path::new(NANO), &folder);
        let path = folder.join("tokenizer_config.json");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["chat_template"] = self.template.as_str().into();
        config
            .as_object_mut()
            .unwrap()
            .extend(self.special_tokens.clone());
        std::fs::write(path, config.to_string()).unwrap();
        folder
    }

    fn with_thinking(&self, on: bool) -> Vec<&Golden> {
        self.prompts
            .iter()
            .filter(|prompt| prompt.enable_thinking == on)
            .collect()
    }
}

/// A task whose sets hold the prompts, without a system prompt of its own.
fn task(work: &Path, thinking: bool, prompts: &[&Golden]) -> PathBuf {
    let task = write(&work.join(format!("thinking-{thinking}")));
    let row = |(at, prompt): (usize, &&Golden)| {
        format!(
            "{}\n",
            json!({"id": at.to_string(), "messages": prompt.messages})
        )
    };
    let rows: String = prompts.iter().enumerate().map(row).collect();
    for set in ["train.jsonl", "eval.jsonl", "eval-large.jsonl"] {
        std::fs::write(task.join(set), &rows).unwrap();
    }
    let path = task.join("task.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("system = \"Answer with JSON only.\"\n", "");
    std::fs::write(
        path,
        text.replace("thinking = false", &format!("thinking = {thinking}")),
    )
    .unwrap();
    task
}

const TOKENS: usize = 6;

/// The text and the log-probs of the likeliest tokens after a prompt.
#[derive(Debug)]
struct Answer {
    text: String,
    log_probs: Vec<f64>,
}

impl Answer {
    /// Whether another, which may have stopped earlier, begins it.
    fn assert_begins_with(&self, other: &Self, what: &str) {
        assert!(
            !other.log_probs.is_empty() && self.text.starts_with(&other.text),
            "{what}: {other:?}, {self:?}"
        );
        let near = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-5;
        assert!(
            self.log_probs.iter().zip(&other.log_probs).all(near),
            "{what}: {other:?}, {self:?}"
        );
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

/// Of token ids, as `serve` continues them.
fn after(server: &Server, model: &Path, ids: &[u32]) -> Answer {
    let body = json!({"model": text(model), "prompt": ids, "max_tokens": TOKENS, "temperature": 0, "logprobs": 0, "ignore_eos": true});
    let answer = server.post(TEXT, &body);
    let choice = &answer["choices"][0];
    Answer {
        text: choice["text"].as_str().unwrap().to_owned(),
        log_probs: numbers(&choice["logprobs"]["token_logprobs"]),
    }
}

/// What a run records of each prompt, in the order of the rows: its text, and the answer of the eval before step 1.
fn trained(task: &Path, model: &Path, work_folder: &Path) -> Vec<(String, String)> {
    let base = format!("base_model={}", text(model));
    let limit = format!("max_completion_tokens={TOKENS}");
    let set = [
        &base,
        &limit,
        "max_steps=1",
        "prompt_groups_per_step=4",
        "completions_per_prompt=2",
        "guided=false",
    ];
    let run = create_of(
        task,
        work_folder,
        &[
            &set[..],
            &["lora_rank=2", "max_seq_len=512", "eval_every=1"],
        ]
        .concat(),
    );
    work(&run, |_| false).unwrap();
    let mut groups = read_step(run.path(), 1).unwrap();
    groups.sort_by_key(|group| group.prompt_id.clone());
    let evals = read_evals(&run.path().join("evals/step-000000-eval-base.jsonl")).unwrap();
    assert_eq!((groups.len(), evals.len()), (4, 4));
    groups
        .into_iter()
        .zip(evals)
        .map(|(group, eval)| (group.prompt, eval.completion))
        .collect()
}

#[test]
fn training_evals_samples_and_clients_see_the_prompts_of_transformers() {
    for case in cases() {
        let work = tempfile::tempdir().unwrap();
        let model = case.model(work.path());
        let tokenizer = Tokenizer::load(&find_model(text(&model)).unwrap()).unwrap();
        let server = Server::start(&[text(&model), "--cpu"]);
        for thinking in [false, true] {
            let prompts = case.with_thinking(thinking);
            let task = task(work.path(), thinking, &prompts);
            let recorded = trained(&task, &model, &work.path().join(format!("run-{thinking}")));
            let limit = TOKENS.to_string();
            let sampled = json_lines(&call_anywhere(&[
                "sample",
                text(&task),
                "--model",
                text(&model),
                "--on",
                "eval",
                "--n",
                "1",
                "--temperature",
                "0",
                "--max-completion-tokens",
                &limit,
                "--json",
                "--cpu",
            ]));
            assert_eq!((prompts.len(), sampled.len()), (4, 4));
            for (at, golden) in prompts.into_iter().enumerate() {
                let what = format!("{}, thinking {thinking}, {}", case.name, golden.messages);
                let (prompt, eval) = &recorded[at];
                assert_eq!(
                    tokenizer.encode(prompt).unwrap(),
                    golden.token_ids,
                    "{what}: {prompt}"
                );
                let expected = after(&server, &model, &golden.token_ids);
                let sample = Answer {
                    text: sampled[at]["completion"].as_str().unwrap().to_owned(),
                    log_probs: numbers(&sampled[at]["log_probs"]),
                };
                assert_eq!(sample.text, *eval, "{what}");
                expected.assert_begins_with(&sample, &what);
                let chat = server.post(
                    CHAT,
                    &json!({
                        "model": text(&model), "messages": golden.messages, "max_tokens": TOKENS, "temperature": 0, "logprobs": true,
                        "ignore_eos": true, "chat_template_kwargs": {"enable_thinking": thinking},
                    }),
                );
                assert_eq!(
                    chat["usage"]["prompt_tokens"],
                    golden.token_ids.len(),
                    "{what}"
                );
                let tokens = chat["choices"][0]["logprobs"]["content"]
                    .as_array()
                    .unwrap();
                let answered = Answer {
                    text: tokens
                        .iter()
                        .map(|token| token["token"].as_str().unwrap())
                        .collect(),
                    log_probs: tokens
                        .iter()
                        .map(|token| token["logprob"].as_f64().unwrap())
                        .collect(),
                };
                expected.assert_begins_with(&answered, &what);
            }
        }
    }
}

#[test]
#[ignore = "nightly, with llama.cpp: scripts/nightly"]
fn llama_cpp_makes_the_same_prompts_of_an_exported_model() {
    for case in cases() {
        let work = tempfile::tempdir().unwrap();
        let file = work.path().join("model.gguf");
        export(text(&case.model(work.path())), "f32", &file);
        let sent = |golden: &Golden| json!({"messages": golden.sent.as_ref().unwrap_or(&golden.messages), "enable_thinking": golden.enable_thinking});
        let rendered: Vec<Value> = case.prompts.iter().map(sent).collect();
        let found = llama_cpp(&json!({"model": text(&file), "rendered": rendered}));
        for (golden, found) in case.prompts.iter().zip(found.as_array().unwrap()) {
            let what = format!(
                "{}, thinking {}, {}",
                case.name, golden.enable_thinking, golden.messages
            );
            assert_eq!(*found, json!(golden.token_ids), "{what}");
        }
    }
}
