//! Tasks whose answers are plain text: equal to `expected`, or matched by a pattern.

use std::fs;

use grpo_tui::prompts::{CheckedSet, data_problems};
use grpo_tui::score::{Score, Scorer, Task, for_model};
use grpo_tui::text::{Tokenizer, train_tokenizer};

use super::row;

fn load(score: &str) -> Result<Task, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("task.toml"),
        format!("name = \"t\"\n[score]\n{score}"),
    )
    .unwrap();
    let place = folder.path().display().to_string();
    Task::load(folder.path()).map_err(|error| error.to_string().replace(&place, "DIR"))
}

/// Tier, exact and failure, as `valid exact`.
fn outcome(score: &Score) -> String {
    let exact = match score.exact {
        None => "",
        Some(true) => " exact",
        Some(false) => " wrong",
    };
    let failure = score
        .failure
        .map_or_else(String::new, |class| format!(" {}", class.key()));
    format!("{}{exact}{failure}", score.tier.name())
}

#[test]
fn a_text_is_what_is_expected() {
    let check = |lines: &str, completion: &str, expected: &str, found: &str| {
        let scorer = Scorer::new(&load(&format!("kind = \"text\"\n{lines}")).unwrap()).unwrap();
        let row = (!expected.is_empty()).then(|| row(expected));
        let score = scorer.score(completion, row.as_ref());
        assert_eq!(outcome(&score), found, "{lines} {completion:?} {expected}");
    };
    check("", "yes", "\"yes\"", "valid exact");
    check("", " yes\n", "\"yes\"", "valid exact");
    check("", "Yes", "\"yes\"", "invalid wrong wrong_value");
    check("normalise = \"casefold\"", "Yes", "\"yes\"", "valid exact");
    check(
        "normalise = [\"casefold\", \"whitespace\"]",
        "New  york",
        "\"New York\"",
        "valid exact",
    );
    check(
        "normalise = [\"date\"]",
        "11 March 2024",
        "\"2024-03-11\"",
        "valid exact",
    );
    check("", "no", "[\"yes\", \"no\"]", "valid exact");
    check(
        "",
        "maybe",
        "[\"yes\", \"no\"]",
        "invalid wrong wrong_value",
    );
    check("", "12.50", "12.5", "valid exact");
    check("", "12.51", "12.5", "invalid wrong wrong_value");
    check("", "true", "true", "valid exact");
    check("", "anything", "", "valid");
    check("", " \n", "\"yes\"", "unparsable wrong other");
    check("", "", "", "unparsable other");
    check(
        "",
        "<think>yes? no</think>\n\nyes",
        "\"yes\"",
        "valid exact",
    );
    check("", "<think>yes", "\"yes\"", "unparsable wrong think_leak");
    check(
        "strip_thinking = false",
        "<think>yes",
        "\"<think>yes\"",
        "valid exact",
    );
}

/// A tokenizer whose chat template has these texts.
fn with_template(source: &str) -> Tokenizer {
    let files =
        train_tokenizer(["yes".to_owned()].into_iter().cycle().take(20), 300, source).unwrap();
    Tokenizer::from_files(&files).unwrap()
}

#[test]
fn thoughts_are_between_the_marks_of_the_model() {
    const GEMMA: &str = "<|channel>thought <channel|>";
    const GPT_OSS: &str = "<|channel|>analysis<|message|>";
    const MAGISTRAL: &str = "[THINK] [/THINK]";
    const RIGHT: &str = "valid exact";
    const WRONG: &str = "invalid wrong wrong_value";
    const LEAK: &str = "unparsable wrong think_leak";
    let task = load("kind = \"text\"").unwrap();
    // Of which model, what it writes, how that is judged, and how without knowing the model.
    for (template, completion, expected, without) in [
        ("", "<think>no</think>\n\nyes", RIGHT, RIGHT),
        ("", "no</think>yes", RIGHT, RIGHT),
        ("", "<think>yes", LEAK, LEAK),
        ("", "<|channel>thought\nno\n<channel|>yes", WRONG, RIGHT),
        ("", "<|channel>thought\nyes", WRONG, LEAK),
        ("", "[THINK]no[/THINK]yes", WRONG, RIGHT),
        (GEMMA, "<|channel>thought\nno\n<channel|>yes", RIGHT, RIGHT),
        (GEMMA, "<|channel>thought\n<channel|>yes", RIGHT, RIGHT),
        (GEMMA, "no\n<channel|>yes", RIGHT, RIGHT),
        (GEMMA, "<|channel>thought\nyes", LEAK, LEAK),
        (GEMMA, "<|channel>yes", WRONG, WRONG),
        (GEMMA, "<think>no</think>yes", WRONG, RIGHT),
        (
            GPT_OSS,
            "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>yes",
            RIGHT,
            RIGHT,
        ),
        (GPT_OSS, "<|channel|>final<|message|>yes", RIGHT, RIGHT),
        (
            GPT_OSS,
            "<|channel|>analysis<|message|>yes<|end|>",
            LEAK,
            LEAK,
        ),
        (GPT_OSS, "<think>no</think>yes", WRONG, RIGHT),
        (MAGISTRAL, "[THINK]no[/THINK]yes", RIGHT, RIGHT),
        (MAGISTRAL, "[THINK]yes", LEAK, LEAK),
    ] {
        let judged = |task: &Task| {
            outcome(
                &Scorer::new(task)
                    .unwrap()
                    .score(completion, Some(&row("\"yes\""))),
            )
        };
        assert_eq!(
            judged(&for_model(&task, &with_template(template))),
            expected,
            "{template} {completion}"
        );
        assert_eq!(judged(&task), without, "{completion}");
    }
}

#[test]
fn a_pattern_names_the_fields() {
    let check = |lines: &str, completion: &str, expected: &str, found: &str, fields: &[bool]| {
        let scorer = Scorer::new(&load(&format!("kind = \"regex\"\n{lines}")).unwrap()).unwrap();
        let row = (!expected.is_empty()).then(|| row(expected));
        let score = scorer.score(completion, row.as_ref());
        assert_eq!(outcome(&score), found, "{lines} {completion:?} {expected}");
        let equal: Vec<bool> = score
            .fields
            .iter()
            .flat_map(|fields| fields.iter().map(|(_, equal)| *equal))
            .collect();
        assert_eq!(equal, fields, "{completion:?}");
    };
    let month = r"pattern = '^(?<year>\d{4})-(?<month>\d{2})$'";
    check(month, "2024-03", "", "valid", &[]);
    check(
        month,
        " 2024-03\n",
        r#"{"year": 2024, "month": "03"}"#,
        "valid exact",
        &[true, true],
    );
    check(
        month,
        "2024-03",
        r#"{"year": 2024, "month": 4}"#,
        "valid wrong wrong_value",
        &[true, false],
    );
    check(
        month,
        "2024-03",
        r#"{"year": 2024, "day": 1}"#,
        "unparsable scorer_error",
        &[],
    );
    check(
        month,
        "March 2024",
        r#"{"year": 2024}"#,
        "invalid wrong no_match",
        &[],
    );
    check(month, "", "", "unparsable other", &[]);
    check(
        "pattern = 'ID-\\d+'",
        "it is ID-7.",
        "\"ID-7\"",
        "valid exact",
        &[],
    );
    let named = "pattern = '(?<name>\\w+)'\n[score.normalise]\nname = \"casefold\"";
    check(named, "ACME", r#"{"name": "acme"}"#, "valid exact", &[true]);
    // Backtracking would take 2^60 steps.
    check(
        "pattern = '^(a+)+$'",
        &format!("{}b", "a".repeat(60)),
        "",
        "invalid no_match",
        &[],
    );
}

#[test]
fn malformed_definitions_name_line_value_and_remedy() {
    let check = |lines: &str, error: &str| {
        assert_eq!(load(lines).unwrap_err(), format!("DIR/task.toml{error}"))
    };
    check(
        "kind = \"regex\"",
        ": missing `score.pattern`; add for example `pattern = '^\\d{4}-\\d{2}$'`",
    );
    check(
        "kind = \"regex\"\npattern = '(a'",
        " line 4 column 11: `score.pattern` is not a valid regular expression: unclosed group, in \"(a\"",
    );
    check(
        "kind = \"regex\"\npattern = 1",
        " line 4 column 11: `score.pattern` must be a string in quotes, not the number 1",
    );
    check(
        "kind = \"text\"\nnormalise = [\"lower\"]",
        " line 4 column 13: `score.normalise` takes casefold, trim, whitespace, date, number, bfcl, accents, organisation, not \"lower\"",
    );
    check(
        "kind = \"text\"\nnormalise = 1",
        " line 4 column 13: `score.normalise` must be a name or a list of names in quotes, not the number 1",
    );
    check(
        "kind = \"text\"\ngraded = true",
        " line 4 column 1: unknown key `score.graded`; known keys: kind, tiers, strip_thinking, continue_after_failure, normalise",
    );
    check(
        "kind = \"tex\"",
        " line 3 column 8: `score.kind` takes json_schema, structured, text, regex, tool_calls, command, python, code, tests, sql, http_request, state, agent, judge, not \"tex\"; did you mean `text`?",
    );
}

#[test]
fn the_other_questions_about_a_task_are_answered_truthfully() {
    let task = load("kind = \"text\"\n").unwrap();
    let scorer = Scorer::new(&task).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let line = |expected: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"{}"}}],"expected":{expected}}}"#,
            expected.len()
        )
    };
    write(
        "task.toml",
        "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"text\"\n",
    );
    write(
        "train.jsonl",
        &["\"yes\"", "[\"no\", \"never\"]"].map(line).join("\n"),
    );
    let with_rows = Task::load(folder.path()).unwrap();
    let sets = CheckedSet::all(&with_rows, &scorer).unwrap();
    assert_eq!(data_problems(&with_rows, &scorer, &sets), []);
    assert_eq!(
        scorer
            .expected_completion(&serde_json::json!(["no", "never"]), None)
            .as_deref(),
        Some("no")
    );
    assert_eq!(
        (
            task.schema(),
            task.definition_file.as_str(),
            task.file_names()
        ),
        (None, "task.toml", vec!["task.toml"])
    );
    assert!(task.embedded_model_note("tiny").is_some());
    assert_ne!(
        task.definition_digest(),
        load("kind = \"text\"\nnormalise = \"trim\"")
            .unwrap()
            .definition_digest()
    );
    let again = task
        .with_definition_text("name = \"u\"\n[score]\nkind = \"regex\"\npattern = 'x'")
        .unwrap();
    assert_eq!((again.name.as_str(), again.kind()), ("u", "regex"));
}
