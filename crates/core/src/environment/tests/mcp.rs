//! Tests of MCP servers, well-behaved and not.

use super::*;

/// A server with the tool `f`, which adds its arguments; each case changes one line.
pub(super) const SERVER: &str = r#"import json, os, sys, time
version, n, changes = "2025-11-25", 0, False
def send(**message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def tools(): return [{"name": "f", "description": "adds", "inputSchema": {"type": "object", "properties": {"x": {"type": "integer"}}}}]
def text(text, **more): return {"content": [{"type": "text", "text": text}], **more}
def call(x):
    return text(str(n))
for line in sys.stdin:
    request = json.loads(line)
    id, method, params = request.get("id"), request.get("method"), request.get("params", {})
    if method == "initialize": send(id=id, result={"protocolVersion": version, "capabilities": {"tools": {}}})
    elif method == "tools/list": send(id=id, result={"tools": tools()})
    elif method == "tools/call":
        n += params["arguments"].get("x", 0)
        send(id=id, result=call(params["arguments"].get("x")))
"#;

/// Asks for the state that a last call of `f` returns.
fn asked(question: Value) -> StateQuery {
    StateQuery {
        tool: None,
        question: StateQuestion::Program(question),
    }
}

/// The tools of a server whose script has `to` in place of `from`.
fn server(from: &str, to: &str, keys: &str) -> (tempfile::TempDir, Toolset) {
    assert!(SERVER.contains(from), "{from}");
    let folder = folder(&[
        ("server.py", &SERVER.replacen(from, to, 1)),
        ("tools.json", DEFINITIONS),
    ]);
    let tools = toolset(
        folder.path(),
        &format!("[[tool]]\nmcp = [\"python3\", \"server.py\"]\n{keys}"),
    )
    .unwrap();
    (folder, tools)
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_server_lists_its_functions_and_answers() {
    let (_folder, tools) = server("", "", "");
    let function = json!({"name": "f", "description": "adds", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}});
    assert_eq!(
        tools.definitions().unwrap(),
        &json!([{"type": "function", "function": function}])
    );
    let (mut one, mut other) = (
        tools.open(&row(json!({}))).unwrap(),
        tools.open(&row(json!({}))).unwrap(),
    );
    assert_eq!(reply(&mut one, "f", json!({"x": 2})), "answered: 2");
    assert_eq!(reply(&mut one, "f", json!({"x": 3})), "answered: 5");
    assert_eq!(reply(&mut other, "f", json!({"x": 7})), "answered: 7");
    assert_eq!(
        reply(&mut one, "f", json!({"x": "a"})),
        "refused: error: arguments of f: /x: \"a\" is not of type \"integer\""
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_server_gets_variables_whose_secrets_are_in_no_reply() {
    let own = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let told =
        "text(os.environ['MODE'] + ' ' + os.environ['KEY'] + ' ' + str(len(os.environ['KEY'])))";
    let env = "env = { MODE = \"quiet\", KEY = \"${CARGO_MANIFEST_DIR}\" }\n";
    let (folder, tools) = server("text(str(n))", told, env);
    let shown = tools.programs().unwrap()[0].programs.join("\n");
    assert!(
        shown.contains("with KEY=${CARGO_MANIFEST_DIR}") && shown.contains("with MODE=quiet"),
        "{shown}"
    );
    let mut conversation = tools.open(&row(json!({}))).unwrap();
    let expected = format!("answered: quiet ${{CARGO_MANIFEST_DIR}} {}", own.len());
    assert_eq!(reply(&mut conversation, "f", json!({"x": 2})), expected);
    // In what it says at its end, too.
    let (_folder, tools) = server("text(str(n))", "sys.exit(os.environ['KEY'])", env);
    let mut conversation = tools.open(&row(json!({}))).unwrap();
    let found = reply(&mut conversation, "f", json!({"x": 2}));
    assert!(
        found.contains("exit code 1: ${CARGO_MANIFEST_DIR}") && !found.contains(&own),
        "{found}"
    );
    for (env, why) in [
        ("{ KEY = 3 }", "`tool.env.KEY` takes a text in quotes"),
        (
            "{ PATH = \"/bin\" }",
            "`tool.env.PATH` is set by the sandbox: leave it out",
        ),
        (
            "{ \"A=B\" = \"c\" }",
            "`tool.env.A=B` is no name of a variable",
        ),
    ] {
        let task = format!("[[tool]]\nmcp = [\"python3\", \"server.py\"]\nenv = {env}\n");
        let found = toolset(folder.path(), &task).unwrap_err();
        assert!(found.contains(why), "{found}");
    }
    let missing =
        "[[tool]]\nmcp = [\"python3\", \"server.py\"]\nenv = { KEY = \"${NO_SUCH_VARIABLE_1}\" }\n";
    let tools = toolset(folder.path(), missing).unwrap();
    let found = tools.definitions().unwrap_err().to_string();
    let why = "needs the environment variable NO_SUCH_VARIABLE_1 (`env` in its [[tool]]): set it";
    assert!(found.contains(why), "{found}");
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn results_are_texts_whatever_they_are() {
    for (result, expected) in [
        ("text('a')", "answered: a"),
        (
            "text('no such order', isError=True)",
            "answered: error: no such order",
        ),
        (
            "{'content': [{'type': 'text', 'text': 'a'}, {'type': 'image', 'data': 'A' * 4000, 'mimeType': 'image/png'}]}",
            "answered: a\n[image, 3,000 bytes, not shown]",
        ),
        (
            "{'content': [{'type': 'resource', 'resource': {'uri': 'x:y', 'text': 'b'}}, {'type': 'resource_link', 'uri': 'x:z'}]}",
            "answered: b\n[x:z]",
        ),
        (
            "{'content': [{'type': 'resource', 'resource': {'uri': 'x:y', 'blob': 'AAAAAA=='}}]}",
            "answered: [resource x:y, 4 bytes, not shown]",
        ),
        (
            "{'content': [{'type': 'text', 'text': 'one'}], 'structuredContent': {'n': 1}}",
            "answered: one\n{\"n\":1}",
        ),
        (
            "{'content': [{'type': 'text', 'text': '{ \\\"n\\\": 1 }'}], 'structuredContent': {'n': 1}}",
            "answered: { \"n\": 1 }",
        ),
        (
            "{'content': [], 'structuredContent': {'n': 1}}",
            "answered: {\"n\":1}",
        ),
        ("text('\\x1b[2J\\0')", "answered: ␛[2J␀"),
        ("text('x' * 100_000)", "answered: xxx"),
        (
            "7",
            "failed: the tool \"mcp\" answered a call with no result of MCP",
        ),
        (
            "text('x' * 100_000_000)",
            "failed: the tool \"mcp\" wrote a line of more than 1024 KiB",
        ),
        (
            "print(chr(0) * 3, flush=True)",
            "failed: the tool \"mcp\" wrote \"\\0\\0\\0\", which is no message of MCP: ",
        ),
        (
            "os.write(1, bytes([255, 10]))",
            "failed: the tool \"mcp\" wrote \"\u{fffd}\", which is no message of MCP: ",
        ),
        (
            "send(id=99, result={})",
            "failed: the tool \"mcp\" answered what was not asked",
        ),
        (
            "os._exit(3)",
            "failed: the tool \"mcp\" ended with exit code 3",
        ),
        (
            "[send(id='x' * 200, method='ping')]",
            "failed: the tool \"mcp\" sends \"ping\" with an id of 202 bytes: an id has at most 100",
        ),
        (
            "[send(id=1, method='ping') for _ in range(60_000)]",
            "failed: the tool \"mcp\" sends requests such as \"ping\" and does not read the answers: more than 1024 KiB wait for it",
        ),
        (
            "[os.write(1, b'{\"method\":\"notifications/message\"}\\n' * 1_000) for _ in range(200)]",
            "failed: the tool \"mcp\" sent more than 100,000 messages and no answer",
        ),
        (
            "send(method='notifications/message', params={}) or text('b')",
            "answered: b",
        ),
        (
            "send(id='q', method='ping') or text(sys.stdin.readline().strip())",
            r#"answered: {"id":"q","jsonrpc":"2.0","result":{}}"#,
        ),
        (
            "send(id=4, method='roots/list') or text(sys.stdin.readline().strip())",
            r#"answered: {"error":{"code":-32601,"message":"not supported"},"id":4,"jsonrpc":"2.0"}"#,
        ),
    ] {
        let (_folder, tools) = server("return text(str(n))", &format!("return {result}"), "");
        let found = reply(&mut tools.open(&row(json!({}))).unwrap(), "f", json!({}));
        let found = found.replace(
            r#"{"jsonrpc":"2.0","id":"q","result":{}}"#,
            r#"{"id":"q","jsonrpc":"2.0","result":{}}"#,
        );
        let found = found.replace(
            r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32601,"message":"not supported"}}"#,
            r#"{"error":{"code":-32601,"message":"not supported"},"id":4,"jsonrpc":"2.0"}"#,
        );
        assert!(found.starts_with(expected), "{result}: {found}");
    }
    let error = "send(id=id, error={'code': -32602, 'message': 'bad'})";
    let (_folder, tools) = server(
        "send(id=id, result=call(params[\"arguments\"].get(\"x\")))",
        error,
        "",
    );
    assert_eq!(
        reply(&mut tools.open(&row(json!({}))).unwrap(), "f", json!({})),
        "answered: error: bad"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_server_that_is_not_one_is_named() {
    let initialized =
        "send(id=id, result={\"protocolVersion\": version, \"capabilities\": {\"tools\": {}}})";
    let listed = "send(id=id, result={\"tools\": tools()})";
    for (from, to, keys, expected) in [
        (
            "import json",
            "raise SystemExit('no key')\nimport json",
            "",
            "the tool \"mcp\" ended with exit code 1: no key",
        ),
        (
            "import json",
            "print('hello', flush=True)\nimport json",
            "",
            "the tool \"mcp\" wrote \"hello\", which is no message of MCP",
        ),
        (
            "2025-11-25",
            "1999-01-01",
            "",
            "the tool \"mcp\" speaks MCP version \"1999-01-01\"; this program knows MCP 2024-11-05, ",
        ),
        (
            "\"protocolVersion\": version",
            "\"x\": 1",
            "",
            "the tool \"mcp\" speaks MCP version \"none\"",
        ),
        (
            initialized,
            "send(id=id, error={'code': -32022, 'message': 'only 2026-07-28'})",
            "",
            "the tool \"mcp\" refuses to begin: only 2026-07-28; this program knows",
        ),
        (
            listed,
            "send(id=id, error={'code': -32601, 'message': 'no tools'})",
            "",
            "the tool \"mcp\" does not list its tools: no tools",
        ),
        (
            listed,
            "send(id=id, result={'tools': [{'name': 7}]})",
            "",
            "the tool \"mcp\" does not list its tools: invalid type",
        ),
        (
            listed,
            "send(id=id, result={'tools': [], 'nextCursor': 'x'})",
            "",
            "the tool \"mcp\" lists its tools on more than 100 pages",
        ),
        (
            "def tools(): return [",
            "def tools(): return 2 * [",
            "",
            "the tool \"mcp\" has definitions with a fault: /1/function/name: \"f\" occurs twice",
        ),
        (
            "\"inputSchema\": {\"type\": \"object\"",
            "\"inputSchema\": {\"type\": \"thing\"",
            "",
            "the tool \"mcp\" has definitions with a fault: /0/function/parameters",
        ),
    ] {
        let (_folder, tools) = server(from, to, keys);
        let error = tools.definitions().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{to}: {error}");
    }
    let folder = folder(&[("npx", "#!/bin/sh\necho 'npm error' >&2\nexit 1\n")]);
    let toml = "[[tool]]\nmcp = [\"./npx\", \"-y\", \"server\"]\nisolation = \"limited\"\n";
    let npx = folder.path().join("npx");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(npx, mode).unwrap();
    if crate::sandbox::machine().level == crate::sandbox::Level::None {
        return;
    }
    let tools = toolset(folder.path(), toml).unwrap();
    assert_eq!(
        tools.definitions().unwrap_err().to_string(),
        "the tool \"mcp\" ended with exit code 1: npm error; npx downloads what it starts, and a tool has no network: install the server and start it by its file"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_server_without_state_serves_one_conversation_after_another() {
    // Process ids are those of the sandbox.
    let own = "return text(call.__dict__.setdefault('name', os.urandom(8).hex())) if x == 1 else os._exit(3)";
    for (keys, starts) in [("stateless = true", 1), ("", 3)] {
        let (_folder, tools) = server("return text(str(n))", own, keys);
        let ask = |x: u8| {
            reply(
                &mut tools.open(&row(json!({}))).unwrap(),
                "f",
                json!({"x": x}),
            )
        };
        let found: std::collections::BTreeSet<String> = (0..3).map(|_| ask(1)).collect();
        assert_eq!(found.len(), starts, "{found:?}");
        // If two conversations want one, another is started; an ended one is not reused.
        let mut first = tools.open(&row(json!({}))).unwrap();
        let name = reply(&mut first, "f", json!({"x": 1}));
        assert_ne!(ask(1), name);
        assert!(reply(&mut first, "f", json!({"x": 2})).starts_with("failed: "));
        drop(first);
        assert_ne!(ask(1), name);
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn instructions_of_a_server_are_for_the_prompt() {
    let capabilities = "\"capabilities\": {\"tools\": {}}";
    let with = |text: &str, keys: &str| {
        server(
            capabilities,
            &format!("{capabilities}, \"instructions\": {text}"),
            keys,
        )
    };
    let heading = "# Instructions of the MCP server `mcp`\n\n";
    for (text, expected) in [
        ("'  Call f first.\\n'", format!("{heading}Call f first.")),
        ("'\\x1b[2Jx'", format!("{heading}␛[2Jx")),
        ("' '", String::new()),
        ("None", String::new()),
    ] {
        let (_folder, tools) = with(text, "");
        assert_eq!(tools.instructions().unwrap(), expected, "{text}");
        let found = reply(
            &mut tools.open(&row(json!({}))).unwrap(),
            "f",
            json!({"x": 1}),
        );
        assert_eq!(found, "answered: 1", "{text}");
    }
    let (_folder, tools) = with("'x' * 5000", "[tools]\nmax_result_bytes = 64");
    assert_eq!(
        tools.instructions().unwrap(),
        format!(
            "{heading}{}\n[cut: the first 29 of 5,000 bytes]",
            "x".repeat(29)
        )
    );
    // The model was shown others.
    let (_folder, tools) = with("os.urandom(4).hex()", "");
    assert_eq!(
        reply(&mut tools.open(&row(json!({}))).unwrap(), "f", json!({})),
        "failed: the tool \"mcp\" has other instructions than when the task was made ready: with `definitions` in its [[tool]] none are shown (row r1, call f {})"
    );
    // Showing a copy starts nothing.
    let definitions = json!([{"type": "function", "function": {"name": "f", "description": "adds", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}]);
    let (folder, _) = with("os.urandom(4).hex()", "");
    std::fs::write(folder.path().join("tools.json"), definitions.to_string()).unwrap();
    let tools_toml = "[[tool]]\nmcp = [\"python3\", \"server.py\"]\ndefinitions = \"tools.json\"\n";
    let tools = toolset(folder.path(), tools_toml).unwrap();
    assert_eq!(tools.instructions().unwrap(), "");
    assert_eq!(
        reply(
            &mut tools.open(&row(json!({}))).unwrap(),
            "f",
            json!({"x": 1})
        ),
        "answered: 1"
    );
    // Two servers under their names.
    let script = SERVER.replace(
        capabilities,
        &format!("{capabilities}, \"instructions\": sys.argv[1]"),
    );
    let other = SERVER
        .replace("\"name\": \"f\"", "\"name\": \"g\"")
        .replace(
            capabilities,
            &format!("{capabilities}, \"instructions\": sys.argv[1]"),
        );
    let folder = self::folder(&[("server.py", &script), ("other.py", &other)]);
    let block = |name: &str, file: &str, text: &str| {
        format!("[[tool]]\nname = \"{name}\"\nmcp = [\"python3\", \"{file}\", \"{text}\"]\n")
    };
    let toml = block("shop", "server.py", "Buy.") + &block("bank", "other.py", "Pay.");
    assert_eq!(
        toolset(folder.path(), &toml)
            .unwrap()
            .instructions()
            .unwrap(),
        "# Instructions of the MCP server `shop`\n\nBuy.\n\n# Instructions of the MCP server `bank`\n\nPay."
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_server_keeps_to_the_list_that_the_model_was_shown() {
    let changed = "failed: the tool \"mcp\" has changed its list of tools since the task was made ready (row r1, call f ";
    // From one process to the next, and within one.
    let another = "def tools(): return [{\"name\": \"f\", \"description\": str(os.getpid()) + str(time.time())";
    let (_folder, tools) = server(
        "def tools(): return [{\"name\": \"f\", \"description\": \"adds\"",
        another,
        "",
    );
    let found = reply(&mut tools.open(&row(json!({}))).unwrap(), "f", json!({}));
    assert!(found.starts_with(changed), "{found}");
    let later = "\"description\": \"adds\" if n == 0 else \"more\"";
    let notice = format!("{later}, \"inputSchema\"");
    let (_folder, tools) = server("\"description\": \"adds\", \"inputSchema\"", &notice, "");
    let mut unsaid = tools.open(&row(json!({}))).unwrap();
    assert_eq!(reply(&mut unsaid, "f", json!({"x": 1})), "answered: 1");
    assert_eq!(
        reply(&mut unsaid, "f", json!({"x": 1})),
        "answered: 2",
        "it has not said so"
    );
    let says = "return send(method=\"notifications/tools/list_changed\") or text(str(n))";
    let script = SERVER
        .replace("\"description\": \"adds\", \"inputSchema\"", &notice)
        .replace("return text(str(n))", says);
    let folder = folder(&[("server.py", &script)]);
    let tools = toolset(
        folder.path(),
        "[[tool]]\nmcp = [\"python3\", \"server.py\"]\n",
    )
    .unwrap();
    let mut said = tools.open(&row(json!({}))).unwrap();
    assert_eq!(reply(&mut said, "f", json!({"x": 1})), "answered: 1");
    let found = reply(&mut said, "f", json!({"x": 1}));
    assert!(found.starts_with(changed), "{found}");
    // A copy in the task takes precedence.
    let (_folder, tools) = server("", "", "definitions = \"tools.json\"");
    assert_eq!(
        tools.definitions().unwrap(),
        &serde_json::from_str::<Value>(DEFINITIONS).unwrap()
    );
    let found = reply(
        &mut tools.open(&row(json!({}))).unwrap(),
        "f",
        json!({"x": 1}),
    );
    assert!(found.starts_with(changed), "{found}");
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_last_call_of_a_server_is_the_final_state() {
    let state = |answer: &str, question: Value| {
        let (_folder, tools) = server("return text(str(n))", &format!("return {answer}"), "");
        let mut conversation = tools.open(&row(json!({}))).unwrap();
        reply(&mut conversation, "f", json!({"x": 2}));
        let state = conversation.state(&asked(question));
        state.map_err(|error| error.to_string())
    };
    let last = json!({"name": "f", "arguments": {"x": 3}});
    for (answer, question, expected) in [
        ("text(str(n))", last.clone(), json!("5")),
        ("text(str(n))", json!({"name": "f"}), json!("2")),
        (
            "text('two', structuredContent={'n': n})",
            last.clone(),
            json!({"n": 5}),
        ),
        (
            "text('no such order', isError=True, structuredContent={'n': n})",
            last.clone(),
            json!("error: no such order\n{\"n\":5}"),
        ),
    ] {
        assert_eq!(state(answer, question), Ok(expected), "{answer}");
    }
    for (answer, question, expected) in [
        (
            "text('a')",
            json!({"name": "f", "arguments": {"x": "3"}}),
            "the final state: the tool \"mcp\": error: arguments of f: /x: \"3\" is not of type \"integer\" (row r1)",
        ),
        (
            "text('a')",
            json!({"name": "g"}),
            "the final state: no [[tool]] that answers it: {\"name\":\"g\"} (row r1)",
        ),
        (
            "text('a')",
            json!({"name": "f", "args": {"x": 3}}),
            "the final state: no [[tool]] that answers it",
        ),
        (
            "text('a') if x == 2 else sys.exit('gone')",
            last.clone(),
            "the final state: the tool \"mcp\": ended with exit code 1: gone (row r1)",
        ),
        (
            "text('a') if x == 2 else 7",
            last.clone(),
            "the final state: the tool \"mcp\": answered a call with no result of MCP: invalid type",
        ),
    ] {
        let found = state(answer, question).unwrap_err();
        assert!(found.starts_with(expected), "{answer}: {found}");
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_last_call_is_replayed() {
    let (folder, _) = server("", "", "");
    let recorded = RecordedConversation {
        row: "r1".to_owned(),
        calls: Vec::new(),
        states: [(json!(asked(json!({"name": "f"}))).to_string(), json!(7))]
            .into_iter()
            .collect(),
    };
    std::fs::write(
        folder.path().join("recorded.jsonl"),
        json!(recorded).to_string(),
    )
    .unwrap();
    let toml = "[[tool]]\nmcp = [\"python3\", \"server.py\"]\ndefinitions = \"tools.json\"\n[tools]\nreplay = true\n";
    let tools = toolset(folder.path(), toml).unwrap();
    let mut conversation = tools.open(&row(json!({}))).unwrap();
    assert_eq!(
        conversation.state(&asked(json!({"name": "f"}))).unwrap(),
        json!(7)
    );
    let other = conversation.state(&asked(json!({"name": "g"})));
    assert!(other.unwrap_err().to_string().contains("no [[tool]] that"));
}
