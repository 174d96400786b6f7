//! Tests of files in which other programs list MCP servers.

use super::mcp::SERVER;
use super::*;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn servers_are_read_as_other_programs_list_them() {
    let other = SERVER.replace("\"name\": \"f\"", "\"name\": \"g\"");
    let told = other.replace(
        "text(str(n))",
        "text(os.environ['MODE'] + os.environ['KEY'])",
    );
    let list = json!({"mcpServers": {
        "adds": {"command": "python3", "args": ["server.py"], "type": "stdio", "autoApprove": ["f"]},
        "told-more": {
            "command": "python3", "args": ["other.py"], "env": {"MODE": "quiet ", "KEY": "${env:CARGO_MANIFEST_DIR}"}
        },
        "off": {"command": "python3", "args": ["other.py"], "disabled": true},
    }});
    let of_vs_code = json!({"inputs": [], "servers": list["mcpServers"]});
    let folder = folder(&[
        ("server.py", SERVER),
        ("other.py", &told),
        ("mcp.json", &list.to_string()),
        ("code.json", &of_vs_code.to_string()),
        ("tools.json", DEFINITIONS),
    ]);
    let opened = |toml: &str| {
        let tools = toolset(folder.path(), toml).unwrap();
        let names: Vec<String> = tools
            .programs()
            .unwrap()
            .into_iter()
            .map(|one| one.name)
            .collect();
        (tools.open(&row(json!({}))).unwrap(), names, tools)
    };
    for file in ["mcp.json", "code.json"] {
        let (mut both, names, tools) = opened(&format!("[[tool]]\nmcp = {file:?}\n"));
        assert_eq!(names, ["adds", "told-more"]);
        assert!(tools.files().any(|own| own == file) && tools.files().any(|own| own == "other.py"));
        assert_eq!(reply(&mut both, "f", json!({"x": 2})), "answered: 2");
        let secret = "answered: quiet ${CARGO_MANIFEST_DIR}";
        assert_eq!(reply(&mut both, "g", json!({"x": 2})), secret);
    }
    // The block's keys are of what it reads; its variables come before the file's.
    let keys = "server = \"told-more\"\nname = \"shop\"\nenv = { MODE = \"loud \" }\n";
    let (mut one, names, _) = opened(&format!("[[tool]]\nmcp = \"mcp.json\"\n{keys}"));
    assert_eq!(names, ["shop"]);
    let found = reply(&mut one, "g", json!({}));
    assert_eq!(found, "answered: loud ${CARGO_MANIFEST_DIR}");
    let (_, names, _) = opened(
        "[[tool]]\nmcp = \"mcp.json\"\nserver = \"off\"\nenv = { MODE = \"\", KEY = \"\" }\n",
    );
    assert_eq!(names, ["off"]);
    // Functions of one name are named with both servers.
    let twice = "[[tool]]\nmcp = \"mcp.json\"\n[[tool]]\nname = \"more\"\nmcp = [\"python3\", \"server.py\"]\n";
    let error = toolset(folder.path(), twice)
        .unwrap()
        .definitions()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tool \"more\" has definitions with a fault: \"f\" is a function of the tool \"adds\", too: leave out one of them, or give a built-in one a `name`"
    );
}

#[test]
fn a_list_of_servers_with_a_fault_is_named() {
    let server = |fields: Value| json!({"mcpServers": {"web": fields}}).to_string();
    let with = |key: &str, value: Value| server(json!({"command": "python3", key: value}));
    for (list, keys, expected) in [
        (
            "{",
            "",
            "/F/mcp.json line 1 column 1: EOF while parsing an object",
        ),
        (
            "{}",
            "",
            "task.toml line 2 column 7: `tool.mcp` /F/mcp.json has no object `mcpServers` (Claude, Cursor) or `servers` (VS Code)",
        ),
        (
            "{\"servers\": {}}",
            "",
            "task.toml line 2 column 7: `tool.mcp` /F/mcp.json lists no server that is not disabled",
        ),
        (
            &server(json!({"url": "https://a"})),
            "",
            "task.toml line 2 column 7: `tool.mcp` /F/mcp.json has the server \"web\", which is reached by `url`, and a tool has no network: use one with a `command`",
        ),
        (
            &with("type", json!("sse")),
            "",
            "whose `type` is \"sse\": only \"stdio\" is run",
        ),
        (
            &with("cwd", json!("/a")),
            "",
            "which has `cwd`: the server runs in a copy of the task's `files`, leave it out",
        ),
        (
            &server(json!({"args": []})),
            "",
            "which has no `command`, a text",
        ),
        (
            &with("args", json!([7])),
            "",
            "whose `args` are not a list of texts",
        ),
        (
            &with("args", json!(["${HOME}/a"])),
            "",
            "whose command has \"${HOME}/a\": only `env` takes \"${NAME}\", write the value",
        ),
        (
            &with("env", json!({"A": "x${B}"})),
            "",
            "whose `env.A` has another `${..}` than \"${NAME}\" as the whole value",
        ),
        (
            &with("env", json!({"A": "${input:key}"})),
            "",
            "whose `env.A` has another `${..}` than \"${NAME}\" as the whole value",
        ),
        (
            &with("env", json!({"A": 7})),
            "",
            "whose `env.A` takes a text in quotes",
        ),
        (
            &with("env", json!({"PATH": "/"})),
            "",
            "whose `env.PATH` is set by the sandbox: leave it out",
        ),
        (
            &with("env", json!({"API_KEY": "k8dX2mQ9vL4sT7wZ1bN6"})),
            "",
            "whose `env.API_KEY` is a secret: write \"${NAME}\" for a variable of your environment",
        ),
        (
            &with("args", json!([])),
            "server = \"wed\"\n",
            "task.toml line 3 column 10: `tool.server` names \"wed\", which /F/mcp.json does not list; did you mean `web`?",
        ),
        (
            "{\"mcpServers\": {\"a\": {}, \"b\": {}}}",
            "name = \"shop\"\n",
            "task.toml line 3 column 8: `tool.name` is of one server, and /F/mcp.json lists 2: choose one with `server`",
        ),
    ] {
        let folder = folder(&[("mcp.json", list)]);
        let toml = format!("[[tool]]\nmcp = \"mcp.json\"\n{keys}");
        let error = toolset(folder.path(), &toml).unwrap_err();
        let error = error.replace(folder.path().to_str().unwrap(), "/F");
        assert!(error.contains(expected), "{list}: {error}");
        assert!(!error.contains("k8dX2mQ9"), "{error}");
    }
    let toml = "[[tool]]\nmcp = [\"python3\"]\nserver = \"a\"\n";
    let error = toolset(Path::new("."), toml).unwrap_err();
    assert!(
        error.contains("names a server of a file, such as"),
        "{error}"
    );
}
