//! Demonstrations: whole conversations with tools that a policy without success learns from.

use std::fs;
use std::path::{Path, PathBuf};

use grpo_tui::facts::{StopReason, Tier};
use grpo_tui::run::{RunState, read_step};
use grpo_tui::train::{Ended, TrainError};
use serde_json::{Value, json};

use super::small_task::{create_of, fingerprint, finish_with_stops, work};

const TOML: &str = "name = \"shop\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n\
    [score]\nkind = \"state\"\nquery = \"SELECT stock FROM item\"\n";
const SQL: &str = "CREATE TABLE item (stock INT); INSERT INTO item VALUES (5);";
const SET: [&str; 7] = [
    "prompt_groups_per_step=3",
    "completions_per_prompt=3",
    "max_steps=3",
    "checkpoint_every=1",
    "eval_every=0",
    "max_completion_tokens=128",
    "max_seq_len=1024",
];

/// The conversation that sells so many.
fn sale(count: u32) -> Value {
    let sql = format!("UPDATE item SET stock = stock - {count}");
    let call = json!([{"id": "1", "type": "function", "function": {"name": "execute", "arguments": {"sql": sql}}}]);
    json!([
        {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "tool_call_id": "1", "content": "{\"changed\": 1}"},
        {"role": "assistant", "content": "Sold."},
    ])
}

/// Three rows; the last has no demonstration.
fn task(folder: &Path) -> PathBuf {
    let asked = |count: u32| json!({"role": "user", "content": format!("Sell {count}.")});
    let whole = |count: u32| {
        let mut turns = vec![asked(count)];
        turns.extend(sale(count).as_array().cloned().unwrap_or_default());
        turns
    };
    let rows = [
        json!({"id": "a", "messages": [asked(1)], "expected": 4, "demonstration": sale(1)}),
        json!({"id": "b", "messages": whole(2), "expected": 3}),
        json!({"id": "c", "messages": [asked(3)], "expected": 2}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let task = folder.join("shop");
    fs::create_dir_all(&task).unwrap();
    for (name, text) in [
        ("task.toml", TOML),
        ("shop.sql", SQL),
        ("train.jsonl", &lines),
    ] {
        fs::write(task.join(name), text).unwrap();
    }
    task
}

#[test]
fn groups_without_success_learn_from_demonstrations_and_resume_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    let whole = create_of(&task, &folder.path().join("whole"), &SET);
    assert!(matches!(
        work(&whole, |_| false).unwrap(),
        Ended::Finished(_)
    ));
    let state = RunState::read(whole.path()).unwrap();
    for group in state.groups[&1].values() {
        let is_guided = group.stop_reasons.last() == Some(&StopReason::Guided);
        assert_eq!(is_guided, group.prompt_id != "c", "{group:?}");
        assert_eq!(group.tiers.last() == Some(&Tier::Valid), is_guided);
    }
    let share = state.metrics["groups/frac_guided"].at(1).unwrap();
    assert!((share - 2.0 / 3.0).abs() < 1e-9, "{share}");
    // Its calls are searched.
    assert!(!state.alerts.contains_key(&"unguided".into()));
    let groups = read_step(whole.path(), 1).unwrap();
    let guided = groups[0].completions.last().unwrap();
    let chain = guided.chain.as_ref().unwrap();
    assert_eq!(chain.steps[0].calls[0].reply, r#"{"changed":1}"#);
    assert_eq!(guided.text, "Sold.");
    let stopped = create_of(&task, &folder.path().join("stopped"), &SET);
    finish_with_stops(&stopped, &[1, 2]);
    assert!(fingerprint(&stopped) == fingerprint(&whole));
}

/// Replaces the built-in functions by one that sells.
fn write_sell(task: &Path) {
    let toml = TOML.replace("\n[score]", "\ndefinitions = \"tools.json\"\n[score]");
    fs::write(task.join("task.toml"), toml).unwrap();
    let parameters = json!({"type": "object", "properties": {"count": {"type": "integer", "maximum": 3}},
                            "required": ["count"], "additionalProperties": false});
    let tools = json!([{"type": "function", "function": {"name": "sell", "parameters": parameters},
                        "sql": "UPDATE item SET stock = stock - :count"}]);
    fs::write(task.join("tools.json"), tools.to_string()).unwrap();
}

#[test]
fn groups_without_success_learn_from_calls_found_by_search_and_resume_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    write_sell(&task);
    let row =
        json!({"id": "c", "messages": [{"role": "user", "content": "Sell 3."}], "expected": 2});
    fs::write(task.join("train.jsonl"), format!("{row}\n")).unwrap();
    for method in ["method=grpo", "method=sft+grpo"] {
        let set = [&SET[..], &["prompt_groups_per_step=1", method]].concat();
        let whole = create_of(&task, &folder.path().join(method), &set);
        assert!(matches!(
            work(&whole, |_| false).unwrap(),
            Ended::Finished(_)
        ));
        if method == "method=grpo" {
            let group = &read_step(whole.path(), 3).unwrap()[0];
            let guided = group.completions.last().unwrap();
            assert_eq!(guided.stop_reason, StopReason::Guided);
            assert_eq!((guided.reward, guided.text.as_str()), (Some(1.0), "Done."));
            let steps = &guided.chain.as_ref().unwrap().steps;
            assert_eq!(steps.len(), 1);
            assert_eq!(
                json!(steps[0].calls[0].arguments).to_string(),
                r#"{"count":3}"#
            );
        }
        let stopped = create_of(
            &task,
            &folder.path().join(format!("{method}-stopped")),
            &set,
        );
        finish_with_stops(&stopped, &[1, 2]);
        assert!(fingerprint(&stopped) == fingerprint(&whole));
    }
}

#[test]
fn groups_without_success_learn_from_calls_sampled_under_the_grammar_and_resume_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    write_sell(&task);
    // Values of an integer come from the request: search finds none.
    let row =
        json!({"id": "c", "messages": [{"role": "user", "content": "Sell three."}], "expected": 2});
    fs::write(task.join("train.jsonl"), format!("{row}\n")).unwrap();
    let set = [
        &SET[..],
        &[
            "prompt_groups_per_step=1",
            "max_completion_tokens=256",
            "max_steps=6",
        ],
    ]
    .concat();
    let whole = create_of(&task, &folder.path().join("whole"), &set);
    assert!(matches!(
        work(&whole, |_| false).unwrap(),
        Ended::Finished(_)
    ));
    let mut calls = 0;
    for group in (1..=6).flat_map(|step| read_step(whole.path(), step).unwrap()) {
        let (guided, sampled): (Vec<_>, Vec<_>) = group
            .completions
            .iter()
            .partition(|completion| completion.stop_reason == StopReason::Guided);
        for completion in guided {
            let steps = &completion.chain.as_ref().unwrap().steps;
            calls += steps
                .iter()
                .flat_map(|step| &step.calls)
                .filter(|call| call.name == "sell")
                .count();
            let others = sampled.iter().map(|other| other.reward.unwrap());
            assert!(others.fold(0.0, f64::max) < completion.reward.unwrap());
        }
    }
    assert!(calls > 0);
    let stopped = create_of(&task, &folder.path().join("stopped"), &set);
    finish_with_stops(&stopped, &[1, 2]);
    assert!(fingerprint(&stopped) == fingerprint(&whole));
}

#[test]
fn sft_learns_every_completion_of_a_demonstration() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(folder.path());
    let set = [&SET[..], &["method=sft"]].concat();
    let run = create_of(&task, &folder.path().join("without"), &set);
    let error = work(&run, |_| false).unwrap_err();
    assert!(
        matches!(&error, TrainError::NoAnswer { id, .. } if id == "c"),
        "{error}"
    );
    let rows = fs::read_to_string(task.join("train.jsonl")).unwrap();
    let shown: String = rows
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(task.join("train.jsonl"), shown).unwrap();
    let run = create_of(&task, &folder.path().join("with"), &set);
    assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
    let state = RunState::read(run.path()).unwrap();
    let loss = |step| state.metrics["loss"].at(step).unwrap();
    assert!(loss(3) < loss(1), "{} {}", loss(1), loss(3));
}
