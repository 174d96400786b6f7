//! A task with live tools: nothing runs before it is trusted, and `task check` calls its functions.

use std::fs;

use crate::program::{call, json, stderr, stdout};

const TOML: &str = r#"name = "shop"
[prompts]
train = "train.jsonl"
[score]
kind = "text"
[[tool]]
builtin = "sqlite"
database = "shop.sql"
[[tool]]
run = ["python3", "tools.py"]
definitions = "tools.json"
"#;
const ROW: &str = r#"{"messages": [{"role": "user", "content": "Stock?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "query", "arguments": {"sql": "SELECT stock FROM item"}}}]}, {"role": "tool", "content": "5"}, {"role": "user", "content": "Order one."}], "expected": "done"}"#;
const FUNCTIONS: &str = r#"[{"type": "function", "function": {"name": "order", "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"], "examples": [{"item": "nut"}]}}}]"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn tools_run_once_trusted_and_task_check_calls_them() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |name: &str, text: &str| fs::write(here.join(name), text).unwrap();
    let answer = |result: &str| {
        let text = format!(
            "import json, os, sys\nfor line in sys.stdin: print(json.dumps({result}), flush=True)\n"
        );
        write("tools.py", &text);
    };
    write("task.toml", TOML);
    write("train.jsonl", ROW);
    write("tools.json", FUNCTIONS);
    write(
        "shop.sql",
        "CREATE TABLE item (stock INT); INSERT INTO item VALUES (5);",
    );
    let check = |expected: &str| {
        let output = call(here, &["task", "check", "."]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains(expected),
            "{expected:?} is not in {text}{}",
            stderr(&output)
        );
        (output.status.success(), text)
    };
    answer("{'result': 'ordered'}");
    assert!(
        !check("error: shop runs `python3 tools.py` as a tool, which is not trusted: read it, then allow it with").0
    );
    let shown = stdout(&call(here, &["task", "trust", ".", "--yes"]));
    for part in [
        "shop uses a tool, in ",
        "\n  tool     python3 tools.py\n",
        "/tools.py\n  isolation ",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    let (is_right, text) = check("order     same answer");
    assert!(
        is_right && text.contains("execute   n/a (no row has a call of it)\n"),
        "{text}"
    );
    assert!(
        text.contains(r#"  {"columns":["stock"],"rows":[[5]]}"#),
        "{text}"
    );
    let found = json(&call(here, &["task", "check", ".", "--json"]));
    assert_eq!(
        found["functions"][2]["finding"]["answered"]["text"], "ordered",
        "{found}"
    );
    for (result, expected) in [
        (
            "{'result': os.urandom(4).hex()}",
            "error: the function \"order\" answers the same call about the same row differently: \"",
        ),
        (
            "7",
            "error: the function \"order\": the tool \"run\" wrote \"7\": ",
        ),
    ] {
        answer(result);
        check("which is not trusted");
        assert!(
            stdout(&call(here, &["task", "trust", ".", "--yes"]))
                .contains("has changed since it was trusted")
        );
        assert!(!check(expected).0, "{result}");
    }
    // What is wrong with the state that is asked for, with a row, and before a run.
    answer("{'result': 1}");
    assert!(stdout(&call(here, &["task", "trust", ".", "--yes"])).contains("Trusted: "));
    write(
        "task.toml",
        &TOML.replace(
            "kind = \"text\"",
            "kind = \"state\"\nquery = \"SELECT price FROM item\"",
        ),
    );
    check("error: the final state: the tool \"sqlite\": no such column: price");
    write("task.toml", TOML);
    write(
        "train.jsonl",
        &ROW.replace("\"expected\"", "\"database\": \"CREATE\", \"expected\""),
    );
    check("error: row train-1: the tool \"sqlite\": `database` line 1 column 1: incomplete input");
    assert!(
        call(here, &["task", "trust", ".", "--revoke"])
            .status
            .success()
    );
    let refused = call(here, &["train", ".", "--model", "tiny", "--plan"]);
    assert!(
        stderr(&refused).contains("`python3 tools.py` as a tool, which is not trusted"),
        "{}",
        stderr(&refused)
    );
}
