//! `runs list` with chosen columns and groups; names, tags, exports and deletion of several runs at once.

use std::path::Path;

use grpo_tui::facts::Target;
use grpo_tui::run::events::{Eval, Run};
use grpo_tui::run::{EvalSummary, EventWriter, RunDirectory, RunLock, StateWriter, Status};
use serde_json::{Value, json};

use super::command::runs_command;
use super::{memory_folder, new_run, step};
use crate::program::lines;

/// A finished run with an eval of the base and one of step 2.
fn finished(
    root: &Path,
    seed: i64,
    learning_rate: f64,
    valid: f64,
    exact: Option<f64>,
) -> RunDirectory {
    let mut new = new_run("invoice");
    (new.config.seed, new.config.learning_rate) = (seed.try_into().unwrap(), learning_rate);
    let run = RunDirectory::create(root, new).unwrap();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut writer = EventWriter::open(&lock).unwrap();
    writer
        .append(Run {
            id: run.id().into(),
            job: grpo_tui::facts::Job::Train,
            total_steps: 2,
            ..Run::default()
        })
        .unwrap();
    for (at, target, valid) in [(0, "base", 0.5), (2, "trained", valid)] {
        let summary = EvalSummary {
            n: 50,
            valid,
            exact,
            ..EvalSummary::default()
        };
        writer
            .append(Eval {
                step: at,
                set: "eval".into(),
                target: Target::from_name(target).unwrap(),
                summary,
                ..Eval::default()
            })
            .unwrap();
    }
    writer.append(step(1, 0.25)).unwrap();
    writer.append(step(2, learning_rate)).unwrap();
    state
        .status(Status::Finished, 2, Some("all steps done".into()))
        .unwrap();
    // Runs of one millisecond are listed in any order.
    std::thread::sleep(std::time::Duration::from_millis(2));
    run
}

#[test]
fn columns_and_groups() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let runs = [
        finished(&root, 1, 0.5, 0.9, Some(0.8)),
        finished(&root, 2, 0.5, 0.7, None),
        finished(&root, 3, 0.25, 0.6, Some(0.1)),
    ];
    let list = |arguments: &[&str]| runs_command(&root, &[&["list"], arguments].concat());
    let (code, text, _) = list(&[
        "--columns",
        "run,config.seed,valid,base_valid,of,reward",
        "--sort",
        "config.seed",
        "--descending",
    ]);
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0][1..],
        ["config.seed", "valid", "base_valid", "of", "reward"],
        "{text}"
    );
    assert_eq!(
        rows[1],
        [runs[2].id(), "3", "60.0%", "50.0%", "eval@2", "0.2500"]
    );
    let (_, text, _) = list(&["--columns", "config.seed,exact", "--csv"]);
    assert_eq!(text, "config.seed,exact\n1,0.8\n2,\n3,0.1\n");
    let (_, text, _) = list(&["--columns", "exact", "--json"]);
    assert_eq!(lines(&text)[1]["columns"], json!({"exact": null}));
    assert_eq!(
        (
            &lines(&text)[0]["checkpoint"],
            &lines(&text)[0]["base_valid"]
        ),
        (&json!(2), &json!(0.5))
    );

    // Runs that differ in their seed only; the spread is over those that have a value.
    let (_, text, _) = list(&["--group-by", "setup", "--json"]);
    let groups = lines(&text);
    assert_eq!(groups.len(), 2, "{text}");
    let (two, one) = (&groups[0], &groups[1]);
    assert_eq!(
        (&two["n"], &two["differ"], &one["n"]),
        (&json!(2), &json!(["seed"]), &json!(1))
    );
    let near = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-12;
    let valid = &two["values"]["valid"];
    assert!(
        near(&valid["mean"], 0.8) && near(&valid["std"], 0.02_f64.sqrt()) && valid["n"] == 2,
        "{valid}"
    );
    assert_eq!(
        two["values"]["exact"],
        json!({"n": 1, "mean": 0.8, "std": null, "min": 0.8, "max": 0.8})
    );
    assert_eq!(one["values"]["valid"]["std"], Value::Null);
    let (_, text, _) = list(&["--group-by", "config.learning_rate"]);
    assert!(
        text.contains("80.0% ± 14.1%")
            && text.contains("80.0% ± n/a (n = 1)")
            && text.contains("sample std"),
        "{text}"
    );
    for (by, expected) in [
        ("valid", "group by task, tags, setup"),
        ("lerning_rate", "unknown field"),
        ("config.sed", "unknown field"),
    ] {
        let (code, _, error) = list(&["--group-by", by]);
        assert!(code == 2 && error.contains(expected), "{by}: {error}");
    }
}

#[test]
fn several_runs_at_once() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let runs = [
        finished(&root, 1, 0.5, 0.9, None),
        finished(&root, 2, 0.5, 0.7, None),
        finished(&root, 3, 0.5, 0.6, None),
    ];
    let [first, second, third] = runs.each_ref().map(RunDirectory::id);
    let command = |arguments: &[&str]| runs_command(&root, arguments);

    let (code, text, _) = command(&["rename", first, "baseline, seed 1"]);
    assert_eq!(
        (code, text),
        (0, format!("{first}: named baseline, seed 1\n"))
    );
    assert!(command(&["list"]).1.contains("baseline, seed 1"));
    assert!(
        command(&["show", "baseline, seed 1"]).1.contains(first),
        "the name finds it"
    );
    let (code, _, error) = command(&["rename", first, &"x".repeat(81)]);
    assert!(
        code == 2 && error.contains("81 characters (limit 80)"),
        "{error}"
    );
    let (_, text, _) = command(&["rename", first, "", "--json"]);
    assert_eq!(lines(&text.replace('\n', ""))[0]["name"], json!(""));
    // A damaged name hides nothing.
    std::fs::write(root.join(first).join("name.json"), "{").unwrap();
    assert!(command(&["show", first]).1.contains("name.json"));

    let both = format!("{first},{second}");
    assert_eq!(
        command(&["tag", &both, "pair"]).1,
        format!("{first}: pair\n{second}: pair\n")
    );
    assert_eq!(
        lines(&command(&["list", "--where", "tags:pair", "--json"]).1).len(),
        2
    );

    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    assert_eq!(
        command(&["export", first, second, "--csv"]).0,
        2,
        "several need a folder"
    );
    assert_eq!(
        command(&["export", first, second, "--csv", "--out", out]).0,
        0
    );
    let csv = std::fs::read_to_string(Path::new(out).join(format!("{second}.csv"))).unwrap();
    assert!(csv.starts_with("step,reward,seconds\n1,0.25,"), "{csv}");
    let (code, _, error) = command(&["export", third, first, "--csv", "--out", out]);
    assert!(code == 2 && error.contains("exists"), "{error}");
    assert!(
        !Path::new(out).join(format!("{third}.csv")).exists(),
        "nothing is written before all names are free"
    );

    let lock = RunLock::acquire(&root.join(second)).unwrap();
    assert_eq!(command(&["remove", first, second, "--yes"]).0, 1);
    assert!(root.join(first).exists(), "one that is in use keeps all");
    drop(lock);
    let (code, text, _) = command(&["remove", first, second, first, "--yes", "--json"]);
    let removed: Vec<Value> = lines(&text)
        .into_iter()
        .map(|document| document["removed"].clone())
        .collect();
    assert_eq!((code, removed), (0, vec![json!(first), json!(second)]));
    // The third run, and the trash.
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2);
}
