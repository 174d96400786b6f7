//! `dataset check` names every kind of bad prompt with its place, keeps quiet about good ones, and stays small on large
//! sets.

use grpo_tui::dataset::PromptRow;
use grpo_tui::dataset::health::{Checks, FindingKind, Health, Level, check};

#[cfg(feature = "engine")]
use crate::program::{ALL, sample_task};
use crate::program::{call_anywhere_in_process as call_anywhere, call_in_process as call};

fn row(text: &str) -> String {
    format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":{}}}]}}\n",
        serde_json::json!(text)
    )
}

/// A text of its own for each number, long enough to be compared for likeness.
fn text(number: usize) -> String {
    (0..12)
        .map(|word| {
            format!(
                "{:x}",
                (number * 12 + word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            )
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Findings of a task with these sets, as `kind file:line message`.
fn found(sets: [String; 3], checks: &Checks<'_>) -> (Vec<String>, Health) {
    let [train, eval, proof] = &sets;
    let (folder, task) = super::task_with(&[
        ("train.jsonl", train),
        ("eval.jsonl", eval),
        ("proof.jsonl", proof),
    ]);
    let health = check(&task, checks).unwrap();
    let prefix = format!("{}/", folder.path().display());
    let lines = health.findings.iter().map(|finding| {
        let kind = serde_json::to_value(finding.kind).unwrap();
        let line = finding
            .line
            .map_or(String::new(), |line| format!(":{line}"));
        format!(
            "{} {}{line} {}",
            kind.as_str().unwrap(),
            finding.file,
            finding.message
        )
        .replace(&prefix, "")
    });
    (lines.collect(), health)
}

#[test]
fn each_kind_of_bad_prompt_is_named_with_its_place_and_a_remedy() {
    let check = |sets: [String; 3], expected: &[&str]| {
        let refuses = |row: &PromptRow| {
            row.expected
                .as_ref()?
                .get("amount")
                .is_none()
                .then(|| ("missing key", "`amount` is missing".to_owned()))
        };
        let tokens = |row: &PromptRow| {
            Ok(row
                .messages
                .iter()
                .map(|turn| turn.content.split(' ').count())
                .sum())
        };
        let checks = Checks {
            definition: "schema",
            expected_problem: Some(&refuses),
            expects_answers: true,
            finds_secrets: true,
            count_tokens: Some(&tokens),
            most_prompt_tokens: Some(20),
        };
        assert_eq!(found(sets, &checks).0, expected);
    };
    let good = || [row(&text(0)), row(&text(1)), row(&text(2))];
    let with_train = |line: &str| [row(&text(0)) + line, row(&text(1)), row(&text(2))];
    check(good(), &[]);
    check(
        with_train("{\n"),
        &[
            "bad_line train.jsonl:2 not JSON at column 1 (EOF while parsing an object): `{`; write one whole JSON object per line",
        ],
    );
    check(
        [String::new(), row(&text(1)), row(&text(2))],
        &[
            "empty_set train.jsonl no prompt rows; write one JSON object per line, for example {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}]}",
        ],
    );
    check(
        with_train(&row(&text(0))),
        &["duplicate train.jsonl:2 same prompt as train.jsonl line 1: duplicate: remove one"],
    );
    let with_amount = |row: String, amount: u32| {
        let end = format!("}}],\"expected\":{{\"amount\":{amount}}}}}");
        row.replace("}]}", &end)
    };
    check(
        [
            with_amount(row(&text(0)), 1) + &with_amount(row(&text(0)), 2),
            row(&text(1)),
            with_amount(row(&text(0)), 1) + &with_amount(row(&(text(0) + "!")), 3),
        ],
        &[
            "conflict train.jsonl:2 same prompt as train.jsonl line 1, with another expected answer: correct or remove one",
            "leak proof.jsonl:1 same prompt as train.jsonl line 1: data leak: keep it in one set",
            "near_duplicate proof.jsonl:2 about 95% the same as proof.jsonl line 1, with another expected answer: near-duplicate: remove one, unless they ask different things",
        ],
    );
    let expecting =
        |expected: &str| row(&text(0)).replace("}]}", &format!("}}],\"expected\":{expected}}}"));
    check(
        with_train(
            &[
                r#"{"amount":1,"b":2}"#,
                r#"{"b":2,"amount":1}"#,
                r#"{"amount":2}"#,
            ]
            .map(expecting)
            .concat(),
        ),
        &[
            "duplicate train.jsonl:2 same prompt as train.jsonl line 1: duplicate: remove one",
            "duplicate train.jsonl:3 same prompt as train.jsonl line 2: duplicate: remove one",
            "conflict train.jsonl:4 same prompt as train.jsonl line 2, with another expected answer: correct or remove one",
        ],
    );
    check(
        with_train(&row(&text(0).replacen(' ', "  ", 3).to_uppercase())),
        &[
            "near_duplicate train.jsonl:2 about 99% the same as train.jsonl line 1: near-duplicate: remove one, unless they ask different things",
        ],
    );
    check(
        [row(&text(0)), row(&text(1)), row(&text(0))],
        &["leak proof.jsonl:1 same prompt as train.jsonl line 1: data leak: keep it in one set"],
    );
    check(
        [row(&text(0)), row(&text(1)), row(&(text(1) + "!"))],
        &[
            "near_leak proof.jsonl:1 about 99% the same as eval.jsonl line 1: near-duplicate across sets: keep such rows in one set",
        ],
    );
    let turnless = r#"{"messages":[{"role":"system","content":"be brief"}]}"#;
    check(
        with_train(turnless),
        &[
            "no_user_turn train.jsonl:2 no user turn with text; add {\"role\": \"user\", \"content\": \"…\"} to `messages`",
        ],
    );
    check(
        with_train(&row(&text(7)).replace("}]}", "}],\"id\":\"train-1\"}")),
        &[
            "duplicate_id train.jsonl:2 id `train-1` is already on line 1; give every row its own id, or none",
        ],
    );
    check(
        with_train(&row(&text(7)).replace("}]}", "}],\"expected\":{\"total\":1}}")),
        &[
            "expected_invalid train.jsonl:2 `expected` would not be valid: `amount` is missing; correct the row or the schema",
        ],
    );
    check(
        with_train(&row(&(text(7) + " " + &text(8)))),
        &["too_long train.jsonl:2 24 tokens, limit 20: shorten it or raise max_seq_len"],
    );
    let token = format!("ghp_{}", "aB3dE5fG7hJ9".repeat(3));
    check(
        with_train(&row(&format!("my key is {token}"))),
        &[
            "secret train.jsonl:2 `content` contains what looks like a GitHub token: ghp_…(40 characters); remove it",
        ],
    );
    let value = "aB3dE5fG7hJ9kLmN1pQr";
    check(
        with_train(
            &row(&text(7)).replace("}]}", &format!("}}],\"db\":{{\"password\":\"{value}\"}}}}")),
        ),
        &[
            "secret train.jsonl:2 `password` contains what looks like a high-entropy assignment: aB3d…(20 characters); remove it",
        ],
    );
}

#[test]
fn what_was_found_is_counted_wholly_and_kept_in_part() {
    let train: String = (0..100).map(|_| "7\n").collect();
    let (kept, health) = found([train, row(&text(1)), row(&text(2))], &Checks::default());
    assert_eq!(
        (
            kept.len(),
            health.counts[&FindingKind::BadLine],
            health.counts[&FindingKind::EmptySet]
        ),
        (21, 100, 1)
    );
    assert_eq!(
        (health.count(Level::Error), health.count(Level::Warning)),
        (101, 0)
    );
}

#[test]
fn the_sample_task_is_healthy() {
    let output = call_anywhere(&["dataset", "check", "invoice", "--json"]);
    let health: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(health["findings"], serde_json::json!([]));
    assert_eq!(output.status.code(), Some(0));
    let rows: Vec<_> = health["sets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| set["rows"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, [200, 50, 500]);
}

#[test]
fn the_command_checks_expected_against_the_schema_and_fails() {
    let wrong = row(&text(0)).replace("}]}", "}],\"expected\":{\"amount\":\"12\"}}");
    let (folder, _task) = super::task_with(&[
        ("train.jsonl", &wrong),
        ("eval.jsonl", &row(&text(1))),
        ("proof.jsonl", &row(&text(2))),
    ]);
    let output = call(folder.path(), &["dataset", "check", "."]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("train.jsonl line 1: `expected` would not be valid: ")
            && text.ends_with("1 error, 0 warnings\n"),
        "{text}"
    );
}

#[test]
#[cfg(feature = "engine")]
fn the_longest_prompt_follows_from_the_configuration() {
    // The sample task's prompts have some 90 tokens; `[train.model.tiny]`, `[train]`, a preset and the option decide in
    // that order from the last.
    let folder = tempfile::tempdir().unwrap();
    sample_task(folder.path(), ALL);
    let settings = std::fs::read_to_string(folder.path().join("task.toml")).unwrap();
    let check = |own: &str, more: &[&str], expected: Option<&str>| {
        let (head, _) = settings.split_once("[train]").unwrap();
        std::fs::write(folder.path().join("task.toml"), format!("{head}{own}")).unwrap();
        let output = call(
            folder.path(),
            &[&["dataset", "check", ".", "--model", "tiny"], more].concat(),
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text
            .lines()
            .find_map(|line| line.split_once(" tokens, limit "))
            .map(|(_, rest)| rest.split(':').next().unwrap());
        assert_eq!(
            found,
            expected,
            "{own} {more:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    check("", &[], None);
    check(
        "[train]\nmax_completion_tokens = 8\nmax_seq_len = 40\n",
        &[],
        Some("39"),
    );
    check(
        "[train]\nmax_completion_tokens = 8\nmax_seq_len = 40\n",
        &["--preset", "seed"],
        Some("39"),
    );
    check(
        "[train]\nmax_completion_tokens = 8\n[train.model.tiny]\nmax_seq_len = 50\n",
        &[],
        Some("49"),
    );
    check(
        "[train]\nmax_completion_tokens = 8\n[train.model.other]\nmax_seq_len = 50\n",
        &[],
        None,
    );
    check(
        "[train]\nmax_completion_tokens = 8\nmax_seq_len = 40\n",
        &["--max-seq-len", "30"],
        Some("29"),
    );
}
