//! Guard prompts: what a training costs the model elsewhere is measured, said, and the same after an interruption.

use std::path::{Path, PathBuf};

use grpo_tui::eval::prepare_guard;
use grpo_tui::hub::find_model;
use grpo_tui::policy::Lengths;
use grpo_tui::run::events::Guard;
use grpo_tui::run::{EventBody, RunDirectory, RunState};
use grpo_tui::score::Task;
use grpo_tui::text::Tokenizer;
use grpo_tui::train::Ended;
use serde_json::{Value, json};

use super::small_task::{create_of, work, write};
use crate::program::{NANO, call, json as document, stderr};

const TEXT: &str = "{\"vendor\": \"Nordlys AS\", \"date\": \"2024-03-01\"}";

/// The small task with guard prompts: answers to its train prompts, and texts.
fn task(folder: &Path) -> PathBuf {
    let task = write(folder);
    let path = task.join("task.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("[prompts]\n", "[prompts]\nguard = \"guard.jsonl\"\n"),
    )
    .unwrap();
    let rows = std::fs::read_to_string(task.join("train.jsonl")).unwrap();
    let rows = rows
        .lines()
        .take(6)
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answer = |row: Value| json!({"messages": row["messages"], "completion": row["expected"].to_string()});
    let lines = rows
        .map(answer)
        .chain([json!({"id": "text", "text": TEXT})]);
    std::fs::write(
        task.join("guard.jsonl"),
        lines.map(|row| format!("{row}\n")).collect::<String>(),
    )
    .unwrap();
    task
}

fn guards(run: &RunDirectory) -> Vec<Guard> {
    RunState::read(run.path())
        .unwrap()
        .guards
        .into_values()
        .map(|guard| Guard {
            seconds: 0.0,
            ..guard
        })
        .collect()
}

#[test]
fn what_a_model_forgets_is_measured_and_raises_an_alert() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    // Far too high: the model is spoilt.
    let set = ["learning_rate=3e-2", "warmup_steps=0"];
    let whole = create_of(&task, folder.path(), &set);
    assert!(matches!(
        work(&whole, |_| false).unwrap(),
        Ended::Finished(_)
    ));
    let found = guards(&whole);
    assert_eq!(
        found.iter().map(|guard| guard.step).collect::<Vec<_>>(),
        [0, 3, 6]
    );
    assert_eq!((found[0].log_probs.len(), found[0].answers), (7, 6));

    // By another command, one text at a time.
    let ids = Tokenizer::load(&find_model(NANO).unwrap())
        .unwrap()
        .encode(TEXT)
        .unwrap();
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let printed = document(&call(
        folder.path(),
        &["model", "log-probs", NANO, "--token-ids", &ids, "--json"],
    ));
    let printed: Vec<f64> = printed["log_probs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect();
    let mean = printed.iter().sum::<f64>() / printed.len() as f64;
    assert!(
        (mean - found[0].log_probs[6]).abs() < 1e-4,
        "{mean} {:?}",
        found[0].log_probs
    );

    let change = found[2].change(&found[0]).unwrap();
    assert!(
        change.high < -0.05 && change.low < change.estimate,
        "{change:?}"
    );
    let state = RunState::read(whole.path()).unwrap();
    let alert = &state.alerts[&"forgetting".into()];
    assert!(
        !alert.cleared && alert.sentence.contains("nats/token ["),
        "{alert:?}"
    );
    assert_eq!(
        state.metrics["guard/log_prob"].steps().collect::<Vec<_>>(),
        [0, 3, 6]
    );

    let stopped = create_of(&task, folder.path(), &set);
    work(
        &stopped,
        |event| matches!(event, EventBody::Step(step) if step.step == 4),
    )
    .unwrap();
    assert!(matches!(
        work(&stopped, |_| false).unwrap(),
        Ended::Finished(_)
    ));
    assert_eq!(guards(&stopped), found);
}

/// A text is read as the model has read texts: after the token that its tokenizer puts before them.
#[test]
fn plain_text_begins_with_the_special_tokens_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let task = Task::load(&task(folder.path())).unwrap();
    let lengths = Lengths {
        max_seq_len: None,
        max_completion_tokens: 50,
        positions: 1000,
    };
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(NANO).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let read = || {
        let tokenizer = Tokenizer::load(&find_model(model.to_str().unwrap()).unwrap()).unwrap();
        let prompts = prepare_guard(&task, &tokenizer, lengths).unwrap();
        let text = prompts.last().unwrap();
        (text.prompt.clone(), text.reference.clone())
    };
    let (first, rest) = read();
    let path = model.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let token = "<|endoftext|>";
    let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [bos, text], "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [0], "tokens": [token]}}});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    assert_eq!(read(), (vec![0], [first, rest].concat()));
}

#[test]
fn a_guard_prompt_without_reference_is_named_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    let check = call(folder.path(), &["task", "check", task.to_str().unwrap()]);
    assert!(
        String::from_utf8_lossy(&check.stdout).contains("7 guard prompts against forgetting"),
        "{check:?}"
    );
    let path = task.join("guard.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text + "{\"messages\": [{\"role\": \"user\", \"content\": \"2 + 2?\"}]}\n",
    )
    .unwrap();
    for command in [["task", "check"].as_slice(), &["train"]] {
        let refused = call(
            folder.path(),
            &[command, &[task.to_str().unwrap()]].concat(),
        );
        let text = stderr(&refused) + &String::from_utf8_lossy(&refused.stdout);
        assert!(
            !refused.status.success()
                && text.contains("guard.jsonl line 8: `completion` is not a text"),
            "{text}"
        );
    }
}
