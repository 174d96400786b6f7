//! Several tasks in one run: rows by weight, each with its own scorer, prompt and limit; rates by task; the same run after
//! a stop and on several ranks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use grpo_tui::config::{Assignments, Layers, TaskTable};
use grpo_tui::run::events::Group;
use grpo_tui::run::{EventBody, EventReader, MixedTask, NewRun, RunDirectory, RunState};
use grpo_tui::score::Task;

use super::small_task::SMALL;
use crate::program::{NANO_RUN, call, json, sample_task, stderr, stdout};
use grpo_tui::facts::StopReason;

/// The reward of a valid receipt, which no invoice has.
const RECEIPT: f64 = 10.0;

/// Invoices, and receipts: fewer rows that ask otherwise, with rewards on another scale and shorter answers.
fn write_tasks(folder: &Path) -> [String; 2] {
    let [invoice, receipts] = ["invoice", "receipts"].map(|name| folder.join(name));
    sample_task(&invoice, [12, 4, 6]);
    let path = invoice.join("task.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let limited = "[train]\nmax_completion_tokens = 64\n";
    std::fs::write(&path, text.replace("[train]\n", limited)).unwrap();
    sample_task(&receipts, [5, 3, 4]);
    let toml = "name = \"receipts\"\nschema = \"schema.json\"\nsystem = \"Write JSON.\"\nthinking = false\n\
        [prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\ntest = \"eval-large.jsonl\"\n\
        [score]\nkind = \"json_schema\"\ntiers = { unparsable = 0.0, invalid = 0.0, valid = 10.0 }\n\
        [train]\nmax_completion_tokens = 44\n";
    std::fs::write(receipts.join("task.toml"), toml).unwrap();
    [invoice, receipts].map(|path| path.display().to_string())
}

/// The settings of a run, but for the limits of its tasks.
fn settings<'a>(set: &[&'a str]) -> Vec<&'a str> {
    let all = NANO_RUN.iter().chain(SMALL).chain(set).copied();
    all.filter(|pair| !pair.starts_with("max_completion_tokens="))
        .collect()
}

/// The arguments of a run of both tasks.
fn arguments(folder: &Path, set: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train".to_owned()];
    arguments.extend(write_tasks(folder));
    arguments.extend(["--mix", "2:1", "--runs", "runs", "--cpu", "--json"].map(str::to_owned));
    for pair in settings(set) {
        arguments.extend(["--set", pair].map(str::to_owned));
    }
    arguments
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn run_in(folder: &Path) -> PathBuf {
    let runs = std::fs::read_dir(folder.join("runs")).unwrap();
    runs.map(|entry| entry.unwrap().path())
        .find(|path| path.join("run.toml").is_file())
        .unwrap()
}

fn groups(run: &Path) -> Vec<Group> {
    let events = EventReader::new(&run.join("events.jsonl"))
        .read()
        .unwrap()
        .events;
    let groups = events.into_iter().filter_map(|event| match event.body {
        EventBody::Group(group) => Some(group),
        _ => None,
    });
    groups.collect()
}

#[test]
fn each_task_has_its_share_its_scorer_and_its_limit() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let output = call(folder, &words(&arguments(folder, &[])));
    assert!(output.status.success(), "{}", stderr(&output));
    let document = json(&output);
    let tasks: Vec<_> = document["tasks"].as_array().unwrap().iter().collect();
    let shown = |task: &serde_json::Value| {
        format!("{} {} {}", task["task"], task["set"], task["base"]["n"])
    };
    assert_eq!(
        tasks.iter().map(|task| shown(task)).collect::<Vec<_>>(),
        ["\"invoice\" \"test\" 6", "\"receipts\" \"test\" 4"]
    );

    let run = run_in(folder);
    let mut steps: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for group in groups(&run) {
        let is_receipt = group.task == "receipts";
        let is_of_scale = |reward: &f64| {
            if is_receipt {
                [0.0, RECEIPT].contains(reward)
            } else {
                *reward <= 2.0
            }
        };
        assert!(group.rewards.iter().all(is_of_scale), "{group:?}");
        let limit = if is_receipt { 44 } else { 64 };
        let at_limit = group.token_counts.iter().zip(&group.stop_reasons);
        assert!(
            group.token_counts.iter().all(|count| *count <= limit),
            "{group:?}"
        );
        assert!(
            at_limit
                .filter(|(_, stop)| **stop == StopReason::Length)
                .all(|(count, _)| *count == limit),
            "{group:?}"
        );
        steps.entry(group.step).or_default().push(group.task);
    }
    assert_eq!(steps.len(), 6);
    assert!(
        steps
            .values()
            .all(|tasks| *tasks == ["invoice", "receipts", "invoice"]),
        "{steps:?}"
    );

    let history = RunState::read(&run).unwrap();
    assert_eq!(history.task_names(), ["invoice", "receipts"]);
    let sets: Vec<String> = history
        .evals
        .keys()
        .filter(|key| key.step == 0)
        .map(|key| key.set.to_string())
        .collect();
    assert_eq!(
        sets,
        [
            "eval:invoice",
            "eval:receipts",
            "test:invoice",
            "test:receipts"
        ]
    );
    let own = history.of_task("receipts");
    let rewards: Vec<f64> = groups(&run)
        .into_iter()
        .filter(|group| group.task == "receipts" && group.step == 6)
        .flat_map(|group| group.rewards)
        .collect();
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    assert!((own.metrics["reward"].at(6).unwrap() - mean).abs() < 1e-9);
    // What was truncated was truncated at the task's limit alone.
    assert!(
        own.metrics["completions/max_length"]
            .values()
            .iter()
            .all(|most| *most <= 44.0)
    );

    let show = stdout(&call(folder, &["runs", "show", &run.display().to_string()]));
    for expected in [
        "invoice+receipts",
        "67% of the prompts, at most 64 tokens",
        "33% of the prompts, at most 44 tokens",
        "test:receipts",
        "outcome      invoice: ",
    ] {
        assert!(show.contains(expected), "{expected} is not in {show}");
    }
    // One row of 12 + 5 in 18 groups; n/a is no 0.
    let prompts = json(&call(
        folder,
        &[
            "runs",
            "show",
            &run.display().to_string(),
            "--prompts",
            "--json",
        ],
    ));
    let prompts = prompts["prompts"].as_array().unwrap();
    let known = |prompt: &&serde_json::Value| prompt["solve_rate"].is_number();
    assert_eq!(
        (prompts.len(), prompts.iter().filter(known).count()),
        (17, history.solve_rates.len())
    );
    assert!(
        prompts
            .iter()
            .all(|prompt| prompt["solve_rate"].is_null() == prompt["step"].is_null()),
        "{prompts:?}"
    );
    let latest = groups(&run)
        .into_iter()
        .rfind(|group| group.task == "receipts")
        .unwrap();
    let found = prompts
        .iter()
        .find(|prompt| prompt["prompt"] == latest.prompt_name())
        .unwrap();
    let best = latest
        .rewards
        .iter()
        .filter(|reward| **reward == RECEIPT)
        .count();
    assert_eq!(
        (&found["solved"], &found["step"]),
        (&best.into(), &latest.step.into()),
        "{latest:?}"
    );
    let versus = stdout(&call(
        folder,
        &["runs", "compare", &run.display().to_string()],
    ));
    assert!(
        versus.contains(":invoice set, n = ") && versus.contains(":receipts set, n = "),
        "{versus}"
    );
    let page = stdout(&call(
        folder,
        &["runs", "export", &run.display().to_string(), "--markdown"],
    ));
    assert!(
        page.contains("| test:invoice set, n = ") && page.contains("| test:receipts set, n = "),
        "{page}"
    );
}

/// A run that nobody has begun, with the tasks as the program freezes them.
pub(super) fn create(folder: &Path, set: &[&str]) -> RunDirectory {
    let paths = write_tasks(folder);
    let tasks: Vec<Task> = paths
        .iter()
        .map(|path| Task::load(Path::new(path)).unwrap())
        .collect();
    let table = |task: &Task| {
        let text = String::from_utf8(task.read("task.toml").unwrap().into_owned()).unwrap();
        TaskTable {
            task: task.name.clone(),
            train: Assignments::from_task("task.toml", &text).unwrap(),
        }
    };
    let set = settings(set).into_iter().map(str::to_owned).collect();
    let tables: Vec<TaskTable> = tasks.iter().map(table).collect();
    let joined = Layers {
        set,
        ..Layers::default()
    }
    .resolve_tasks(&tables)
    .unwrap();
    assert_eq!(joined.max_completion_tokens, [64, 44]);
    let mixed = |(index, task): (usize, &Task)| MixedTask {
        name: task.name.clone(),
        origin: paths[index].clone(),
        weight: 2 - index,
        max_completion_tokens: joined.max_completion_tokens[index],
    };
    let inside = |task: &Task| {
        let files = task.files().unwrap().into_iter();
        files
            .map(|(file, bytes)| (format!("{}/{file}", task.name), bytes))
            .collect::<Vec<_>>()
    };
    let new = NewRun {
        job: grpo_tui::facts::Job::Train,
        name: String::new(),
        task: "invoice+receipts".to_owned(),
        task_origin: String::new(),
        task_files: tasks.iter().flat_map(inside).collect(),
        config: joined.resolved.config.clone(),
        sources: joined.resolved.sources.clone(),
        argv: Vec::new(),
        features: Vec::new(),
        model_digest: String::new(),
        mix: tasks.iter().enumerate().map(mixed).collect(),
    };
    RunDirectory::create(&folder.join("runs"), new).unwrap()
}

#[test]
fn a_changed_copy_or_weight_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let check = |name: &str, file: &str, from: &str, to: &str| {
        let run = create(&home.path().join(name), &[]);
        let path = run.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = call(
            home.path(),
            &[
                "train",
                "--resume",
                &run.path().display().to_string(),
                "--cpu",
            ],
        );
        assert!(
            !error.status.success() && stderr(&error).contains(file),
            "{}",
            stderr(&error)
        );
    };
    check("schema", "task/receipts/schema.json", "string", "number");
    check("weight", "run.toml", "weight = 2", "weight = 3");
}

#[test]
fn several_ranks_take_the_same_prompts() {
    let of_ranks = |ranks: &str| {
        let home = tempfile::tempdir().unwrap();
        let arguments = [
            arguments(home.path(), &["max_steps=2"]),
            vec!["--ranks".to_owned(), ranks.to_owned()],
        ]
        .concat();
        let output = call(home.path(), &words(&arguments));
        assert!(output.status.success(), "{}", stderr(&output));
        let groups = groups(&run_in(home.path()));
        let shown = |group: &Group| {
            format!(
                "{} {} {} {:?}",
                group.step, group.task, group.prompt_id, group.rewards
            )
        };
        // Later steps agree within rounding only.
        groups
            .iter()
            .filter(|group| group.step == 1)
            .map(shown)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_ranks("2"), of_ranks("1"));
}

#[test]
fn supervised_steps_take_the_answers_of_each_task() {
    let home = tempfile::tempdir().unwrap();
    let arguments = arguments(home.path(), &["method=sft", "learning_rate=1e-3"]);
    let output = call(home.path(), &words(&arguments));
    assert!(output.status.success(), "{}", stderr(&output));
    let history = RunState::read(&run_in(home.path())).unwrap();
    let loss = history.metrics["loss"].values();
    assert!(loss.len() == 6 && loss[5] < loss[0], "{loss:?}");
}

#[test]
fn what_cannot_be_mixed_is_one_sentence() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    write_tasks(folder);
    crate::program::copy_tree(&folder.join("receipts"), &folder.join("copy/receipts"));
    let check = |tasks: &[&str], expected: &str| {
        let output = call(
            folder,
            &[&["train"], tasks, &["--runs", "runs", "--cpu"]].concat(),
        );
        let error = stderr(&output);
        assert!(
            !output.status.success() && error.starts_with(expected),
            "{tasks:?}: {error}"
        );
        assert!(!folder.join("runs").exists(), "{tasks:?} left a run");
    };
    check(
        &["receipts", "receipts"],
        "error: receipts is named twice: name each task once, and weigh it with --mix",
    );
    check(
        &["receipts", "copy/receipts"],
        "error: receipts/task.toml and copy/receipts/task.toml are both named `receipts`",
    );
    check(
        &["invoice", "receipts", "--mix", "2"],
        "error: --mix 2: 1 weights for 2 tasks: write one for each, for example --mix 1:1",
    );
    check(
        &["invoice", "receipts", "--mix", "1:0"],
        "error: --mix 1:0: a weight is a whole number from 1 to 1000, not `0`",
    );
    check(
        &["invoice", "receipts", "--mix", "1:-2"],
        "error: --mix 1:-2: a weight is a whole number from 1 to 1000, not `-2`",
    );
    check(
        &["invoice", "receipts", "--mix", "1:x"],
        "error: --mix 1:x: a weight is a whole number from 1 to 1000, not `x`",
    );
    check(
        &["invoice", "--mix", "2:1"],
        "error: --mix 2:1: needs several tasks, and one is named",
    );
}
