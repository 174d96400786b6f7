//! Tests: `grpo-tui eval` with samples, and as a gate for CI.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{finished, target};
use crate::program::{SHORT, call, call_in_process, json, program, small_task, stderr};

#[test]
fn eval_samples_and_sets() {
    let (folder, _) = finished();
    let eval = |more: &[&str]| {
        call(
            folder,
            &[
                &[
                    "eval",
                    "task",
                    "--runs",
                    "runs",
                    "--model",
                    "m=short@last",
                    "--json",
                ],
                more,
            ]
            .concat(),
        )
    };
    let sampled = |seed| {
        json(&eval(&[
            "--on",
            "train",
            "--temperature",
            "1",
            "--samples",
            "3",
            "--seed",
            seed,
        ]))
    };
    let [first, again, other] = ["1", "1", "2"].map(|seed| target(&sampled(seed), "m"));
    let summary = &first;
    let (samples, valid) = (
        &summary["samples"]["valid"],
        summary["valid"].as_f64().unwrap(),
    );
    assert_eq!(
        (&summary["n"], &samples["samples"]),
        (&36.into(), &3.into())
    );
    let pass_at = |index: usize| samples["pass_at"][index]["estimate"].as_f64().unwrap();
    let js: Vec<_> = samples["pass_at"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rate| rate["j"].as_u64().unwrap())
        .collect();
    assert_eq!(
        (
            js,
            summary["samples"]["exact"]["pass_at"]
                .as_array()
                .unwrap()
                .len()
        ),
        (vec![1, 2, 3], 3)
    );
    assert!(
        (pass_at(0) - valid).abs() < 1e-12 && pass_at(0) <= pass_at(1) && pass_at(1) <= pass_at(2),
        "{samples}"
    );
    assert!(
        samples["all"]["estimate"].as_f64().unwrap() <= valid
            && samples["all"]["high"].as_f64().unwrap() < 1.0
    );
    assert_eq!(first, again);
    assert_ne!(first, other);
    let two = [
        "--model",
        "n=tiny",
        "--on",
        "train",
        "--temperature",
        "1",
        "--samples",
        "3",
    ];
    let two = eval(&[two.as_slice(), &["--markdown", "samples.md", "--force"]].concat());
    let text = fs::read_to_string(folder.join("samples.md")).unwrap();
    let rates = json(&two)["comparisons"][0]["samples"]
        .as_array()
        .unwrap()
        .clone();
    let shown: Vec<_> = rates
        .iter()
        .map(|rate| (rate["rate"].as_str().unwrap(), rate["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [("pass@2", 12), ("pass@3", 12), ("all 3 valid", 12)]);
    assert!(
        text.contains("\n- pass@2: ") && text.contains("\n- all 3 exact: "),
        "{text}"
    );
    let cut = json(&eval(&["--on", "eval", "--max-completion-tokens", "5"]));
    let summary = &cut["targets"]["m"];
    assert_eq!(
        (
            &summary["truncated"],
            &summary["mean_tokens"],
            &cut["max_completion_tokens"]
        ),
        (&1.0.into(), &5.0.into(), &5.into())
    );
}

#[test]
fn a_limit_is_an_eval_of_the_first_prompts() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let eval = |more: &[&str]| {
        let tiny = [
            "eval",
            "task",
            "--model",
            "tiny",
            "--max-completion-tokens",
            "8",
            "--json",
        ];
        call(folder.path(), &[&tiny[..], more].concat())
    };
    let document = json(&eval(&["--limit", "3", "--out", "some"]));
    assert_eq!(
        (&document["targets"]["tiny"]["n"], &document["limit"]),
        (&3.into(), &3.into())
    );
    assert_eq!(json(&eval(&["--out", "all"])).get("limit"), None);
    let ids = |text: String| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["prompt_id"].clone())
            .collect()
    };
    let read = |out: &str| {
        fs::read_to_string(
            folder
                .path()
                .join(out)
                .join("evals/step-000000-test-tiny.jsonl"),
        )
        .unwrap()
    };
    assert_eq!(ids(read("some")), ids(read("all"))[..3]);
    // Evals of other prompts are not compared.
    let refused = call_in_process(folder.path(), &["runs", "compare", "some", "all"]);
    assert!(
        !refused.status.success() && stderr(&refused).contains("prompts"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(eval(&["--limit", "0"]).status.code(), Some(2));
}

#[test]
fn a_missed_threshold_is_3() {
    let (folder, report) = finished();
    let eval = |threshold: &str| {
        call(
            folder,
            &[
                "eval",
                "task",
                "--runs",
                "runs",
                "--model",
                "base=tiny",
                "--json",
                "--fail-under",
                threshold,
            ],
        )
    };
    let missed = eval("valid=1");
    assert_eq!(missed.status.code(), Some(3));
    let valid = report["base"]["valid"].as_f64().unwrap();
    let expected = format!("error: base: valid {:.1}% [", 100.0 * valid);
    let by = format!(
        "], n = 8, is {:.1} points below the 100.0% of --fail-under\n",
        100.0 * (1.0 - valid)
    );
    assert!(
        stderr(&missed).contains(&expected) && stderr(&missed).ends_with(&by),
        "{}",
        stderr(&missed)
    );
    let document: Value = serde_json::from_slice(&missed.stdout).unwrap();
    assert_eq!(target(&document, "base"), report["base"]);
    let out = tempfile::tempdir().unwrap();
    let path = |file: &str| out.path().join(file).display().to_string();
    let files = ["--markdown", &path("ci.md")];
    let gate = [
        "eval",
        "task",
        "--model",
        "base=tiny",
        "--fail-under",
        "valid=1",
        "--fail-under",
        "parse=0",
    ];
    let written = call(folder, &[&gate[..], &files].concat());
    assert_eq!(written.status.code(), Some(3), "{}", stderr(&written));
    let read = |file: &str| fs::read_to_string(path(file)).unwrap();
    let markdown = read("ci.md");
    assert!(
        markdown.starts_with("### base\n") && markdown.contains("| parse >= 0 | parse "),
        "{markdown}"
    );
    let again = call(folder, &[&gate[..], &files].concat());
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    assert!(
        stderr(&again).contains("ci.md") && again.stdout.is_empty(),
        "{}",
        stderr(&again)
    );
    assert_eq!(
        call(folder, &[&gate[..], &files, &["--force"]].concat())
            .status
            .code(),
        Some(3)
    );
    assert_eq!(eval("valid=0.1").status.code(), Some(0));
}

#[test]
fn a_threshold_on_exact_counts_the_rows_with_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let rows = fs::read_to_string(task.join("eval-large.jsonl")).unwrap();
    let without = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("expected");
        format!("{row}\n")
    };
    let mixed: String = rows
        .lines()
        .enumerate()
        .map(|(at, line)| {
            if at < 2 {
                format!("{line}\n")
            } else {
                without(line)
            }
        })
        .collect();
    fs::write(folder.path().join("rows.jsonl"), mixed).unwrap();
    let arguments = [
        "eval",
        "task",
        "--model",
        "base=tiny",
        "--on",
        "rows.jsonl",
        "--fail-under",
        "exact=1",
        "--fail-under",
        "valid=1",
    ];
    let output = call(
        folder.path(),
        &[&arguments[..], &["--max-completion-tokens", "5", "--json"]].concat(),
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let base = &document["targets"]["base"];
    assert_eq!(
        (output.status.code(), &base["n"], &base["with_expected"]),
        (Some(3), &8.into(), &2.into())
    );
    // Wilson's 95% interval of 0 of 2 ends at 65.8%, that of 0 of 8 at 32.4%.
    let message = stderr(&output);
    assert!(
        message.contains("base: exact 0.0% [0.0, 65.8], n = 2, is 100.0 points below the 100.0%"),
        "{message}"
    );
    assert!(
        message.contains("base: valid 0.0% [0.0, 32.4], n = 8, is 100.0 points below"),
        "{message}"
    );
}

#[test]
fn two_pages_are_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let check = |more: &[&str], expected: &str| {
        let output = call_in_process(
            folder.path(),
            &[&["eval", "invoice", "--model", "base=tiny"], more].concat(),
        );
        assert_eq!(
            (output.status.code(), stderr(&output).contains(expected)),
            (Some(2), true),
            "{}",
            stderr(&output)
        );
        assert!(!folder.path().join("a.txt").exists());
    };
    check(
        &["--html", "a.txt", "--markdown", "./a.txt"],
        "--html and --markdown name the same file, ./a.txt: name two",
    );
}

#[test]
fn prompts_of_a_target_are_varied_and_named() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    fs::write(folder.path().join("terse.txt"), "JSON only.\n").unwrap();
    let targets = [
        "--model",
        "A=tiny",
        "--model",
        "B=tiny",
        "--model",
        "C=tiny",
        "--max-completion-tokens",
        "24",
    ];
    let eval = |more: &[&str]| {
        call(
            folder.path(),
            &[&["eval", "task"], &targets[..], more].concat(),
        )
    };
    let variants = [
        "--system",
        "B=terse.txt",
        "--few-shot",
        "C=2",
        "--out",
        "out",
    ];
    let document = json(&eval(&[&variants[..], &["--json"]].concat()));
    let (own, shots) = (
        &document["prompts"],
        document["prompts"]["C"]["few_shot"].as_array().unwrap(),
    );
    assert_eq!(
        (&own["A"], &own["B"]["system"], shots.len()),
        (&Value::Null, &"JSON only.".into(), 2)
    );
    let read = |name: &str| fs::read_to_string(folder.path().join("out/evals").join(name)).unwrap();
    let answers = |name: &str| read(&format!("step-000000-test-{name}.jsonl"));
    assert!(
        answers("A") != answers("B") && answers("A") != answers("C"),
        "{}",
        answers("A")
    );
    // The reader of the folder says so, too.
    let shown = call_in_process(folder.path(), &["runs", "compare", "out"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let expected = format!(
        "note: prompts of C: 2 examples of the train set ({}, ",
        shots[0].as_str().unwrap()
    );
    assert!(
        text.contains(&expected)
            && text.contains("note: prompts of B: system prompt of terse.txt ("),
        "{text}"
    );
    for (more, problem) in [
        (
            &["--system", "D=terse.txt"][..],
            "--system D=terse.txt: write NAME=prompt.txt with the name of a --model: A, B, C",
        ),
        (&["--system", "B=none.txt"], "none.txt: "),
        (
            &["--few-shot", "B=0"],
            "--few-shot: `0` is not a number of examples from 1 to 64",
        ),
        (&["--few-shot", "B=1", "--few-shot", "B=2"], "duplicate `B`"),
        (
            &["--few-shot", "B=1", "--on", "train"],
            "choose another set with --on",
        ),
    ] {
        let refused = eval(more);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(problem), "{}", stderr(&refused));
    }
}

#[test]
fn an_adapter_beside_fp8_is_measured_with_the_published_base() {
    let (other, _) = finished();
    let place = tempfile::tempdir().unwrap();
    small_task(place.path());
    let set = [
        &SHORT[..],
        &[
            "--set",
            "base_precision=fp8",
            "--set",
            "lora_rank=4",
            "--name",
            "rounded",
        ],
    ]
    .concat();
    let trained = call(
        place.path(),
        &[&["train", "task", "--runs", "runs", "--json"], &set[..]].concat(),
    );
    let report: Value = serde_json::from_slice(&trained.stdout).unwrap();
    let out = place.path().join("card").display().to_string();
    let promote = |folder: &Path, run: &str| {
        let asked = [
            "runs",
            "promote",
            run,
            "--runs",
            "runs",
            "--out",
            &out,
            "--measure-published-base",
            "--cpu",
        ];
        call(folder, &asked)
    };
    let refused = promote(other, "short@last");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("has no adapter beside a base in fp8 or nf4"),
        "{}",
        stderr(&refused)
    );
    let promoted = promote(place.path(), "rounded@last");
    assert!(promoted.status.success(), "{}", stderr(&promoted));
    let card = fs::read_to_string(place.path().join("card/README.md")).unwrap();
    let row = card
        .split("| base in fp8, as trained | base as published |")
        .nth(1)
        .expect(&card);
    let row = row
        .lines()
        .find(|line| line.starts_with("| valid |"))
        .unwrap();
    let expected = format!(
        "| valid | {:.1}% [",
        100.0 * report["trained"]["valid"].as_f64().unwrap()
    );
    assert!(row.starts_with(&expected), "{expected}: {card}");
    let difference = card
        .split("answers differ by ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect(&card);
    assert!(
        (1e-4..0.5).contains(&difference.parse::<f64>().unwrap()),
        "{difference}"
    );
}

#[test]
fn a_promoted_checkpoint_has_a_card_of_what_it_is() {
    let (folder, report) = finished();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("card").display().to_string();
    let promote = |more: &[&str]| {
        call(
            folder,
            &[
                &[
                    "runs",
                    "promote",
                    "short@last",
                    "--runs",
                    "runs",
                    "--out",
                    &to,
                ],
                more,
            ]
            .concat(),
        )
    };
    let wrong = promote(&["--gpu-price-per-hour", "-1"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    // The user's own price is the default, and a wrong one is named before anything is written.
    let config = out.path().join("config");
    let by_config = |price: &str| {
        fs::create_dir_all(config.join("grpo-tui")).unwrap();
        fs::write(
            config.join("grpo-tui/config.toml"),
            format!("mouse = true\ngpu_price_per_hour = {price}\n"),
        )
        .unwrap();
        let to = out.path().join("own").display().to_string();
        let promoted = [
            "runs",
            "promote",
            "short@last",
            "--runs",
            "runs",
            "--out",
            &to,
        ];
        program(folder, &promoted)
            .env("XDG_CONFIG_HOME", &config)
            .output()
            .unwrap()
    };
    for price in ["-1", "nan", "\"2\""] {
        let refused = by_config(price);
        let expected =
            format!("config.toml line 2: `gpu_price_per_hour` must be a number >= 0, not {price}");
        // The fault of a file, not of the command line.
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(&expected), "{}", stderr(&refused));
    }
    assert!(by_config("3600000").status.success());
    assert!(
        promote(&["--gpu-price-per-hour", "3600000"])
            .status
            .success()
    );
    let own = fs::read_to_string(out.path().join("own/README.md")).unwrap();
    assert!(
        own.contains(" of one device, an hour of which costs "),
        "{own}"
    );
    let card = fs::read_to_string(out.path().join("card/README.md")).unwrap();
    let valid = format!(
        "| valid | {:.1}% [",
        100.0 * report["base"]["valid"].as_f64().unwrap()
    );
    let provenance: Value =
        serde_json::from_str(&fs::read_to_string(out.path().join("card/provenance.json")).unwrap())
            .unwrap();
    assert_eq!(provenance["thinking"], false);
    let schema = provenance["task_files"]["schema.json"].as_str().unwrap();
    for expected in [
        "---\npipeline_tag: \"text-generation\"\n",
        "Trained by GRPO with grpo-tui ",
        &valid,
        &format!("| schema.json | `{schema}` |"),
        " of one device, an hour of which costs ",
        "```sh\nvllm serve . --default-chat-template-kwargs '{\"enable_thinking\":false}'\n```",
        "llama-server -m model.gguf --jinja --chat-template-kwargs '{\"enable_thinking\":false}'\n```",
    ] {
        assert!(card.contains(expected), "{expected} is not in {card}");
    }
}
