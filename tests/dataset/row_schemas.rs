//! Rows with their own schema: what evals tell apart.

use grpo_tui::dataset;
use grpo_tui::score::Task;
use grpo_tui::task::PromptSet;

#[test]
fn rows_are_tagged_by_schema_and_by_whether_train_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("schema.json", "{}");
    write(
        "task.toml",
        "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\ntest = \"test.jsonl\"",
    );
    let tags = |train: &[&str], test: &[&str]| -> Vec<Vec<String>> {
        let line = |fields: &&str| {
            format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"x\"}}]{fields}}}\n")
        };
        write("train.jsonl", &train.iter().map(line).collect::<String>());
        write("test.jsonl", &test.iter().map(line).collect::<String>());
        let task = Task::load(folder.path()).unwrap();
        let mut rows = dataset::load(&task, PromptSet::Test).unwrap();
        task.tag_schemas(&mut rows);
        rows.into_iter().map(|row| row.tags).collect()
    };
    let (none, a) = ("", r#", "schema": {"title": "A", "type": "object"}"#);
    let (b, as_text) = (
        r#", "schema": {"title": "B"}"#,
        r#", "schema": "{\"title\": \"A\", \"type\": \"object\"}""#,
    );
    let same_title = r#", "schema": {"title": "A", "type": "array"}"#;
    let (seen, unseen) = (
        "schema seen in train".to_owned(),
        "schema unseen in train".to_owned(),
    );
    let named = |name: &str| format!("schema {name}");
    // One schema, whether it is the task's or a row's: nothing to tell apart.
    assert!(tags(&[none], &[none]).concat().is_empty());
    assert!(tags(&[a], &[a, as_text]).concat().is_empty());
    assert_eq!(tags(&[a], &[b]), [vec![unseen.clone()]]);
    assert_eq!(tags(&[a, b], &[a, b]), [vec![named("A")], vec![named("B")]]);
    assert_eq!(
        tags(&[as_text], &[a, none]),
        [vec![named("A"), seen], vec![named("of the task"), unseen]]
    );
    let apart = tags(&[a, same_title], &[a, same_title]);
    assert_eq!(apart[0], [named("A")]);
    assert!(apart[1][0].starts_with("schema A "), "{apart:?}");
    // More than can be shown: none is named.
    let many: Vec<String> = (0..=20)
        .map(|index| format!(r#", "schema": {{"title": "{index}"}}"#))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(tags(&many, &many).concat().is_empty());
}

#[test]
fn what_is_wrong_with_a_rows_schema_is_one_sentence_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("schema.json", "{}");
    write(
        "task.toml",
        "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"",
    );
    let long = format!(r#""schema": {{"title": "{}"}}"#, "x".repeat(5 << 20));
    let unscored = "answers to 1 of 2 rows cannot be scored, first on line 2: `schema` of the row";
    let refused =
        "1 of 1 expected answers are invalid: missing key 1; first on line 2: missing key \"a\"";
    for (fields, said, why) in [
        (
            r#""schema": {"type": "strin"}"#,
            unscored,
            "\"strin\" is not a type",
        ),
        (
            r#""schema": {"$ref": "https://example.org/s.json"}"#,
            unscored,
            "https://example.org/s.json",
        ),
        (
            r##""schema": {"$ref": "#/$defs/none"}"##,
            unscored,
            "/$defs/none",
        ),
        (
            r#""schema": {"pattern": "("}"#,
            unscored,
            "not a valid regular expression",
        ),
        (
            r#""schema": "none.json""#,
            unscored,
            "nor a readable file of the task",
        ),
        (
            &long,
            unscored,
            "has 5242892 bytes; at most 1048576 are read",
        ),
        (
            r#""schema": {"required": ["a"]}, "expected": {"b": 1}"#,
            refused,
            "correct the rows or the schema",
        ),
    ] {
        let row = |fields: &str| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{}\"}}]{fields}}}\n",
                fields.len()
            )
        };
        write(
            "train.jsonl",
            &[row(""), row(&format!(", {fields}"))].concat(),
        );
        let output = crate::program::call_in_process(folder.path(), &["task", "check", "."]);
        let text = String::from_utf8_lossy(&output.stdout);
        let errors: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert!(!output.status.success() && errors.len() == 1, "{text}");
        let start = format!("error: ./train.jsonl: {said}");
        assert!(
            errors[0].starts_with(&start) && errors[0].contains(why),
            "{}",
            errors[0]
        );
    }
}
