//! Rows are imported from CSV, JSON and JSONL with a mapping; what does not fit is named with file, line and value.

use grpo_tui::dataset::import::{ImportedRows, MappingText, import, parse_split, split, split_by};
use grpo_tui::score::Task;
use grpo_tui::task::PromptSet;
use serde_json::{Value, json};

use crate::program::{call_in_process, json as document, stderr, stdout};

pub(super) fn mapping(assignments: &[&str]) -> MappingText {
    let mut text = MappingText::default();
    assignments
        .iter()
        .for_each(|assignment| text.set(assignment).unwrap());
    text
}

fn imported(
    name: &str,
    text: &str,
    assignments: &[&str],
    schema: Option<&Value>,
) -> Result<ImportedRows, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let result = import(&path, &mapping(assignments), schema, usize::MAX);
    result.map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn records_become_rows() {
    let schema = json!({"properties": {"vendor": {"type": "string"}, "total": {"type": "number"}, "paid": {"type": ["boolean", "null"]}}});
    let check = |name: &str, text: &str, assignments: &[&str], expected: Value| {
        let found = imported(name, text, assignments, Some(&schema)).unwrap();
        assert_eq!(
            (json!(found.rows), found.problems),
            (expected, Vec::new()),
            "{text}"
        );
    };
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    // As a spreadsheet writes it: a mark, semicolons, quoted line ends, TRUE.
    check(
        "bills.csv",
        "\u{feff}text;vendor;total;paid\r\n\"one;\n\"\"two\"\"\";0071;12.50;TRUE\r\nthree;B;7;\r\n",
        &[],
        json!([
            {"id": "bills-2", "messages": user("one;\n\"two\""), "expected": {"vendor": "0071", "total": 12.5, "paid": true}},
            {"id": "bills-4", "messages": user("three"), "expected": {"vendor": "B", "total": 7, "paid": null}},
        ]),
    );
    check(
        "bills.tsv",
        "key\tbody\tkind\tamount\nx\tHi\ta, b\t3\n",
        &[
            "prompt=Read {{ body | upper }}.",
            "expected=total = amount, by.name = body",
            "id=key",
            "tags=kind",
        ],
        json!([{"id": "x", "messages": user("Read HI."), "expected": {"total": 3, "by": {"name": "Hi"}}, "tags": ["a", "b"]}]),
    );
    check(
        "chat.jsonl",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"U\"},{\"role\":\"assistant\",\"content\":\"{\\\"total\\\": 1}\"}]}\n",
        &[],
        json!([{"id": "chat-1", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}], "expected": {"total": 1}}]),
    );
    check(
        "labels.csv",
        "text,label\nx,Acme\n",
        &[],
        json!([{"id": "labels-2", "messages": user("x"), "expected": {"label": "Acme"}}]),
    );
    // A column whose own name has a dot.
    check(
        "a.csv",
        "text,a.b\nx,7\n",
        &["expected=total = a.b"],
        json!([{"id": "a-2", "messages": user("x"), "expected": {"total": 7}}]),
    );
    check(
        "list.json",
        "[\n  {\"question\": \"Q\",\n   \"answer\": {\"total\": 2}},\n  {\"question\": \"R\", \"id\": 9}\n]",
        &[],
        json!([
            {"id": "list-2", "messages": user("Q"), "expected": {"total": 2}},
            {"id": "9", "messages": user("R")},
        ]),
    );
}

/// Whatever its size, a file takes no more memory than an import may.
#[test]
fn files_of_more_than_an_import_takes_are_refused_before_they_fill_the_memory() {
    let many = format!("text\n{}", "x\n".repeat(1_000_001));
    let many = imported("many.csv", &many, &[], None).unwrap_err();
    assert!(
        many.contains("many.csv: more than 1,000,000 records; import a part"),
        "{many}"
    );
    let lists = format!("[{}{{}}]", "{},".repeat(1_000_000));
    let lists = imported("many.json", &lists, &["prompt={{ x }}"], None).unwrap_err();
    assert!(lists.contains("more than 1,000,000 records"), "{lists}");
    let quote = format!("text,total\n\"{}", "x".repeat(65 << 20));
    let quote = imported("quote.csv", &quote, &[], None).unwrap_err();
    assert!(
        quote.contains("quote.csv line 2: the quote in column 1 is never closed"),
        "{quote}"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "prompt,label\na,1\nb,2\nc,3\n").unwrap();
    let limited = [
        "task",
        "new",
        "t",
        "--data",
        "t.csv",
        "--limit",
        "2",
        "--split",
        "50/50/0",
        "--dry-run",
        "--json",
    ];
    assert_eq!(
        document(&call_in_process(folder.path(), &limited))["first_row"]["expected"],
        1
    );
}

#[test]
fn what_does_not_fit_is_named_with_its_line() {
    let schema = json!({"properties": {"total": {"type": "number"}}});
    let problems = |name: &str, text: &str, assignments: &[&str], expected: &[(usize, &str)]| {
        let found = imported(name, text, assignments, Some(&schema))
            .unwrap()
            .problems;
        let found: Vec<(usize, &str)> = found
            .iter()
            .map(|(line, problem)| (*line, problem.as_str()))
            .collect();
        assert_eq!(found, expected, "{text}");
    };
    problems(
        "a.csv",
        "text,total,id\nx,\"12,50\",1\n,3,2\ny,4,1\nz,5,1\n",
        &["expected=total=total"],
        &[
            (2, "expected: column `total`: `12,50` is not a number"),
            (3, "prompt: the cell is empty"),
            (5, "id `1` is already on line 4"),
        ],
    );
    problems(
        "a.csv",
        "text,answer\nx,Acme\n",
        &["expected=answer"],
        &[(
            2,
            "expected: column `answer` has `Acme`, which is not JSON; to make a column one field of the answer, write `FIELD = COLUMN`",
        )],
    );
    problems(
        "a.jsonl",
        "{\"text\": 7}\n",
        &[],
        &[(
            1,
            "prompt: column `text` has `7`; it must be text or a list of turns",
        )],
    );
    problems(
        "a.jsonl",
        "{\"messages\": 5}\n",
        &[],
        &[(
            1,
            "prompt: column `messages` has `5`; it must be text or a list of turns",
        )],
    );
    let error = |name: &str, text: &str, assignments: &[&str], part: &str| {
        let message = imported(name, text, assignments, None).unwrap_err();
        assert!(message.contains(part), "{message}");
    };
    error(
        "a.csv",
        "text,total\nx,1\ny\n",
        &[],
        "a.csv line 3: 1 cell, but the header names 2 columns; write a",
    );
    error(
        "a.csv",
        "text,total\nx,1,2\n",
        &[],
        "a.csv line 2: 3 cells, but the header names 2 columns; quote cells",
    );
    // The rest of the file would be one cell, whichever column it is in.
    error(
        "a.csv",
        "text,vendor,total\nv,w,1\n\"x,y,2\n",
        &[],
        "a.csv line 3: the quote in column 1 is never closed",
    );
    error(
        "a.csv",
        "text,total\nx,\"1\ny,2",
        &[],
        "a.csv line 2: the quote in column 2 is never closed",
    );
    error(
        "a.csv",
        "text,\"total\nx,1\n",
        &[],
        "a.csv line 1: the quote in column 2 is never closed",
    );
    // The line is that of the quote: not of the record, which begins before, nor of the next quote, which closes it.
    for text in [
        "text,vendor,total\n\n\n\"v\n\",\"w\nx,y,2\n",
        "text,vendor,total\r\n\r\n\r\n\"v\r\n\",\"w\r\nx,y,2",
        "text,vendor,total\r\r\r\"v\r\",\"w\rx,y,2\r",
        "text,vendor,total\na,b,1\nc,d,1\ne,f,1\nv,\"w,2\nx,y,2\nz,\"z\",3\n",
    ] {
        error(
            "a.csv",
            text,
            &[],
            "a.csv line 5: the quote in column 2 is never closed; write",
        );
    }
    error("a.csv", "text,total\n\n\ny\n", &[], "a.csv line 4: 1 cell");
    error(
        "a.csv",
        "text,text\nx,1\n",
        &[],
        "a.csv line 1: two columns are named `text`",
    );
    error("a.csv", "text\n", &[], "a.csv: no records");
    error("a.csv", "", &[], "a.csv line 1: the file is empty");
    error(
        "a.jsonl",
        "{\"text\":\"x\"}\n[1]\n",
        &[],
        "a.jsonl line 2: expected an object, found `[1]`",
    );
    error(
        "a.json",
        "[{\"text\": \"x\"},\n{\"text\": }]",
        &[],
        "a.json line 2: not JSON at column 10 (expected value)",
    );
    error(
        "a.jsonl",
        "{\"text\":\n",
        &[],
        "a.jsonl line 1: not JSON at column 8 (EOF while parsing a value): `{\"text\":`; write one whole JSON object per line",
    );
    error(
        "a.json",
        "{\"text\": \"x\"}",
        &[],
        "a.json line 1: not a list",
    );
    error(
        "a.csv",
        "body\nx\n",
        &["prompt=bodi"],
        "prompt: no column `bodi`; did you mean `body`?; the columns are body",
    );
    error("a.csv", "words\nx\n", &[], "prompt: name a column");
    error("a.csv", "words\nx\n", &["prompt={{ words"], "prompt: ");
    error("a.txt", "words\nx\n", &[], "unknown kind of file");
}

#[test]
fn rows_of_one_prompt_come_into_one_set_and_every_row_into_one() {
    let row = |prompt: usize, number: usize| {
        json!({"id": format!("{number}"), "messages": [{"role": "user", "content": format!("p{prompt}")}]})
            .as_object()
            .cloned()
            .unwrap()
    };
    let check = |prompts: usize, shares: &str, expected: [usize; 3]| {
        let rows: Vec<_> = (0..prompts * 3)
            .map(|number| row(number % prompts, number))
            .collect();
        let sets = split(rows, parse_split(shares).unwrap());
        assert_eq!(
            sets.each_ref().map(|(_, rows)| rows.len() / 3),
            expected,
            "{prompts} {shares}"
        );
        assert!(
            sets.iter().all(|(_, rows)| rows.len() % 3 == 0),
            "{prompts} {shares}"
        );
    };
    check(100, "80/10/10", [80, 10, 10]);
    check(10, "80/10/10", [8, 1, 1]);
    check(3, "80/10/10", [1, 1, 1]);
    check(1, "80/10/10", [1, 0, 0]);
    check(5, "0/0/100", [0, 0, 5]);
    for wrong in ["80/10", "80/10/11", "a/b/c", "80/10/10/0", ""] {
        assert!(parse_split(wrong).is_err(), "{wrong}");
    }
}

fn tickets(rows: usize) -> String {
    let kinds = ["bug", "billing", "question"];
    let line = |number: usize| {
        format!(
            "Ticket number {number},{},{}\n",
            kinds[number % 3],
            number % 5
        )
    };
    "body,category,priority\n".to_owned() + &(0..rows).map(line).collect::<String>()
}

#[test]
fn a_task_is_made_of_a_csv_file_and_grows_by_imports() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("tickets.csv"), tickets(60)).unwrap();
    let data = [
        "--data",
        "tickets.csv",
        "--map",
        "expected=category, priority",
    ];
    let new = |extra: &[&str]| {
        call_in_process(
            folder.path(),
            &[&["task", "new", "tickets"], &data[..], extra].concat(),
        )
    };
    let shown = new(&["--dry-run"]);
    assert!(
        stdout(&shown).contains("prompt=body  expected=category, priority")
            && !at("tasks").exists(),
        "{}",
        stdout(&shown)
    );
    let made = document(&new(&["--json"]));
    assert_eq!(
        (&made["rows"], &made["problems"]),
        (&json!({"train": 48, "eval": 6, "test": 6}), &json!([]))
    );
    assert!(made["embedded_model"].as_str().unwrap().contains("tiny"));
    let task = Task::load(&at("tasks/tickets")).unwrap();
    assert_eq!(
        task.schema().unwrap()["properties"],
        json!({"category": {"type": "string", "enum": ["bug", "billing", "question"]}, "priority": {"type": "integer"}})
    );
    assert!(
        task.system
            .as_deref()
            .unwrap()
            .contains("category (bug, billing, question), priority (integer)")
    );
    let check = document(&call_in_process(
        folder.path(),
        &["task", "check", "tickets", "--json"],
    ));
    assert_eq!(
        (&check["ok"], &check["sets"]["train"]["expected"]),
        (&json!(true), &json!(48))
    );
    // Once more is refused, and leaves everything as it is.
    assert_eq!(new(&[]).status.code(), Some(1));
    std::fs::write(at("more.csv"), tickets(3).replace("Ticket", "Letter")).unwrap();
    let import = |extra: &[&str]| {
        call_in_process(
            folder.path(),
            &[
                &[
                    "dataset",
                    "import",
                    "tickets",
                    "more.csv",
                    "--map",
                    "prompt=body",
                ],
                extra,
            ]
            .concat(),
        )
    };
    assert!(stdout(&import(&["--dry-run"])).contains("nothing written"));
    assert!(import(&[]).status.success());
    let rows =
        |set| grpo_tui::dataset::load(&Task::load(&at("tasks/tickets")).unwrap(), set).unwrap();
    assert_eq!(rows(PromptSet::Train).len(), 51);
    let last = &rows(PromptSet::Train)[50];
    assert_eq!(
        (last.id.as_str(), last.expected.as_ref().unwrap()),
        ("more-4", &json!({"category": "question", "priority": 2}))
    );
    let again = import(&[]);
    assert!(
        stderr(&again)
            .contains("train.jsonl line 49: id `more-2` of the imported rows already exists"),
        "{}",
        stderr(&again)
    );
    // A bad cell stops the import, unless it is left out.
    std::fs::write(
        at("more.csv"),
        "body,category,priority\nx,bug,high\ny,bug,2\n",
    )
    .unwrap();
    let bad = import(&["--set", "eval"]);
    assert!(
        stderr(&bad)
            .contains("more.csv line 2: expected: column `priority`: `high` is not an integer"),
        "{}",
        stderr(&bad)
    );
    assert!(
        stderr(&bad).ends_with(
            "error: 1 record is not a valid row, nothing was written; correct it, change the mapping (--map), or add --skip-invalid\n"
        ),
        "{}",
        stderr(&bad)
    );
    assert_eq!(rows(PromptSet::Eval).len(), 6);
    let added = import(&["--set", "eval", "--skip-invalid"]);
    assert!(
        stdout(&added).contains("eval.jsonl: 1 row added"),
        "{}",
        stdout(&added)
    );
    assert_eq!(rows(PromptSet::Eval).len(), 7);
    assert!(
        stderr(&call_in_process(
            folder.path(),
            &[
                "dataset",
                "import",
                "invoice",
                "more.csv",
                "--map",
                "prompt=body"
            ]
        ))
        .contains("embedded")
    );
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn an_import_that_is_killed_leaves_all_sets_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    crate::program::sample_task(&here.join("task"), [2, 2, 2]);
    let rows = |count: usize| {
        (0..count).map(|number| format!("{{\"prompt\":\"p{number}\",\"expected\":{{}}}}\n"))
    };
    std::fs::write(here.join("new.jsonl"), rows(30).collect::<String>()).unwrap();
    let sets =
        ["train.jsonl", "eval.jsonl", "eval-large.jsonl"].map(|file| here.join("task").join(file));
    let texts = || {
        sets.clone()
            .map(|file| std::fs::read_to_string(file).unwrap())
    };
    let before = texts();
    let arguments = [
        "dataset",
        "import",
        "task",
        "new.jsonl",
        "--split",
        "60/20/20",
        "--replace",
    ];
    for file in ["train.jsonl", "eval.jsonl", "eval-large.jsonl"] {
        let mut import = crate::program::program(here, &arguments);
        let killed = import
            .env("GRPO_TUI_FAULT", format!("replace.written={file}:1"))
            .output()
            .unwrap();
        assert!(!killed.status.success(), "{file}: {}", stdout(&killed));
        assert!(texts() == before, "killed when {file} was written");
    }
    assert!(call_in_process(here, &arguments).status.success());
    assert!(
        texts()
            .iter()
            .zip(&before)
            .all(|(now, before)| now != before)
    );
}

/// Published data sets with a schema a row, in the columns that they have.
#[test]
fn data_sets_with_a_schema_a_row_are_imported_as_they_are() {
    let schema = json!({"title": "Point", "type": "object", "required": ["x"]});
    let text = schema.to_string();
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let asks = format!("Write a JSON value that this JSON Schema accepts:\n\n{text}");
    let check = |record: Value, maps: &[&str], expected: Value| {
        let found = imported("bench.jsonl", &record.to_string(), maps, None).unwrap();
        assert_eq!(found.problems, [], "{record}");
        assert_eq!(found.rows.len(), 1, "{record}");
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(found.rows[0].get(name), Some(value), "{name} of {record}");
        }
    };
    // huggingface.co/datasets/epfl-dlab/JSONSchemaBench: schemas without prompts.
    check(
        json!({"json_schema": text, "unique_id": "Github_easy---o1"}),
        &[],
        json!({"id": "Github_easy---o1", "messages": user(&asks), "schema": schema}),
    );
    // NVIDIA-NeMo/Gym, resources_servers/structured_outputs: the column was `schema` before it was `schema_str`.
    for column in ["schema", "schema_str"] {
        check(
            json!({"responses_create_params": {"input": [{"role": "user", "content": "Doc"}]}, column: text, "schema_type": "json", "schema_fields_count": "1"}),
            &[],
            json!({"messages": user("Doc"), "schema": schema, "schema_type": "json"}),
        );
    }
    // thunlp/SchemaReinforcementLearning (SchemaBench), schemabench/data/translation_test.jsonl.
    check(
        json!({"model_schema": {"type": "object"}, "special_token": "a\\b", "verify_schema": schema}),
        &["prompt=Remember {{ special_token }}. Schema: {{ model_schema | tojson }}"],
        json!({"messages": user("Remember a\\b. Schema: {\"type\": \"object\"}"), "schema": schema}),
    );
    // Its train set has verl's columns.
    check(
        json!({"prompt": [{"role": "user", "content": "Doc"}], "reward_model": {"ground_truth": text, "style": "rule"}}),
        &["schema=reward_model.ground_truth"],
        json!({"messages": user("Doc"), "schema": schema}),
    );
    let format = json!({"type": "json_schema", "json_schema": {"name": "point", "schema": schema}});
    check(
        json!({"prompt": "Doc", "format": format}),
        &["schema=format"],
        json!({"messages": user("Doc"), "response_format": format}),
    );
    // A column of this name that is something else stays as it is.
    check(
        json!({"prompt": "Doc", "schema": "public"}),
        &[],
        json!({"messages": user("Doc"), "schema": "public"}),
    );
    let fails = |record: Value, problem: &str| {
        let maps = ["schema=s", "prompt=prompt"];
        let found = imported("b.jsonl", &record.to_string(), &maps, None).unwrap();
        assert_eq!(found.rows.len(), 0);
        let (line, said) = &found.problems[0];
        assert!(*line == 1 && said.starts_with(problem), "{said}");
    };
    fails(
        json!({"prompt": "x", "s": "public"}),
        "schema: column `s` has `\"public\"`, which is not a JSON Schema",
    );
    fails(json!({"prompt": "x", "s": 7}), "schema: column `s` has `7`");
    fails(
        json!({"prompt": "x", "s": "{}", "schema_type": "xml"}),
        "schema_type: `xml`",
    );
}

#[test]
fn a_task_of_rows_with_schemas_is_made_checked_and_split_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let record = |index: usize| {
        let schema = json!({"title": format!("S{}", index % 10), "type": "object", "required": [format!("f{}", index % 10)]});
        let line = json!({"json_schema": schema.to_string(), "unique_id": format!("r{index}")});
        format!("{line}\n")
    };
    std::fs::write(
        here.join("bench.jsonl"),
        (0..40).map(record).collect::<String>(),
    )
    .unwrap();
    let call = |arguments: &[&str]| {
        let output = call_in_process(here, arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    };
    call(&[
        "task",
        "new",
        "bench",
        "--data",
        "bench.jsonl",
        "--out",
        "bench",
    ]);
    call(&["task", "check", "bench"]);
    let schemas_of = |set: &str| -> std::collections::BTreeSet<String> {
        let text =
            std::fs::read_to_string(here.join("bench").join(format!("{set}.jsonl"))).unwrap();
        let schema =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["schema"].to_string();
        text.lines().map(schema).collect()
    };
    let sets = ["train", "eval", "test"];
    let split = [
        "dataset", "split", "bench", "--by", "schema", "--split", "60/20/20",
    ];
    let before = sets.map(schemas_of);
    call(&[&split[..], &["--dry-run"]].concat());
    assert_eq!(sets.map(schemas_of), before);
    call(&split);
    let after = sets.map(schemas_of);
    assert_eq!(
        after.iter().map(|own| own.len()).collect::<Vec<_>>(),
        [6, 2, 2]
    );
    let all: std::collections::BTreeSet<&String> = after.iter().flatten().collect();
    assert_eq!(all.len(), 10, "no schema is in two sets");
    let invoice = call_in_process(here, &["dataset", "split", "invoice", "--by", "schema"]);
    assert!(
        stderr(&invoice).contains("the rows have one schema"),
        "{}",
        stderr(&invoice)
    );
}

#[test]
fn rows_are_split_by_keys_of_unequal_frequency() {
    // Rows of each key, shares, and the most rows that each held-out set may get.
    let check = |counts: &[usize], shares: &str, most: [usize; 2]| {
        let rows: Vec<_> = counts
            .iter()
            .enumerate()
            .flat_map(|(key, count)| vec![key; *count])
            .map(|key| json!({"key": key}).as_object().cloned().unwrap())
            .collect();
        let total = rows.len();
        let key = |row: &serde_json::Map<String, Value>| row["key"].as_u64().unwrap();
        let sets = split_by(rows, parse_split(shares).unwrap(), key);
        let keys = sets.each_ref().map(|(_, rows)| {
            rows.iter()
                .map(key)
                .collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(
            keys.iter().map(|own| own.len()).sum::<usize>(),
            counts.len(),
            "no key is in two sets"
        );
        let rows = sets.each_ref().map(|(_, rows)| rows.len());
        assert_eq!(rows.iter().sum::<usize>(), total);
        assert!(rows.iter().all(|rows| *rows > 0), "{counts:?}: {rows:?}");
        assert!(
            rows[1] <= most[0] && rows[2] <= most[1],
            "{counts:?}: {rows:?}"
        );
    };
    check(&[90, 5, 5], "80/10/10", [10, 10]);
    check(&[5, 90, 5], "80/10/10", [10, 10]);
    check(&[1; 40], "80/10/10", [4, 4]);
    check(&[40, 30, 20, 10], "50/25/25", [25, 25]);
    // None is small enough: the smallest is taken.
    check(&[50, 60, 70], "80/10/10", [60, 60]);
}
