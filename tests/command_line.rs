//! The real program from an empty folder: shapes that scripts rely on, exit codes, and nothing but JSON on stdout.
#![cfg(feature = "engine")]

mod base_model;
mod confidence;
mod eval;
mod looks;
mod results;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::Value;

use crate::program::{
    SHORT, call, call_anywhere_in_process, call_in_process, json, json_lines, program, small_task,
    stderr, stdout,
};

/// The keys of E, in order.
const SUMMARY: [&str; 11] = [
    "n",
    "parse",
    "valid",
    "exact",
    "tolerant",
    "valid_interval",
    "mean_tokens",
    "truncated",
    "by_tag",
    "fields",
    "with_expected",
];

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// The result of a target of an eval, which has a speed, and nothing else that depends on the clock.
fn target(eval: &Value, name: &str) -> Value {
    let mut summary = eval["targets"][name].clone();
    let speed = summary.as_object_mut().unwrap().remove("speed").unwrap();
    assert!(
        speed["tokens_per_second"].as_f64().unwrap() > 0.0
            && speed["cost_per_1000_answers"].is_null(),
        "{speed}"
    );
    summary
}

#[test]
#[cfg(feature = "view")]
fn options_of_the_workbench_are_refused_before_a_command() {
    for command in [
        &["eval", "invoice", "--model", "tiny"][..],
        &["sample", "invoice", "--model", "tiny"],
        &["model", "export", "--model", "tiny", "--out", "out"],
    ] {
        for option in [&["--runs", "elsewhere"][..], &["--ascii"]] {
            let refused = call_anywhere_in_process(&[option, command].concat());
            assert_eq!(refused.status.code(), Some(2), "{option:?} {command:?}");
            assert!(
                stderr(&refused).contains("before a command"),
                "{}",
                stderr(&refused)
            );
        }
    }
    // `runs` has it wherever it stands.
    for list in [
        ["--runs", "elsewhere", "runs", "list"],
        ["runs", "--runs", "elsewhere", "list"],
    ] {
        assert!(
            stderr(&call_anywhere_in_process(&list)).contains("--runs elsewhere: there is no"),
            "{list:?}"
        );
    }
    let exported = call_anywhere_in_process(&[
        "model",
        "export",
        "--runs",
        "elsewhere",
        "--model",
        "no-such-run",
        "--out",
        "out",
    ]);
    assert!(
        stderr(&exported).contains("no-such-run"),
        "{}",
        stderr(&exported)
    );
}

/// A folder with the small task and a finished run of it, made once, which tests only read; and what `train --json`
/// printed.
pub(crate) fn finished() -> &'static (PathBuf, Value) {
    static FINISHED: OnceLock<(PathBuf, Value)> = OnceLock::new();
    FINISHED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("finished");
        let _ = fs::remove_dir_all(&folder);
        small_task(&folder);
        // A rate at which two steps show: the default would leave the weights nearly as they were.
        let arguments = [
            &[
                "train",
                "task",
                "--runs",
                "runs",
                "--name",
                "short",
                "--json",
                "--set",
                "learning_rate=1e-3",
            ],
            &SHORT[..],
        ];
        let output = call_in_process(&folder, &arguments.concat());
        let report = json(&output);
        (folder, report)
    })
}

#[test]
fn an_unknown_subcommand_is_named_with_the_one_that_is_meant() {
    for (arguments, expected) in [
        (&["trian"] as &[&str], "`grpo-tui train`"),
        (&["trian", "invoice", "--plan"], "`grpo-tui train`"),
        (&["evall"], "`grpo-tui eval`"),
        (&["runz", "list"], "`grpo-tui runs`"),
        (&["nothing-alike"], "neither a subcommand"),
        (&["x"], "neither a subcommand"),
        (&["study", "invoice"], "`study` was removed: "),
        (
            &["eval", "import", "log.eval"],
            "`eval import` was removed: ",
        ),
    ] {
        let output = call_anywhere_in_process(arguments);
        let message = stderr(&output);
        assert_eq!(
            (output.status.code(), output.stdout.is_empty()),
            (Some(2), true),
            "{message}"
        );
        assert!(
            message.contains(arguments[0]) && message.contains(expected),
            "{message}"
        );
        assert!(
            !expected.contains("neither") || !message.contains("similar"),
            "{message}"
        );
    }
}

#[test]
fn the_embedded_task_and_model_train_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String =
        fs::read_to_string(small_task(folder.path()).join("eval-large.jsonl")).unwrap();
    fs::remove_dir_all(folder.path().join("task")).unwrap();
    fs::write(folder.path().join("rows.jsonl"), &rows).unwrap();
    let eval = json(&call(
        folder.path(),
        &[
            "eval",
            "invoice",
            "--model",
            "base=tiny",
            "--on",
            "rows.jsonl",
            "--json",
        ],
    ));
    assert_eq!(
        (
            &eval["targets"]["base"]["n"],
            &eval["set"],
            &eval["comparisons"]
        ),
        (&8.into(), &"rows.jsonl".into(), &Value::Array(vec![]))
    );
    let mut training = program(folder.path(), &["train", "invoice", "--json"]);
    let mut worker = training
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // Task, model and prompts are read by then; a whole training is the business of other tests.
    let first = lines
        .find(|line| !line.starts_with("learnability not checked"))
        .unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(
        first.starts_with("run ") && first.ends_with(" 40 steps"),
        "{first}"
    );
    let run = folder
        .path()
        .join("home/data/grpo-tui/runs")
        .join(first.split(' ').nth(1).unwrap());
    assert!(
        run.join("task/eval-large.jsonl").is_file() && run.join("run.toml").is_file(),
        "{run:?}"
    );
}

#[test]
fn train_reports_on_stdout_and_tells_on_stderr() {
    let (folder, report) = finished();
    for key in [
        "run",
        "seconds",
        "steps",
        "base",
        "trained",
        "mcnemar_p",
        "fixed",
        "broken",
    ] {
        assert!(report.get(key).is_some(), "{key} is missing: {report}");
    }
    assert_eq!(
        (
            &report["steps"],
            keys(&report["base"]),
            keys(&report["trained"])
        ),
        (&2.into(), SUMMARY.to_vec(), SUMMARY.to_vec())
    );
    let counts: u64 = ["fixed", "broken", "both", "neither"]
        .iter()
        .map(|key| report[key].as_u64().unwrap())
        .sum();
    assert_eq!(counts, 8);
    let rate = |key: &str| report["trained"][key].as_f64().unwrap();
    assert!(
        ["parse", "valid", "exact", "tolerant", "truncated"]
            .iter()
            .all(|key| (0.0..=1.0).contains(&rate(key)))
    );
    // As with --detach, and in every other document: `run` is the id, `path` the folder.
    let path = Path::new(report["path"].as_str().unwrap());
    assert_eq!(
        (path.parent().unwrap(), path.file_name().unwrap().to_str()),
        (&*folder.join("runs"), report["run"].as_str())
    );
}

#[test]
fn base_against_a_run() {
    let (folder, report) = finished();
    let arguments = [
        "eval",
        "task",
        "--runs",
        "runs",
        "--model",
        "base=tiny",
        "--model",
        "trained=short",
        "--json",
    ];
    let output = call(folder, &arguments);
    let eval = json(&output);
    assert_eq!(keys(&eval)[..2], ["targets", "comparisons"]);
    assert_eq!(keys(&eval["targets"]), ["base", "trained"]);
    // The training's own evals, made again from the weights on disk.
    assert_eq!(
        (&target(&eval, "base"), &target(&eval, "trained")),
        (&report["base"], &report["trained"])
    );
    let valid = report["trained"]["valid"].as_f64().unwrap();
    assert!(
        (eval["in_a_row"]["trained"]["10"].as_f64().unwrap() - valid.powi(10)).abs() < 1e-12,
        "{eval}"
    );
    assert_eq!(keys(&eval["in_a_row_interval"]["base"]), ["10", "50"]);
    let comparison = &eval["comparisons"][0];
    let fields = [
        "first",
        "second",
        "n",
        "fixed",
        "broken",
        "both",
        "neither",
        "unmatched",
        "mcnemar_p",
    ];
    assert_eq!(keys(comparison)[..fields.len()], fields);
    let more = [
        "valid_difference",
        "exact_difference",
        "tiers",
        "clear",
        "required_n",
        "p",
        "adjusted_p",
        "verdict",
        "exact",
        "look",
    ];
    assert_eq!(keys(comparison)[fields.len()..], more);
    assert_eq!(
        comparison["p"], comparison["mcnemar_p"],
        "with one completion a prompt the exact McNemar test decides"
    );
    for key in ["fixed", "broken", "both", "neither", "mcnemar_p"] {
        assert_eq!(
            comparison["exact"][key], report["exact_comparison"][key],
            "exact: {key}"
        );
    }
    for key in ["fixed", "broken", "both", "neither", "mcnemar_p"] {
        assert_eq!(comparison[key], report[key], "{key}");
    }
    assert!(
        stderr(&output).contains("trained: short on 8 test prompts"),
        "{}",
        stderr(&output)
    );
    let three = call(
        folder,
        &[
            "eval",
            "task",
            "--runs",
            "runs",
            "--model",
            "tiny",
            "--model",
            "first=short@0",
            "--model",
            "last=short@last",
        ],
    );
    let (text, wanted) = (stdout(&three), ", adjusted 1");
    assert_eq!(
        text.matches(wanted).count(),
        6,
        "three comparisons of two metrics: {text}"
    );
    assert!(
        text.starts_with("test set, n = 8") && text.contains("first to last\nvalid: "),
        "{text}"
    );
    let start = text
        .lines()
        .find(|line| line.starts_with("valid "))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .trim_end_matches('%')
        .to_owned();
    assert_eq!(
        start.parse::<f64>().unwrap() / 100.0,
        report["base"]["valid"].as_f64().unwrap()
    );
    // Which look it is, and with that the interval, depends on the tests that came before.
    let same = [
        "tiny to first\nvalid: no difference (+0.0 points, ",
        "p = 1, adjusted 1); look ",
        " of this test set\n  valid: 0 improvements, 0 regressions in 8 prompts\n",
    ];
    assert!(
        same.iter().all(|part| text.contains(part)),
        "the checkpoint of step 0 is the base: {text}"
    );
}

#[test]
fn usage_errors_are_2() {
    let (folder, _) = finished();
    for (arguments, complaint) in [
        (&["eval", "task"][..], "--model <NAME=M>"),
        (
            &["eval", "task", "--model", "=tiny"],
            "--model =tiny: write NAME=M, for example base=tiny",
        ),
        (
            &["eval", "task", "--model", "a=tiny", "--model", "a=tiny"],
            "--model a=tiny: duplicate name `a`: write NAME=M",
        ),
        (
            &[
                "eval", "task", "--model", "a=tiny", "--model", "b=tiny", "--model", "c=tiny",
                "--model", "d=tiny",
            ],
            "4 models: at most 3",
        ),
        (
            &["eval", "task", "--model", "tiny", "--samples", "2"],
            "add --temperature 1",
        ),
        (
            &["eval", "task", "--model", "tiny", "--samples", "0"],
            "--samples",
        ),
        (
            &["eval", "task", "--model", "tiny", "--temperature", "-1"],
            "must be a number >= 0",
        ),
        (
            &["eval", "task", "--model", "tiny", "--on", "prof"],
            "--on prof: no such file: use train, eval, test, or a file of prompt rows",
        ),
        (
            &[
                "eval",
                "task",
                "--model",
                "tiny",
                "--fail-under",
                "valid=90",
            ],
            "for 90% write valid=0.9",
        ),
        (
            &[
                "eval",
                "task",
                "--model",
                "tiny",
                "--fail-under",
                "vaild=0.9",
            ],
            "unknown rate `vaild`: use parse, valid",
        ),
        (
            &["sample", "task", "--model", "tiny", "--prompt", "eval-03"],
            "--prompt eval-03: no prompt with that id in task/eval.jsonl",
        ),
        (
            &["sample", "task", "--model", "tiny", "--prompt", "eval-03"],
            "did you mean `eval-003`?",
        ),
        (
            &[
                "sample", "task", "--model", "tiny", "--prompt", "a", "--on", "eval",
            ],
            "cannot be used with",
        ),
        (
            &["train", "task", "--preset", "quik"],
            "--preset quik: unknown preset, use quick, seed, recommended",
        ),
        (
            &["train", "task", "--gpus", "0,1,0"],
            "GPU 0 is named twice",
        ),
        (
            &["train", "task", "--gpus", "2", "--cpu"],
            "cannot be used with",
        ),
        (&["train"], "<TASK>"),
        (&["nonesuch"], "nonesuch"),
    ] {
        let output = call_in_process(folder, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(complaint),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn sample_shows_what_a_model_writes() {
    let (folder, _) = finished();
    let sample = |more: &[&str]| {
        call(
            folder,
            &[&["sample", "task", "--runs", "runs", "--model"], more].concat(),
        )
    };
    let of_run = json_lines(&sample(&[
        "short",
        "--prompt",
        "eval-002",
        "--prompt",
        "train-001",
        "--n",
        "2",
        "--json",
    ]));
    let place = |line: &Value| {
        (
            line["prompt_id"].as_str().unwrap().to_owned(),
            line["sample"].as_u64().unwrap(),
        )
    };
    let expected = [
        ("eval-002", 0),
        ("eval-002", 1),
        ("train-001", 0),
        ("train-001", 1),
    ]
    .map(|(id, n)| (id.to_owned(), n));
    assert_eq!(of_run.iter().map(place).collect::<Vec<_>>(), expected);
    for line in &of_run {
        assert_eq!(
            keys(line)[..8],
            [
                "prompt_id",
                "sample",
                "completion",
                "token_ids",
                "log_probs",
                "stop_reason",
                "reward",
                "tier"
            ]
        );
        assert_eq!(
            line["token_ids"].as_array().unwrap().len(),
            line["log_probs"].as_array().unwrap().len()
        );
        assert!(
            line["log_probs"]
                .as_array()
                .unwrap()
                .iter()
                .all(|log_prob| log_prob.as_f64().unwrap() <= 0.0)
        );
    }
    // A set's samples are completions that `score` reads, with the same scores.
    let of_set = sample(&[
        "tiny",
        "--on",
        "eval",
        "--n",
        "1",
        "--temperature",
        "0",
        "--json",
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), stdout(&of_set)).unwrap();
    let scores = json_lines(&call(
        folder,
        &[
            "score",
            "task",
            "--completions",
            file.path().to_str().unwrap(),
            "--json",
        ],
    ));
    assert_eq!(scores.len(), 4);
    for (score, line) in scores.iter().zip(json_lines(&of_set)) {
        assert!(
            score
                .as_object()
                .unwrap()
                .iter()
                .all(|(key, value)| line[key] == *value),
            "{score} is not in {line}"
        );
    }
    let text = stdout(&sample(&["tiny"]));
    assert!(
        text.starts_with("--- eval-001 (") && text.contains("\n[4] ") && text.contains("  reward "),
        "{text}"
    );
}

#[test]
fn runs_are_listed_and_shown() {
    let (folder, report) = finished();
    let list = stdout(&call_in_process(
        folder,
        &["runs", "--runs", "runs", "list", "--json"],
    ));
    let row: Value = serde_json::from_str(list.trim()).unwrap();
    let run = report["path"].as_str().unwrap();
    assert_eq!(
        (&row["path"], &row["name"], &row["status"], &row["step"]),
        (&run.into(), &"short".into(), &"finished".into(), &2.into())
    );
    let shown = json(&call_in_process(
        folder,
        &["runs", "--runs", "runs", "show", "short", "--json"],
    ));
    assert_eq!(
        (&shown["best"], &shown["valid"]),
        (&report["best_step"], &report["trained"]["valid"])
    );
    let text = stdout(&call_in_process(
        folder,
        &["runs", "--runs", "runs", "show", "short"],
    ));
    assert!(
        text.contains("state        finished") && text.contains("steps        2 of 2"),
        "{text}"
    );
    let none = call_in_process(folder, &["runs", "--runs", "runs", "show", "nonesuch"]);
    assert_eq!(
        (
            none.status.code(),
            stderr(&none).contains("no run `nonesuch` in runs;")
        ),
        (Some(1), true)
    );
}

#[test]
fn ctrl_c_finishes_the_step_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let mut training = program(
        folder.path(),
        &[
            "train",
            "task",
            "--json",
            "--runs",
            "runs",
            "--set",
            "max_steps=1000",
        ],
    );
    let mut worker = training
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains("/1000 ")),
        "it ended before its first step"
    );
    let process = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let last = lines.last().unwrap();
    let output = worker.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(130), &b""[..])
    );
    assert!(
        last.starts_with("stopped after step ")
            && last.contains("Resume: grpo-tui train --resume "),
        "{last}"
    );
    let run = Path::new(last.rsplit(' ').next().unwrap());
    let shown = json(&call_in_process(
        folder.path(),
        &["runs", "show", run.to_str().unwrap(), "--json"],
    ));
    let step = shown["step"].as_u64().unwrap();
    assert_eq!(
        (
            &shown["status"],
            shown["checkpoints"].as_array().unwrap().last().unwrap()
        ),
        (&"interrupted".into(), &step.into())
    );
    assert!(last.contains(&format!("after step {step},")), "{last}");
}
