//! Reading prompt rows: every bad line has its message, as the user sees it.

use std::io::{BufReader, Cursor, Read};

use grpo_tui::dataset::{load, load_from, read_lines, read_rows};
use grpo_tui::task::PromptSet;
use grpo_tui::text::{ChatTemplate, Thinking};

use crate::program::{call_anywhere_in_process as call_anywhere, call_in_process as call};

const GOOD: &str = r#"{"messages":[{"role":"user","content":"hello"}]}"#;

#[test]
fn bad_lines_are_named_with_file_line_value_and_remedy() {
    let check = |line: &[u8], expected: &str| {
        let text = [GOOD.as_bytes(), b"\n\n", line, b"\n"].concat();
        let message = load_from("data/train.jsonl", text.as_slice())
            .unwrap_err()
            .to_string();
        assert_eq!(message, format!("data/train.jsonl line 3: {expected}"));
    };
    check(
        br#"{"prompt":"x"}"#,
        r#"missing `messages` (it has `prompt`); write {"messages": [{"role": "user", "content": "…"}]}"#,
    );
    check(
        b"{}",
        r#"missing `messages`; write {"messages": [{"role": "user", "content": "…"}]}"#,
    );
    check(
        br#"{"messages":[]}"#,
        "`messages` is empty; it needs at least one turn",
    );
    check(
        br#"{"messages":"hi"}"#,
        "`messages` is `\"hi\"`; it must be a list of {\"role\", \"content\"}",
    );
    check(
        br#"{"messages":[{"role":"robot","content":"x"}]}"#,
        "turn 1: role `robot` is unknown; write one of system, user, assistant, tool, developer",
    );
    check(
        br#"{"messages":[{"role":"user"}]}"#,
        r#"turn 1 has no `content`: `{"role":"user"}`; write {"role": "user", "content": "…"}"#,
    );
    check(
        br#"{"messages":[{"content":"x"}]}"#,
        r#"turn 1 has no `role`: `{"content":"x"}`; write {"role": "user", "content": "…"}"#,
    );
    check(
        br#"{"messages":[{"role":"user","content":7}]}"#,
        "turn 1: `content` is `7`; it must be a string",
    );
    check(
        br#"{"messages":[7]}"#,
        r#"turn 1 has no `role`: `7`; write {"role": "user", "content": "…"}"#,
    );
    let form = r#"write [{"type": "function", "function": {"name": "f", "arguments": {}}}]"#;
    let with_calls = |calls: &str, expected: &str| {
        let line = format!(r#"{{"messages":[{{"role":"assistant","tool_calls":{calls}}}]}}"#);
        check(line.as_bytes(), &expected.replace("FORM", form));
    };
    with_calls("7", "turn 1: `tool_calls` is `7`; FORM");
    with_calls(
        r#"[{"name":"f"}]"#,
        r#"turn 1: `tool_calls` has `{"name":"f"}`; FORM"#,
    );
    with_calls(
        r#"[{"name":7,"arguments":{}}]"#,
        r#"turn 1: `tool_calls` has `{"name":7,"arguments":{}}`; FORM"#,
    );
    with_calls(
        r#"[{"function":{"name":"f","arguments":"{1"}}]"#,
        "turn 1: `arguments` `{1` of a call: not JSON at column 2 (key must be a string); write an object",
    );
    check(
        b"[1]",
        "expected an object, found `[1]`; write {\"messages\": […]}",
    );
    check(
        br#"{"messages":[}"#,
        "not JSON at column 14 (expected value): `{\"messages\":[}`; write one whole JSON object per line",
    );
    check(
        br#"{"messages""#,
        "not JSON at column 11 (EOF while parsing an object): `{\"messages\"`; write one whole JSON object per line",
    );
    check(
        b"{\"a\": \"\xff\"}",
        "not UTF-8 from byte 8 of the line; save the file as UTF-8",
    );
    check(
        br#"{"messages":[{"role":"user","content":"x"}],"id":""}"#,
        "`id` is `\"\"`; write a text that is not empty, or leave it out",
    );
    check(
        br#"{"messages":[{"role":"user","content":"x"}],"tags":"clean"}"#,
        "`tags` contains `\"clean\"`; write a list of strings such as [\"clean\"]",
    );
    check(
        br#"{"messages":[{"role":"user","content":"x"}],"id":"train-1"}"#,
        "id `train-1` is already on line 1; give every row its own id, or none",
    );
}

#[test]
fn a_line_has_a_limit_whatever_is_read() {
    let endless = BufReader::new(std::io::repeat(b'x'));
    let found: Vec<_> = read_lines(endless).collect();
    assert_eq!(
        found,
        [Err((
            1,
            "longer than 64 MiB; write one JSON object per line".to_owned()
        ))]
    );
    let lines: Vec<_> = read_lines("\u{feff}a\n \n\u{feff}b".as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        lines,
        [(1, b"a\n".to_vec()), (3, "\u{feff}b".as_bytes().to_vec())]
    );
    assert_eq!(read_lines("\u{feff}".as_bytes()).count(), 0);
}

#[test]
fn empty_and_missing_files_are_told_apart() {
    for text in ["", "\n", "  \n\r\n"] {
        let message = load_from("train.jsonl", text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("train.jsonl: no prompt rows; write one JSON object per line"),
            "{message}"
        );
    }
    let (folder, task) = super::task_with(&[]);
    std::fs::remove_file(folder.path().join("eval.jsonl")).unwrap();
    let message = load(&task, PromptSet::Eval).unwrap_err().to_string();
    assert!(
        message.contains("eval.jsonl: No such file") && message.contains("write the file"),
        "{message}"
    );
}

#[test]
fn rows_keep_their_ids_lines_and_unknown_fields() {
    let text = "\u{feff}{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}],\"sql\":[1],\"expected\":null}\r\n\n\
                {\"id\":7,\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"b\"}],\"tags\":[\"t\"],\"expected\":{\"x\":1}}";
    let rows = load_from("some/folder/train.jsonl", text.as_bytes()).unwrap();
    assert_eq!(
        rows.iter()
            .map(|row| (row.id.as_str(), row.line))
            .collect::<Vec<_>>(),
        [("train-1", 1), ("7", 3)]
    );
    assert_eq!(rows[0].fields.get("sql"), Some(&serde_json::json!([1])));
    assert_eq!(rows[0].fields.value("messages").unwrap()[0]["name"], "n");
    assert_eq!(
        (rows[0].expected.as_ref(), rows[1].expected.as_ref()),
        (None, Some(&serde_json::json!({"x": 1})))
    );
    assert_eq!(
        (rows[1].messages.len(), rows[1].tags.clone()),
        (2, vec!["t".to_owned()])
    );
}

#[test]
fn turns_may_call_tools_and_bring_their_results() {
    let text = r#"{"messages":[{"role":"user","content":"u"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
        {"role":"tool","tool_call_id":"1","content":"x"}]}"#;
    let row = load_from("train.jsonl", text.replace('\n', " ").as_bytes())
        .unwrap()
        .remove(0);
    let [_, called, result] = row.messages.as_slice() else {
        panic!("{row:?}")
    };
    assert_eq!(
        (called.content.as_str(), result.content.as_str()),
        ("", "x")
    );
    // Chat templates expect an object.
    assert_eq!(
        called.tool_calls()[0]["function"]["arguments"],
        serde_json::json!({"a": 1})
    );
    assert_eq!(result.other["tool_call_id"], "1");
    let source = "{% for m in messages %}{{ m.role }}{% for c in m.tool_calls or [] %}:{{ c.function.arguments | tojson }}{% endfor %} {% endfor %}";
    let render = |source: &str, tools: Option<&serde_json::Value>| {
        ChatTemplate::new(source, Vec::new(), "t")
            .unwrap()
            .render(&row.messages, tools, &Thinking::Off.into())
            .unwrap()
    };
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(
        render(&format!("{source}{{{{ tools | length }}}}"), Some(&tools)),
        "user assistant:{\"a\": 1} tool 1"
    );
    let plain = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}";
    let text = render(plain, Some(&tools));
    assert!(
        text.starts_with("[system] # Tools\n\n")
            && text.contains("\n{\"type\": \"function\", \"function\": {\"name\": \"f\"}}\n")
    );
    let turns = "[user] u[assistant] <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>[user] <tool_response>\nx\n</tool_response>";
    assert!(text.ends_with(turns), "{text}");
}

#[test]
fn reading_goes_on_after_a_bad_line() {
    let text = format!("{GOOD}\n{{\n{GOOD}\n7\n{GOOD}");
    let rows: Vec<bool> = read_rows("x.jsonl", text.as_bytes())
        .map(|row| row.is_ok())
        .collect();
    assert_eq!(rows, [true, false, true, false, true]);
}

/// A file of `lines` equal lines that exists nowhere, and what was asked of it at once.
struct Endless {
    line: Cursor<Vec<u8>>,
    left: usize,
    largest: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.largest = self.largest.max(buffer.len());
        if self.line.position() == self.line.get_ref().len() as u64 && self.left > 0 {
            (self.left, _) = (self.left - 1, self.line.set_position(0));
        }
        self.line.read(buffer)
    }
}

#[test]
fn a_long_file_streams_through_a_small_buffer() {
    let mut source = Endless {
        line: Cursor::new(format!("{GOOD}\n").into_bytes()),
        left: 49_999,
        largest: 0,
    };
    let count = read_rows("x.jsonl", BufReader::new(&mut source))
        .filter(|row| row.is_ok())
        .count();
    assert_eq!(count, 50_000);
    assert!(
        source.largest <= 64 << 10,
        "{} bytes were asked for at once",
        source.largest
    );
}

#[test]
fn calls_that_rows_ask_for_are_found_and_printed_as_demonstrations() {
    let output = call_anywhere(&["dataset", "demonstrate", "assistant", "--on", "eval"]);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        err.contains("Calls found for 24 of 24 rows; 0 had a demonstration."),
        "{err}"
    );
    let rows = load_from("eval.jsonl", out.as_bytes()).unwrap();
    assert!(rows.len() == 24 && rows.iter().all(|row| row.has_demonstration()));
    let refused = call_anywhere(&["dataset", "demonstrate", "invoice"]);
    let err = String::from_utf8(refused.stderr).unwrap();
    assert!(err.contains("kind = \"state\""), "{err}");
}

#[test]
fn a_check_says_for_how_many_rows_calls_are_found_and_names_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("shop");
    crate::program::sample_task_named("assistant", &task, [40, 2, 2]);
    let train = task.join("train.jsonl");
    let rows = std::fs::read_to_string(&train).unwrap();
    let (first, others) = rows.split_once('\n').unwrap();
    // An account that neither the request nor a tool names.
    let first = first.replace("\"garden\",null", "\"yacht\",null");
    std::fs::write(&train, format!("{first}\n{others}")).unwrap();
    let output = call(folder.path(), &["task", "check", "shop"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "search finds calls that reach `expected` for 19 of 20 rows (of 40 without a demonstration), 2 to ",
        "at most 4000 tried for a row",
        "shop/train.jsonl line 1 (train-001): no calls found: ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = call(folder.path(), &["task", "check", "shop", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["search"]["found"], 19, "{document}");
}
