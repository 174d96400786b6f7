//! Sweeps by the real program: what they start, what they choose, and what an interruption leaves.

mod earlier_release;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use grpo_tui::run::{RunDirectory, RunState, State, Status};
use serde_json::Value;

use crate::program::{
    NANO, NANO_RUN, call, call_in_process, copy_tree, json, json_lines, program, small_task,
    stderr, stdout, until,
};

/// Small steps of the test model, evaluated after each.
const FIXED: &str = "--cpu --json --set max_rows=8 --set completions_per_prompt=2 --set prompt_groups_per_step=2 --set eval_every=1";

fn started(command: &str) -> Vec<&str> {
    // A key that the command varies has no other value.
    let is_free = |pair: &&&str| !command.contains(&pair[..=pair.find('=').unwrap()]);
    let nano = NANO_RUN.iter().filter(is_free);
    command
        .split_whitespace()
        .chain(FIXED.split_whitespace())
        .chain(nano.flat_map(|pair| ["--set", pair]))
        .collect()
}

/// The folders of the runs that there are.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("runs")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.join("run.toml").exists())
        .collect()
}

/// The runs of a folder by name: id, status and tags. A run that was begun twice would be there twice.
fn runs(folder: &Path) -> BTreeMap<String, (String, String, String)> {
    let listed = json_lines(&call(
        folder,
        &[
            "runs",
            "list",
            "--json",
            "--columns",
            "tags",
            "--runs",
            "runs",
        ],
    ));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |run: &Value| {
        (
            text(&run["name"]),
            (
                text(&run["id"]),
                text(&run["status"]),
                text(&run["columns"]["tags"]),
            ),
        )
    };
    let found: BTreeMap<_, _> = listed.iter().map(row).collect();
    assert_eq!(found.len(), listed.len(), "{listed:?}");
    found
}

fn states(document: &Value) -> Vec<String> {
    let settings = document["settings"].as_array().unwrap();
    let runs = settings
        .iter()
        .flat_map(|setting| setting["runs"].as_array().unwrap());
    runs.map(|run| run["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_sweep_names_no_winner_without_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let command = started(
        "sweep task --runs runs --name lr --set learning_rate=1e-7,1e-6 --set max_steps=1 --markdown table.md",
    );
    let output = call(folder.path(), &command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("finished at step 1: valid "), "{said}");
    let document = json(&output);
    assert_eq!(states(&document), ["finished"; 2], "{document:#}");
    let difference = &document["differences"][0];
    assert_eq!(
        (&document["has_winner"], &difference["verdict"]),
        (&false.into(), &"no_difference".into()),
        "{document:#}"
    );
    assert!(
        difference["n"].as_u64() > Some(0)
            && difference["p"].is_number()
            && difference["setting"] != document["best"],
        "{difference:#}"
    );
    let measured = &document["settings"][0]["runs"][0]["measured"];
    assert!(
        measured["test"]["valid"].is_number()
            && document["comparisons"][0]["valid"]["p"].is_number()
    );
    for (name, (_, _, tags)) in runs(folder.path()) {
        assert!(name.starts_with("lr-00") && tags == "lr", "{name} {tags}");
    }
    let table = fs::read_to_string(folder.path().join("table.md")).unwrap();
    assert!(
        table.contains("no best setting by the eval set (n = ")
            && table.contains("no difference found from learning_rate=1e-")
            && table.contains("95% CI"),
        "{table}"
    );
    // Finished: there is nothing to do, and the table is the same.
    let again = call(
        folder.path(),
        &["sweep", "--resume", "lr", "--runs", "runs", "--json"],
    );
    assert_eq!(json(&again)["settings"], document["settings"]);
    let shown = stdout(&call(
        folder.path(),
        &["sweep", "--show", "lr", "--runs", "runs"],
    ));
    assert!(
        shown.contains("lr: sweep of task task, 1 seed; 2 of 2 runs finished"),
        "{shown}"
    );
    let listed = stdout(&call(folder.path(), &["sweep", "--list", "--runs", "runs"]));
    assert!(listed.contains("lr    task     2"), "{listed}");
    let changed = folder.path().join("task/train.jsonl");
    let text = fs::read_to_string(&changed).unwrap();
    fs::write(&changed, text.replace("Ostkaland", "Westkaland") + "\n").unwrap();
    let refused = call(
        folder.path(),
        &["sweep", "--resume", "lr", "--runs", "runs"],
    );
    assert!(
        stderr(&refused).contains("has changed since the sweep"),
        "{}",
        stderr(&refused)
    );
}

/// The sweep and its workers die at any moment; what was begun goes on, and nothing is begun twice.
#[test]
fn a_killed_sweep_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let first = started(
        "sweep task --runs runs --name killed --set learning_rate=1e-6,1e-5 --set seed=0..1 --set max_steps=2",
    );
    let resume = ["sweep", "--resume", "killed", "--runs", "runs", "--json"];
    let spawn = |arguments: &[&str]| -> Child {
        program(folder.path(), arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let steps = || -> u64 {
        let states = folders(folder.path());
        let states = states.iter().filter_map(|run| RunState::read(run).ok());
        states.map(|state| state.last_step).sum()
    };
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("the sweep is there", &|| {
            folder
                .path()
                .join("runs/.sweeps/killed/sweep.json")
                .exists()
        }),
        ("a run is there", &|| !folders(folder.path()).is_empty()),
        ("a run computes", &|| steps() > 0),
        ("a run has ended", &|| steps() > 1),
        ("the third run computes", &|| steps() > 4),
    ];
    for (index, (moment, is_reached)) in moments.into_iter().enumerate() {
        let mut sweep = spawn(if index == 0 { &first } else { &resume });
        until(moment, is_reached);
        sweep.kill().unwrap();
        sweep.wait().unwrap();
        for (name, (id, _, _)) in runs(folder.path()) {
            // Every other time its worker dies, too.
            if index % 2 == 1 {
                let state =
                    fs::read_to_string(folder.path().join("runs").join(&id).join("state.json"))
                        .unwrap_or_default();
                let pid = serde_json::from_str::<Value>(&state)
                    .ok()
                    .and_then(|state| state["pid"].as_i64());
                let held = call(
                    folder.path(),
                    &["runs", "show", &id, "--runs", "runs", "--json"],
                );
                let is_active = json(&held)["status"]
                    .as_str()
                    .is_some_and(|status| status == "running");
                if let Some(pid) = pid.filter(|_| is_active) {
                    std::process::Command::new("kill")
                        .args(["-9", &pid.to_string()])
                        .status()
                        .unwrap();
                }
            }
            assert_eq!(
                seen.entry(name).or_insert_with(|| id.clone()),
                &id,
                "a run was begun twice"
            );
        }
    }
    let document = json(&call(folder.path(), &resume));
    assert_eq!(states(&document), ["finished"; 4], "{document:#}");
    let found = runs(folder.path());
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["killed-001", "killed-002", "killed-003", "killed-004"]
    );
    assert!(
        seen.iter().all(|(name, id)| found[name].0 == *id),
        "{seen:?} {found:?}"
    );
    assert!(
        found
            .values()
            .all(|(_, status, tags)| status == "finished" && tags == "killed"),
        "{found:?}"
    );
}

#[test]
fn an_interrupted_sweep_is_resumed_and_limits_hold() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let limited = started(
        "sweep task --runs runs --name some --set seed=0..2 --set max_steps=2 --max-runs 1",
    );
    let output = call(folder.path(), &limited);
    assert_eq!(
        states(&json(&output)),
        ["finished", "not started", "not started"]
    );
    assert!(
        stderr(&output).contains("1 run started (--max-runs)")
            && stderr(&output).contains("--max-runs N"),
        "{}",
        stderr(&output)
    );
    // The time limit is reached before anything starts.
    let resume = |more: &[&str]| -> Output {
        call(
            folder.path(),
            &[
                &["sweep", "--resume", "some", "--runs", "runs", "--json"],
                more,
            ]
            .concat(),
        )
    };
    let output = resume(&["--max-runs", "3", "--max-hours", "0.000001"]);
    assert_eq!(
        states(&json(&output)),
        ["finished", "not started", "not started"]
    );
    assert!(stderr(&output).contains("h reached"), "{}", stderr(&output));
    // Ctrl-C stops what computes after its step.
    let arguments = [
        "sweep",
        "--resume",
        "some",
        "--runs",
        "runs",
        "--json",
        "--max-hours",
        "5",
        "--max-runs",
        "3",
    ];
    let mut sweep = program(folder.path(), &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the second run computes", || {
        folders(folder.path()).iter().any(|path| {
            let is_second = RunDirectory::open(path).is_ok_and(|run| run.file().name == "some-002");
            is_second
                && State::observe(path).is_some_and(|state| {
                    [Status::Running, Status::Finished].contains(&state.status)
                })
        })
    });
    std::process::Command::new("kill")
        .args(["-INT", &sweep.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(sweep.wait().unwrap().code(), Some(130));
    let (_, status, _) = runs(folder.path())["some-002"].clone();
    assert!(status == "interrupted" || status == "finished", "{status}");
    let document = json(&resume(&[]));
    assert_eq!(states(&document), ["finished"; 3]);
    assert!(
        document["settings"][0]["eval"]["spread"] == "interval"
            && document["seconds"].as_f64().unwrap() > 0.0
    );
}

#[test]
fn a_run_that_fails_is_named_and_not_tried_again_unasked() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let command = format!(
        "sweep task --runs runs --name fails --set base_model={NANO},org/missing --set max_steps=1"
    );
    let output = call(folder.path(), &started(&command));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("fails-002 base_model=org/missing seed=0: failed: "),
        "{}",
        stderr(&output)
    );
    let again = call(
        folder.path(),
        &["sweep", "--resume", "fails", "--runs", "runs"],
    );
    let text = String::from_utf8(again.stdout.clone()).unwrap();
    assert!(
        again.status.code() == Some(1)
            && text.contains("fails-002 failed: ")
            && text.contains("org/missing"),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "the only setting that finished every seed: base_model={NANO}"
        )),
        "{text}"
    );
    // A sweep whose first run cannot be made is none.
    let none = call(
        folder.path(),
        &started("sweep task --runs runs --name none --set base_model=org/missing --set seed=0..1"),
    );
    assert!(
        none.status.code() == Some(1) && !folder.path().join("runs/.sweeps/none").exists(),
        "{}",
        stderr(&none)
    );
}

#[test]
fn a_config_file_is_the_base_of_all_runs_and_is_kept_for_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let file = folder.path().join("base.toml");
    fs::write(
        &file,
        "[train]\nmax_steps = 1\nlearning_rate = 1e-5\ntemperature = 0.7\nseed = 9\n",
    )
    .unwrap();
    let command =
        "sweep task --runs runs --name based --config base.toml --set learning_rate=1e-6,1e-4";
    call(
        folder.path(),
        &[started(command), vec!["--max-runs", "1"]].concat(),
    );
    fs::write(&file, "not TOML any more").unwrap();
    let resumed = "sweep --resume based --runs runs --max-runs 2 --json";
    let document = json(&call(
        folder.path(),
        &resumed.split_whitespace().collect::<Vec<_>>(),
    ));
    assert_eq!(states(&document), ["finished", "finished"], "{document:#}");
    let config = |name: &str| {
        let path = folder
            .path()
            .join("runs")
            .join(&runs(folder.path())[name].0)
            .join("run.toml");
        fs::read_to_string(path)
            .unwrap()
            .parse::<toml::Table>()
            .unwrap()
    };
    for (name, rate) in [("based-001", 1e-6), ("based-002", 1e-4)] {
        let run = config(name);
        let (config, sources) = (&run["config"], &run["sources"]);
        assert_eq!(config["learning_rate"].as_float(), Some(rate), "{name}");
        assert_eq!(
            (
                config["temperature"].as_float(),
                config["seed"].as_integer()
            ),
            (Some(0.7), Some(9)),
            "{name}"
        );
        assert_eq!(
            (
                sources["temperature"].as_str(),
                sources["learning_rate"].as_str()
            ),
            (Some("file"), Some("set"))
        );
    }
}

#[test]
fn wrong_requests_start_nothing() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let check = |arguments: &str, expected: &[&str]| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = call_in_process(
            folder.path(),
            &[&arguments[..], &["--runs", "runs"]].concat(),
        );
        let text = stderr(&output);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            expected.iter().all(|part| text.contains(part)),
            "{arguments:?}: {text}"
        );
        assert!(!folder.path().join("runs").exists(), "{arguments:?}");
    };
    check(
        "sweep task --set learning_rat=1,2",
        &["--set learning_rat=1,2", "did you mean `learning_rate`?"],
    );
    check(
        "sweep task --set learning_rate=1e-5,20",
        &["`20`", "a number from 0 to 10"],
    );
    check(
        "sweep task --set seed=3..1",
        &["the range is empty", "write 1..3"],
    );
    check(
        "sweep task --set seed=0..100",
        &["101 runs are more than 100", "--max-runs"],
    );
    check("sweep task --set max_steps=3", &["nothing varies"]);
    check("sweep task", &["nothing varies"]);
    check(
        "sweep task --set completions_per_prompt=1,4",
        &[
            "completions_per_prompt=1",
            "a group of one has zero variance",
        ],
    );
    check(
        "sweep task --set seed=0,1 --name a/b",
        &["`a/b` is not a valid sweep name"],
    );
    check("sweep task --set seed=0,1 --max-hours 0", &["--max-hours"]);
    check(
        "sweep task --set seed=0,1 --metric loss",
        &["valid, exact, tolerant, parse, reward"],
    );
    let file = |text: &str| fs::write(folder.path().join("base.toml"), text).unwrap();
    let with_file = "sweep task --config base.toml --set seed=0,1";
    check(
        with_file,
        &[
            "--config base.toml: ",
            "name a TOML file of configuration keys",
        ],
    );
    file("max_steps = 2\nlearning_rat = 1e-5\n");
    check(
        with_file,
        &["base.toml line 2: unknown key `learning_rat`; did you mean `learning_rate`?"],
    );
    file("max_steps = 2\nlearning_rate = 20\n");
    check(
        with_file,
        &["base.toml line 2: `learning_rate` is integer `20`; it must be a number from 0 to 10"],
    );
    file("max_steps = \n");
    check(with_file, &["base.toml line 1: "]);
    for (command, option) in [
        ("sweep", "--config base.toml"),
        ("sweep", "--set seed=0,1"),
        ("sweep", "--preset quick"),
        ("sweep", "--plan"),
    ] {
        for of_existing in ["--resume x", "--show x", "--list"] {
            check(
                &format!("{command} {of_existing} {option}"),
                &["cannot be used with"],
            );
        }
    }
    check(
        "sweep --resume nothing",
        &["no sweep `nothing`", "start one with"],
    );
    let plan = "sweep task --runs runs --plan --set learning_rate=1e-6,1e-5 --set seed=0..1";
    let plan: Vec<&str> = plan.split_whitespace().collect();
    let planned = stdout(&call_in_process(folder.path(), &plan));
    assert!(planned.contains("invoice-sweep-004"), "{planned}");
    assert!(!folder.path().join("runs").exists());
    // Of a task without an eval set nothing can be chosen by one.
    let task = folder.path().join("task/task.toml");
    fs::write(
        &task,
        fs::read_to_string(&task)
            .unwrap()
            .replace("eval = \"eval.jsonl\"\n", ""),
    )
    .unwrap();
    check(
        "sweep task --set seed=0,1",
        &["settings are compared on the eval set", "task.toml"],
    );
}

#[test]
fn settings_are_compared_on_all_tasks_of_a_mix() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let other = folder.path().join("other");
    copy_tree(&task, &other);
    let text = fs::read_to_string(task.join("task.toml")).unwrap();
    let name = text.lines().find(|line| line.starts_with("name")).unwrap();
    fs::write(
        other.join("task.toml"),
        text.replace(name, "name = \"other\""),
    )
    .unwrap();
    let command =
        started("sweep task other --mix 2:1 --runs runs --set seed=0,1 --set max_steps=1");
    let document = json(&call(folder.path(), &command));
    assert_eq!(states(&document), ["finished"; 2]);
    // The prompts of both test sets are compared.
    let prompts = document["comparisons"][0]["valid"]["n"].as_u64().unwrap();
    let measured = &document["settings"][0]["runs"][0];
    let names: Vec<String> = document["task"]
        .as_str()
        .unwrap()
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!((names.len(), prompts > 0), (2, true), "{document:#}");
    assert_eq!(
        measured["measured"]["curve"].as_array().unwrap().len(),
        2,
        "{measured:#}"
    );
    let refused = call_in_process(
        folder.path(),
        &[
            "sweep", "task", "--mix", "2:1", "--set", "seed=0,1", "--runs", "runs",
        ],
    );
    assert!(
        stderr(&refused).contains("--mix 2:1: needs several tasks"),
        "{}",
        stderr(&refused)
    );
}
