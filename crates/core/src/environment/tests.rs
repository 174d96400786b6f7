//! Tests of tools in conversations: programs that answer, fail, hang and lie; databases;
//! `task.toml`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod builtin;
mod folder;
mod mcp;
mod mcp_file;
mod recorded;

use std::path::Path;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::*;
use crate::dataset::PromptRow;
use crate::sandbox::trust_folder;
use crate::task::{Home, Section, Source};

const DEFINITIONS: &str = r#"[{"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}]"#;
const RUN: &str = "[[tool]]\nrun = [\"python3\", \"tools.py\"]\ndefinitions = \"tools.json\"\n";

/// The tools of a `task.toml`, with trusted programs.
fn toolset(folder: &Path, toml: &str) -> Result<Toolset, String> {
    let document = DeTable::parse(toml).unwrap();
    let source = Source {
        label: "task.toml",
        text: toml,
    };
    let top = Section::new(source, "", document.get_ref(), &TOOL_KEYS)
        .map_err(|error| error.to_string())?;
    let home = Home::Folder(folder.to_owned());
    let tools = Toolset::read(&top, "shop", &home)
        .map_err(|error| error.to_string())?
        .unwrap();
    for program in tools.programs().map_err(|error| error.to_string())? {
        let notes = trust_folder().unwrap();
        std::fs::create_dir_all(&notes).unwrap();
        std::fs::write(notes.join(program.digest), "").unwrap();
    }
    Ok(tools)
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn row(fields: Value) -> PromptRow {
    let fields = fields.as_object().cloned().unwrap_or_default();
    PromptRow {
        id: "r1".to_owned(),
        messages: Vec::new(),
        expected: None,
        tags: Vec::new(),
        fields: fields.into(),
        line: 1,
    }
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall {
        name: name.to_owned(),
        arguments: arguments.as_object().cloned().unwrap_or_default(),
    }
}

/// The reply to one call, as `answered: text`.
fn reply(environment: &mut Environment, name: &str, arguments: Value) -> String {
    shown(&environment.call(&[call(name, arguments)]).remove(0))
}

fn shown(reply: &ToolReply) -> String {
    format!(
        "{}: {}",
        serde_json::to_value(reply.outcome)
            .unwrap()
            .as_str()
            .unwrap(),
        reply.text
    )
}

/// A conversation with a Python program that gets `name`, `x` and `question`.
fn python(body: &str, keys: &str) -> (tempfile::TempDir, Environment) {
    python_about(body, keys, &row(json!({})))
}

fn python_about(body: &str, keys: &str, row: &PromptRow) -> (tempfile::TempDir, Environment) {
    let head = "import json, os, sys, time\nn = 0\nfor line in sys.stdin:\n    question = json.loads(line)\n    x = question.get('arguments', {}).get('x')\n    answer = lambda **parts: print(json.dumps(parts), flush=True)\n";
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let folder = folder(&[
        ("tools.py", &(head.to_owned() + &body)),
        ("tools.json", DEFINITIONS),
    ]);
    let environment = toolset(folder.path(), &format!("{RUN}{keys}"))
        .unwrap()
        .open(row)
        .unwrap();
    (folder, environment)
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_answers_one_conversation_and_keeps_its_state() {
    let (_folder, mut first) = python(
        "n += x or 0\nanswer(result=n if 'name' in question else question['state'])",
        "",
    );
    assert_eq!(reply(&mut first, "f", json!({"x": 2})), "answered: 2");
    assert_eq!(reply(&mut first, "f", json!({"x": 3})), "answered: 5");
    let query = |tool: Option<&str>, question| StateQuery {
        tool: tool.map(str::to_owned),
        question,
    };
    let sum = StateQuestion::Program(json!({"of": "sum"}));
    assert_eq!(
        first.state(&query(None, sum.clone())).unwrap(),
        json!({"of": "sum"})
    );
    assert_eq!(
        first.state(&query(Some("run"), sum.clone())).unwrap(),
        json!({"of": "sum"})
    );
    let wrong = first
        .state(&query(Some("shop"), sum))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.starts_with("the final state: no [[tool]] \"shop\""),
        "{wrong}"
    );
    let none = first
        .state(&query(None, StateQuestion::Sql("SELECT 1".to_owned())))
        .unwrap_err()
        .to_string();
    assert!(
        none.starts_with("the final state: no [[tool]] that answers it"),
        "{none}"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_begins_with_a_field_of_its_row() {
    // The first line has no answer, nor does a second one of its kind.
    let body = "if 'row' in question:\n    n += question['row']['start']\n    continue\nanswer(result=n + (x or 0))";
    let (folder, mut one) = python_about(
        body,
        "field = \"data\"",
        &row(json!({"data": {"start": 40}, "other": 1})),
    );
    assert_eq!(reply(&mut one, "f", json!({"x": 2})), "answered: 42");
    assert_eq!(reply(&mut one, "f", json!({"x": 3})), "answered: 43");
    let tools = toolset(folder.path(), &format!("{RUN}field = \"data\"")).unwrap();
    // Also if asked for its state first.
    let mut other = tools.open(&row(json!({"data": {"start": 1}}))).unwrap();
    let query = StateQuery {
        tool: None,
        question: StateQuestion::Program(json!({})),
    };
    assert_eq!(other.state(&query).unwrap(), json!(1));
    for fields in [json!({}), json!({"date": {"start": 1}})] {
        let error = tools.open(&row(fields)).unwrap_err().to_string();
        assert_eq!(
            error,
            "row r1: the tool \"run\": the row has no \"data\", which `field` of its [[tool]] names"
        );
    }
    let error = tools
        .open(&row(json!({"data": 7})))
        .unwrap()
        .call(&[call("f", json!({"x": 1}))])
        .remove(0);
    assert!(
        error.text.contains("ended with exit code 1: TypeError"),
        "{}",
        error.text
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn the_prompt_of_a_row_lists_the_functions_that_it_names() {
    let two = "[{\"name\": \"f\"}, {\"type\": \"function\", \"function\": {\"name\": \"g\"}}]";
    let folder = folder(&[("tools.py", ""), ("tools.json", two)]);
    let tools = toolset(folder.path(), RUN).unwrap();
    let all: Value = serde_json::from_str(two).unwrap();
    for (fields, expected) in [
        (json!({}), all.clone()),
        (json!({"tools": null}), all.clone()),
        (json!({"tools": ["g"]}), json!([all[1]])),
        (json!({"tools": ["g", "f"]}), json!([all[1], all[0]])),
        (json!({"tools": []}), json!([])),
        // Those of a row scored by kind = "tool_calls".
        (json!({"tools": [{"name": "h"}]}), all.clone()),
    ] {
        assert_eq!(
            *tools.definitions_of(&row(fields.clone())).unwrap(),
            expected,
            "{fields}"
        );
    }
    let error = tools
        .definitions_of(&row(json!({"tools": ["f", "h"]})))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "row r1: its `tools` name \"h\", a function that no [[tool]] has"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn what_a_program_does_is_told_from_what_the_model_does() {
    for (body, keys, expected) in [
        ("answer(result='text')", "", "answered: text"),
        (
            "answer(result={'a': [1, None]})",
            "",
            r#"answered: {"a":[1,null]}"#,
        ),
        ("answer(result=None)", "", "answered: null"),
        (
            "answer(error='no such order')",
            "",
            "answered: error: no such order",
        ),
        (
            "answer(result='\\x1b[2J\\r\\n<|im_end|>')",
            "",
            "answered: ␛[2J\n<|im_end|>",
        ),
        ("answer(result='x' * 100_000)", "", "answered: xxxx"),
        (
            "print('hello', flush=True)",
            "",
            "failed: the tool \"run\" wrote \"hello\": expected value",
        ),
        (
            "print(chr(27) + chr(0), flush=True)",
            "",
            "failed: the tool \"run\" wrote \"\\u{1b}\\0\": expected value",
        ),
        (
            "os.write(1, bytes([255, 254, 10]))",
            "",
            "failed: the tool \"run\" wrote \"\u{fffd}\u{fffd}\": expected value",
        ),
        (
            "answer(result=1, error=2)",
            "",
            "failed: the tool \"run\" wrote \"{\\\"result\\\": 1, \\\"error\\\": 2}\": needs either",
        ),
        (
            "answer(id=77, result=1)",
            "",
            "failed: the tool \"run\" answered id 77, which is not pending",
        ),
        (
            "sys.exit('why')",
            "",
            "failed: the tool \"run\" ended with exit code 1: why",
        ),
        (
            "print('x' * 100_000_000)",
            "",
            "failed: the tool \"run\" wrote a line of more than 1024 KiB",
        ),
        (
            "x = bytearray(4 << 30)",
            "memory_mib = 1024",
            "failed: the tool \"run\" ended with exit code 1: MemoryError",
        ),
        (
            "import mmap\nheld = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): held[at] = 1\ntime.sleep(60)",
            "memory_mib = 512\nisolation = \"none\"",
            "failed: the tool \"run\" used more than 512 MiB of memory",
        ),
        // As WebAssembly does.
        (
            "import mmap\nreserved = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE, mmap.PROT_READ)\nanswer(result=x)",
            "memory_mib = 1024",
            "answered: 2",
        ),
        (
            "answer(result=x) if x == 1 else time.sleep(60)",
            "seconds = 0.5",
            "failed: the tool \"run\" gave no answer within 0.5 s",
        ),
    ] {
        let (_folder, mut environment) = python(body, keys);
        // The first answer includes the interpreter's start.
        if keys.starts_with("seconds") {
            assert_eq!(reply(&mut environment, "f", json!({"x": 1})), "answered: 1");
        }
        let found = environment.call(&[call("f", json!({"x": 2}))]).remove(0);
        assert!(
            shown(&found).starts_with(expected),
            "{body}: {}",
            shown(&found)
        );
        assert!(found.text.len() <= 4_096 && found.seconds > 0.0);
        if found.outcome == CallOutcome::Failed {
            let again = reply(&mut environment, "f", json!({"x": 2}));
            let named = ", at an earlier call (row r1, call f {\"x\":2})";
            assert!(again.ends_with(named), "{body}: {again}");
        }
    }
    let (_folder, mut environment) = python("answer(result=1)", "");
    for (name, arguments, expected) in [
        (
            "g",
            json!({}),
            "refused: error: no function \"g\"; there are f",
        ),
        (
            "f",
            json!({}),
            "refused: error: arguments of f: \"x\" is a required property",
        ),
        (
            "f",
            json!({"x": "1"}),
            "refused: error: arguments of f: /x: \"1\" is not of type \"integer\"",
        ),
    ] {
        assert_eq!(reply(&mut environment, name, arguments), expected);
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn calls_of_one_answer_run_at_once_where_the_tool_says_so() {
    // A program that answers only once it has read both.
    let body = "held = globals().setdefault('held', []); held.append(question)\nif len(held) == 2:\n    for one in reversed(held): answer(id=one['id'], result=one['arguments']['x'])";
    let (_folder, mut environment) = python(body, "parallel = true");
    let replies = environment.call(&[
        call("f", json!({"x": 1})),
        call("g", json!({})),
        call("f", json!({"x": 2})),
    ]);
    let replies: Vec<String> = replies.iter().map(shown).collect();
    assert_eq!(
        replies,
        [
            "answered: 1",
            "refused: error: no function \"g\"; there are f",
            "answered: 2"
        ]
    );
    let body = format!("if x == 0:\n    answer(result=0)\n    continue\n{body}");
    let (_folder, mut one_by_one) = python(&body, "seconds = 0.5");
    assert_eq!(reply(&mut one_by_one, "f", json!({"x": 0})), "answered: 0");
    let replies = one_by_one.call(&[call("f", json!({"x": 1})), call("f", json!({"x": 2}))]);
    assert!(
        replies
            .iter()
            .all(|reply| reply.outcome == CallOutcome::Failed),
        "{replies:?}"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_does_not_outlive_its_conversation() {
    let lock = tempfile::NamedTempFile::new().unwrap();
    let held = crate::files::open(lock.path()).unwrap();
    // Also a daemon that holds its output open.
    let body = format!(
        "import fcntl\nheld = open({:?})\nfcntl.flock(held, fcntl.LOCK_SH)\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\n    os._exit(0)\nos.wait()\nanswer(result=1)",
        lock.path()
    );
    let (_folder, mut environment) = python(&body, &format!("read = [{:?}]", lock.path()));
    assert_eq!(reply(&mut environment, "f", json!({"x": 1})), "answered: 1");
    assert!(held.try_lock().is_err(), "it runs");
    drop(environment);
    held.try_lock().unwrap();
}

const SHOP: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, stock INT);\nINSERT INTO item VALUES (1, 'nut', 5), (2, 'bolt', 0);";

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn malformed_tools_are_refused_with_their_place() {
    let folder = folder(&[
        ("tools.py", ""),
        ("tools.json", DEFINITIONS),
        ("none.json", "[]"),
        ("bad.json", "[{\"name\": 7}]"),
        ("shop.sql", SHOP),
    ]);
    let sqlite = "[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n";
    for (toml, expected) in [
        (
            "[[tool]]\n",
            "task.toml line 1 column 1: `[[tool]]` names no tool; write for example `run",
        ),
        (
            "tool = 7",
            "task.toml line 1 column 8: `tool` must be written as `[[tool]]`",
        ),
        (
            "[[tool]]\nrum = []\n",
            "task.toml line 2 column 1: unknown key `tool.rum`; did you mean `run`?",
        ),
        (
            "[[tool]]\nrun = []\n",
            "task.toml line 2 column 7: `tool.run` is empty; write for example `run",
        ),
        (
            "[[tool]]\nrun = \"x\"\n",
            "task.toml line 2 column 7: `tool.run` must be a list of strings in quotes",
        ),
        (
            "[[tool]]\nrun = [\"x\"]\n",
            "/FOLDER/task.toml: missing `tool.definitions`; add for example `definitions = \"tools.json\"`",
        ),
        (
            "[[tool]]\nrun = [\"x\"]\ndefinitions = \"none.json\"",
            "task.toml line 3 column 15: `tool.definitions` /FOLDER/none.json: no function",
        ),
        (
            "[[tool]]\nrun = [\"x\"]\ndefinitions = \"bad.json\"",
            "task.toml line 3 column 15: `tool.definitions` /FOLDER/bad.json: /0/name: must be a text",
        ),
        (
            "[[tool]]\nrun = [\"x\"]\ndefinitions = \"no.json\"",
            "/FOLDER/no.json: No such file or directory",
        ),
        (
            "[[tool]]\nrun = [\"x\"]\nbuiltin = \"sqlite\"",
            "task.toml line 1 column 1: `[[tool]]` names two tools: write a block for each",
        ),
        (
            "[[tool]]\nbuiltin = \"mysql\"",
            "task.toml line 2 column 11: `tool.builtin` takes sqlite, python, files, not \"mysql\"",
        ),
        (
            "[[tool]]\nbuiltin = \"sqlite\"",
            "/FOLDER/task.toml: missing `tool.database`",
        ),
        (
            "[[tool]]\nbuiltin = \"sqlite\"\nseconds = 1",
            "task.toml line 3 column 11: `tool.seconds` is not a key of a tool with `builtin = \"sqlite\"`, which takes name, database",
        ),
        (
            &format!("{sqlite}{sqlite}"),
            "task.toml line 4 column 1: `tool.name` \"sqlite\" occurs twice: give each [[tool]] its own",
        ),
        (
            &format!("{sqlite}name = \"a b\""),
            "task.toml line 4 column 8: `tool.name` takes 1 to 32 letters",
        ),
        (
            &format!("{RUN}isolation = \"total\""),
            "task.toml line 4 column 13: `tool.isolation` takes strong, limited, none, not \"total\"",
        ),
        (
            &format!("{RUN}field = \"data\"\nstateless = true"),
            "task.toml line 4 column 9: `tool.field` is of a process of one conversation, but with `stateless = true`",
        ),
        (
            &format!("{RUN}field = 7"),
            "task.toml line 4 column 9: `tool.field` must be a string",
        ),
        (
            "[[tool]]\nmcp = [\"x\"]\nfield = \"data\"",
            "task.toml line 3 column 9: `tool.field` is not a key of a tool with `mcp`, which takes name, env, definitions, parallel",
        ),
        (
            &format!("{RUN}read = [\"data\"]"),
            "task.toml line 4 column 8: `tool.read` takes absolute paths",
        ),
        (
            "[tools]\nmax_calls = 1",
            "task.toml line 1 column 1: `tools` has limits of conversations with tools, but there is no `[[tool]]`",
        ),
        (
            &format!("{sqlite}[tools]\nmax_calls = 0"),
            "task.toml line 5 column 13: `tools.max_calls` must be a whole number from 1 to 10000, not 0",
        ),
        (
            &format!("{sqlite}[tools]\nmax_result_bytes = 9"),
            "task.toml line 5 column 20: `tools.max_result_bytes` must be a whole number from 64 to",
        ),
        (
            &format!("{sqlite}[tools]\nmax_call = 9"),
            "task.toml line 5 column 1: unknown key `tools.max_call`; did you mean `max_calls`?",
        ),
    ] {
        let error = toolset(folder.path(), toml).unwrap_err();
        let error = error.replace(folder.path().to_str().unwrap(), "/FOLDER");
        assert!(error.starts_with(expected), "{toml:?}: {error}");
    }
    // Found when tools are prepared.
    let names_twice = format!("{sqlite}name = \"a\"\n{RUN}name = \"b\"\n{RUN}");
    let error = toolset(folder.path(), &names_twice)
        .unwrap()
        .definitions()
        .unwrap_err()
        .to_string();
    let expected = "the tool \"run\" has definitions with a fault: \"f\" is a function of the tool \"b\", too: leave out one";
    assert!(error.starts_with(expected), "{error}");
    std::fs::write(
        folder.path().join("shop.sql"),
        "CREATE TABLE a (b);\n\nINSERT INTO c VALUES (1);",
    )
    .unwrap();
    let error = toolset(folder.path(), sqlite)
        .unwrap()
        .definitions()
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(
            "shop.sql line 3 column 1: no such table: c; each statement must run in SQLite"
        ),
        "{error}"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_runs_only_as_it_was_trusted() {
    let folder = folder(&[("tools.py", "1"), ("tools.json", DEFINITIONS)]);
    let tools = toolset(folder.path(), RUN).unwrap();
    let program = &tools.programs().unwrap()[0];
    assert_eq!(
        (program.files.as_slice(), program.is_trusted),
        (&["tools.py".to_owned()][..], true)
    );
    assert!(tools.needs_trust() && tools.definitions().is_ok());
    assert_eq!(
        tools.files().collect::<Vec<_>>(),
        ["tools.py", "tools.json"]
    );
    let changed = toolset(folder.path(), RUN).unwrap();
    std::fs::write(folder.path().join("tools.py"), "2").unwrap();
    let error = changed.open(&row(json!({}))).unwrap_err().to_string();
    assert!(
        error.starts_with("shop runs `python3 tools.py` as a tool, which is not trusted: read it"),
        "{error}"
    );
}

#[test]
fn replies_are_read_as_they_were_recorded() {
    let reply = ToolReply {
        text: "a\nb".to_owned(),
        outcome: CallOutcome::Refused,
        seconds: 0.25,
    };
    let json = serde_json::to_string(&reply).unwrap();
    assert_eq!(
        json,
        r#"{"text":"a\nb","outcome":"refused","seconds":0.25}"#
    );
    assert_eq!(serde_json::from_str::<ToolReply>(&json).unwrap(), reply);
    assert_eq!(Map::new(), call("f", Value::Null).arguments);
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn each_function_is_called_twice_by_a_call_of_the_task() {
    let of_row = |fields: Value, expected: Value| PromptRow {
        expected: Some(expected),
        ..row(fields)
    };
    let expected = json!([{"name": "f", "arguments": {"x": 1}}]);
    for (body, row, expected) in [
        (
            "n += 1\nanswer(result=n)",
            of_row(json!({}), expected.clone()),
            "answered: 1",
        ),
        (
            "answer(result=os.urandom(4).hex())",
            of_row(json!({}), expected.clone()),
            "differs",
        ),
        (
            "sys.exit(1)",
            of_row(json!({}), expected),
            "failed: the tool \"run\" ended with exit code 1 (row r1, call f {\"x\":1})",
        ),
        (
            "answer(result=x)",
            of_row(json!({}), json!({"name": "f", "arguments": "{\"x\": 7}"})),
            "answered: 7",
        ),
        (
            "answer(result=x)",
            of_row(json!({}), json!([{"name": "f", "arguments": {"x": "7"}}])),
            "not called",
        ),
        (
            "answer(result=x)",
            of_row(json!({}), json!("text")),
            "not called",
        ),
    ] {
        let head = "import json, os, sys\nn = 0\nfor line in sys.stdin:\n    x = json.loads(line)['arguments']['x']\n    answer = lambda **parts: print(json.dumps(parts), flush=True)\n";
        let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
        let folder = folder(&[
            ("tools.py", &(head.to_owned() + &body)),
            ("tools.json", DEFINITIONS),
        ]);
        let checks = check_tools(&toolset(folder.path(), RUN).unwrap(), [row].into_iter()).unwrap();
        let [FunctionCheck { function, finding }] = checks.as_slice() else {
            panic!("{checks:?}")
        };
        let found = match finding {
            FunctionFinding::NotCalled => "not called".to_owned(),
            FunctionFinding::Answered(reply) => shown(reply),
            FunctionFinding::Differs([first, second]) => {
                assert_ne!(first.text, second.text);
                "differs".to_owned()
            }
            FunctionFinding::Failed(why) => format!("failed: {why}"),
        };
        assert_eq!(
            (function.as_str(), found.as_str()),
            ("f", expected),
            "{body}"
        );
    }
    // Without rows, by an example of the parameters.
    let examples = DEFINITIONS.replace(
        "\"type\": \"object\"",
        "\"examples\": [{\"x\": 5}], \"type\": \"object\"",
    );
    let answers = "import json, sys\nfor line in sys.stdin: print(json.dumps({'result': json.loads(line)['arguments']['x']}), flush=True)\n";
    let folder = folder(&[("tools.py", answers), ("tools.json", &examples)]);
    let checks = check_tools(&toolset(folder.path(), RUN).unwrap(), std::iter::empty()).unwrap();
    assert!(
        matches!(&checks[0].finding, FunctionFinding::Answered(reply) if reply.text == "5"),
        "{checks:?}"
    );
}
