//! The audit names schemas that lazy answers satisfy, and values that the reward does not compare.

use grpo_tui::dataset::PromptRow;
use grpo_tui::page::text::render;
use grpo_tui::score::audit::{Finding, audit, page};
use grpo_tui::score::mutants::{MutationCell, MutationReport, mutation_report};
use grpo_tui::score::{LabelledField, Scorer, Task, labelled_fields, tag_rows};

use super::{folder_with, row};

/// Schema, lines of `task.toml`, and the lazy answers that are too easy.
fn check(schema: &str, lines: &str, weak: &[&str]) {
    let folder = folder_with(schema, lines);
    let task = Task::load(folder.path()).unwrap();
    let mut rows = vec![row(r#"{"a":"x"}"#), row(r#"{"a":"y"}"#)];
    rows[0].messages.push(
        serde_json::from_str(r#"{"role":"user","content":"Like {\"a\":\"example\"}: x"}"#).unwrap(),
    );
    let findings = audit(&task, &Scorer::new(&task).unwrap(), &rows);
    let found: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.weak)
        .map(|finding| finding.name.as_str())
        .collect();
    assert_eq!(found, weak, "{schema}");
}

#[test]
fn weak_schemas_are_named() {
    let closed = r#""type":"object","required":["a"],"additionalProperties":false"#;
    check(
        "{}",
        "",
        &[
            "an empty object",
            "an empty list",
            "null",
            "an empty string",
            "zero",
            "one answer for every prompt",
        ],
    );
    check(
        &format!(r#"{{{closed},"properties":{{"a":{{"type":"string"}}}}}}"#),
        "",
        &["empty strings and zeros", "one answer for every prompt"],
    );
    check(
        &format!(r#"{{{closed},"properties":{{"a":{{"type":"string","minLength":3}}}}}}"#),
        "",
        &["the minimum that the schema requires"],
    );
    check(
        &format!(r#"{{{closed},"properties":{{"a":{{"enum":["x","y"]}}}}}}"#),
        "",
        &[
            "the minimum that the schema requires",
            "one answer for every prompt",
        ],
    );
    check(
        &format!(r#"{{{closed},"properties":{{"a":{{"enum":["x","y"]}}}}}}"#),
        "[[reward]]\npart = \"exact\"\nweight = 1.0\n",
        &[],
    );
}

#[test]
fn code_that_suppresses_its_findings_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let audited = |file: &str| {
        let toml = format!(
            "name = \"t\"\n[score]\nkind = \"code\"\nfile = \"{file}\"\ncommand = [\"grep\", \"-q\", \"{{file}}\"]\n"
        );
        std::fs::write(folder.path().join("task.toml"), toml).unwrap();
        std::fs::write(folder.path().join("train.jsonl"), "").unwrap();
        let trusted = crate::program::call(folder.path(), &["task", "trust", ".", "--yes"]);
        assert!(trusted.status.success());
        let audit = crate::program::call(folder.path(), &["task", "audit", ".", "--json"]);
        let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
        let findings = audit["findings"].as_array().unwrap().clone();
        findings
            .into_iter()
            .find(|finding| finding["name"] == "a suppressed finding")
            .map(|finding| finding["completion"].clone())
    };
    assert!(
        audited("a.sh")
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("# shellcheck disable=all")
    );
    assert!(
        audited("a.py")
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("# ruff: noqa")
    );
    assert_eq!(audited("a.txt"), None);
}

#[test]
fn the_sentence_says_what_to_do() {
    let task = Task::embedded("invoice").unwrap();
    let findings = audit(&task, &Scorer::new(&task).unwrap(), &[]);
    let sentence = |name: &str| {
        findings
            .iter()
            .find(|finding| finding.name == name)
            .unwrap()
            .sentence
            .clone()
    };
    assert_eq!(
        sentence("an empty object"),
        "`{}` earns 0.50: the schema rejects it"
    );
    assert_eq!(
        sentence("empty strings and zeros"),
        "`{\"vendor\":\"\",\"date\":\"\",\"amount\":0,\"currency\":\"\"}` is valid but earns only 1.00 of 2.00: the weighted parts limit it"
    );
}

#[test]
fn the_audit_of_large_schemas_and_recursive_ones_ends() {
    let properties: serde_json::Map<_, _> = (0..10_000)
        .map(|key| (format!("key{key}"), serde_json::json!({"type": "string"})))
        .collect();
    let required: Vec<&String> = properties.keys().collect();
    let large =
        serde_json::json!({"type": "object", "required": required, "properties": properties});
    let this = serde_json::json!({"$ref": "#"});
    let properties: serde_json::Map<_, _> = (0..40)
        .map(|key| (format!("k{key}"), this.clone()))
        .collect();
    let recursive = serde_json::json!({"type": "object", "required": properties.keys().collect::<Vec<_>>(), "properties": properties});
    let lists = serde_json::json!({"type": "array", "minItems": 1000, "items": this});
    let inner = serde_json::json!({"type": "array", "minItems": 18, "items": {"type": "array", "minItems": 1000}});
    let free = serde_json::json!({"type": "array", "minItems": 1000, "items": inner});
    for schema in [large, recursive, lists, free] {
        let folder = folder_with(&schema.to_string(), "[score]\ngraded = true\n");
        let task = Task::load(folder.path()).unwrap();
        let rows = vec![row("{}"); 500];
        assert!(!audit(&task, &Scorer::new(&task).unwrap(), &rows).is_empty());
    }
}

/// Names, answers and tiers of a task's degenerate answers; weak ones have a mark.
fn lazy_answers(files: &[(&str, &str)], rows: &[PromptRow]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let task = Task::load(folder.path()).unwrap();
    let findings = audit(&task, &Scorer::new(&task).unwrap(), rows);
    let line = |finding: &Finding| {
        let Finding {
            name,
            completion,
            tier,
            ..
        } = finding;
        format!(
            "{name}: {completion:?} {}{}",
            tier.name(),
            if finding.weak { " weak" } else { "" }
        )
    };
    findings.iter().map(line).collect()
}

#[test]
fn each_kind_has_lazy_answers_of_its_own() {
    let rows = |all: [&str; 3]| {
        let mut rows = all.map(row);
        rows.iter_mut().for_each(|row| {
            row.messages
                .push(serde_json::from_str(r#"{"role": "user", "content": "Which?"}"#).unwrap());
        });
        rows
    };
    let check = |files: &[(&str, &str)], all: [&str; 3], expected: &[&str]| {
        let found = lazy_answers(files, &rows(all));
        for line in expected {
            assert!(
                found.iter().any(|found| found == line),
                "{line}: {found:#?}"
            );
        }
    };
    let text = "name = \"t\"\n[score]\nkind = \"text\"";
    check(
        &[("task.toml", text)],
        ["\"no\"", "\"yes\"", "\"yes\""],
        &[
            "an empty answer: \"\" unparsable",
            "the prompt itself: \"Which?\" invalid",
            "one answer for every prompt: \"yes\" invalid",
        ],
    );
    let regex = "name = \"t\"\n[score]\nkind = \"regex\"\npattern = '^[A-Z]{2}-\\d+$'";
    check(
        &[("task.toml", regex)],
        ["\"AB-1\"", "\"AB-2\"", "\"AB-2\""],
        &[
            "an empty answer: \"\" unparsable",
            "a shortest match: \"XX-0\" valid weak",
            "the prompt itself: \"Which?\" invalid",
            "one answer for every prompt: \"AB-2\" valid weak",
        ],
    );
    let sql = "name = \"t\"\nschema = \"s.sql\"\n[score]\nkind = \"sql\"\n[[reward]]\npart = \"exact\"\nweight = 1";
    let tables = "CREATE TABLE \"a \"\"b\"\"\" (id); CREATE TABLE c (id); INSERT INTO c VALUES (1)";
    check(
        &[("task.toml", sql), ("s.sql", tables)],
        ["\"SELECT id FROM c\"", "\"SELECT 2\"", "\"SELECT 2\""],
        &[
            "an empty answer: \"\" unparsable",
            "a constant: \"SELECT 1\" valid",
            "all of the first table: \"SELECT * FROM \\\"a \\\"\\\"b\\\"\\\"\\\"\" valid",
            "one answer for every prompt: \"SELECT 2\" valid",
        ],
    );
    let calls = "name = \"t\"\n[score]\nkind = \"tool_calls\"\ntools = \"t.json\"";
    let tools = r#"[{"name": "find", "parameters": {"type": "object", "required": ["q"], "properties": {"q": {"enum": ["a"]}}}}]"#;
    check(
        &[("task.toml", calls), ("t.json", tools)],
        ["[]", "[]", "[]"],
        &[
            "no call: \"[]\" valid weak",
            "the first tool without arguments: \"<tool_call>\\n{\\\"name\\\": \\\"find\\\", \\\"arguments\\\": {}}\\n</tool_call>\" invalid",
            "the first tool with the least arguments: \"<tool_call>\\n{\\\"name\\\": \\\"find\\\", \\\"arguments\\\": {\\\"q\\\": \\\"a\\\"}}\\n</tool…\" valid weak",
        ],
    );
}

/// What the prompts state, the expected values of `a`, and what is said of them.
#[test]
fn labels_that_their_prompt_does_not_state_are_named() {
    let text = r#"{"type":"string"}"#;
    let nullable = r#"{"type":["string","null"]}"#;
    let class = r#"{"enum":["Acme","Bolt","Cord","Dyne"]}"#;
    let names = [r#""Acme""#, r#""Bolt""#, r#""Cord""#, r#""Dyne""#];
    let stated = ["Acme 7", "Bolt 7", "Cord 7", "Dyne 7"];
    let missed = ["Acme 7", "7 only", "Cord 7", "Dyne 7"];
    let unstated = "a: 1 of 4 prompts do not state the expected value, line 2 (`\"Bolt\"`): correct these rows, or expect null there if the schema allows it";
    let spelled = [r#""Acme""#, r#""Bolt""#, r#""acme""#, r#""Dyne""#];
    let spellings = "a: `Acme` (line 1) and `acme` (line 3) differ in case alone: one label with two spellings, of which an answer can match one; write one";
    let null = [r#""Acme""#, "null", r#""Cord""#, r#""Dyne""#];
    let except = "[score.grounded]\nexcept = [\"a\"]\n";
    for (schema, lines, prompts, expected, said) in [
        (text, "", stated, names, &[][..]),
        (text, "", missed, names, &[unstated]),
        (nullable, "", missed, names, &[unstated]),
        (nullable, "", missed, null, &[]),
        // One value in all rows is learned without its prompt.
        (text, "", missed, [r#""Acme""#; 4], &[]),
        // A class, and a field that is said to be computed.
        (class, "", missed, names, &[]),
        (text, except, missed, names, &[]),
        (text, "", ["7"; 4], names, &[]),
        (text, "", ["7"; 4], spelled, &[spellings]),
    ] {
        let schema =
            format!(r#"{{"type":"object","properties":{{"a":{schema},"n":{{"type":"number"}}}}}}"#);
        let folder = folder_with(&schema, lines);
        let task = Task::load(folder.path()).unwrap();
        let row = |(line, (text, value)): (usize, (&str, &str))| {
            let mut row = row(&format!(r#"{{"a":{value},"n":7}}"#));
            let message = serde_json::json!({"role": "user", "content": text});
            row.messages = vec![serde_json::from_value(message).unwrap()];
            row.line = line + 1;
            row
        };
        let rows: Vec<_> = prompts
            .into_iter()
            .zip(expected)
            .enumerate()
            .map(row)
            .collect();
        let fields = labelled_fields(&task, &rows);
        let found: Vec<String> = fields.iter().flat_map(LabelledField::problems).collect();
        assert_eq!(found, said, "{schema} {prompts:?} {expected:?}");
        let mut tagged = rows.clone();
        tag_rows(&task, &mut tagged);
        let tags: Vec<&str> = tagged
            .iter()
            .flat_map(|row| &row.tags)
            .map(|tag| &**tag)
            .collect();
        let read = "label in the prompt";
        let expected = match said
            .iter()
            .any(|sentence| sentence.contains("do not state"))
        {
            true => vec![read, "label not in the prompt", read, read],
            false => vec![],
        };
        assert_eq!(tags, expected, "{schema} {prompts:?}");
    }
}

const ROWS: [&str; 3] = [
    r#"{"kind":"a","amount":41.5,"lines":[{"sku":"A1","n":2},{"sku":"B2","n":3}]}"#,
    r#"{"kind":"b","amount":1200,"lines":[{"sku":"C3","n":4},{"sku":"D4","n":5}]}"#,
    r#"{"kind":"a","amount":77.25,"lines":[{"sku":"E5","n":6},{"sku":"F6","n":7}]}"#,
];
const CLOSED: &str = r#"{"type":"object","required":["kind","amount","lines"],"additionalProperties":false,"properties":{
    "kind":{"enum":["a","b"]},"amount":{"type":"number"},"lines":{"type":"array","items":{"type":"object",
    "required":["sku","n"],"additionalProperties":false,"properties":{"sku":{"type":"string"},"n":{"type":"integer"}}}}}}"#;
const BY_FIELD: &str = "[[reward]]\npart = \"fields\"\nweight = 1.0\n";

/// Mutants of a field that survive, and that are equal by rule: `amount: last digit off 3`.
fn mutants(schema: &str, lines: &str) -> (Vec<String>, Vec<String>, MutationReport) {
    let folder = folder_with(schema, lines);
    let task = Task::load(folder.path()).unwrap();
    let rows: Vec<PromptRow> = (1..)
        .zip(ROWS)
        .map(|(line, expected)| PromptRow {
            line,
            ..row(expected)
        })
        .collect();
    let scorer = Scorer::new(&task).unwrap();
    let made = || {
        mutation_report(&task, &scorer, &rows, None, &|| true)
            .unwrap()
            .unwrap()
    };
    let report = made();
    assert_eq!(report, made(), "the same mutants each time");
    assert_eq!((report.rows, report.left_out), (3, 0));
    let named = |count: fn(&MutationCell) -> usize| {
        let cells = report.cells.iter().filter(|cell| count(cell) > 0);
        cells
            .map(|cell| format!("{}: {}", cell.field, cell.mutation.name()))
            .collect::<Vec<_>>()
    };
    (
        named(|cell| cell.survivors),
        named(|cell| cell.equal_by_rule),
        report.clone(),
    )
}

#[test]
fn a_reward_that_compares_every_value_has_no_surviving_mutant() {
    let exact = format!("{BY_FIELD}[[reward]]\npart = \"exact\"\nweight = 1.0\n");
    let (survive, equal, report) = mutants(CLOSED, &exact);
    assert_eq!((survive, equal), (vec![], vec![]));
    assert_eq!(report.score(), Some(1.0));
    // Order does not count for `fields`, unless it says so.
    let (survive, equal, _) = mutants(CLOSED, BY_FIELD);
    assert_eq!(
        (survive, equal),
        (vec![], vec!["lines: reordered".to_owned()])
    );
    let ordered = format!("[score.fields]\nordered = [\"lines\"]\n{BY_FIELD}");
    let (survive, equal, _) = mutants(CLOSED, &ordered);
    assert_eq!((survive, equal), (vec![], vec![]));
}

#[test]
fn mutants_of_a_weak_reward_survive() {
    // A reward for what parses: every mutant.
    let (_, _, report) = mutants("{}", "");
    assert_eq!(
        report.survivors(),
        report.mutants() - report.equal_by_rule()
    );
    assert_eq!(report.score(), Some(0.0));
    // For what the schema accepts.
    let (survive, _, report) = mutants(CLOSED, "");
    let of_amount: Vec<&String> = survive
        .iter()
        .filter(|name| name.starts_with("amount"))
        .collect();
    assert_eq!(
        of_amount,
        [
            "amount: first digit off",
            "amount: last digit off",
            "amount: times 100",
            "amount: another row's value"
        ]
    );
    assert!(
        report
            .advice
            .is_some_and(|advice| advice.contains("`[[reward]]`"))
    );
    // A tolerance that takes another value, or another unit, for the right one.
    let check = |tolerance: &str, expected: &[&str]| {
        let lines = format!("[score.tolerance]\namount = {tolerance}\n{BY_FIELD}");
        let (survive, equal, _) = mutants(CLOSED, &lines);
        assert_eq!(survive, expected, "{tolerance}");
        assert!(
            equal.contains(&"amount: last digit off".to_owned()),
            "{equal:?}"
        );
    };
    check("1", &[]);
    check("20", &["amount: first digit off"]);
    check(
        "1e6",
        &[
            "amount: first digit off",
            "amount: times 100",
            "amount: another row's value",
        ],
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_that_ignores_a_field_is_found_by_its_mutants() {
    let ignores_amount = r#"
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    found, wanted = json.loads(asked["completion"]), dict(asked["row"]["expected"])
    for value in (found, wanted):
        value.pop("amount", None)
    print(json.dumps({"id": asked["id"], "tier": "valid" if found == wanted else "invalid"}), flush=True)
"#;
    let accepts_all = r#"
import json, sys
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "score": 1}), flush=True)
"#;
    let check = |program: &str, is_found: fn(&str) -> bool, code: i32| {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "task.toml",
            "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"command\"\ncommand = [\"python3\", \"scorer.py\"]\n",
        );
        write("scorer.py", program);
        let line = |expected: &str| {
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"u\"}}],\"expected\":{expected}}}\n"
            )
        };
        write("train.jsonl", &ROWS.map(line).concat());
        let call = |arguments: &[&str]| crate::program::call(folder.path(), arguments);
        assert!(call(&["task", "trust", ".", "--yes"]).status.success());
        let output = call(&["task", "audit", ".", "--mutants", "--json"]).stdout;
        let document: serde_json::Value = serde_json::from_slice(&output).unwrap();
        let cells = document["mutants"]["cells"].as_array().unwrap();
        assert!(cells.len() > 20, "{document}");
        for cell in cells {
            let field = cell["field"].as_str().unwrap();
            let all = cell["mutants"].as_u64().unwrap();
            let expected = if is_found(field) { all } else { 0 };
            assert_eq!(cell["survivors"], expected, "{cell}");
        }
        let limited = call(&["task", "audit", ".", "--mutants", "--fail-under", "0.5"]);
        assert_eq!(limited.status.code(), Some(code));
    };
    check(ignores_amount, |field| field == "amount", 0);
    check(accepts_all, |_| true, 3);
}

#[test]
fn what_cannot_be_broken_is_said() {
    let said = |lines: &str, rows: &[PromptRow]| {
        let folder = folder_with(CLOSED, lines);
        let task = Task::load(folder.path()).unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let found = mutation_report(&task, &scorer, rows, None, &|| true);
        found.unwrap_err().to_string()
    };
    assert!(said("", &[]).starts_with("no row has an `expected`"));
    let wrong = said("", &[row(r#"{"kind":"c"}"#)]);
    assert!(
        wrong.starts_with("line 1: the scorer does not accept"),
        "{wrong}"
    );
}

#[test]
fn answers_that_the_scorer_fails_on_earn_nothing_that_is_known() {
    let folder = folder_with("{\"type\":\"object\",\"required\":[\"a\"]}", "");
    let task = Task::load(folder.path()).unwrap();
    let rows = [row(r#"{"a":"x"}"#), row(r#"{"a":"y"}"#)];
    let mut findings = audit(&task, &Scorer::new(&task).unwrap(), &rows);
    findings.retain(|finding| !finding.weak);
    assert!(findings.len() > 1, "{findings:?}");
    let shown = |findings: &[Finding]| render(&page(&task, findings));
    let all = shown(&findings);
    assert!(
        all.contains("no degenerate answer scores") && !all.contains("n/a"),
        "{all}"
    );
    findings[0].reward = f64::NAN;
    let some = shown(&findings);
    assert!(
        some.contains("no degenerate answer that could be scored scores")
            && some.contains("(not scored)")
            && some.contains("n/a")
            && !some.contains("NaN"),
        "{some}"
    );
    findings
        .iter_mut()
        .for_each(|finding| finding.reward = f64::NAN);
    let none = shown(&findings);
    assert!(
        none.contains("no degenerate answer could be scored: the scorer fails on each"),
        "{none}"
    );
}
