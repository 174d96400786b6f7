//! New tasks are made of a schema, examples, data or a template; what does not make one leaves nothing behind.

use std::path::Path;

use grpo_tui::score::Task;
use grpo_tui::task::template_names;
use serde_json::json;

use crate::program::{call, call_in_process, json as document, stderr, stdout};

/// With what is wrong and what to do; and without a trace, the folder of tasks included.
#[test]
fn a_task_that_cannot_be_made_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, extra: &[&str], expected: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        let failed = call_in_process(folder.path(), &[&["task", "new", "t1"], extra].concat());
        assert!(
            failed.status.code() != Some(0) && stderr(&failed).contains(expected),
            "{expected}: {}",
            stderr(&failed)
        );
        assert!(!folder.path().join("tasks").exists(), "{expected}");
    };
    let (csv, map) = (
        "prompt,vendor,total\na,x,1\nb,y,2\n",
        ["--data", "d.csv", "--map", "expected=vendor, total"],
    );
    let few = "task t1: 2 rows are too few for --split 80/10/10: eval gets none; add rows or use another --split";
    check("d.csv", csv, &map, few);
    let one = "1 row is too few for --split 80/10/10: eval gets none";
    check("d.csv", "prompt,vendor,total\na,x,1\n", &map, one);
    check(
        "d.csv",
        csv,
        &[&map[..], &["--split", "80/0/20"]].concat(),
        "--split 80/0/20 gives eval no rows",
    );
    let columns = "columns: prompt, vendor, total; use --map \"expected=vendor, total\", or name a schema or examples";
    check("d.csv", csv, &map[..2], columns);
    let taken = "; the prompt is column `prompt`; columns: prompt, vendor, total; use";
    check("d.csv", csv, &map[..2], taken);
    let samples = "prompt: name a column or write a template such as `Read: {{ letter }}`; the columns are letter (\"Dear A\"), total (\"1\")\n";
    check(
        "l.csv",
        "letter,total\nDear A,1\n",
        &["--data", "l.csv"],
        samples,
    );
    // What is advised works with one column, too, which alone would be read as JSON.
    check(
        "d.csv",
        "prompt,vendor\na,x\n",
        &map[..2],
        "use --map \"expected=vendor = vendor\", or name",
    );
    check(
        "d.csv",
        "prompt,vendor\na,x\n",
        &["--data", "d.csv", "--map", "expected=vendor = vendor"],
        one,
    );
    check(
        "d.csv",
        csv,
        &["--data", "d.csv", "--map", "foo=bar"],
        "--map foo=bar: unknown part `foo`; use prompt, ",
    );
    let bad = "d.jsonl line 1: prompt: column `messages` has `5`";
    check(
        "d.jsonl",
        "{\"messages\": 5}\n",
        &["--data", "d.jsonl"],
        bad,
    );
    let syntax = "s.json line 1: not JSON at column 18 (trailing comma)\n";
    check(
        "s.json",
        "{\"type\":\"object\",}",
        &["--schema", "s.json"],
        syntax,
    );
    let pattern = "(/pattern): \"(\" is not a valid regular expression";
    check(
        "s.json",
        "{\"pattern\": \"(\"}",
        &["--schema", "s.json"],
        pattern,
    );
}

#[test]
fn a_task_is_made_of_a_schema_or_of_examples() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("answers.jsonl"),
        "{\"day\":\"2026-11-21\",\"n\":1}\n{\"day\":\"2026-11-22\"}\n",
    )
    .unwrap();
    let made = call_in_process(
        folder.path(),
        &["task", "new", "days", "--examples", "answers.jsonl"],
    );
    assert!(
        stdout(&made).contains("n: optional, in 1 of 2 examples")
            && stdout(&made).contains("no prompts yet"),
        "{}",
        stdout(&made)
    );
    let task = Task::load(&at("tasks/days")).unwrap();
    assert!(
        task.score.assert_formats
            && task.schema().unwrap()["properties"]["day"]["format"] == "date"
    );
    let text = std::fs::read_to_string(at("tasks/days/task.toml")).unwrap();
    assert!(
        text.contains("# Prompt rows are JSONL") && text.contains("\"expected\": {...}"),
        "{text}"
    );
    // A schema is copied as it is; one that is none leaves no folder.
    let schema =
        "{\n  \"type\": \"object\", \"properties\": { \"a\": { \"type\": \"string\" } }\n}\n";
    std::fs::write(at("s.json"), schema).unwrap();
    assert!(
        call_in_process(
            folder.path(),
            &["task", "new", "plain", "--schema", "s.json"]
        )
        .status
        .success()
    );
    assert_eq!(
        std::fs::read_to_string(at("tasks/plain/schema.json")).unwrap(),
        schema
    );
    // A task without a title of its own is named once.
    assert!(
        call_in_process(folder.path(), &["task", "check", "plain"])
            .stdout
            .starts_with(b"plain\n")
    );
    std::fs::write(at("s.json"), "{\"type\": \"strin\"}").unwrap();
    let bad = call_in_process(
        folder.path(),
        &["task", "new", "wrong", "--schema", "s.json"],
    );
    assert!(
        bad.status.code() == Some(1) && !at("tasks/wrong").exists(),
        "{}",
        stderr(&bad)
    );
    assert!(
        stderr(&bad).starts_with("error: s.json line 1 column 10"),
        "{}",
        stderr(&bad)
    );
    assert!(
        stderr(&call_in_process(folder.path(), &["task", "new", "none"]))
            .contains("needs a schema, examples of answers, data or a template")
    );
    assert!(
        stderr(&call_in_process(
            folder.path(),
            &["task", "new", "../x", "--schema", "s.json"]
        ))
        .contains("names a folder")
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn every_template_is_a_good_task() {
    let folder = tempfile::tempdir().unwrap();
    let judge = crate::judge::server::Server::start();
    for template in template_names() {
        let name = format!("my-{template}");
        // What is trusted is written into the home.
        let is_program = ["agent", "python-scorer", "support-judge"].contains(&template);
        let call = if is_program { call } else { call_in_process };
        let made = document(&call(
            folder.path(),
            &["task", "new", &name, "--template", template, "--json"],
        ));
        assert_eq!(made["problems"], json!([]), "{template}");
        assert_eq!(
            made["embedded_model"].is_null(),
            template == "invoice",
            "{template}"
        );
        if template == "support-judge" {
            let file = folder.path().join("tasks").join(&name).join("task.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(
                &file,
                text.replace("http://127.0.0.1:8000/v1", &judge.address),
            )
            .unwrap();
        }
        if is_program {
            assert!(
                call(folder.path(), &["task", "trust", &name, "--yes"])
                    .status
                    .success()
            );
        }
        let check = document(&call(folder.path(), &["task", "check", &name, "--json"]));
        // As the answer to `task new` says already.
        let note = made["embedded_model"].as_str();
        assert_eq!(
            (&check["ok"], &check["warnings"]),
            (&json!(true), &json!(Vec::from_iter(note))),
            "{template}"
        );
        let health = document(&call(folder.path(), &["dataset", "check", &name, "--json"]));
        assert_eq!(health["groups"], json!([]), "{template}");
        // A conversation that an agent held is not a completion.
        if template != "agent" {
            let score = call(folder.path(), &["score", &name]);
            assert!(score.status.success(), "{template}: {}", stderr(&score));
        }
        assert!(Path::new(&folder.path().join("tasks").join(&name)).is_dir());
    }
    assert!(
        call_in_process(folder.path(), &["init", "w", "--template", "classify"])
            .status
            .success()
    );
    assert!(folder.path().join("w/tasks/classify/schema.json").is_file());
}

/// Also where the sources do not make a task yet: the columns show what to map.
#[test]
fn a_dry_run_prints_the_columns_with_sample_values() {
    let folder = tempfile::tempdir().unwrap();
    let csv = "letter,total,note\nDear A,1,\nDear B,2,\nDear C,3,\nDear D,4,\n";
    std::fs::write(folder.path().join("l.csv"), csv).unwrap();
    let columns = "  columns     letter, total, note
    letter          \"Dear A\", \"Dear B\", \"Dear C\"
    total           \"1\", \"2\", \"3\"
    note            empty\n";
    let check = |extra: &[&str], code: i32, out: &str, err: &str| {
        let data = ["task", "new", "t1", "--data", "l.csv", "--dry-run"];
        let tried = call_in_process(folder.path(), &[&data[..], extra].concat());
        assert_eq!(tried.status.code(), Some(code), "{}", stderr(&tried));
        let printed = String::from_utf8_lossy(&tried.stdout);
        assert!(
            printed.starts_with(columns) && printed.contains(out),
            "{printed}"
        );
        assert!(stderr(&tried).contains(err), "{}", stderr(&tried));
        assert!(!folder.path().join("tasks").exists());
    };
    check(&[], 1, "", "prompt: name a column");
    let prompt = ["--map", "prompt=letter"];
    let free = "the prompt is column `letter`; columns: letter, total, note; use --map \"expected=total, note\"";
    check(&prompt, 1, "", free);
    let mapped = [
        &prompt[..],
        &["--map", "expected=total = total", "--split", "50/25/25"],
    ]
    .concat();
    let mapping = "  mapping     prompt=letter  expected=total = total\n";
    check(&mapped, 0, mapping, "");
}

/// With the validators that JSON Schema does not know; and why a class cannot be imported.
#[test]
#[cfg_attr(not(has_pydantic), ignore = "python3 has no pydantic")]
fn a_class_of_python_is_a_schema() {
    let folder = tempfile::tempdir().unwrap();
    let models = r#"
from dataclasses import dataclass
from typing import Annotated, Optional
from pydantic import AfterValidator, BaseModel, field_validator, model_validator
print("noise")
def upper(text): return text.upper()
class Line(BaseModel):
    sku: Annotated[str, AfterValidator(upper)]
    amount: float
class Invoice(BaseModel):
    vendor: str
    lines: list[Line]
    parent: "Optional[Invoice]" = None
    @field_validator("vendor")
    @classmethod
    def not_empty(cls, text): return text
    @model_validator(mode="after")
    def sums(self): return self
@dataclass
class Point:
    x: int
"#;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("models.py", models);
    write("broken.py", "import json\nimport no_such_module\n");
    write("wrong.py", "x = 1\ndef f(:\n");
    let new = |name: &str, class: &str| {
        let words = ["task", "new", name, "--schema", class, "--trust"];
        call_in_process(folder.path(), &words)
    };
    let made = new("a", "models:Invoice");
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let warning = "sums of Invoice (after), not_empty of Invoice.vendor (after), upper of Line.sku (after); write them as keywords";
    assert!(stdout(&made).contains(warning), "{}", stdout(&made));
    let task = Task::load(&folder.path().join("tasks/a")).unwrap();
    let system = task.system.clone().unwrap_or_default();
    assert!(
        system.contains("lines (list of object: sku, amount)"),
        "{system}"
    );
    let scorer = grpo_tui::score::Scorer::new(&task).unwrap();
    for (answer, reward) in [
        (
            r#"{"vendor": "a", "lines": [{"sku": "b", "amount": 1}]}"#,
            1.0,
        ),
        (
            r#"{"vendor": "a", "lines": [{"sku": 1, "amount": 1}]}"#,
            0.5,
        ),
        (
            r#"{"vendor": "a", "lines": [], "parent": {"vendor": "b"}}"#,
            0.5,
        ),
    ] {
        assert_eq!(scorer.score(answer, None).reward, reward, "{answer}");
    }
    assert_eq!(new("b", "models.py:Point").status.code(), Some(0));
    for (class, problem) in [
        (
            "models:Invoic",
            "models:Invoic: models.py: no class Invoic; classes there: Invoice, Line",
        ),
        (
            "nope:X",
            "nope:X: ModuleNotFoundError: No module named 'nope'; run this where ",
        ),
        ("nope.py:X", "nope.py: no such file"),
        (
            "broken:X",
            "broken:X: broken.py line 2: ModuleNotFoundError: No module named 'no_such_module'; install it: ",
        ),
        ("wrong.py:X", "wrong.py:X: wrong.py line 2: SyntaxError: "),
    ] {
        let failed = new("c", class);
        assert!(
            failed.status.code() != Some(0) && stderr(&failed).contains(problem),
            "{class}: {}",
            stderr(&failed)
        );
    }
    assert!(!folder.path().join("tasks/c").exists());
}
