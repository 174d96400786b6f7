//! `grpo-tui mcp` with a client that writes its lines itself, and with the official one.

mod client;
mod runs;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::program::{self, call, json as document, names, snapshot};
use client::{Client, TRAIN, workspace};

#[test]
fn the_version_is_negotiated_and_unknown_messages_are_answered() {
    let (_folder, root) = workspace();
    for (asked, expected) in [
        (json!("2024-11-05"), "2024-11-05"),
        (json!("2025-03-26"), "2025-11-25"), // has batches
        (json!("2025-06-18"), "2025-06-18"),
        (json!("2025-11-25"), "2025-11-25"),
        (json!("2099-01-01"), "2025-11-25"),
        (json!(7), "2025-11-25"),
    ] {
        let mut client = Client::unready(&root, &[]);
        let early = client.request("tools/list", json!({}));
        assert_eq!(early["error"]["code"], -32600, "{early}");
        let answer = client.request("initialize", json!({"protocolVersion": asked}));
        assert_eq!(answer["result"]["protocolVersion"], expected);
        let told = answer["result"]["instructions"].as_str().unwrap();
        assert!(told.contains("untrusted"), "{told}");
        client.send(&json!([{"jsonrpc": "2.0", "id": "a", "method": "ping"}]));
        let answer = client.next();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        client.close();
    }
    let mut client = Client::new(&root, &[]);
    for (line, code) in [
        (&b"garbage"[..], -32700),
        (b"\xff\xfe{}", -32700),
        (b"{\"jsonrpc\": \"2.0\"", -32700),
        (b"7", -32600),
        (b"{\"id\": {}, \"method\": \"ping\"}", -32600),
        (&vec![b'x'; 5 << 20], -32700),
        (&"[".repeat(100_000).into_bytes(), -32700),
    ] {
        client.write(&[line, b"\n"].concat());
        let answer = client.next();
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(
            answer["error"]["message"].as_str().unwrap().len() < 200,
            "{answer}"
        );
    }
    client.write(b"\n   \n{\"method\": \"notifications/cancelled\", \"params\": {\"requestId\": 99}}\n{\"id\": 3, \"result\": {}}\n");
    for (method, parameters, code) in [
        ("server/discover", json!({}), -32601),
        ("tools/call", json!({"name": "trian"}), -32602),
        (
            "resources/read",
            json!({"uri": "file:///etc/passwd"}),
            -32002,
        ),
        (
            "resources/read",
            json!({"uri": "task://../../etc/passwd"}),
            -32002,
        ),
        (
            "resources/read",
            json!({"uri": "task://bills/eval-large.jsonl"}),
            -32002,
        ),
    ] {
        let answer = client.request(method, parameters.clone());
        assert_eq!(
            answer["error"]["code"], code,
            "{method} {parameters}: {answer}"
        );
    }
    assert_eq!(client.request("ping", json!({}))["result"], json!({}));
    client.close();
}

#[test]
fn without_permission_a_client_reads_only() {
    let (_folder, root) = workspace();
    let mut client = Client::new(&root, &[]);
    let listed = client.request("tools/list", json!({}));
    let tools = listed["result"]["tools"].as_array().unwrap().clone();
    let tools: BTreeMap<&str, &Value> = tools
        .iter()
        .map(|tool| (tool["name"].as_str().unwrap(), tool))
        .collect();
    assert!(
        tools.contains_key("status") && !tools.contains_key("train"),
        "{tools:?}"
    );
    for (name, tool) in &tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{name}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{name}");
        let properties = tool["inputSchema"]["properties"].as_object().unwrap();
        let is_told = |input: &Value| {
            input["description"]
                .as_str()
                .is_some_and(|text| text.len() > 5)
        };
        assert!(properties.values().all(is_told), "{name}");
        let is_bounded = |input: &Value| input["items"].is_null() || input["maxItems"] == 1000;
        assert!(properties.values().all(is_bounded), "{name}");
        for schema in ["inputSchema", "outputSchema"] {
            jsonschema::validator_for(&tool[schema]).unwrap();
            assert_eq!(tool[schema]["type"], "object", "{name}");
        }
    }
    for tool in [
        "train",
        "stop",
        "final_eval",
        "notes",
        "task_new",
        "task_write",
        "dataset_import",
        "dataset_split",
    ] {
        let refusal = client.refusal(tool, json!({}));
        assert!(
            refusal.contains("is not allowed") && refusal.contains("--allow"),
            "{refusal}"
        );
    }
    let files = || {
        let mut files = snapshot(&root);
        let own = ["home", "slots"].map(|name| root.join(name));
        files.retain(|path, _| !own.iter().any(|own| path.starts_with(own)));
        files
    };
    let before = files();
    let status = client.call("status", json!({}));
    assert_eq!(
        (&status["tasks"], &status["runs"]),
        (&json!(["bills"]), &json!([]))
    );
    assert!(client.call("task_check", json!({"task": "bills"}))["ok"] == true);
    assert!(client.call("audit", json!({"task": "bills"}))["rows"] == 12);
    let one = json!({"task": "bills", "completions": [{"completion": "{}"}]});
    assert_eq!(client.call("score", one)["items"][0]["tier"], "invalid");
    let right = client.call(
        "score",
        json!({"task": "bills", "completions": [{"completion": "{}"}, {"completion": "no"}]}),
    );
    let tiers: Vec<&Value> = right["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["tier"])
        .collect();
    assert_eq!(tiers, ["invalid", "unparsable"]);
    // All of a long text, piece by piece.
    let (mut text, mut offset) = (String::new(), json!(0));
    while !offset.is_null() {
        let piece = client.call("read", json!({"uri": "docs://kinds", "offset": offset}));
        text.push_str(piece["text"].as_str().unwrap());
        offset = piece["next_offset"].clone();
    }
    assert_eq!(text, grpo_tui::score::kinds_page());
    let resources = client.request("resources/list", json!({}));
    let resources = resources["result"]["resources"].as_array().unwrap().clone();
    let uris: Vec<&str> = resources
        .iter()
        .map(|one| one["uri"].as_str().unwrap())
        .collect();
    assert!(
        uris.contains(&"task://bills/task.toml")
            && !uris.contains(&"task://bills/eval-large.jsonl"),
        "{uris:?}"
    );
    for uri in uris {
        let read = client.request("resources/read", json!({"uri": uri}));
        let listed = resources.iter().find(|one| one["uri"] == uri).unwrap();
        assert_eq!(
            read["result"]["contents"][0]["mimeType"],
            listed["mimeType"]
        );
        assert!(
            read["result"]["contents"][0]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{uri}"
        );
    }
    client.close();
    assert!(
        files() == before,
        "nothing is written but the home of the test"
    );
}

#[test]
fn every_tool_is_documented() {
    let (_folder, root) = workspace();
    let mut client = Client::new(&root, TRAIN);
    let listed = client.request("tools/list", json!({}));
    let tools = listed["result"]["tools"].as_array().unwrap().clone();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["docs/mcp.md", "src/cli/skill/SKILL.md"] {
        let text = fs::read_to_string(package.join(file)).unwrap();
        let names = tools.iter().map(|tool| tool["name"].as_str().unwrap());
        // The skill has the order of work, not all tools.
        let missing: Vec<&str> = names
            .filter(|name| !text.contains(&format!("`{name}`")))
            .collect();
        let is_whole = file.starts_with("docs");
        assert!(
            missing.is_empty() || !is_whole && missing.len() < tools.len() / 2,
            "{file} does not name {missing:?}"
        );
    }
    client.close();
}

#[test]
fn what_is_outside_the_workspace_or_of_the_test_set_is_refused() {
    let (folder, root) = workspace();
    fs::write(folder.path().join("secret.csv"), "text,label\na,b\n").unwrap();
    fs::write(root.join("data.csv"), "text,label\na,b\n").unwrap();
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    link(&folder.path().join("secret.csv"), "linked.csv");
    link(folder.path(), "tasks/linked");
    link(Path::new("/nowhere"), "broken.csv");
    fs::hard_link(
        root.join("tasks/bills/eval-large.jsonl"),
        root.join("copy.jsonl"),
    )
    .unwrap();
    let rows = fs::read_to_string(root.join("tasks/bills/eval-large.jsonl")).unwrap();
    fs::write(root.join("tasks/bills/rows.bak"), &rows).unwrap();
    // A task in a group.
    program::sample_task(&root.join("tasks/group/deep"), [4, 4, 4]);
    fs::create_dir(root.join("runs")).unwrap();
    fs::write(root.join("runs/x.csv"), "text\na\n").unwrap();
    let mut client = Client::new(&root, TRAIN);
    let test_row = fs::read_to_string(root.join("tasks/bills/eval-large.jsonl")).unwrap();
    let test_row: Value = serde_json::from_str(test_row.lines().next().unwrap()).unwrap();
    let new = |data: &str| json!({"name": "new", "data": data});
    let train = |more: Value| {
        let mut arguments = json!({"task": "bills", "steps": 1});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        arguments
    };
    let set = |assignment: &str| train(json!({"set": [assignment]}));
    let task = |task: &str| json!({"task": task});
    let uri = |uri: &str| json!({"uri": uri});
    for (tool, arguments, expected) in [
        ("task_new", new("../secret.csv"), "outside the workspace"),
        (
            "task_new",
            new(folder.path().join("secret.csv").to_str().unwrap()),
            "outside the workspace",
        ),
        ("task_new", new("/etc/passwd"), "outside the workspace"),
        ("task_new", new("linked.csv"), "outside the workspace"),
        ("task_new", new("broken.csv"), "outside the workspace"),
        (
            "task_new",
            new("runs/x.csv"),
            "outside the workspace, or in its runs/",
        ),
        ("task_new", new("none.csv"), "No such file"),
        ("task_new", new("tasks"), "is a directory"),
        ("task_new", new("copy.jsonl"), "this is a test set"),
        (
            "task_new",
            json!({"name": "../x", "data": "data.csv"}),
            "outside the workspace",
        ),
        (
            "task_new",
            json!({"name": "--out=/tmp/x", "data": "data.csv"}),
            "letters, digits",
        ),
        (
            "task_new",
            json!({"name": "new", "schema": "os:system"}),
            "No such file",
        ),
        (
            "task_new",
            json!({"name": "new", "data": "data.csv", "limit": -1}),
            "invalid value",
        ),
        (
            "task_new",
            json!({"name": "new", "dta": "data.csv"}),
            "no argument \"dta\"",
        ),
        ("task_new", json!({"data": "data.csv"}), "<NAME>"),
        (
            "dataset_import",
            json!({"task": "bills", "data": "../secret.csv"}),
            "outside the workspace",
        ),
        (
            "dataset_import",
            json!({"task": "bills", "data": "data.csv", "set": "test"}),
            "no `test` prompts",
        ),
        ("task_check", task("linked"), "outside the workspace"),
        ("task_check", task(".."), "outside the workspace"),
        ("task_check", task("--json"), "No such file"),
        ("task_check", json!({"task": 7}), "type string"),
        (
            "task_write",
            json!({"task": "bills", "file": "../x.json", "text": "{}"}),
            "only task.toml",
        ),
        (
            "task_write",
            json!({"task": "bills", "file": "score.py", "text": ""}),
            "only task.toml",
        ),
        (
            "task_write",
            json!({"task": "invoice", "file": "task.toml", "text": ""}),
            "embedded",
        ),
        (
            "score",
            json!({"task": "bills", "completions": [{"completion": "{}", "prompt_id": test_row["id"]}]}),
            "unknown prompt_id",
        ),
        (
            "score",
            json!({"task": "bills", "completions": []}),
            "no completions",
        ),
        (
            "sample",
            json!({"task": "bills", "model": "tiny", "prompts": [test_row["id"]]}),
            "no prompt with that id",
        ),
        (
            "sample",
            json!({"task": "bills", "model": "endpoint:x"}),
            "only a person",
        ),
        (
            "train",
            train(json!({"model": "/models/x"})),
            "outside the workspace",
        ),
        (
            "train",
            train(json!({"model": "../x"})),
            "outside the workspace",
        ),
        ("train", set("test_eval=true"), "this server sets it"),
        ("train", set("max_steps=9"), "this server sets it"),
        (
            "train",
            set("learning_rat=9"),
            "did you mean `learning_rate`",
        ),
        ("train", set("teacher=endpoint:x"), "only a person"),
        ("train", set("--runs"), "--set"),
        (
            "train",
            train(json!({"minutes": -1})),
            "not within the budget",
        ),
        ("status", json!({"run": "../x"}), "no run"),
        ("status", json!({"run": "none"}), "no run `none`"),
        ("stop", json!({"run": "/tmp"}), "run"),
        ("compare", json!({"run": []}), "<RUN>"),
        ("read", uri("task://bills/eval-large.jsonl"), "a test set"),
        ("read", uri("task://bills/rows.bak"), "no file of the task"),
        (
            "task_new",
            new("tasks/group/deep/eval-large.jsonl"),
            "this is a test set",
        ),
        (
            "read",
            uri("task://invoice/eval-large.jsonl"),
            "the test set",
        ),
        ("read", uri("task://bills/../../data.csv"), "outside"),
        ("read", uri("result://1"), "no resource"),
    ] {
        let refusal = client.refusal(tool, arguments.clone());
        assert!(refusal.contains(expected), "{tool} {arguments}: {refusal}");
        assert!(
            refusal.len() < 1000 && refusal.lines().count() < 3,
            "{refusal}"
        );
    }
    client.close();
    assert_eq!(names(&root.join("tasks")), ["bills", "group", "linked"]);
}

#[test]
fn a_task_is_edited_but_neither_its_test_set_nor_what_a_person_trusts() {
    let (_folder, root) = workspace();
    fs::write(
        root.join("data.csv"),
        "text,label\nred,a\nblue,b\ngreen,a\nblack,b\nwhite,a\ngrey,b\n",
    )
    .unwrap();
    let mut client = Client::new(&root, TRAIN);
    let made = client.call("task_new", json!({"name": "labels", "data": "data.csv", "map": ["prompt=text", "expected=label = label"], "split": "50/25/25"}));
    assert_eq!(made["task"], "labels");
    let split = client.call(
        "dataset_split",
        json!({"task": "labels", "by": "prompt", "split": "50/25/25"}),
    );
    assert!(split["train"]["rows"].as_u64().unwrap() > 0, "{split}");
    assert_eq!(split["test"]["rows"], 0, "it stays as it is");
    let file = root.join("tasks/labels/task.toml");
    let before = fs::read_to_string(&file).unwrap();
    let write = |text: &str| json!({"task": "labels", "file": "task.toml", "text": text});
    let tool =
        |file: &str| format!("{before}\n[[tool]]\nbuiltin = \"files\"\nfiles = [\"{file}\"]\n");
    for (text, expected) in [
        ("name = ".to_owned(), "was not changed"),
        (
            before.replace("test.jsonl", "train.jsonl"),
            "same [prompts]",
        ),
        (before.replace("test = ", "# test = "), "same [prompts]"),
        (
            before.replace("train = \"train.jsonl\"", "train = \"test.jsonl\""),
            "same [prompts]",
        ),
        (tool("test.jsonl"), "this is a test set"),
    ] {
        assert_ne!(text, before);
        let refusal = client.refusal("task_write", write(&text));
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
    }
    let folder = root.join("tasks/labels");
    std::os::unix::fs::symlink("test.jsonl", folder.join("alias.json")).unwrap();
    let alias = json!({"task": "labels", "file": "alias.json", "text": "{}"});
    let refusal = client.refusal("task_write", alias);
    assert!(refusal.contains("this is a test set"), "{refusal}");
    client.call("task_write", write(&format!("# by an agent\n{before}")));
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .starts_with("# by an agent")
    );
    // A program may be named, but does not run.
    let template = client.call(
        "task_new",
        json!({"name": "own", "template": "python-scorer"}),
    );
    assert_eq!(template["task"], "prime-sum");
    let refusal = client.refusal("audit", json!({"task": "own"}));
    assert!(refusal.contains("task trust"), "{refusal}");
    call(&root, &["task", "trust", "tasks/own", "--yes"]);
    let text = fs::read_to_string(root.join("tasks/own/task.toml")).unwrap();
    let refusal = client.refusal(
        "task_write",
        json!({"task": "own", "file": "task.toml", "text": text}),
    );
    assert!(refusal.contains("a person has trusted"), "{refusal}");
    client.close();
}

const SCRIPT: &str = r#"
import asyncio, json, os, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main():
    server = StdioServerParameters(command=sys.argv[1], args=["mcp"], cwd=sys.argv[2], env=dict(os.environ))
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = await session.list_tools()
        result = await session.call_tool("task_check", {"task": "bills"})
        failed = await session.call_tool("task_check", {"task": "../x"})
        page = await session.read_resource("docs://mcp")
        get = lambda found, *names: next(getattr(found, name) for name in names if hasattr(found, name))
        print(json.dumps({"tools": [tool.name for tool in tools.tools], "ok": get(result, "structured_content", "structuredContent")["ok"],
                          "errors": [get(one, "is_error", "isError") for one in (result, failed)], "page": page.contents[0].text[:8]}))

asyncio.run(main())
"#;

#[test]
#[ignore = "nightly: with the official client, of verifiers' environment"]
fn an_agent_with_verifiers_official_client_is_served() {
    let (_folder, root) = workspace();
    let mut command = Command::new(program::peer("VERIFIERS_PYTHON"));
    command.args(["-c", SCRIPT, program::PROGRAM, root.to_str().unwrap()]);
    let found = document(&command.output().unwrap());
    assert_eq!(
        (&found["ok"], &found["errors"], &found["page"]),
        (&json!(true), &json!([false, true]), &json!("# Agents")),
        "{found}"
    );
    assert!(
        found["tools"].as_array().unwrap().contains(&json!("audit")),
        "{found}"
    );
}

#[test]
fn the_skill_is_installed_as_its_format_says() {
    let folder = tempfile::tempdir().unwrap();
    program::stdout(&call(folder.path(), &["skill", "install"]));
    let file = folder.path().join(".agents/skills/grpo-tui/SKILL.md");
    let text = fs::read_to_string(&file).unwrap();
    let (head, body) = text
        .strip_prefix("---\n")
        .unwrap()
        .split_once("\n---\n")
        .unwrap();
    let fields: BTreeMap<&str, &str> = head
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .collect();
    assert_eq!(fields["name"], "grpo-tui", "as its folder");
    assert!(
        (1..=1024).contains(&fields["description"].len()) && fields["compatibility"].len() <= 500
    );
    assert!(
        fields
            .keys()
            .all(|key| ["name", "description", "license", "compatibility"].contains(key))
    );
    assert!(body.lines().count() < 500);
    fs::write(&file, "mine").unwrap();
    let refused = call(folder.path(), &["skill", "install"]);
    assert!(program::stderr(&refused).contains("--force") && refused.status.code() == Some(2));
    program::stdout(&call(folder.path(), &["skill", "install", "--force"]));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn llms_txt_names_every_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = fs::read_to_string(docs.join("llms.txt")).unwrap();
    assert!(
        text.starts_with("# grpo-tui\n\n> "),
        "a title and a summary"
    );
    let linked: Vec<&str> = text
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
        .collect();
    for link in &linked {
        assert!(
            docs.join(link).is_file(),
            "docs/llms.txt links {link}, which does not exist"
        );
    }
    let pages = names(&docs)
        .into_iter()
        .filter(|name| name.ends_with(".md"));
    let missing: Vec<String> = pages
        .filter(|page| !linked.contains(&page.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/llms.txt does not link {missing:?}"
    );
}
