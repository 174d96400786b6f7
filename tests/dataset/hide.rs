//! `dataset hide`: the prompts of some rows no longer state a value, and null is expected there.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{call_in_process, stderr, stdout};

const SCHEMA: &str = r#"{"type": "object", "required": ["vendor", "total"], "properties": {
    "vendor": {"type": ["string", "null"]},
    "total": {"type": "number"},
    "lines": {"type": "array", "items": {"properties": {"amount": {"type": ["number", "null"]}}}}}}"#;

fn row(content: &str, expected: &Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}], "expected": expected})
}

fn task(folder: &Path, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let toml = "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"json_schema\"\n\
                [score.aliases]\nvendor = [[\"Acme AG\", \"ACM\"]]\n";
    for (name, text) in [
        ("task.toml", toml),
        ("schema.json", SCHEMA),
        ("train.jsonl", &lines),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn rows_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_mention_of_the_value_goes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for (content, expected, field, left) in [
        (
            "Vendor: Acme AG\nTotal: 5 for ACME AG",
            json!({"vendor": "Acme AG", "total": 5}),
            "vendor",
            Ok("Total: 5"),
        ),
        (
            "Bill by Acme AG (ACM), total 5",
            json!({"vendor": "Acme AG", "total": 5}),
            "vendor",
            Ok("Bill, total 5"),
        ),
        (
            "Items: 3 and 4, total 7",
            json!({"vendor": null, "total": 7, "lines": [{"amount": 3}, {"amount": 4}]}),
            "lines.*.amount",
            Ok("Items: and, total 7"),
        ),
        (
            "Items: 7 and 4, total 7",
            json!({"vendor": null, "total": 7, "lines": [{"amount": 7}, {"amount": 4}]}),
            "lines.amount",
            Err("the same text states total (first: line 1)"),
        ),
        (
            "No name here, total 5",
            json!({"vendor": "Acme AG", "total": 5}),
            "vendor",
            Err("the prompt does not state the value (first: line 1)"),
        ),
        (
            "Acme AG, total 5",
            json!({"vendor": {"$any": ["Acme AG", "ACM"]}, "total": 5}),
            "vendor",
            Err("`expected` has several right answers (first: line 1)"),
        ),
    ] {
        task(folder.path(), &[row(content, &expected)]);
        let done = call_in_process(folder.path(), &["dataset", "hide", ".", field, "100%"]);
        assert_eq!(done.status.code(), Some(0), "{content}: {}", stderr(&done));
        let now = rows_of(&folder.path().join("train.jsonl")).remove(0);
        match left {
            Ok(left) => {
                assert_eq!(now["messages"][0]["content"], left, "{content}");
                assert_eq!(now["tags"], json!(["hidden"]), "{content}");
                assert!(now["expected"].to_string().contains("null"), "{now}");
            }
            Err(why) => {
                assert!(stdout(&done).contains(why), "{content}: {}", stdout(&done));
                assert_eq!(now["messages"][0]["content"], content);
            }
        }
    }
}

#[test]
fn the_share_is_of_rows_that_expect_a_value_and_the_seed_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (0..40)
        .map(|index| {
            let vendor = if index < 30 {
                json!(format!("Firm{index}"))
            } else {
                Value::Null
            };
            row(
                &format!("Vendor: Firm{index}\nTotal: 5"),
                &json!({"vendor": vendor, "total": 5}),
            )
        })
        .collect();
    let file = folder.path().join("train.jsonl");
    let hidden = |seed: &str| -> BTreeSet<usize> {
        task(folder.path(), &rows);
        let words = ["dataset", "hide", ".", "vendor", "20%", "--seed", seed];
        let done = call_in_process(folder.path(), &words);
        assert!(
            stdout(&done).contains("vendor: hidden in 6 of the 30 rows that expect it\n"),
            "{}{}",
            stdout(&done),
            stderr(&done)
        );
        let old = rows_of(&folder.path().join("train.jsonl.bak"));
        assert_eq!(old, rows);
        let new = rows_of(&file);
        (0..rows.len()).filter(|at| new[*at] != rows[*at]).collect()
    };
    let (first, again, other) = (hidden("1"), hidden("1"), hidden("2"));
    assert_eq!((first.len(), &first), (6, &again));
    assert!(first != other && first.iter().all(|at| *at < 30));
}

/// `task check` warns of what a task says and its schema refuses, with the line; and of null that
/// cannot be paid for.
#[test]
fn what_task_and_schema_say_differently_is_a_warning_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let check = |toml: &str, system: &str, expected: &[&str]| {
        task(folder.path(), &[]);
        let schema = r#"{"type": "object", "required": ["currency"], "properties": {"currency": {"enum": ["EUR", "USD"]}}}"#;
        let toml = format!(
            "name = \"t\"\nschema = \"schema.json\"\n{toml}[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"json_schema\"\n"
        );
        let turn = |role: &str, text: &str| json!({"role": role, "content": text});
        let rows = [("Pay 1 EUR", "EUR"), ("Pay 2 USD", "USD")].map(|(text, currency)| {
            json!({"messages": [turn("system", system), turn("user", text)], "expected": {"currency": currency}})
        });
        let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
        for (name, text) in [
            ("task.toml", toml.as_str()),
            ("schema.json", schema),
            ("train.jsonl", &rows),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let checked = call_in_process(folder.path(), &["task", "check", ".", "--json"]);
        let document: Value = serde_json::from_str(&stdout(&checked)).unwrap();
        let warnings: Vec<&str> = document["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|text| text.contains("system message") || text.contains("absent"))
            .collect();
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{warning}");
        }
        assert_eq!(document["ok"], true, "{document}");
    };
    let refused = "the system message lists `GBP` for currency, which the schema refuses (EUR, USD): correct one of the two";
    check("", "Answer in JSON.", &[]);
    check("system = \"currency: EUR or USD\"\n", "JSON.", &[]);
    check(
        "title = \"t\"\nsystem = \"\"\"Answer.\ncurrency: EUR, USD or GBP\"\"\"\n",
        "JSON.",
        &[&format!("task.toml line 5: {refused}")],
    );
    // Once for equal messages.
    check(
        "",
        "currency: EUR, USD or GBP",
        &[&format!("train.jsonl line 1: {refused}")],
    );
    let score = "absent = \"null\"\n";
    let toml = |task: &str| std::fs::write(folder.path().join("task.toml"), task).unwrap();
    toml(&format!(
        "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"json_schema\"\n{score}"
    ));
    let checked = stdout(&call_in_process(folder.path(), &["task", "check", "."]));
    for warning in [
        "`score.absent` has no effect: it changes what a [[reward]] with part = \"fields\" counts",
        "`score.absent` pays for null, which the schema refuses for currency: allow it with `grpo-tui task audit t --write`",
    ] {
        assert!(checked.contains(warning), "{checked}");
    }
}

#[test]
fn what_cannot_be_hidden_is_said_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    task(
        folder.path(),
        &[row(
            "Acme AG, total 5",
            &json!({"vendor": "Acme AG", "total": 5}),
        )],
    );
    for (words, problem) in [
        (
            &["total", "20%"][..],
            "schema.json allows no null at total: write the schema that does with `grpo-tui task audit t --nullable total --write`",
        ),
        (
            &["name", "20%"],
            "no row expects a value at name; fields: vendor, total",
        ),
        (&["vendor"], "vendor: no share after it; write `vendor 20%`"),
        (&["20%"], "20%: write fields, then a share from 0% to 100%"),
        (&["vendor", "120%"], "120%: write fields, then a share"),
        (&["vendor", "20%", "--set", "eval"], "eval"),
    ] {
        let failed = call_in_process(folder.path(), &[&["dataset", "hide", "."], words].concat());
        assert!(
            failed.status.code() != Some(0) && stderr(&failed).contains(problem),
            "{words:?}: {}",
            stderr(&failed)
        );
    }
    assert!(!folder.path().join("train.jsonl.bak").exists());
}
