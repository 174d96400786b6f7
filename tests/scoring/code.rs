//! Answers that are code, checked by the linters and compilers that people have: ruff and shellcheck from the folder
//! that `CHECKERS` names, the others from the machine.

use std::fs;
use std::process::Command;

use crate::program::{call, json_lines, program};

fn has(checker: &str, path: &str) -> bool {
    let found = Command::new(checker).arg("--version").env("PATH", path).output().is_ok();
    if !found {
        eprintln!("SKIPPED: {checker} is not installed");
    }
    found
}

#[test]
fn checkers_accept_and_refuse_with_rule_and_place() {
    let path = [std::env::var("CHECKERS").unwrap_or_default(), std::env::var("PATH").unwrap_or_default()].join(":");
    let check = |rules: &str, answers: &[(&str, &str)]| {
        let checker = rules.split('"').nth(1).unwrap();
        if !has(checker, &path) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let toml =
            format!("name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"code\"\ncommand = {rules}");
        fs::write(here.join("task.toml"), toml).unwrap();
        let line = |(answer, _): &(&str, &str)| serde_json::json!({"completion": answer}).to_string() + "\n";
        fs::write(here.join("c.jsonl"), answers.iter().map(line).collect::<String>()).unwrap();
        assert!(call(here, &["task", "trust", ".", "--yes"]).status.success());
        let scored = json_lines(&program(here, &["score", ".", "--json"]).env("PATH", &path).output().unwrap());
        for (score, (answer, expected)) in scored.iter().zip(answers) {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            let place = score["errors"].get(0).map(|first| format!(" {}:{}", first["line"], first["column"]));
            let found = format!("{} {}{}", text(&score["tier"]), text(&score["failure"]), place.unwrap_or_default());
            assert_eq!(found, *expected, "{rules} {answer:?}: {score}");
        }
        assert_eq!(scored.len(), answers.len());
    };
    check(
        "[\"python3\", \"-m\", \"py_compile\", \"{file}\"]\nfile = \"answer.py\"\n",
        &[
            ("x = 1\n", "valid -"),
            ("x = 1\ndef f(:\n", "invalid SyntaxError 2:1"),
            ("<think>x</think>\nLike this:\n```python\nx = \n```", "invalid SyntaxError 4:1"),
        ],
    );
    check("[\"sh\", \"-n\"]\nfile = \"answer.sh\"\n", &[("if true; then :; fi", "valid -")]);
    check(
        "[\"gcc\", \"-Wall\", \"-Werror\", \"-fsyntax-only\", \"{file}\"]\nfile = \"answer.c\"\n",
        &[
            ("int main(void) { return 0; }", "valid -"),
            ("int main(void) {\n  int x;\n  return 0;\n}", "invalid unused-variable 2:7"),
        ],
    );
    check(
        "[\"ruff\", \"check\", \"--isolated\", \"--output-format\", \"concise\", \"{file}\"]\nfile = \"answer.py\"\nparse = [\"python3\", \"-m\", \"py_compile\", \"{file}\"]\n",
        &[
            ("print(1)\n", "valid -"),
            ("import os\n", "invalid F401 1:8"),
            ("```python\n\nimport os\n```", "invalid F401 3:8"),
            ("import\n", "unparsable SyntaxError 1:1"),
        ],
    );
    check(
        "[\"shellcheck\", \"-f\", \"gcc\", \"{file}\"]\nfile = \"answer.sh\"\nparse = [\"sh\", \"-n\", \"{file}\"]\ngraded = true\n",
        &[
            ("#!/bin/sh\necho \"$1\"\n", "valid -"),
            ("#!/bin/sh\necho $1\n", "invalid SC2086 2:6"),
            ("Sure:\n```sh\n#!/bin/sh\necho $1\n```\n", "invalid SC2086 4:6"),
        ],
    );
    check(
        "[\"sh\", \"-c\", \"grep -q right && exit 0; exit 5\"]\nfile = \"answer.sh\"\n",
        &[("x", "unparsable scorer_error 1:1"), ("right", "valid -")],
    );
}
