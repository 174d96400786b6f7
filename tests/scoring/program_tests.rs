//! Answers that are programs, decided by tests: verdicts and reasons, answers that misbehave, answers that cheat, and
//! rows that are wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use grpo_tui::sandbox::machine;
use serde_json::{Value, json};

use crate::program::{call, json as document, json_lines, stderr, stdout};

const SQUARE: &str = r#"{"entry": "f", "cases": [{"args": [2], "value": 4}, {"args": [[3]], "value": [9]}, {"args": [-12345], "value": 152399025, "hidden": true}]}"#;
const SUM: &str = r#"{"cases": [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "1 1\n", "stdout": "2\n", "hidden": true}]}"#;
const CODE: &str = r#"{"entry": "f", "tests": "def check(candidate):\n    assert candidate(2) == 4\n\ndef test_list():\n    assert f([3]) == [9]\n"}"#;
const RIGHT: &str = "def f(x):\n    return [f(y) for y in x] if isinstance(x, list) else x * x\n";

/// A task with one row for each of `rows`, and completions of the first.
pub(super) fn task(folder: &Path, keys: &str, rows: &[&str], completions: &[&str]) {
    let level = machine().level.name();
    let head = "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\ncompletions = \"c.jsonl\"\n[score]\nkind = \"tests\"\n";
    fs::write(
        folder.join("task.toml"),
        format!("{head}isolation = \"{level}\"\n{keys}"),
    )
    .unwrap();
    let mut lines = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut row: Value = serde_json::from_str(row).unwrap();
        row["id"] = json!(format!("r{number}"));
        row["messages"] = json!([{"role": "user", "content": format!("task {number}")}]);
        lines += &format!("{row}\n");
    }
    fs::write(folder.join("train.jsonl"), lines).unwrap();
    let line = |text: &&str| json!({"completion": text, "prompt_id": "r0"}).to_string() + "\n";
    fs::write(
        folder.join("c.jsonl"),
        completions.iter().map(line).collect::<String>(),
    )
    .unwrap();
    stdout(&call(folder, &["task", "trust", ".", "--yes"]));
}

/// Tier, class and reward of each answer, and its reasons.
pub(super) fn scored(keys: &str, row: &str, answers: &[&str]) -> Vec<(String, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    task(folder.path(), keys, &[row], answers);
    let scores = json_lines(&call(folder.path(), &["score", ".", "--json"]));
    assert_eq!(scores.len(), answers.len());
    let verdict = |score: &Value| {
        let class = score["failure"]
            .as_str()
            .map_or_else(String::new, |class| format!(" {class}"));
        let errors = score["errors"].as_array().unwrap().iter().map(|error| {
            format!(
                "{}:{} {}",
                error["line"],
                error["column"],
                error["message"].as_str().unwrap()
            ) //
        });
        (
            format!(
                "{}{class} {:.2}",
                score["tier"].as_str().unwrap(),
                score["reward"].as_f64().unwrap()
            ),
            errors.collect(),
        )
    };
    scores.iter().map(verdict).collect()
}

fn check(keys: &str, row: &str, table: &[(&str, &str, &str)]) {
    let answers: Vec<&str> = table.iter().map(|(answer, ..)| *answer).collect();
    for ((found, reasons), (answer, expected, reason)) in
        scored(keys, row, &answers).iter().zip(table)
    {
        let first = reasons.first().map_or("", String::as_str);
        assert!(
            found == expected && first.starts_with(reason),
            "{answer}\n{found} {reasons:?}\nnot {expected} {reason}"
        );
    }
}

pub(super) const PYTHON: &str = "language = \"python\"\nseconds = 2\nmemory_mib = 600\n";

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn functions_programs_and_tests_in_python_have_verdicts_and_reasons() {
    check(
        PYTHON,
        SQUARE,
        &[
            (RIGHT, "valid 1.00", ""),
            (
                "Here:\n```python\ndef f(x)\n    return x\n```",
                "unparsable syntax 0.00",
                "3:9 expected ':'",
            ),
            (
                "<think>x</think>\ndef f(x): return x * x",
                "invalid exception 0.50",
                "2:1 f([3]): TypeError: can't multiply",
            ),
            (
                "\n\ndef f(x):\n    return x + 1",
                "invalid wrong_value 0.50",
                "1:1 f(2): expected 4, got 3",
            ),
            (
                "def f(x):\n    return {2: 4}.get(x) if type(x) is int else [9]",
                "invalid hidden_case 0.50",
                "1:1 2 of 3 cases pass, 0 of 1 hidden",
            ),
            (
                "def g(x): return x",
                "invalid exception 0.50",
                "1:1 f(2): there is no function `f`",
            ),
            (
                "def f(x): return {x}",
                "invalid exception 0.50",
                "1:1 f(2): it returned a value of the type set",
            ),
            (
                "def f(x): return '\\udc80'",
                "invalid exception 0.50",
                "1:1 f(2): it gave a value that cannot be read",
            ),
            (" ", "unparsable other 0.00", "1:1 the answer is empty"),
            (&"(".repeat(100_000), "unparsable syntax 0.00", "1:"),
        ],
    );
    let graded = format!("{PYTHON}graded = true\n");
    check(
        &graded,
        SQUARE,
        &[(
            "def f(x):\n    return {2: 4}.get(x) if type(x) is int else [9]",
            "invalid hidden_case 0.83",
            "",
        )],
    );
    check(
        PYTHON,
        SUM,
        &[
            ("print(sum(map(int, input().split())))", "valid 1.00", ""),
            ("print('5  \\n')", "invalid hidden_case 0.50", "1:1 1 of 2"),
            (
                "print(6)",
                "invalid wrong_value 0.50",
                "1:1 stdin \"2 3\\n\": expected \"5\", got \"6\"",
            ),
            (
                "print(5); print(6)",
                "invalid wrong_value 0.50",
                "1:1 stdin \"2 3\\n\": line 2: expected no such line, got \"6\"",
            ),
            (
                "1 / 0",
                "invalid exception 0.50",
                "1:1 stdin \"2 3\\n\": it ended with exit code 1: ZeroDivisionError",
            ),
            (
                "print(5); raise SystemExit(3)",
                "invalid exception 0.50",
                "1:1 stdin \"2 3\\n\": it ended with exit code 3",
            ),
        ],
    );
    check(
        PYTHON,
        CODE,
        &[
            (RIGHT, "valid 1.00", ""),
            (
                "def f(x): return x + 3",
                "invalid wrong_value 0.50",
                "1:1 the tests: line 2: \"assert candidate(2) == 4\": AssertionError; f(2) returned 5",
            ),
            (
                "def g(x): return x",
                "invalid exception 0.50",
                "1:1 the tests: line 8: \"check(f)\": NameError",
            ),
            (
                "def f(x): return x * x",
                "invalid exception 0.50",
                "1:1 the tests: line 5: \"assert f([3]) == [9]\": TypeError: can't multiply sequence by non-int of type 'list'; f([3]) raised TypeError",
            ),
            (
                "def f(x): assert x == 2; return 4",
                "invalid exception 0.50",
                "1:1 the tests: line 5: \"assert f([3]) == [9]\": AssertionError; f([3]) raised AssertionError",
            ),
            (
                "import os\ndef f(x): os._exit(0)",
                "invalid ended 0.50",
                "1:1 the tests: line 2: \"assert candidate(2) == 4\": it ended; f(2) did not return",
            ),
            (
                "def f(x) return",
                "unparsable syntax 0.00",
                "1:10 expected ':'",
            ),
            (
                "1 / 0",
                "invalid exception 0.50",
                "1:1 the tests: ZeroDivisionError",
            ),
        ],
    );
    // Behind the row's code: a program, or the rest of its function.
    let before =
        "import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    \"\"\"The square.\"\"\"\n";
    let mut row: Value = serde_json::from_str(CODE).unwrap();
    row["before"] = json!(before);
    check(
        PYTHON,
        &row.to_string(),
        &[
            (
                "    return x * g(x) if x == 2 else [math.prod(x) ** 2]",
                "valid 1.00",
                "",
            ),
            (
                "```python\nreturn 4 if x == 2 else [9]\n```",
                "valid 1.00",
                "",
            ),
            (
                "def f(x):\n    return g(4) if x == 2 else [9]",
                "valid 1.00",
                "",
            ),
            (
                "    return x +",
                "unparsable syntax 0.00",
                "1:15 invalid syntax",
            ),
            (
                "import math\n\n1 / 0",
                "invalid exception 0.50",
                "3:1 the tests: ZeroDivisionError",
            ),
        ],
    );
    // Objects of the answer's, changes in place, its exceptions.
    let objects = json!({"tests": "s = Stack()\ns.push(1)\nassert s.pop() == 1 and len(s) == 0 and list(s) == []\nassert Stack() == Stack()\na = [2, 1]\norder(a)\nassert a == [1, 2]\nimport unittest\nclass T(unittest.TestCase):\n    def test_pop(self):\n        with self.assertRaises(IndexError):\n            Stack().pop()\n"});
    let stack = "class Stack(list):\n    push = list.append\ndef order(a): a.sort()\n";
    check(
        PYTHON,
        &objects.to_string(),
        &[
            (stack, "valid 1.00", ""),
            (
                &stack.replace("a.sort()", "sorted(a)"),
                "invalid wrong_value 0.50",
                "1:1 the tests: line 7",
            ),
        ],
    );
}

/// Each is the answer's fault, and costs neither the run nor the next answer.
#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn answers_that_take_too_much_are_invalid() {
    let all = [
        ("while True: pass", "timeout"),
        (
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
            "too_many_processes|timeout|ended",
        ),
        (
            "while True: print('x' * 100_000)",
            "too_much_output|timeout",
        ),
        (
            "import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(1)",
            "ended|wrong_value",
        ),
        ("import os\nos.kill(-1, 9)", "ended"),
        ("x = bytearray(10 << 30)", "exception"),
        ("import os\nos._exit(0)", "ended|wrong_value"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
            "ended|exception|wrong_value",
        ),
    ];
    for row in [SQUARE, SUM, CODE] {
        let answers: Vec<&str> = all
            .iter()
            .map(|(answer, _)| *answer)
            .chain([RIGHT])
            .collect();
        let found = scored(
            &format!("{PYTHON}processes = 1\noutput_kib = 64\n"),
            row,
            &answers,
        );
        for ((found, reasons), (answer, classes)) in found.iter().zip(&all) {
            let is_so = classes
                .split('|')
                .any(|class| *found == format!("invalid {class} 0.50"));
            assert!(is_so, "{row}\n{answer}\n{found} {reasons:?}\nnot {classes}");
        }
        let last = if row == SUM {
            "invalid wrong_value 0.50"
        } else {
            "valid 1.00"
        };
        assert_eq!(found.last().unwrap().0, last, "{row}");
    }
}

/// In one process with their tests they pass; the audit tries each on every row, and none earns a right answer's reward.
#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn answers_that_cheat_fail() {
    let folder = tempfile::tempdir().unwrap();
    task(folder.path(), PYTHON, &[SQUARE, CODE], &[]);
    let found = document(&call(folder.path(), &["task", "audit", ".", "--json"]));
    let findings = found["findings"].as_array().unwrap();
    for name in [
        "an empty file",
        "an exit with success",
        "the visible results",
        "deleted tests",
        "a value equal to everything",
        "patched assertions",
    ] {
        let finding = findings
            .iter()
            .find(|finding| finding["name"] == name)
            .unwrap_or_else(|| panic!("{name}"));
        assert!(
            finding["reward"].as_f64().unwrap() < 1.0 && finding["weak"] == false,
            "{finding}"
        );
    }
    let equal = "class E:\n    def __eq__(self, other): return True\n";
    let cheats = [
        ("an exit", "import sys\nsys.exit(0)\n".to_owned()),
        ("a hard exit", "import os\nos._exit(0)\n".to_owned()),
        ("equal to everything", format!("{equal}def f(x): return E()\n")),
        (
            "its own assertion",
            "import builtins, sys\nsys.excepthook = lambda *error: __import__('os')._exit(0)\ndef f(x): return 0\n"
                .to_owned(),
        ),
        ("its own abs", "def abs(x): return 0\ndef f(x): return 1\n".to_owned()),
        (
            "a trace that leaves",
            "import sys, os\nsys.settrace(lambda *given: os._exit(0))\ndef f(x): return 0\n".to_owned(),
        ),
        (
            "the tests' own names",
            "import sys, os\ndef f(x):\n    sys._getframe(1).f_globals['check'] = print\n    os._exit(0)\n".to_owned(),
        ),
    ];
    let tests = "assert f(2) == 4\nassert abs(f(3) - 9) == 0\n";
    let only_abs = "assert abs(f(2) - 4) == 0\n";
    let python = |code: &str| {
        let mut command = Command::new("python3");
        let command = command
            .arg("-c")
            .arg(code)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().unwrap().success()
    };
    for (what, answer) in &cheats {
        let tests = if *what == "equal to everything" {
            "assert f(2) == 4\n"
        } else if *what == "its own abs" {
            only_abs
        } else {
            tests
        };
        assert!(
            python(&format!("{answer}\n{tests}")),
            "{what}: it does not pass in one process"
        );
        let row = json!({"entry": "f", "tests": tests}).to_string();
        let found = scored(PYTHON, &row, &[answer]).remove(0);
        assert!(found.0.starts_with("invalid"), "{what}: {found:?}");
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn hidden_cases_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let answers = [
        "def f(x): return {2: 4}.get(x, [9])",
        "def f(x):\n    if x == -12345: raise ValueError(x)\n    return 4 if x == 2 else [9]",
        "def f(x): return 7",
        // What a hidden case leaves behind, and what it says of its own syntax.
        "import os\nseen = '/tmp/seen' if os.access('/tmp', os.W_OK) else 'seen'\ndef f(x):\n    if x == -12345: open(seen, 'w').write(str(x))\n    raise ValueError(open(seen).read() if os.path.exists(seen) else 'hidden')\n",
        "import os\ndef f(x):\n    os.write(3, b'{\"syntax\": \"hidden %d\", \"line\": 12345}\\n' % (x if isinstance(x, int) else 0))\n    os._exit(0)\n",
        "def f(x:",
    ];
    let hidden_first = SQUARE.replace(
        "{\"args\": [2], \"value\": 4}, {\"args\": [[3]], \"value\": [9]}, ",
        "",
    );
    assert_ne!(hidden_first, SQUARE);
    let syntax = scored(PYTHON, &hidden_first, &[answers[5]]).remove(0);
    assert_eq!(syntax.0, "unparsable syntax 0.00", "{syntax:?}");
    let forged = scored(PYTHON, &hidden_first, &[answers[4]]).remove(0);
    assert!(
        forged.0.starts_with("invalid hidden_case") && !format!("{forged:?}").contains("12345"),
        "{forged:?}"
    );
    let late = SQUARE
        .replace("{\"args\": [2], \"value\": 4}, ", "")
        .replace(
            "\"hidden\": true}",
            "\"hidden\": true}, {\"args\": [2], \"value\": 4}",
        );
    let left = scored(PYTHON, &late, &[answers[3]]).remove(0);
    assert!(!format!("{left:?}").contains("12345"), "{left:?}");
    let answers = &answers[..3];
    task(folder.path(), PYTHON, &[SQUARE], answers);
    for arguments in [&["score", ".", "--json"][..], &["score", "."]] {
        let output = call(folder.path(), arguments);
        let text = stdout(&output) + &stderr(&output);
        assert!(
            text.contains("hidden") && !text.contains("152399025"),
            "{text}"
        );
        let shown: String = text
            .replace(answers[1], "")
            .replace(&answers[1].replace('\n', "\\n"), "");
        assert!(!shown.contains("12345"), "{shown}");
    }
}

const DOUBLES: &str = r#"{"cases": [{"stdin": "21\n", "stdout": "42\n"}]}"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn wrong_rows_and_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (row, expected) in [
        (
            "{}",
            "the row has neither `cases` nor `tests`: give it one of them",
        ),
        (r#"{"cases": 3}"#, "`cases` is a list, not 3"),
        (
            r#"{"cases": [3]}"#,
            "case 1 of `cases` is an object such as",
        ),
        (
            r#"{"cases": [{}]}"#,
            "case 1 of `cases` has neither stdout nor value",
        ),
        (
            r#"{"cases": [{"stdout": "a"}, {"stdout": 5}]}"#,
            "case 2 of `cases` has stdout = 5: it takes a string",
        ),
        (
            r#"{"cases": [{"stdout": "a", "hiden": true}]}"#,
            "case 1 of `cases` has the unknown key \"hiden\"",
        ),
        (
            r#"{"cases": [{"args": [1], "value": 5}]}"#,
            "case 1 of `cases` has a value, but the row no `entry`",
        ),
        (
            r#"{"entry": "f()", "cases": [{"value": 5}]}"#,
            "`entry` is the name of a function, not \"f()\"",
        ),
        (
            r#"{"entry": "f", "cases": [{"value": 5, "stdout": ""}]}"#,
            "case 1 of `cases` has a value, and stdin or stdout",
        ),
        (
            r#"{"tests": ["assert 1"]}"#,
            "`tests` is code in a string, not [\"assert 1\"]",
        ),
        (
            r#"{"tests": "assert f(", "expected": "x = 1"}"#,
            "the row's `tests` are wrong: line 1: '(' was never closed",
        ),
        (
            r#"{"tests": "import no_such_module\nassert f(1)", "expected": "x = 1"}"#,
            "No module named 'no_such_module'",
        ),
        (
            r#"{"tests": "assert f(1) == 2", "expected": "def f(x): return x"}"#,
            "1 of 1 expected answers are invalid: wrong value 1",
        ),
    ] {
        task(folder.path(), PYTHON, &[row], &[]);
        let output = call(folder.path(), &["task", "check", "."]);
        let said = stdout_of(&output);
        assert!(
            output.status.code() == Some(1) && said.contains(expected) && said.contains("line 1: "),
            "{row}: {said}"
        );
    }
    for (keys, expected) in [
        (
            "language = \"node\"",
            "`score.language` takes python, not \"node\"; score other programs by one of your own",
        ),
        (
            "run = [\"ruby\", \"{file}\"]",
            "`score.run` was removed: tests are for Python",
        ),
        (
            "language = \"python\"\nfile = \"a.py\"",
            "unknown key `score.file`",
        ),
    ] {
        let toml = format!("name = \"t\"\n[score]\nkind = \"tests\"\n{keys}\n");
        fs::write(folder.path().join("task.toml"), toml).unwrap();
        let message = grpo_tui::score::Task::load(folder.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{keys}: {message}");
    }
}

/// Of a command that fails.
pub(super) fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(output)
}
