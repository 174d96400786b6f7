//! `dataset propose`: what it writes, whose labels it reads, and what never judges.

use std::path::Path;

use grpo_tui::dataset;
use grpo_tui::score::Task;
use grpo_tui::task::PromptSet;
use serde_json::{Value, json};

use crate::program::{call_in_process, stderr, stdout};

const TOML: &str = "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\ntest = \"test.jsonl\"\n\
     [score]\nkind = \"json_schema\"\n[[reward]]\npart = \"grounded\"\nweight = 1.0\n";
const SCHEMA: &str = r#"{"type": "object", "required": ["vendor", "total"], "properties": {"vendor": {"type": "string"}, "total": {"type": "number"}}}"#;

fn bill(vendor: &str, total: usize) -> String {
    format!("Bill 77{total} by {vendor}, tax 3, total {total} EUR")
}

fn row(vendor: &str, total: usize, more: Value) -> Value {
    let mut row =
        json!({"messages": [{"role": "user", "content": bill(vendor, total)}], "note": "kept"});
    for (key, value) in more.as_object().into_iter().flatten() {
        row[key] = value.clone();
    }
    row
}

fn labelled(vendor: &str, total: usize) -> Value {
    row(
        vendor,
        total,
        json!({"expected": {"vendor": vendor, "total": total}}),
    )
}

fn write(folder: &Path, sets: [&[Value]; 3]) {
    let texts = sets.map(|rows| {
        rows.iter()
            .map(|row| format!("{row}\n"))
            .collect::<String>()
    });
    let sets = ["train.jsonl", "eval.jsonl", "test.jsonl"]
        .into_iter()
        .zip(texts.iter().map(String::as_str));
    for (name, text) in [("task.toml", TOML), ("schema.json", SCHEMA)]
        .into_iter()
        .chain(sets)
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// What a command prints, whether it succeeds or not.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = call_in_process(folder, arguments);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn propose(folder: &Path, more: &[&str]) -> String {
    let path = folder.to_str().unwrap();
    let output = call_in_process(folder, &[&["dataset", "propose", path], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn rows_without_a_label_get_one_and_no_label_of_a_person_or_of_test_changes_or_counts() {
    let folder = tempfile::tempdir().unwrap();
    let own = [
        labelled("Acme AG", 15),
        labelled("Nordic Oil", 28),
        labelled("Blue Sky Ltd", 41),
    ];
    let open = [
        row("Zed Corp", 52, json!({})),
        row(
            "Red Fox Inc",
            64,
            json!({"proposed": 0.5, "expected": {"vendor": "?", "total": 0}}),
        ),
    ];
    let train: Vec<Value> = own.iter().chain(&open).cloned().collect();
    let eval = [labelled("Iron Works", 33), labelled("Kim and Sons", 75)];
    let test = |total: usize| {
        [row(
            "Test GmbH",
            80,
            json!({"expected": {"vendor": "Test GmbH", "total": total}}),
        )]
    };
    write(folder.path(), [&train, &eval, &test(80)]);
    let before = std::fs::read_to_string(folder.path().join("train.jsonl")).unwrap();
    let shown = propose(folder.path(), &[]);
    assert!(
        shown.contains("of 5 labelled rows") && shown.contains("nothing written: add --write"),
        "{shown}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join("train.jsonl")).unwrap(),
        before
    );
    propose(folder.path(), &["--write", "--alternatives", "1"]);
    let written = std::fs::read_to_string(folder.path().join("train.jsonl")).unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("train.jsonl.bak")).unwrap(),
        before
    );
    let rows: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows[..3], own);
    for (row, (vendor, total)) in rows[3..]
        .iter()
        .zip([("Zed Corp", 52), ("Red Fox Inc", 64)])
    {
        assert_eq!(row["expected"], json!({"vendor": vendor, "total": total}));
        assert!(
            row["proposed"]
                .as_f64()
                .is_some_and(|it| (0.0..=1.0).contains(&it))
                && row["note"] == "kept"
        );
    }
    // Again, with another label of the test set: the same bytes.
    write(folder.path(), [&train, &eval, &test(3)]);
    propose(folder.path(), &["--write", "--alternatives", "1"]);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("train.jsonl")).unwrap(),
        written
    );
    // A proposed label trains; in a set that judges it is none.
    write(folder.path(), [&rows, &rows, &rows]);
    let task = Task::load(folder.path()).unwrap();
    let labels = |set| {
        dataset::load(&task, set)
            .unwrap()
            .iter()
            .filter(|row| row.expected.is_some())
            .count()
    };
    assert_eq!(
        [PromptSet::Train, PromptSet::Eval, PromptSet::Test].map(labels),
        [5, 3, 3]
    );
    let checked = printed(folder.path(), &["task", "check", ".", "--json"]);
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(
        [
            &checked["sets"]["train"]["proposed"],
            &checked["sets"]["eval"]["proposed"]
        ],
        [&json!(2), &json!(0)]
    );
}

#[test]
fn a_task_whose_prompts_offer_wrong_values_that_pay_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let open = [
        row("Acme AG", 15, json!({})),
        row("Nordic Oil", 28, json!({})),
    ];
    write(
        folder.path(),
        [
            &open,
            &[labelled("Iron Works", 33)],
            &[labelled("Test GmbH", 80)],
        ],
    );
    let path = folder.path().to_str().unwrap();
    let checked = printed(folder.path(), &["task", "check", path]);
    let problem = "vendor, total: any value of the prompt earns all of it. Label 10 rows: grpo-tui dataset propose t";
    assert!(checked.contains(problem), "{checked}");
    let audited = printed(folder.path(), &["task", "audit", path]);
    assert!(
        audited.contains("vendor: ") && !audited.contains("no degenerate answer"),
        "{audited}"
    );
}
