//! Processes that agents share: one that takes row after row, a service of all conversations.

use std::collections::BTreeSet;
use std::path::Path;

use grpo_tui::run::read_step;
use serde_json::{Value, json};

use super::agents::{agent, task};
use crate::program::{call, json_lines, processes_of, stderr};
use crate::ranks::{arguments_for, run_in, sampled, words};

/// Serves a row or many; its name and the number of its rows are its reasons.
const MANY: &str = r#"
import json, os, sys, urllib.request
name = os.urandom(8).hex()
print("ready", flush=True)
for number, line in enumerate(sys.stdin, 1):
    row = json.loads(line)
    body = json.dumps({"model": "any", "messages": row["messages"], "max_tokens": 4}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers))
    if row["id"] == "dies": sys.exit("no net")
    if row["id"] == "leaves": sys.exit()
    answer = json.dumps({"score": 1, "reasons": [f"{name} {number}"]})
    print("thinking\n" + answer + ("\n" + answer if row["id"] == "twice" else ""), flush=True)
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_process_takes_one_row_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let task = task(here, "python3", MANY, "kind = \"agent\"");
    let toml = task.join("task.toml");
    let one = std::fs::read_to_string(&toml).unwrap();
    let many = one.replace("[agent]\n", "[agent]\nrows = \"many\"\nprocesses = 1\n");
    let write_trusted = |text: &str, home: &Path| {
        std::fs::write(&toml, text).unwrap();
        let trusted = call(home, &["task", "trust", task.to_str().unwrap(), "--yes"]);
        assert!(trusted.status.success(), "{}", stderr(&trusted));
    };
    write_trusted(&many, here);
    let content =
        json!([{"role": "user", "content": "Turn this invoice into JSON: Acme, 12 EUR."}]);
    let row = |id| format!("{}\n", json!({"id": id, "messages": content}));
    let rows = ["first", "dies", "leaves", "second", "twice"].map(row);
    std::fs::write(task.join("rows.jsonl"), rows.concat()).unwrap();
    let rows = "small/rows.jsonl";
    let arguments = [
        "sample", "small", "--model", "tiny", "--on", rows, "--n", "3", "--json",
    ];
    let found = json_lines(&call(here, &arguments));
    let end = |found: &Value| {
        let reason = found["chain"]["agent"]["output"].as_str().unwrap_or("");
        match found["chain"]["end"].as_str().unwrap() {
            "agent_error" => found["chain"]["failure"].as_str().unwrap().to_owned(),
            _ => serde_json::from_str::<Value>(reason).unwrap()["reasons"][0]
                .as_str()
                .unwrap()
                .to_owned(),
        }
    };
    let ends: Vec<String> = found.iter().map(end).collect();
    assert_eq!(ends.len(), 15, "{ends:?}");
    let numbers = |ends: &[String]| {
        let all = ends.iter().map(|end| end.split_once(' ').unwrap());
        let (names, numbers): (BTreeSet<_>, Vec<_>) = all.unzip();
        (names.len(), numbers.join(" "))
    };
    assert_eq!(numbers(&ends[..3]), (1, "1 2 3".to_owned()));
    let died = "the agent ended with exit code 1: no net";
    assert!(ends[3..6].iter().all(|end| end == died), "{ends:?}");
    let left = "the agent ended before it answered its row with a JSON object";
    assert!(ends[6..9].iter().all(|end| end == left), "{ends:?}");
    assert_eq!(numbers(&ends[9..12]), (1, "1 2 3".to_owned()));
    // The process of `second` has its first row; one that answers twice gets no other.
    assert_eq!(numbers(&ends[12..]), (3, "4 1 1".to_owned()));
    // Steps share processes, and are those of a process a row.
    let train = |text: &str, name: &str| {
        let home = here.join(name);
        std::fs::create_dir(&home).unwrap();
        write_trusted(text, &home);
        let set = ["max_steps=2", "max_seq_len=768", "eval_every=0"];
        let output = call(&home, &words(&arguments_for(&task, &home, 1, &set)));
        assert!(output.status.success(), "{}", stderr(&output));
        let run = run_in(&home);
        let groups = [1, 2].map(|step| read_step(&run, step).unwrap());
        let all = groups.iter().flatten().flat_map(|group| &group.completions);
        let names = all.map(|one| agent(one)["output"].to_string());
        let name = |output: String| output.split('[').nth(1).unwrap()[..18].to_owned();
        let names: BTreeSet<String> = names.map(name).collect();
        (sampled(&run), names.len())
    };
    let (alone, shared) = (train(&one, "one"), train(&many, "many"));
    assert_eq!((alone.0, shared.1), (shared.0, 1));
    assert!(alone.1 > 1);
    assert_eq!(processes_of(here), Vec::<String>::new());
    let refused = many.replace("kind = \"agent\"", "kind = \"agent\"\nmode = \"exit_code\"");
    std::fs::write(&toml, refused).unwrap();
    let refused = stderr(&call(here, &["task", "check", "small"]));
    let reason = "`agent` has no exit code for each row with `rows = \"many\"`";
    assert!(refused.contains(reason), "{refused}");
}

/// Numbers those that connect; `stop` ends it.
const SERVICE: &str = r#"
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(os.environ["AGENT_SERVICE"])
server.listen()
number = 0
while True:
    client, _ = server.accept()
    asked = client.recv(100)
    if asked == b"stop": sys.exit("the service was told to stop")
    number += 1
    print("x" * 10_000, flush=True)
    client.sendall(f"{number} {os.getpid()}".encode())
    client.close()
"#;

const SHARING: &str = r#"
import json, os, socket, sys, time, urllib.request
row = json.loads(sys.stdin.readline())
body = json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": row["messages"], "max_tokens": 4}).encode()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers))
for _ in range(200):
    client = socket.socket(socket.AF_UNIX)
    try: client.connect(os.environ["AGENT_SERVICE"])
    except OSError: time.sleep(0.05)
    else: break
answer = ""
try:
    client.sendall(row["ask"].encode())
    answer = client.recv(100).decode()
except OSError: pass
if row["ask"] == "stop": time.sleep(60)
print(json.dumps({"score": 1, "reasons": [answer]}))
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn conversations_share_a_service_that_ends_with_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let task = task(here, "python3", SHARING, "kind = \"agent\"");
    std::fs::write(task.join("service.py"), SERVICE).unwrap();
    let toml = task.join("task.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let service = "[agent]\nservice = [\"python3\", \"service.py\"]\n";
    std::fs::write(&toml, text.replace("[agent]\n", service)).unwrap();
    let refused = call(here, &["task", "trust", "small", "--yes"]);
    let reason =
        "`agent.service` is out of reach of an isolated program: write isolation = \"none\" too";
    assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    std::fs::write(
        &toml,
        text.replace("[agent]\n", &format!("{service}isolation = \"none\"\n")),
    )
    .unwrap();
    let trusted = call(here, &["task", "trust", "small", "--yes"]);
    assert!(
        String::from_utf8_lossy(&trusted.stdout).contains("python3 service.py"),
        "{trusted:?}"
    );
    let sample = |asked: &str| {
        let content =
            json!([{"role": "user", "content": "Turn this invoice into JSON: Acme, 12.50 EUR."}]);
        std::fs::write(
            task.join("ask.jsonl"),
            format!(
                "{}\n",
                json!({"id": "a", "ask": asked, "messages": content})
            ),
        )
        .unwrap();
        json_lines(&call(
            here,
            &[
                "sample",
                "small",
                "--model",
                "tiny",
                "--on",
                "small/ask.jsonl",
                "--n",
                "12",
                "--json",
            ],
        ))
    };
    let found = sample("number");
    let verdict = |found: &Value| {
        serde_json::from_str::<Value>(found["chain"]["agent"]["output"].as_str().unwrap())
    };
    let answers = found.iter().map(|found| {
        verdict(found).unwrap()["reasons"][0]
            .as_str()
            .unwrap()
            .to_owned()
    });
    let answers: Vec<String> = answers.collect();
    let (numbers, processes): (Vec<&str>, BTreeSet<&str>) = answers
        .iter()
        .filter_map(|answer| answer.split_once(' '))
        .unzip();
    let mut numbers: Vec<u32> = numbers
        .iter()
        .map(|number| number.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!((numbers, processes.len()), ((1..=12).collect(), 1));
    let found = sample("stop");
    let reason =
        "the agent lost its service, which ended with exit code 1: the service was told to stop";
    let is_ended = |found: &&Value| {
        found["chain"]["end"] == "agent_failed" && found.to_string().contains(reason)
    };
    assert_eq!(found.iter().filter(is_ended).count(), 12, "{}", found[0]);
    assert_eq!(processes_of(here), Vec::<String>::new());
}
