//! Tests of programs started per answer: by exit code, or as checkers of a file.

use super::*;
use crate::score::needs::CodeRules;

#[test]
fn an_exit_code_is_a_tier() {
    let script = "#!/bin/sh\nread -r answer\necho \"saw $answer $ROW\"\ncase $answer in ok) exit 0;; bad) exit 1;; junk) exit 2;; slow) sleep 60;; esac\necho broken >&2\nexit 9\n";
    let (_folder, scorer) = scorer(&["sh", "check.sh"], &[("check.sh", script)], |rules| {
        (rules.mode, rules.seconds, rules.processes) = (CommandMode::ExitCode, 3.0, 2);
    });
    let found = judged(&scorer, &["ok\n", "bad\n", "junk\n", "slow\n", "other\n"]);
    assert_eq!(
        found,
        [
            "valid",
            "invalid other: saw bad null",
            "unparsable other: saw junk null",
            "unparsable scorer_error: the scorer gave no answer within 3 s",
            "unparsable scorer_error: the scorer ended with exit code 9: broken",
        ]
    );
}

#[test]
fn code_is_checked_as_a_file_and_findings_have_their_place() {
    let (_folder, scorer) = scorer(
        &["sh", "lint.sh", "{file}"],
        &[
            (
                "lint.sh",
                "test -f rules.txt || exit 3\ngrep -nF -f rules.txt \"$1\" > found && sed \"s|^\\([0-9]*\\):.*|$1:\\1:2: L100 a rule|\" found && exit 1\nexit 0\n",
            ),
            ("rules.txt", "eval\n"),
        ],
        |rules| {
            let code = CodeRules {
                file: "a.sh".to_owned(),
                parse: vec!["sh".to_owned(), "-n".to_owned(), "{file}".to_owned()],
                takes_fence: true,
            };
            (rules.mode, rules.files) = (
                CommandMode::Code(code),
                vec!["lint.sh".to_owned(), "rules.txt".to_owned()],
            );
        },
    );
    let found = judged(
        &scorer,
        &[
            "echo a\n",
            "x\n  eval b",
            "if true; then\n",
            " \n",
            "Here:\n```sh\neval c\n```",
        ],
    );
    assert_eq!(found[..2], ["valid", "invalid L100: L100 a rule"]);
    assert!(
        found[2].starts_with("unparsable syntax: ") && found[2].contains("yntax error"),
        "{found:?}"
    );
    assert_eq!(
        found[3..],
        [
            "unparsable other: the answer is empty",
            "invalid L100: L100 a rule"
        ]
    );
    let place = |text: &str, expected: Option<&str>| {
        let row = expected.map(|text| PromptRow {
            id: "1".to_owned(),
            messages: Vec::new(),
            expected: Some(text.into()),
            tags: Vec::new(),
            fields: Default::default(),
            line: 1,
        });
        let verdict = scorer
            .judge_all(&[(text, row.as_ref(), &[])], &|| true)
            .unwrap()
            .remove(0);
        (
            verdict
                .errors
                .first()
                .map(|reason| (reason.line, reason.column)),
            verdict.exact,
            verdict.failure,
        )
    };
    let rule = FailureClass::from_key("L100");
    assert_eq!(place("x\n  eval b", None), (Some((2, 2)), None, rule));
    assert_eq!(
        place("Here:\n```sh\neval c\n```", Some("x")),
        (Some((3, 2)), Some(false), rule)
    );
    assert_eq!(
        place("echo a \n\n", Some("echo a")),
        (None, Some(true), None)
    );
    assert_eq!(
        place("echo a", Some("echo b")),
        (None, Some(false), Some(FailureClass::WrongValue))
    );
}
