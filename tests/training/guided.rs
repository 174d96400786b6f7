//! Groups without success are guided, a collapsed policy is replaced, and a resumed run does both exactly as one that was
//! not stopped.

use std::path::{Path, PathBuf};

use grpo_tui::advantage::GroupSignal;
use grpo_tui::run::{RunDirectory, RunState, list_checkpoints, read_step};
use grpo_tui::train::Ended;
use serde_json::{Value, json};

use super::small_task::{create_of, fingerprint, finish_with_stops, work, write};
use grpo_tui::facts::StopReason;

/// The small task with a key that the model never writes; `expected`: the rows have answers, with that key alone.
pub(crate) fn write_hopeless(folder: &Path, expected: bool) -> PathBuf {
    let task = write(folder);
    let change = |file: &str, change: &dyn Fn(&mut Value)| {
        let text = std::fs::read_to_string(task.join(file)).unwrap();
        let documents: Vec<Value> = serde_json::Deserializer::from_str(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let lines = documents.into_iter().map(|mut document| {
            change(&mut document);
            format!("{document}\n")
        });
        std::fs::write(task.join(file), lines.collect::<String>()).unwrap();
    };
    change("schema.json", &|schema| {
        if expected {
            schema["properties"] = json!({});
            schema["required"] = json!([]);
        }
        schema["properties"]["zone"] = json!({"const": "q"});
        schema["required"]
            .as_array_mut()
            .unwrap()
            .push(json!("zone"));
    });
    for set in ["train.jsonl", "eval.jsonl", "eval-large.jsonl"] {
        change(set, &|row| match expected {
            true => row["expected"] = json!({"zone": "q"}),
            false => _ = row.as_object_mut().unwrap().remove("expected"),
        });
    }
    task
}

pub(super) fn create_hopeless(folder: &Path, expected: bool, set: &[&str]) -> RunDirectory {
    create_of(&write_hopeless(folder, expected), folder, set)
}

fn finished(run: &RunDirectory) -> RunState {
    assert!(matches!(work(run, |_| false).unwrap(), Ended::Finished(_)));
    RunState::read(run.path()).unwrap()
}

/// By the expected answer, or under the grammar; what the policy itself did is counted alone.
#[test]
fn a_group_without_success_learns_from_an_answer_that_is_right() {
    for expected in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let run = create_hopeless(folder.path(), expected, &["max_steps=2", "eval_every=0"]);
        let state = finished(&run);
        for group in state.groups[&1].values() {
            assert_eq!(
                group.stop_reasons.last(),
                Some(&StopReason::Guided),
                "{group:?}"
            );
            assert_eq!(
                (
                    group.tiers.last().unwrap().name(),
                    group.signal == GroupSignal::AllMax
                ),
                ("valid", false)
            );
            assert!(group.advantages.last().unwrap() > &0.5, "{group:?}");
        }
        let metric = |name: &str| state.metrics[name].at(1);
        assert_eq!(
            (metric("groups/frac_guided"), metric("tiers/valid")),
            (Some(1.0), Some(0.0))
        );
        assert!(metric("grad_norm").unwrap() > 0.0);
        for group in read_step(run.path(), 1).unwrap() {
            let guided = group.completions.last().unwrap();
            let answer: Value = serde_json::from_str(&guided.text).unwrap();
            assert!(
                answer["zone"] == "q" && guided.log_probs.is_empty(),
                "{guided:?}"
            );
            assert_eq!(guided.score["exact"] == true, expected);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let plain = create_hopeless(
        folder.path(),
        true,
        &["max_steps=1", "eval_every=0", "guided=false"],
    );
    assert_eq!(
        finished(&plain).metrics["groups/frac_guided"].at(1),
        Some(0.0)
    );
}

pub(crate) const COLLAPSING: [&str; 6] = [
    // Room for an answer with the key, and for none of the model's own.
    "max_completion_tokens=10",
    "max_steps=8",
    "temperature=0.01",
    "lora_rank=4",
    "guided=false",
    "learning_rate_schedule=constant",
];

/// At a temperature near 0 all answers of a group are one, and none is right.
#[test]
fn a_collapsed_policy_is_replaced_and_guided() {
    let folder = tempfile::tempdir().unwrap();
    let run = create_hopeless(folder.path(), true, &COLLAPSING);
    let state = finished(&run);
    let [collapse] = state.collapses.as_slice() else {
        panic!("{:?}", state.collapses)
    };
    assert_eq!((collapse.step, collapse.restored_step), (5, 0));
    let rate = |step| state.metrics["learning_rate"].at(step).unwrap();
    assert_eq!(
        (rate(6), collapse.learning_rate),
        (rate(1) / 2.0, rate(1) / 2.0)
    );
    let guided = |step| state.metrics["groups/frac_guided"].at(step).unwrap();
    assert_eq!((guided(5), guided(6)), (0.0, 1.0));
    assert!(state.alerts[&"collapsed".into()].cleared);
    let events = std::fs::read_to_string(run.path().join("events.jsonl")).unwrap();
    assert!(
        events.contains("The policy collapsed: the most frequent answer is `{"),
        "{events}"
    );
    let stopped = folder.path().join("stopped");
    let state = finished(&create_hopeless(
        &stopped,
        true,
        &[&COLLAPSING[..], &["on_collapse=stop"]].concat(),
    ));
    assert!(state.last_step == 5 && state.end.unwrap().cause.contains("the policy collapsed"));
}

/// The second interval of three steps would reach into the third step of GRPO.
const SFT_GRPO: [&str; 6] = [
    "method=sft+grpo",
    "sft_steps=4",
    "max_steps=6",
    "weight_sync_interval=3",
    "lora_rank=4",
    "learning_rate=5e-3",
];

/// On expected answers, or on the base's own under the grammar; then on rewards, in one record.
#[test]
fn supervised_steps_come_first() {
    for expected in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let state = finished(&create_hopeless(folder.path(), expected, &SFT_GRPO));
        let steps = |name: &str| state.metrics[name].steps().collect::<Vec<_>>();
        assert_eq!(
            (steps("reward"), steps("learning_rate").len()),
            (vec![5, 6], 6)
        );
        assert_eq!(state.groups.keys().copied().collect::<Vec<_>>(), [5, 6]);
        let loss = |step| state.metrics["loss"].at(step).unwrap();
        assert!(
            loss(4) < loss(1),
            "{} nats/token, then {}",
            loss(1),
            loss(4)
        );
    }
}

#[test]
fn supervised_steps_without_answers_are_refused_before_the_base_is_measured() {
    for (method, instead) in [
        ("sft", "in every row"),
        ("sft+grpo", "the base cannot answer instead: guided = false"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = create_hopeless(
            folder.path(),
            false,
            &[&format!("method={method}"), "guided=false"],
        );
        let error = work(&run, |_| false).unwrap_err().to_string();
        assert!(
            error.starts_with("train set line 1 (`") && error.ends_with(instead),
            "{error}"
        );
        assert!(
            error.contains(&format!("`--method {method}` needs an `expected`")),
            "{error}"
        );
        assert!(RunState::read(run.path()).unwrap().evals.is_empty());
    }
}

/// Up while the entropy is below the target, by a tenth a step; groups without a gradient of their own have one by it.
#[test]
fn an_entropy_bonus_adapts() {
    let folder = tempfile::tempdir().unwrap();
    let set = [
        "max_steps=3",
        "guided=false",
        "on_collapse=continue",
        "entropy_coef=0.1",
    ];
    let coefficients = |folder: &Path, more: [&str; 2]| {
        let state = finished(&create_hopeless(folder, true, &[&set[..], &more].concat()));
        assert!(
            state.metrics["groups/frac_mixed"].at(1) == Some(0.0) || more[0] != "temperature=0.01"
        );
        assert!(state.metrics["grad_norm"].at(1).unwrap() > 0.0);
        let values = state.metrics["entropy_coef"].values().iter();
        values
            .map(|value| (value * 100.0).round() / 100.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        coefficients(
            &folder.path().join("up"),
            ["temperature=0.01", "entropy_target=9"]
        ),
        [0.1, 0.11, 0.12]
    );
    assert_eq!(
        coefficients(
            &folder.path().join("down"),
            ["temperature=1", "entropy_target=1e-9"]
        ),
        [0.1, 0.09, 0.08]
    );
}

#[test]
fn stopping_changes_nothing_around_a_collapse_and_a_change_of_method() {
    for (expected, set, stops) in [
        (true, &COLLAPSING[..], &[&[4_u64, 5, 6][..]][..]),
        (false, &SFT_GRPO, &[&[1, 4], &[3]]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let whole = create_hopeless(&folder.path().join("whole"), expected, set);
        finished(&whole);
        for stops in stops {
            let run = create_hopeless(
                &folder.path().join(format!("stopped-{}", stops[0])),
                expected,
                set,
            );
            finish_with_stops(&run, stops);
            assert!(
                fingerprint(&run) == fingerprint(&whole),
                "stopped after steps {stops:?}"
            );
            let recovers = set == &COLLAPSING[..];
            assert!(!recovers || list_checkpoints(run.path()).unwrap().contains(&5));
        }
    }
}

/// Dynamic sampling replaces every group of a task that is solved: its steps have metrics, and the run ends.
#[test]
fn a_solved_task_ends_a_run_with_dynamic_sampling() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("easy");
    std::fs::create_dir(&task).unwrap();
    let rows: String = (0..8)
        .map(|row| format!("{{\"id\": \"r{row}\", \"messages\": [{{\"role\": \"user\", \"content\": \"say {row}\"}}]}}\n"))
        .collect();
    std::fs::write(task.join("train.jsonl"), rows).unwrap();
    let definition = "name = \"easy\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"regex\"\npattern = \"[\\\\s\\\\S]*\"\n";
    std::fs::write(task.join("task.toml"), definition).unwrap();
    let run = create_of(
        &task,
        folder.path(),
        &[
            "dynamic_sampling=true",
            "max_steps=12",
            "max_completion_tokens=4",
        ],
    );
    work(&run, |_| false).unwrap();
    let state = RunState::read(run.path()).unwrap();
    let cause = state.end.unwrap().cause;
    assert!(
        state.last_step == 10 && cause.contains("nothing is left to learn"),
        "{cause}"
    );
    assert_eq!(state.metrics["reward"].values(), [1.0; 10]);
    assert!(
        !state.alerts.contains_key(&"not_finite".into()),
        "{:?}",
        state.alerts
    );
}
