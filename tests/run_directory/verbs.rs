//! `runs list`, `attach`, `compare`, `export`, `promote` and `remove`, by the real binary.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use grpo_tui::run::events::{End, Note};
use grpo_tui::run::{EventWriter, RunDirectory, RunLock, StateWriter, Status};

use super::command::runs_command;
use super::finished::{Made, made, secret};
use super::{created, memory_folder, step};
use crate::program::{lines, names, program};

#[test]
fn list_by_condition_and_order() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    made(
        &root,
        &Made {
            name: "low",
            valid: 0.5,
            ..Made::default()
        },
    );
    made(
        &root,
        &Made {
            name: "high",
            valid: 0.94,
            set: &["learning_rate=1e-4"],
            ..Made::default()
        },
    );
    made(
        &root,
        &Made {
            task: "address",
            name: "other",
            valid: 0.8,
            status: Status::Failed,
            ..Made::default()
        },
    );
    let names = |arguments: &[&str]| {
        let (code, text, error) = runs_command(&root, &[&["list", "--json"], arguments].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
        lines(&text)
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names(&[]), "low high other");
    assert_eq!(names(&["--where", "valid>0.7 and task:invoice"]), "high");
    assert_eq!(
        names(&["--where", "status=failed or config.learning_rate>=1e-4"]),
        "high other"
    );
    assert_eq!(names(&["--where", "has:kl and not name:low"]), "high other");
    assert_eq!(
        names(&["--sort", "valid", "--descending"]),
        "high other low"
    );
    assert_eq!(names(&["--sort", "tiers/valid"]), "low other high");
    assert_eq!(
        names(&["--sort", "reward", "--descending", "--smoothed"]),
        "high other low"
    );
    let row = &lines(&runs_command(&root, &["list", "--json", "--sort", "kl"]).1)[0];
    assert_eq!(row["sorted_by"], serde_json::json!({"kl": 0.04}));
    let (_, text, _) = runs_command(
        &root,
        &[
            "list",
            "--sort",
            "completions/mean_length",
            "--where",
            "task=invoice",
        ],
    );
    assert!(
        text.contains("mean_length") && text.ends_with("2 of 3 runs\n"),
        "{text}"
    );

    let usage = |arguments: &[&str], expected: &str| {
        let (code, _, error) = runs_command(&root, arguments);
        assert_eq!(code, 2);
        assert!(error.contains(expected), "{error}");
    };
    usage(
        &["list", "--where", "valid>"],
        "the condition `valid>`, column 7: expected a value",
    );
    usage(
        &["list", "--where", "rewrad>1"],
        "unknown field `rewrad`; did you mean `reward`?",
    );
    usage(&["list", "--sort", "vaild"], "did you mean `valid`?");
    usage(&["list", "--where", "valid>>1"], "expected a value");
    usage(
        &["list", "--where", "valid=high"],
        "`valid` is a number, not `high`",
    );
}

#[test]
fn compare_tells_only_what_differs_and_pairs_the_prompts() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    made(
        &root,
        &Made {
            name: "a",
            valid: 0.5,
            ..Made::default()
        },
    );
    made(
        &root,
        &Made {
            name: "b",
            valid: 0.9,
            set: &["seed=3"],
            ..Made::default()
        },
    );
    let (code, text, _) = runs_command(&root, &["compare", "a", "b", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &document["config"]),
        (0, &serde_json::json!({"seed": [0, 3]}))
    );
    assert_eq!(document["results"]["comparison"]["fixed"], 20);
    assert_eq!(document["metrics"]["kl"], serde_json::json!([0.04, 0.04]));
    let (_, text, _) = runs_command(&root, &["compare", "a", "b"]);
    for expected in [
        "second run vs the first on the same test prompts\nvalid: +40.0 points (95% CI [",
        "], p = 1.9e-6), exact: +32.0 points (95% CI [",
        "], p = 3.1e-5)\n  valid: 20 improvements, 0 regressions in 50 prompts\n  exact: 16 improvements, ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(document["results"]["exact"]["fixed"], 16);
    assert!(!text.contains("learning_rate"), "{text}");
    assert!(
        !text.contains("Holm") && document["results"]["valid"]["adjusted_p"].is_null(),
        "one comparison: {text}"
    );
    // Two comparisons with the first run are a family.
    made(
        &root,
        &Made {
            name: "c",
            valid: 0.6,
            set: &["seed=4"],
            ..Made::default()
        },
    );
    let (_, text, _) = runs_command(&root, &["compare", "a", "b", "c", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let p = |result: usize, field: &str| {
        document["all_results"][result]["valid"][field]
            .as_f64()
            .unwrap()
    };
    assert_eq!(
        (p(0, "adjusted_p"), p(1, "adjusted_p")),
        (2.0 * p(0, "p"), p(1, "p")),
        "{text}"
    );
    let (_, text, _) = runs_command(&root, &["compare", "a", "b", "c"]);
    assert!(text.contains("p = 1.9e-6, Holm-adjusted 3.8e-6"), "{text}");
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    let results = place("verdicts by p-values adjusted by Holm's method for 2 comparisons\n");
    assert!(
        results < place("\nseed") && results < place("\nkl"),
        "results first: {text}"
    );
}

/// A task of this name, system text and schema, with the question of its first prompt.
fn task_files([name, system, schema, question]: [&str; 4]) -> Vec<(String, Vec<u8>)> {
    let definition = format!(
        "name = \"{name}\"\nschema = \"schema.json\"\nsystem = \"{system}\"\n[prompts]\ntrain = \"t.jsonl\"\neval = \"t.jsonl\"\ntest = \"t.jsonl\"\n\
         [score]\nkind = \"json_schema\"\n"
    );
    let prompt = |row: usize| if row == 0 { question } else { "same" };
    let row = |row: usize| {
        format!(
            "{{\"id\": \"invoice-{row:03}\", \"messages\": [{{\"role\": \"user\", \"content\": \"{} {row}\"}}]}}\n",
            prompt(row)
        )
    };
    [
        ("task.toml", definition),
        ("schema.json", schema.to_owned()),
        ("t.jsonl", (0..50).map(row).collect()),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

#[test]
fn only_the_same_prompts_are_compared() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let made = |name, valid, files| {
        made(
            &root,
            &Made {
                name,
                valid,
                task_files: task_files(files),
                ..Made::default()
            },
        )
    };
    made("first", 0.5, ["inv", "Answer.", "{}", "same"]);
    let not = "second run vs the first: not compared: ";
    for (name, other, expected) in [
        (
            "rows",
            ["inv", "Answer.", "{}", "other"],
            "improvements, 0 regressions in 49 prompts",
        ),
        (
            "tasks",
            ["easy", "Answer.", "{}", "same"],
            "the tasks are inv and easy",
        ),
        (
            "system",
            ["inv", "Reply.", "{}", "same"],
            "the prompts of inv differ in `system`",
        ),
        (
            "schema",
            ["inv", "Answer.", "true", "same"],
            "--rescore TASK",
        ),
    ] {
        made(name, 0.9, other);
        let (code, text, _) = runs_command(&root, &["compare", "first", name]);
        assert!(code == 0 && text.contains(expected), "{expected}: {text}");
        assert_eq!(text.contains("improvements"), name == "rows", "{text}");
        assert_eq!(text.contains(not), name != "rows", "{text}");
        let others = "not compared: 2 answers whose prompt is not the same in both runs";
        assert_eq!(text.contains(others), name == "rows", "{text}");
        let (_, text, _) = runs_command(&root, &["compare", "first", name, "--json"]);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["results"].is_null(), name != "rows", "{text}");
    }
}

#[test]
fn a_pull_request_gets_both_verdicts_and_the_configuration() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(
        &root,
        &Made {
            name: "a|b",
            set: &["seed=3"],
            ..Made::default()
        },
    );
    let (code, text, _) = runs_command(&root, &["export", run.id(), "--markdown"]);
    let sentence = "valid 30.0% to 90.0%, exact 24.0% to 72.0% on the test set (step 40): valid: +60.0 points (95% CI ";
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("### a\\|b\n\n") && text.contains(sentence),
        "{text}"
    );
    let rows = [
        "| valid | 30.0% [",
        "| exact match | 24.0% [",
        "| seed | 3 | ",
        "**valid: +60.0 points (95% CI \\[",
        "\n- valid: 30 improvements, 0 regressions",
        "\n- exact: 24 improvements, 0 regressions",
    ];
    for row in rows {
        assert!(text.contains(row), "{row}: {text}");
    }
    assert!(!text.contains("previous run"), "it is the first: {text}");
    let recorded = crate::program::sample_data("finished-run");
    let (_, text, _) = runs_command(&root, &["export", recorded.to_str().unwrap(), "--markdown"]);
    let rows = [
        "| failure | training, steps 1 to 10 | training, steps 31 to 40 | test set, base (n = 100) | test set, step 30 (n = 100) |",
        "\n| all classes | ",
        "\n| syntax | ",
        "\n| wrong value | ",
    ];
    for row in rows {
        assert!(text.contains(row), "{row}: {text}");
    }
}

/// An answer that stays valid and gets other values is shown as such.
#[test]
fn pages_tell_exact_answers_from_valid_ones() {
    let folder = memory_folder();
    let recorded = crate::program::sample_data("finished-run");
    let page = |arguments: &[&str]| {
        let file = folder.path().join("page.html");
        let html = ["--html", file.to_str().unwrap(), "--force"];
        let (code, _, error) = runs_command(
            folder.path(),
            &[arguments, &[recorded.to_str().unwrap()], &html].concat(),
        );
        assert_eq!(code, 0, "{error}");
        std::fs::read_to_string(&file).unwrap()
    };
    let (run, versus) = (page(&["export"]), page(&["compare"]));
    for (page, title) in [
        (&run, "Regressions on exact among valid answers: 1 of 1"),
        (&versus, "no longer exact, valid in both: 1 of 1"),
    ] {
        let section = page
            .split("<h2>")
            .find(|section| section.starts_with(title))
            .unwrap_or_else(|| panic!("{title}: {page}"));
        assert!(
            section.contains("test-066")
                && section.contains("valid, exact<")
                && section.contains("valid, not exact<"),
            "{section}"
        );
    }
    for title in [
        "Failures of training completions by class</title>",
        "<h2>Failure classes</h2>",
        "exact, messy (42)",
    ] {
        assert!(run.contains(title), "{title}");
    }
}

/// What differs from the run before of the same task, in the page and for a pull request.
#[test]
fn a_report_says_what_changed_since_the_previous_run_of_the_task() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let created = |second: u64, task: &str, set: &[&str]| {
        let run = made(
            &root,
            &Made {
                task,
                set,
                ..Made::default()
            },
        );
        let (file, created) = (
            run.path().join("run.toml"),
            format!("created_ms = {}\n", run.file().created_ms),
        );
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&created), "{text}");
        std::fs::write(
            &file,
            text.replace(&created, &format!("created_ms = {second}000\n")),
        )
        .unwrap();
        run
    };
    let third = created(4, "invoice", &["seed=3"]);
    let first = created(1, "invoice", &[]);
    created(2, "another", &["seed=9"]);
    let second = created(3, "invoice", &["seed=3"]);
    let report = |run: &RunDirectory, form: &[&str]| {
        runs_command(&root, &[&["export", run.id()], form].concat()).1
    };
    let check = |run: &RunDirectory, page: &str, markdown: &str| {
        let text = report(run, &["--html", "-"]);
        assert!(text.contains(page), "{page}: {text}");
        let text = report(run, &["--markdown"]);
        assert!(text.contains(markdown), "{markdown}: {text}");
    };
    assert!(!report(&first, &["--html", "-"]).contains("previous run"));
    let since = |run: &RunDirectory| {
        format!(
            "#### Changed since the previous run of this task, {}\n",
            run.id()
        )
    };
    check(
        &second,
        "<td>seed</td><td>0</td><td>3</td>",
        "|  | previous run | this run |\n|---|---|---|\n| seed | 0 | 3 |\n",
    );
    check(&second, first.id(), &since(&first));
    check(
        &third,
        "Nothing: same configuration",
        &format!("{}\nNothing: same", since(&second)),
    );
}

#[test]
fn exports() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(&root, &Made::default());
    let (_, text, _) = runs_command(&root, &["export", run.id(), "--jsonl"]);
    let rows = lines(&text);
    assert_eq!(
        (
            rows.len(),
            rows[39]["step"].as_u64(),
            rows[39]["kl"].as_f64()
        ),
        (40, Some(40), Some(0.04))
    );
    assert!(rows[16]["grad_norm"].is_null());
    let (_, text, _) = runs_command(&root, &["export", run.id(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["series"]["kl"]["steps"].as_array().unwrap().len(),
        40
    );
    assert_eq!(runs_command(&root, &["export", run.id()]).0, 2);

    let file = folder.path().join("report.html");
    let (code, text, error) = runs_command(
        &root,
        &[
            "export",
            run.id(),
            "--html",
            file.to_str().unwrap(),
            "--json",
        ],
    );
    assert_eq!(code, 0, "{error}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let page = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        (document["bytes"].as_u64(), document["path"].as_str()),
        (Some(page.len() as u64), run.path().to_str())
    );
    assert!(
        document["masked"].as_u64().unwrap() > 0 && !page.contains(&secret()),
        "secrets are masked"
    );
    // Self-contained and harmless: nothing is loaded, nothing runs, nothing breaks out.
    for forbidden in [
        "<script", "http://", "https://", "src=", "href=", "@import", "url(", "NaN",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let expected = [
        "prefers-color-scheme: dark",
        "&lt;script&gt;alert(",
        "looks &lt;good&gt; &amp; steady",
        "Improvements on valid: 5 of 30 shown",
        "30 improvements, 0 regressions in 50 prompts",
        "<polyline",
        "step 17: not finite",
        "Test set, 95% CI",
        ">by tag</th>",
        "exact: +48.0 points (95% CI [",
        "</html>",
    ];
    for expected in expected {
        assert!(page.contains(expected), "{expected} is missing");
    }
    for tag in ["svg", "table", "div", "tr", "td", "pre", "details", "g"] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    if let Some(copy) = std::env::var_os("KEEP_REPORT") {
        std::fs::copy(&file, copy).unwrap();
    }
}

#[test]
fn attach_follows_to_the_end() {
    let (folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut events = EventWriter::open(&lock).unwrap();
    state.status(Status::Running, 0, None).unwrap();
    let attach = |more: &[&str]| {
        let mut command = program(folder.path(), &["runs", "attach"]);
        command
            .arg(run.path())
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut plain = attach(&[]);
    let json = attach(&["--json"]);
    let mut out = BufReader::new(plain.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    };
    assert!(next().contains("running, step 0"));
    events.append(step(1, 0.25)).unwrap();
    assert!(next().starts_with("step 1  reward 0.250  no update (no mixed groups)  0.5 s"));
    events
        .append(Note {
            text: "hello".into(),
        })
        .unwrap();
    assert_eq!(next(), "note: hello\n");

    // Ctrl-C leaves; the run goes on.
    let mut leaving = attach(&["--json"]);
    let pid = rustix::process::Pid::from_child(&leaving);
    BufReader::new(leaving.stdout.as_mut().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let left = leaving.wait_with_output().unwrap();
    assert_eq!(left.status.code(), Some(130));
    assert!(
        String::from_utf8(left.stderr)
            .unwrap()
            .contains("it continues")
    );

    events
        .append(End {
            status: Status::Failed,
            cause: "no space".into(),
            step: 1,
            seconds: 1.0,
        })
        .unwrap();
    assert!(next().starts_with("failed after step 1: no space (1.0 s)"));
    state
        .status(Status::Failed, 1, Some("no space".into()))
        .unwrap();
    drop((events, lock));
    assert_eq!(next(), "failed: no space\n");
    assert_eq!(plain.wait().unwrap().code(), Some(1));
    let output = json.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        output.stdout,
        std::fs::read(run.events_path()).unwrap(),
        "the log as it is"
    );
    // A run that has ended tells how, at once.
    assert_eq!(attach(&[]).wait().unwrap().code(), Some(1));
}

#[test]
fn promote_copies_what_a_server_needs() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(&root, &Made::default());
    let out = folder.path().join("adapter");
    let reference = format!("{}@20", run.id());
    let (code, text, error) = runs_command(
        &root,
        &[
            "promote",
            &reference,
            "--out",
            out.to_str().unwrap(),
            "--json",
        ],
    );
    assert_eq!(code, 0, "{error}");
    assert_eq!(
        names(&out),
        [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "chat_template.jinja",
            "provenance.json"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(out.join("adapter_model.safetensors")).unwrap(),
        "adapter_model.safetensors of step 20"
    );
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("provenance.json")).unwrap()).unwrap();
    assert_eq!(document, written);
    assert_eq!(
        (written["run"].as_str(), written["step"].as_u64()),
        (Some(run.id()), Some(20))
    );
    assert_eq!(
        written["files"]["adapter_config.json"],
        grpo_tui::run::sha256(b"adapter_config.json of step 20")
    );
    let (code, _, error) = runs_command(
        &root,
        &["promote", run.id(), "--out", out.to_str().unwrap()],
    );
    assert_eq!(code, 2);
    assert!(error.contains("exists: choose a new folder"), "{error}");
    let (code, _, error) = runs_command(
        &root,
        &[
            "promote",
            &format!("{}@30", run.id()),
            "--out",
            "/dev/shm/nothing",
        ],
    );
    assert_eq!(code, 1);
    assert!(
        error.contains("there are those of steps 0, 20, 40"),
        "{error}"
    );
}

#[test]
fn remove_takes_only_what_has_ended() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(
        &root,
        &Made {
            name: "old",
            ..Made::default()
        },
    );
    let base = format!("base_model={}", run.id());
    let user = made(
        &root,
        &Made {
            name: "user",
            set: &[&base],
            ..Made::default()
        },
    );
    let lock = RunLock::acquire(run.path()).unwrap();
    let (code, _, error) = runs_command(&root, &["remove", run.id(), "--yes"]);
    assert!(
        code == 1 && error.contains("is in use by process"),
        "{error}"
    );
    drop(lock);
    // Nobody to ask: nothing happens.
    let (code, _, error) = runs_command(&root, &["remove", run.id()]);
    assert!(code == 2 && error.contains("add --yes"), "{error}");
    assert!(run.path().exists());
    let link = root.join("link");
    std::os::unix::fs::symlink(run.path(), &link).unwrap();
    let (code, _, error) = runs_command(&root, &["remove", link.to_str().unwrap(), "--yes"]);
    assert!(code == 1 && error.contains("is a symlink"), "{error}");
    std::fs::remove_file(&link).unwrap();
    let (code, text, _) = runs_command(&root, &["remove", run.id(), "--yes", "--json"]);
    assert_eq!(
        (code, lines(&text)[0]["started_from_it"][0].as_str()),
        (0, Some(user.id()))
    );
    assert!(!run.path().exists() && user.path().exists());
}
