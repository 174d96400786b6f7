//! Rows of several turns: later prompts are the model's own conversation, answers are compared within their turn, and
//! evals count conversations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use grpo_tui::advantage::{Advantage, group_advantages};
use grpo_tui::facts::{Target, Tier};
use grpo_tui::run::{
    RolloutCompletion, RolloutGroup, RunDirectory, RunState, read_evals, read_step,
};
use grpo_tui::task::PromptSet;
use grpo_tui::train::Ended;
use serde_json::{Value, json};

use super::small_task::{SMALL, create_of, create_with, work, write};

/// The small task with three turns in each row, each another row's first.
fn task(folder: &Path, score: &str) -> PathBuf {
    let task = write(folder);
    for (set, count) in [
        ("train.jsonl", 12),
        ("eval.jsonl", 3),
        ("eval-large.jsonl", 4),
    ] {
        let path = task.join(set);
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let turn =
            |at: usize| json!({"messages": rows[at]["messages"], "expected": rows[at]["expected"]});
        let with_turns = |(at, row): (usize, &Value)| {
            let mut row = row.clone();
            row["turns"] = json!([turn((at + 1) % rows.len()), turn((at + 2) % rows.len())]);
            format!("{row}\n")
        };
        std::fs::write(
            &path,
            rows.iter()
                .enumerate()
                .take(count)
                .map(with_turns)
                .collect::<String>(),
        )
        .unwrap();
    }
    let path = task.join("task.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let chain = "[[reward]]\npart = \"chain\"\nweight = 0.25\n\n[train]\n";
    std::fs::write(
        &path,
        text.replace("[score]\n", &format!("[score]\n{score}\n"))
            .replace("[train]\n", chain),
    )
    .unwrap();
    task
}

const SET: [&str; 4] = [
    "max_steps=2",
    "max_seq_len=1024",
    "completions_per_prompt=5",
    "eval_every=0",
];

/// A run of conversations with `set`.
pub(super) fn create(folder: &Path, set: &[&str]) -> RunDirectory {
    run(folder, "", set)
}

fn run(folder: &Path, score: &str, set: &[&str]) -> RunDirectory {
    create_of(&task(folder, score), folder, &[&SET, set].concat())
}

fn tier(completion: &RolloutCompletion) -> &str {
    completion.score["tier"].as_str().unwrap()
}

/// The conversations of a row by its groups: the completions of each, found by what later prompts contain.
fn conversations(groups: &[&RolloutGroup]) -> Vec<Vec<RolloutCompletion>> {
    let mut found: Vec<Vec<RolloutCompletion>> = groups[0]
        .completions
        .iter()
        .map(|completion| vec![completion.clone()])
        .collect();
    for (turn, group) in groups.iter().enumerate().skip(1) {
        assert!(group.prompt.is_empty());
        for completion in &group.completions {
            let prompt = completion.prompt.as_ref().unwrap();
            // Of equal conversations any will do.
            let its_own = |said: &&mut Vec<RolloutCompletion>| {
                said.len() == turn
                    && said.iter().all(|earlier| {
                        prompt.contains(&format!("assistant\n{}<|im_end|>", earlier.text))
                    })
            };
            found
                .iter_mut()
                .find(its_own)
                .unwrap_or_else(|| panic!("turn {turn}: {prompt}"))
                .push(completion.clone());
        }
    }
    found
}

#[test]
fn a_conversation_goes_on_after_the_models_own_answers() {
    for goes_on in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        // The test model answers no second turn.
        let task = task(
            folder.path(),
            &format!("continue_after_failure = {goes_on}"),
        );
        let set = [SMALL, &SET, &["max_steps=1"]].concat();
        let run = create_with(&task, folder.path(), &set);
        assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
        let (mut ended, mut complete, mut other_answers) = (0, 0, 0);
        let groups = read_step(run.path(), 1).unwrap();
        let mut rows: BTreeMap<&str, Vec<&RolloutGroup>> = BTreeMap::new();
        for group in &groups {
            rows.entry(group.prompt_id.split('/').next().unwrap())
                .or_default()
                .push(group);
        }
        assert_eq!(rows.len(), 3);
        for (id, turns) in rows {
            let names: Vec<String> = (1..=turns.len())
                .map(|turn| {
                    if turn == 1 {
                        id.to_owned()
                    } else {
                        format!("{id}/{turn}")
                    }
                })
                .collect();
            assert!(
                turns.iter().map(|turn| &turn.prompt_id).eq(&names),
                "{names:?}"
            );
            for turn in &turns {
                let rewards: Vec<f64> = turn
                    .completions
                    .iter()
                    .map(|completion| completion.reward.unwrap())
                    .collect();
                let found: Vec<f64> = turn
                    .completions
                    .iter()
                    .map(|completion| completion.advantage)
                    .collect();
                assert_eq!(found, group_advantages(&rewards, Advantage::Standardized));
            }
            // The same prompt is not answered by the same random numbers.
            let second = turns.get(1).map_or(&[][..], |turn| &turn.completions);
            for (at, one) in second.iter().enumerate() {
                let same = |other: &&RolloutCompletion| {
                    other.prompt == one.prompt && other.text != one.text
                };
                other_answers += second[at + 1..].iter().filter(same).count();
            }
            for said in conversations(&turns) {
                let values = said.iter().map(|answer| match tier(answer) {
                    "valid" => 1.0,
                    "invalid" => 0.5,
                    _ => 0.0,
                });
                let worst = values.clone().fold(f64::INFINITY, f64::min);
                for (answer, value) in said.iter().zip(values) {
                    assert_eq!(answer.score["parts"]["chain"], json!(worst));
                    let fields = answer.score["parts"]["fields"].as_f64().unwrap_or(0.0);
                    assert_eq!(answer.reward, Some(value + fields + 0.25 * worst));
                }
                let first_failure = said.iter().position(|answer| tier(answer) != "valid");
                assert_eq!(
                    said.len(),
                    if goes_on {
                        3
                    } else {
                        first_failure.map_or(3, |at| at + 1)
                    }
                );
                ended += usize::from(said.len() < 3);
                complete += usize::from(said.len() == 3);
            }
        }
        assert!(
            complete > 0 && (ended > 0) != goes_on && other_answers > 0,
            "{complete} {ended} {other_answers}"
        );
        evals_count_conversations(&run);
    }
}

fn evals_count_conversations(run: &RunDirectory) {
    let state = RunState::read(run.path()).unwrap();
    let eval = state
        .evals
        .values()
        .find(|eval| eval.is_on(PromptSet::Test) && eval.target == Target::Base)
        .unwrap();
    let records = read_evals(&run.path().join(&eval.file)).unwrap();
    assert_eq!((records.len(), eval.summary.n), (4, 4));
    let mut answers = 0;
    for record in &records {
        assert_eq!(record.turns.len() + record.unanswered, 3);
        let are_valid = record.turns.iter().all(|turn| turn.tier == Tier::Valid);
        assert_eq!(record.is_valid(), are_valid && record.unanswered == 0);
        assert_eq!(
            record.completion,
            record.turns[record.deciding_turn()].completion
        );
        answers += record.turns.len();
    }
    let of_answers = eval.summary.answers.as_ref().unwrap();
    let valid = records
        .iter()
        .flat_map(|record| &record.turns)
        .filter(|turn| turn.tier == Tier::Valid)
        .count();
    assert_eq!(
        (of_answers.n, of_answers.valid),
        (answers, valid as f64 / answers as f64)
    );
    assert!((of_answers.independent - of_answers.valid.powi(3)).abs() < 1e-12);
}

/// Every turn is an example, after the expected answers of those before.
#[test]
fn supervised_fine_tuning_takes_all_turns() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(
        folder.path(),
        "",
        &["method=sft", "prompt_groups_per_step=2", "max_steps=1"],
    );
    assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
    let state = RunState::read(run.path()).unwrap();
    let (loss, speed) = (
        state.metrics["loss"].values()[0],
        state.metrics["tokens_per_second/train"].values()[0],
    );
    // A first turn has some 150 tokens with its answer: two rows of one turn would have 300.
    let tokens = speed * state.metrics["step_time"].values()[0];
    assert!(loss.is_finite() && tokens > 1_000.0, "{loss} {tokens}");
}

#[test]
fn a_conversation_that_may_not_fit_is_refused_with_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "", &["max_seq_len=400"]);
    let error = work(&run, |_| false).unwrap_err().to_string();
    assert!(
        error.contains("line 1 (`train-001`), with 2 answers of max_completion_tokens"),
        "{error}"
    );
    assert!(error.contains("raise max_seq_len"), "{error}");
}
