//! Environments of verifiers: tasks that scripts/verifiers-task.py makes are trained with the environment's rewards, one
//! service for all conversations, which ends with the run.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use grpo_tui::run::{RunState, read_step};
use serde_json::{Value, json};

use crate::program::{call, json_lines, processes_of, stderr, stdout};
use crate::ranks::{arguments_for, run_in, words};

/// A taskset whose rewards depend on what is answered, and on the row what goes wrong.
const SUMS: &str = r#"
import os
import verifiers.v1 as vf

__all__ = ["Sums"]

class Data(vf.TaskData):
    answer: int

class Sum(vf.Task[Data]):
    @vf.reward(weight=0.5)
    async def digits(self, trace: vf.Trace) -> float:
        if self.data.answer == -1:
            raise ValueError("a negative sum")
        text = trace.last_reply
        return 9 if self.data.answer == -2 else sum(letter.isdigit() for letter in text) / max(1, len(text))

    @vf.metric
    async def process(self, trace: vf.Trace) -> float:
        return os.getpid()

class Sums(vf.Taskset[Sum, vf.TasksetConfig]):
    def load(self):
        for number in range(20):
            data = Data(prompt=f"What is {number} + {number}?", system_prompt="Digits only.", answer=2 * number)
            yield Sum(data, self.config.task)
"#;

/// Plays a game again with these answers: its reward, and what it said after each.
const REPLAY: &str = r#"
import json, random, sys
import textarena as ta
from verifiers.v1.tasksets.textarena.taskset import _latest_feedback

played = json.load(sys.stdin)
random.seed(played["info"]["seed"])
game = ta.make(env_id=played["info"]["game"])
game.reset(num_players=1)
said = []
for answer in played["answers"]:
    game.step(answer)
    if game.state.done:
        break
    said.append(_latest_feedback(str(game.get_observation()[1])))
print(json.dumps({"said": said, "is_over": game.state.done, "reward": float((game.state.rewards or {}).get(0, 0.0))}))
"#;

fn python() -> &'static str {
    static PYTHON: LazyLock<String> = LazyLock::new(|| crate::program::peer("VERIFIERS_PYTHON"));
    &PYTHON
}

/// A Python with a home in `folder`, and this as its standard input.
fn run_python(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(python());
    command
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// The task that the script makes of a taskset, trusted.
fn task(folder: &Path, taskset: &str, arguments: &[&str]) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/verifiers-task.py");
    let made = run_python(
        folder,
        &[&[script, taskset, "task"], arguments].concat(),
        "",
    );
    assert!(stdout(&made).contains("test, "), "{}", stdout(&made));
    let trusted = call(folder, &["task", "trust", "task", "--yes"]);
    assert!(trusted.status.success(), "{}", stderr(&trusted));
    folder.join("task")
}

fn rows(path: &Path) -> Vec<Value> {
    crate::program::lines(&std::fs::read_to_string(path).unwrap())
}

#[test]
#[ignore = "nightly, with verifiers: scripts/nightly"]
fn a_taskset_is_trained_with_its_rewards_by_one_service() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    std::fs::write(home.join("sums.py"), SUMS).unwrap();
    let task = task(home, "sums.py", &["--held-out", "2"]);
    let output = call(
        home,
        &words(&arguments_for(
            &task,
            home,
            1,
            &["max_steps=2", "eval_every=0"],
        )),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let run = run_in(home);
    let state = RunState::read(&run).unwrap();
    let difference = state.metrics["sampling/sampling_logp_difference/max"].values();
    assert!(
        difference.iter().all(|found| *found < 1e-3),
        "{difference:?}"
    );
    let train = rows(&task.join("train.jsonl"));
    let (mut services, mut rewards) = (BTreeSet::new(), BTreeSet::new());
    for group in [1, 2]
        .iter()
        .flat_map(|step| read_step(&run, *step).unwrap())
    {
        let row = train
            .iter()
            .find(|row| row["id"] == json!(group.prompt_id))
            .unwrap();
        for completion in &group.completions {
            let record = json!(completion.chain.as_ref().unwrap().agent.as_ref().unwrap());
            let asked = &record["requests"].as_array().unwrap()[..];
            let [asked] = asked else { panic!("{record}") };
            // What the row shows is what the environment has asked.
            let messages = |from: &Value| -> Vec<(String, String)> {
                let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
                let messages = from.as_array().unwrap().iter();
                messages
                    .map(|message| (text(message, "role"), text(message, "content")))
                    .collect()
            };
            assert_eq!(messages(&asked["messages"]), messages(&row["messages"]));
            let count = completion.token_ids.len();
            assert!(
                count > 0 && count == completion.log_probs.len(),
                "{count} tokens"
            );
            let (digits, letters) = (
                completion.text.chars().filter(char::is_ascii_digit).count(),
                completion.text.chars().count(),
            );
            let expected = 0.5 * digits as f64 / letters.max(1) as f64;
            let reward = completion.reward.unwrap();
            assert!(
                (reward - expected).abs() < 1e-9,
                "{reward} of {:?}: {record}",
                completion.text
            );
            rewards.insert(reward.to_bits());
            let verdict: Value = serde_json::from_str(record["output"].as_str().unwrap()).unwrap();
            assert_eq!(
                (&verdict["metrics"]["reward"], &verdict["metrics"]["digits"]),
                (&json!(reward), &json!(reward))
            );
            services.insert(verdict["metrics"]["process"].to_string());
        }
    }
    assert!(rewards.len() > 2, "{rewards:?}");
    assert_eq!(services.len(), 1, "{services:?}");
    assert_eq!(processes_of(home), Vec::<String>::new());
    let left = std::fs::read_dir(home.join("home/cache/grpo-tui/scratch"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "a lock and no folder");
}

#[test]
#[ignore = "nightly, with verifiers: scripts/nightly"]
fn a_game_of_many_turns_is_one_conversation_with_its_reward() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let game = r#"{"game": "Hangman-v0"}"#;
    let task = task(
        home,
        "textarena",
        &["--taskset-config", game, "--tasks", "6", "--held-out", "2"],
    );
    let rows = rows(&task.join("test.jsonl"));
    let sample = [
        "sample",
        "task",
        "--model",
        "tiny",
        "--on",
        "task/test.jsonl",
        "--n",
        "2",
        "--json",
    ];
    let played = json_lines(&call(
        home,
        &[&sample[..], &["--max-completion-tokens", "96"]].concat(),
    ));
    assert_eq!(played.len(), 4);
    for found in &played {
        let row = rows
            .iter()
            .find(|row| row["id"] == found["prompt_id"])
            .unwrap();
        let asked = found["chain"]["agent"]["requests"].as_array().unwrap();
        let follows: Vec<_> = asked
            .iter()
            .map(|asked| asked["follows"].as_u64())
            .collect();
        let one_after_the_other: Vec<_> = (0..asked.len() as u64)
            .map(|number| number.checked_sub(1))
            .collect();
        assert!(asked.len() > 1 && follows == one_after_the_other, "{found}");
        let steps = found["chain"]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| &step["text"]);
        let answers: Vec<_> = steps.chain([&found["completion"]]).collect();
        let replayed = run_python(
            home,
            &["-c", REPLAY],
            &json!({"info": row["task"]["info"], "answers": answers}).to_string(),
        );
        let replayed: Value =
            serde_json::from_str(stdout(&replayed).lines().last().unwrap()).unwrap();
        let said: Vec<_> = asked[1..]
            .iter()
            .map(|asked| asked["messages"][0]["content"].clone())
            .collect();
        assert_eq!(
            (&replayed["said"], &replayed["is_over"]),
            (&json!(said), &json!(true)),
            "{found}"
        );
        assert_eq!(found["reward"], replayed["reward"], "{found}");
    }
    assert_eq!(processes_of(home), Vec::<String>::new());
}

#[test]
#[ignore = "nightly, with verifiers: scripts/nightly"]
fn what_fails_in_an_environment_ends_its_conversation_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    std::fs::write(home.join("sums.py"), SUMS).unwrap();
    let task = task(home, "sums.py", &[]);
    let row = rows(&task.join("test.jsonl")).remove(0);
    let with = |id: &str, task: Value| {
        let mut row = row.clone();
        (row["id"], row["task"]) = (json!(id), task);
        row
    };
    let answer = |number: i32| json!({"prompt": "1 + 1?", "answer": number});
    let mut without = with("without", json!(null));
    without.as_object_mut().unwrap().remove("task");
    let table = [
        (with("right", answer(2)), ["answer", "truncated"], ""),
        (without, ["no_request"; 2], "the row has no `task`"),
        (
            with("field", json!({"prompt": "1 + 1?"})),
            ["no_request"; 2],
            "the environment refuses the task: ",
        ),
        (
            with("raises", answer(-1)),
            ["agent_failed"; 2],
            "the episode failed: TaskError: ",
        ),
        (
            with("reward", answer(-2)),
            ["agent_failed"; 2],
            "the reward 4.5 is not from 0.0 to 1.0",
        ),
    ];
    let text: String = table.iter().map(|(row, ..)| format!("{row}\n")).collect();
    std::fs::write(home.join("rows.jsonl"), text).unwrap();
    let sample = [
        "sample",
        "task",
        "--model",
        "tiny",
        "--on",
        "rows.jsonl",
        "--n",
        "1",
        "--json",
    ];
    let found = json_lines(&call(home, &sample));
    assert_eq!(found.len(), table.len());
    for ((_, ends, reason), found) in table.iter().zip(&found) {
        assert!(
            ends.iter().any(|end| found["chain"]["end"] == *end),
            "{found}"
        );
        assert!(found.to_string().contains(reason), "{reason}: {found}");
    }
    // A Python without verifiers, and an environment that is not installed.
    let (toml, config) = (task.join("task.toml"), task.join("environment.json"));
    let text = std::fs::read_to_string(&toml).unwrap();
    let service = format!("service = [{:?}", python());
    assert!(text.contains(&service), "{text}");
    std::fs::write(&toml, text.replace(&service, "service = [\"python3\"")).unwrap();
    let fails = |reason: &str| {
        assert!(
            call(home, &["task", "trust", "task", "--yes"])
                .status
                .success()
        );
        let found = json_lines(&call(home, &sample));
        assert_eq!(found[0]["chain"]["end"], "no_request", "{}", found[0]);
        assert!(found[0].to_string().contains(reason), "{}", found[0]);
    };
    fails(
        "it lost its service, which ended with exit code 1: No module named 'verifiers': this task needs verifiers 0.4",
    );
    std::fs::write(&toml, text).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("sums", "nonesuch")).unwrap();
    fails(
        "the environment of environment.json does not load: ModuleNotFoundError: taskset 'nonesuch' not found",
    );
    assert_eq!(processes_of(home), Vec::<String>::new());
}
