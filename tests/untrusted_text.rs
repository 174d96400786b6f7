//! Text of others on the command line: every subcommand, on a run, a task, a model and completions that are full of
//! control characters, then of secrets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use grpo_tui::secrets::is_control;
use serde_json::{Value, json};

use crate::program::{call, call_in_process, copy_tree, sample_data, small_task, stderr};

/// Clears a screen, rings, colours by C1, goes back to the beginning of the line, turns the reading direction, and
/// forges a line.
const HOSTILE: &str = "x\u{1b}[2J\u{7}\u{9b}31m\r\u{202e}\u{2066}\u{7f}\nFORGED\ty";

/// Words that the program itself reads back; whoever writes a hostile file keeps them.
const KEPT: [&str; 13] = [
    "kind", "status", "level", "rule", "set", "target", "file", "tier", "tiers", "verb", "boot_id",
    "failure", "signal",
];

/// Every other text of a document with `text` behind it.
fn poison(value: &mut Value, text: &str) {
    match value {
        Value::String(found) => found.push_str(text),
        Value::Array(values) => values.iter_mut().for_each(|value| poison(value, text)),
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(name, _)| !KEPT.contains(&name.as_str()))
            .for_each(|(_, value)| poison(value, text)),
        _ => {}
    }
}

fn poison_lines(path: &Path, text: &str) {
    let poisoned = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        poison(&mut value, text);
        format!("{value}\n")
    };
    let lines: String = fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(poisoned)
        .collect();
    fs::write(path, lines).unwrap();
}

/// The recorded run as `runs/ID`, with `text` in all that others may have written.
fn run(here: &Path, id: &str, text: &str) {
    let folder = here.join("runs").join(id);
    copy_tree(&sample_data("finished-run"), &folder);
    let path = folder.join("run.toml");
    let mut file: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    for name in [
        "name",
        "task",
        "task_origin",
        "host",
        "model_digest",
        "created",
    ] {
        file[name] = format!("{}{text}", file[name].as_str().unwrap()).into();
    }
    file["id"] = format!("{id}{text}").into();
    file["argv"].as_array_mut().unwrap().push(text.into());
    file["config"]["base_model"] = format!("tiny{text}").into();
    file["task_files"]
        .as_table_mut()
        .unwrap()
        .insert(text.to_owned(), text.into());
    fs::write(&path, file.to_string()).unwrap();
    let mut state: Value =
        serde_json::from_slice(&fs::read(folder.join("state.json")).unwrap()).unwrap();
    poison(&mut state, text);
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
    poison_lines(&folder.join("events.jsonl"), text);
    let events = [
        json!({"kind": "note", "text": text}),
        json!({"kind": "alert", "rule": text, "level": text, "step": 40, "sentence": text, "suggestion": text}),
        json!({"kind": "control", "verb": text, "arguments": {text: text}, "user_id": 1, "step": 40}),
        json!({"kind": "step", "step": 40, "seconds": 1.0, "metrics": {"reward": 0.5, (text): 0.5, (format!("={text}")): 1.0}}),
        json!({"kind": "eval", "step": 40, "set": text, "target": text, "summary": {}, "file": text, "seconds": 1.0}),
        json!({"kind": "recovered", "text": text}),
        json!({"kind": "end", "status": "finished", "cause": text, "step": 40, "seconds": 1.0}),
    ];
    let mut log = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    for (mut event, seq) in events.into_iter().zip(329..) {
        event["v"] = 1.into();
        event["seq"] = seq.into();
        event["t"] = 1_795_185_059_633_u64.into();
        log.push_str(&format!("{event}\n"));
    }
    log.push_str(&format!(
        "{{\"v\":1,\"seq\":336,\"t\":1,\"kind\":\"step\",\"step\":{}}}\n",
        json!(text)
    ));
    fs::write(folder.join("events.jsonl"), log).unwrap();
    for entry in fs::read_dir(folder.join("evals")).unwrap() {
        poison_lines(&entry.unwrap().path(), text);
    }
}

const A: &str = "runs/20261120-143041-invoice-aaaaaa";
const B: &str = "runs/20261120-143041-invoice-bbbbbb";

/// What shows or copies a run, in every form.
const READERS: [&[&str]; 24] = [
    &["list"],
    &["list", "--sort", "host"],
    &["list", "--json"],
    &["show", A],
    &["show", A, "--json"],
    &["show", A, "--prompts"],
    &["show", A, "--prompts", "--json"],
    &["attach", A],
    &["attach", A, "--json"],
    &["compare", A, B],
    &["compare", A, B, "--json"],
    &["versus", A],
    &["versus", A, B],
    &["versus", A, "--json"],
    &["versus", A, B, "--json"],
    &["export", A, "--csv"],
    &["export", A, "--jsonl"],
    &["export", A, "--json"],
    &["export", A, "--html", "run.html"],
    &["versus", A, B, "--html", "versus.html"],
    &["export", A, "--markdown"],
    &["versus", A, B, "--markdown"],
    &["promote", A, "--out", "promoted"],
    &["resume", A],
];

fn shown(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

/// The subcommands that were called, by name.
struct Calls<'a> {
    here: &'a Path,
    called: BTreeSet<String>,
}

impl Calls<'_> {
    fn call(&mut self, arguments: &[&str]) -> [String; 2] {
        self.called.insert(arguments[0].to_owned());
        // A worker has its process to itself.
        let is_worker = arguments[0] == "worker";
        let call = if is_worker { call } else { call_in_process };
        let output = call(self.here, arguments);
        assert_ne!(
            output.status.code(),
            Some(101),
            "{arguments:?}: {}",
            stderr(&output)
        );
        shown(&output)
    }

    /// No control character but line ends on either stream, and no line that text of others begins.
    fn check(&mut self, arguments: &[&str]) -> String {
        let [out, error] = self.call(arguments);
        for text in [&out, &error] {
            let found = text
                .char_indices()
                .find(|(_, letter)| *letter != '\n' && is_control(*letter));
            assert_eq!(found, None, "{arguments:?}: {text}");
            assert!(
                !text.lines().any(|line| line.starts_with("FORGED")),
                "{arguments:?}: {text}"
            );
        }
        out + &error
    }
}

#[test]
fn no_control_character_of_others_reaches_the_terminal() {
    let work = tempfile::tempdir().unwrap();
    let here = work.path();
    let mut calls = Calls {
        here,
        called: BTreeSet::new(),
    };

    run(here, "20261120-143041-invoice-aaaaaa", HOSTILE);
    run(here, "20261120-143041-invoice-bbbbbb", HOSTILE);
    let unreadable = here
        .join("runs")
        .join(format!("20261120-143041-{HOSTILE}-cccccc"));
    fs::create_dir(&unreadable).unwrap();
    fs::write(
        unreadable.join("run.toml"),
        format!("version = {}\n", json!(HOSTILE)),
    )
    .unwrap();
    let hostile: [&[&str]; 14] = [
        &["list", "--sort", HOSTILE],
        &["list", "--where", &format!("{HOSTILE}>1")],
        &["show", unreadable.to_str().unwrap()],
        &["show", HOSTILE],
        &["versus", A, "--on", HOSTILE],
        &["tag", A, HOSTILE],
        &["tag", A, "kept"],
        &["remove", A],
        &["pause", A],
        &["checkpoint", A],
        &["eval", A],
        &["stop", A],
        &["set", A, &format!("learning_rate={HOSTILE}")],
        &["annotate", A, HOSTILE],
    ];
    for arguments in READERS.into_iter().chain(hostile) {
        calls.check(&[&["runs", "--runs", "runs"], arguments].concat());
    }
    for file in ["run.html", "versus.html"] {
        let page = fs::read_to_string(here.join(file)).unwrap();
        assert!(
            page.contains("␛[2J")
                && !page.contains(|letter| !['\n', '\t'].contains(&letter) && is_control(letter)),
            "{page}"
        );
    }
    // What is shown of a note, on one line; and as JSON it is what it was.
    let [page, _] = calls.call(&["runs", "show", A]);
    assert!(
        page.contains("note         x␛[2J␇\u{fffd}31m␍\u{fffd}\u{fffd}\u{fffd}␊FORGED y\n"),
        "{page}"
    );
    let [document, _] = calls.call(&["runs", "show", A, "--json"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    // The last note is the one that `annotate` has just taken, without control characters.
    assert!(
        document["notes"]
            .as_array()
            .unwrap()
            .contains(&json!(HOSTILE)),
        "{}",
        document["notes"]
    );
    assert_eq!(document["host"], json!(format!("workstation{HOSTILE}")));
    let [csv, _] = calls.call(&["runs", "export", A, "--csv"]);
    assert!(csv.lines().next().unwrap().contains(",\"'=x␛"), "{csv}");

    // A task in a folder of such a name.
    let task = here.join(format!("task {HOSTILE}"));
    fs::rename(small_task(here), &task).unwrap();
    // JSON leaves DEL as it is, TOML refuses it raw.
    let title = json!(HOSTILE).to_string().replace('\u{7f}', "\\u007f");
    let text = fs::read_to_string(task.join("task.toml"))
        .unwrap()
        .replace("\"Invoices to JSON\"", &title);
    fs::write(task.join("task.toml"), text).unwrap();
    let mut schema: Value =
        serde_json::from_slice(&fs::read(task.join("schema.json")).unwrap()).unwrap();
    schema["properties"][HOSTILE] = json!({"const": HOSTILE});
    schema["required"]
        .as_array_mut()
        .unwrap()
        .push(json!(HOSTILE));
    fs::write(task.join("schema.json"), schema.to_string()).unwrap();
    for file in ["train.jsonl", "eval.jsonl", "eval-large.jsonl"] {
        let rows = fs::read_to_string(task.join(file)).unwrap();
        let rows = rows.lines().map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            poison(&mut row, HOSTILE);
            // `sample` shows a prompt as it is, with its lines.
            row["messages"] = json!([{"role": "user", "content": HOSTILE.replace('\n', " ")}]);
            format!("{row}\n")
        });
        fs::write(task.join(file), rows.collect::<String>()).unwrap();
    }
    let id = format!("eval-001{HOSTILE}");
    fs::write(
        task.join("completions.jsonl"),
        [
            json!({"completion": HOSTILE, "prompt_id": id}),
            json!({"completion": json!({HOSTILE: HOSTILE}).to_string(), "prompt_id": HOSTILE}),
        ]
        .map(|line| format!("{line}\n"))
        .concat(),
    )
    .unwrap();
    let model = here.join(format!("model {HOSTILE}"));
    copy_tree(&sample_data("models/tiny"), &model);
    let mut tokenizer: Value =
        serde_json::from_slice(&fs::read(model.join("tokenizer_config.json")).unwrap()).unwrap();
    tokenizer["chat_template"] = format!("{{{{ raise_exception({}) }}}}", json!(HOSTILE)).into();
    fs::write(model.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    let other = here.join(format!("other {HOSTILE}"));
    copy_tree(&model, &other);
    let config = fs::read_to_string(other.join("config.json"))
        .unwrap()
        .replace(
            "Qwen3ForCausalLM",
            &json!(HOSTILE).to_string().replace('"', ""),
        );
    fs::write(other.join("config.json"), config).unwrap();
    let [task, model, other] = [&task, &model, &other].map(|path| path.to_str().unwrap());
    let short = ["--max-completion-tokens", "4"];
    for arguments in [
        &["task", "check", task][..],
        &["task", "check", task, "--json"],
        &["task", "audit", task],
        &["task", "audit", task, "--json"],
        &["dataset", "check", task],
        &["dataset", "check", task, "--json"],
        &["dataset", "check", task, "--model", model],
        &["score", task],
        &["score", task, "--json"],
        &["score", task, "--completions", HOSTILE],
        &[
            "sample",
            task,
            "--model",
            "tiny",
            "--n",
            "1",
            "--temperature",
            "10",
            short[0],
            "64",
        ],
        &[
            "sample", task, "--model", "tiny", "--n", "1", short[0], short[1], "--json",
        ],
        &["sample", task, "--model", model],
        &["sample", task, "--model", "tiny", "--prompt", HOSTILE],
        &[
            "eval",
            task,
            "--model",
            &format!("{HOSTILE}=tiny"),
            "--on",
            "eval",
            short[0],
            short[1],
            "--html",
            "eval.html",
        ],
        &[
            "eval", task, "--model", "tiny", "--on", "eval", short[0], short[1], "--json",
        ],
        &["eval", task, "--model", model],
        &["train", task, "--model", model, "--runs", "new"],
        &["train", task, "--model", other, "--runs", "new"],
        &["train", task, "--name", HOSTILE, "--runs", "new"],
        &["train", "--resume", A],
        &["train", task, "--set", &format!("learning_rate={HOSTILE}")],
        &["init", "made", "--from", task],
        &["model", "inspect", model],
        &["model", "inspect", model, "--json"],
        &["model", "inspect", other],
        &["model", "log-probs", model, "--token-ids", "1,2", "--json"],
        &[
            "model", "export", "--model", other, "--merged", "--out", "exported",
        ],
        &["model", "pull", "bad/name/x"],
        &["pull", HOSTILE],
        &["serve", other, "--listen", "0.0.0.0:0"],
        &["prove", HOSTILE, "--run", A],
        &["prove", "http://127.0.0.1:9/v1", "--run", A, "--recorded"],
        &["sweep", task, "--set", &format!("{HOSTILE}=1,2")],
        &["study", HOSTILE, task],
        &["worker", "--run", A],
        &["keys"],
        &["doctor", "--runs", HOSTILE],
        &["doctor", "--json"],
        &["mcp", "--workspace", HOSTILE],
        &["skill", "install", "--dir", HOSTILE],
        &["man"],
        &["completions", "bash"],
    ] {
        let text = calls.check(arguments);
        if arguments.contains(&model) && ["sample", "eval", "train"].contains(&arguments[0]) {
            assert!(
                text.contains("refuses these messages: x␛[2J"),
                "{arguments:?}: {text}"
            );
        }
    }
    assert!(!here.join("new").exists(), "a run was made");
    let [scores, _] = calls.call(&["score", task, "--json"]);
    let warning =
        serde_json::from_str::<Value>(scores.lines().nth(1).unwrap()).unwrap()["warnings"][0]
            .clone();
    assert_eq!(
        warning,
        json!(format!(
            "unknown prompt_id {HOSTILE:?}: no expected answer to compare with"
        ))
    );

    // A new subcommand gets its line above.
    let [help, _] = calls.call(&["help"]);
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let commands: BTreeSet<String> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(
        commands.len() > 10 && commands.is_subset(&calls.called),
        "{commands:?} {:?}",
        calls.called
    );
}

#[test]
fn secrets_leave_no_run_folder() {
    let work = tempfile::tempdir().unwrap();
    let here = work.path();
    let mut calls = Calls {
        here,
        called: BTreeSet::new(),
    };
    // Made up, and put together here so that no scanner takes this file for a leak.
    let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
    run(
        here,
        "20261120-143041-invoice-aaaaaa",
        &format!(" {token} "),
    );
    run(
        here,
        "20261120-143041-invoice-bbbbbb",
        &format!(" {token} "),
    );
    for arguments in READERS
        .into_iter()
        .chain([&["annotate", A, "x"][..], &["export", A, "--html", "-"]])
    {
        let [out, error] = calls.call(&[&["runs", "--runs", "runs"], arguments].concat());
        let whole = format!("{out}{error}");
        // Sixteen characters of it are more than a mask shows.
        assert!(
            !whole.contains(&token[4..20]) && !whole.contains(&token[24..]),
            "{arguments:?}: {whole}"
        );
        // The frozen task has none.
        let is_export = ["list", "show", "compare", "export"].contains(&arguments[0])
            && !arguments.contains(&"--prompts");
        assert!(
            !is_export || whole.contains("secrets are masked"),
            "{arguments:?}: {whole}"
        );
    }
    for file in [
        "run.html",
        "versus.html",
        "promoted/provenance.json",
        "promoted/README.md",
    ] {
        let text = fs::read_to_string(here.join(file)).unwrap();
        assert!(
            text.contains("ghp_…(40 characters)") && !text.contains(&token[4..20]),
            "{file}: {text}"
        );
    }
}

#[test]
fn an_export_is_written_by_its_bare_name_and_never_over_another_file() {
    let work = tempfile::tempdir().unwrap();
    let here = work.path();
    copy_tree(
        &sample_data("finished-run"),
        &here.join("runs/20261120-143041-invoice-6sx3dn"),
    );
    small_task(here);
    let run = "runs/20261120-143041-invoice-6sx3dn";
    let eval = [
        "eval",
        "task",
        "--model",
        "tiny",
        "--on",
        "eval",
        "--max-completion-tokens",
        "4",
    ];
    for (arguments, titles) in [
        (&["runs", "export", run][..], &["<h1>invoice</h1>"][..]),
        (&["runs", "versus", run], &["<h1>base vs step 30</h1>"]),
        (
            &eval,
            &[
                "<h1>tiny</h1>",
                "4 answers; ",
                "<h2>not valid: 4 of 4 shown</h2>",
            ],
        ),
        (
            &[&eval[..], &["--model", "other=tiny"]].concat(),
            &["<h1>tiny vs other</h1>", "4 answers; "],
        ),
    ] {
        let _ = fs::remove_file(here.join("o.html"));
        let with = |more: &[&str]| {
            call_in_process(here, &[arguments, &["--html", "o.html"], more].concat())
        };
        let written = with(&[]);
        assert!(
            written.status.success(),
            "{arguments:?}: {}",
            stderr(&written)
        );
        assert!(
            stderr(&written).contains("no secrets found"),
            "{arguments:?}: {}",
            stderr(&written)
        );
        let page = fs::read_to_string(here.join("o.html")).unwrap();
        for title in titles {
            assert!(page.contains(title), "{title}: {page}");
        }
        fs::write(here.join("o.html"), "mine").unwrap();
        let refused = with(&[]);
        assert_eq!(refused.status.code(), Some(2));
        assert_eq!(
            shown(&refused),
            [
                "",
                "error: o.html exists: name another file, or add --force to replace it\n"
            ]
        );
        assert_eq!(fs::read_to_string(here.join("o.html")).unwrap(), "mine");
        assert!(with(&["--force"]).status.success());
        let again = fs::read_to_string(here.join("o.html")).unwrap();
        // No two evals are as fast.
        let lines = |page: &str| {
            page.lines()
                .filter(|line| !line.contains("tok&#x2f;s"))
                .collect::<String>()
        };
        assert_eq!(lines(&again), lines(&page));
    }
}

#[test]
fn what_a_run_holds_is_text_in_its_page() {
    let work = tempfile::tempdir().unwrap();
    let here = work.path();
    run(here, "20261120-143041-invoice-aaaaaa", "<i>x</i>");
    let folder = here.join("runs/20261120-143041-invoice-aaaaaa");
    for arguments in [
        ["runs", "export", folder.to_str().unwrap()],
        ["runs", "versus", folder.to_str().unwrap()],
    ] {
        let output = call_in_process(
            here,
            &[&arguments[..], &["--html", "o.html", "--force"]].concat(),
        );
        assert!(output.status.success(), "{}", stderr(&output));
        let page = fs::read_to_string(here.join("o.html")).unwrap();
        assert!(
            page.contains("&lt;i&gt;x") && !page.contains("<i>"),
            "{arguments:?}"
        );
    }
}
