//! Conversations that agents hold: prompts are spliced, rewards are theirs, each end has its reason, and a run with them
//! resumes bit for bit.

use std::path::{Path, PathBuf};

use grpo_tui::run::{RolloutCompletion, RunState, read_step};
use grpo_tui::score::{Task, Trust};
use grpo_tui::train::Ended;
use serde_json::{Value, json};

use super::small_task::{SMALL, create_with, fingerprint, finish_with_stops, work, write};
use crate::program::{call, copy_tree, json_lines, sample_data, stderr};
use crate::ranks::{arguments_for, run_in, sampled, words};

/// The small task with this agent, trusted.
pub(super) fn task(folder: &Path, python: &str, agent: &str, score: &str) -> PathBuf {
    let task = write(folder);
    std::fs::write(task.join("agent.py"), agent).unwrap();
    let path = task.join("task.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("[score]").unwrap();
    let (_, train) = rest.split_once("[train]").unwrap();
    let head: String = head
        .lines()
        .filter(|line| !line.starts_with("schema"))
        .map(|line| format!("{line}\n"))
        .collect();
    let head: String = head
        .lines()
        .filter(|line| !line.starts_with("completions"))
        .map(|line| format!("{line}\n"))
        .collect();
    let agent = format!(
        "[agent]\nrun = [{python:?}, \"agent.py\"]\ntime_limit_seconds = 20\nmax_requests = 4\n"
    );
    std::fs::write(
        &path,
        format!("{head}{agent}[score]\n{score}\n[train]{train}"),
    )
    .unwrap();
    trust(&task);
    task
}

pub(super) fn trust(task: &Path) {
    let task = Task::load(task).unwrap();
    Trust::for_task(&task)
        .unwrap()
        .iter()
        .for_each(|trust| trust.set(true).unwrap());
}

const SET: [&str; 5] = [
    "max_steps=2",
    "max_seq_len=768",
    "completions_per_prompt=2",
    "eval_every=0",
    "checkpoint_every=1",
];

/// Forty lines of a user's: the client's own types, a tool of its own, a second request, a verdict.
const OPENAI_AGENT: &str = r#"
import json, os, sys
from openai import OpenAI

def check(text, expected):
    try: found = json.loads(text)
    except ValueError: return list(expected)
    return [name for name in expected if not isinstance(found, dict) or found.get(name) != expected[name]]

row = json.loads(sys.stdin.readline())
client = OpenAI(max_retries=0)
model = client.models.list().data[0].id
assert model == os.environ["OPENAI_MODEL"]
messages = list(row["messages"])
for attempt in range(2):
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0.3, max_tokens=60)
    message = answer.choices[0].message
    wrong = check(message.content, row["expected"])
    messages.append(message if attempt == 0 else message.model_dump())
    messages.append({"role": "user", "content": "Wrong: " + ", ".join(wrong) + ". Answer again."})
print(json.dumps({"score": 1 - len(wrong) / len(row["expected"]), "metrics": {"wrong": len(wrong)}}))
"#;

pub(super) fn agent(completion: &RolloutCompletion) -> Value {
    json!(completion.chain.as_ref().unwrap().agent.as_ref().unwrap())
}

#[test]
#[ignore = "with OpenAI's client: .ci/run"]
fn an_agent_with_openai_s_client_is_trained_token_for_token() {
    let folder = tempfile::tempdir().unwrap();
    let python = &crate::program::peer("OPENAI_PYTHON");
    let task = task(folder.path(), python, OPENAI_AGENT, "kind = \"agent\"");
    // By `tiny`, whose answers end and differ in their rewards.
    let set = [SMALL, &SET].concat();
    let whole = create_with(&task, &folder.path().join("whole"), &set);
    assert!(matches!(
        work(&whole, |_| false).unwrap(),
        Ended::Finished(_)
    ));
    let state = RunState::read(whole.path()).unwrap();
    let difference = state.metrics["sampling/sampling_logp_difference/max"].values();
    assert!(
        difference.iter().all(|found| *found < 1e-3),
        "{difference:?}"
    );
    let tokenizer = grpo_tui::checkpoint::StartModel::find(
        "tiny",
        &grpo_tui::run::RunFolders::discover(whole.path().parent(), whole.path()),
    )
    .unwrap()
    .tokenizer;
    let mut completions = 0;
    for group in [1, 2]
        .iter()
        .flat_map(|step| read_step(whole.path(), *step).unwrap())
    {
        for completion in &group.completions {
            completions += 1;
            let (chain, record) = (completion.chain.as_ref().unwrap(), agent(completion));
            assert_eq!(
                (chain.end.name(), chain.steps.len()),
                ("answer", 1),
                "{record}"
            );
            assert_eq!(
                (&record["exit_code"], &record["ignored"]),
                (&json!(0), &json!({"temperature": 2}))
            );
            let ids = |number: usize| -> Vec<u32> {
                serde_json::from_value(record["requests"][number]["prompt_ids"].clone()).unwrap()
            };
            // The first prompt is the row's own; the second begins with it and what was sampled.
            let first = tokenizer.encode(&group.prompt).unwrap();
            assert_eq!(ids(0), first);
            assert_eq!(
                (
                    &record["requests"][0]["follows"],
                    &record["requests"][1]["follows"]
                ),
                (&Value::Null, &json!(0))
            );
            let second = [first, chain.steps[0].token_ids.clone(), ids(1)].concat();
            let text = tokenizer.decode(&second, false).unwrap();
            let said = chain.steps[0].text.trim_end_matches("<|im_end|>");
            let new = record["requests"][1]["messages"][0]["content"]
                .as_str()
                .unwrap();
            let expected = format!(
                "{said}<|im_end|>\n<|im_start|>user\n{new}<|im_end|>\n<|im_start|>assistant\n"
            );
            assert!(text.contains(&expected), "{expected:?} is not in {text:?}");
            assert_eq!(
                chain.steps[0].token_ids.len(),
                chain.steps[0].log_probs.len()
            );
            let verdict: Value = serde_json::from_str(record["output"].as_str().unwrap()).unwrap();
            assert_eq!(completion.reward, verdict["score"].as_f64(), "{record}");
        }
    }
    assert_eq!(completions, 12);
    // A run that is stopped, and one that is killed while agents run.
    let expected = fingerprint(&whole);
    let stopped = create_with(&task, &folder.path().join("stopped"), &set);
    finish_with_stops(&stopped, &[1]);
    assert!(
        fingerprint(&stopped) == expected,
        "the run that was resumed differs"
    );
}

/// What an agent does with its row, without any package.
const TABLE: &str = r#"
import http.client, json, os, subprocess, sys, threading, time, urllib.request
URL, KEY, MODEL = (os.environ[name] for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"])

def ask(messages, path="/chat/completions", key=KEY, **more):
    body = {"model": MODEL, "max_tokens": 8, **more}
    body.update({"messages": messages} if path == "/chat/completions" else {})
    request = urllib.request.Request(URL + path, json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + key})
    try: return urllib.request.urlopen(request).read().decode()
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())["error"]
        raise SystemExit(f"{error.code} {told['code']} {told['message']}") if not more.get("quiet") and path else error

def say(messages, **more):
    return json.loads(ask(messages, **more))["choices"][0]["message"]

def refused(messages=None, **more):
    try: ask(messages or ROW["messages"], **more)
    except SystemExit as error: return str(error)

ROW = json.loads(sys.stdin.readline())
M, mode = ROW["messages"], ROW["mode"]
user = lambda text: {"role": "user", "content": text}
verdict = {"score": 0.5}
if mode == "never": pass
elif mode == "forever":
    while True:
        try: ask(M)
        except SystemExit: pass
elif mode == "many":
    for _ in range(9): ask(M)
elif mode == "daemon":
    say(M)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
elif mode == "exit":
    say(M); sys.exit(3)
elif mode == "crash":
    say(M); raise ValueError("no net")
elif mode == "other model": ask(M, model="gpt-4o")
elif mode == "large": ask([user("x" * 10_000_000)])
elif mode == "context":
    say(M); ask(M + [user("word " * 2000)])
elif mode == "context handled":
    say(M)
    verdict["reasons"] = [refused(messages=[user("word " * 2000)])]
elif mode == "key": print(KEY)
elif mode == "leak":
    say(M); verdict["reasons"] = [KEY]
elif mode == "hang":
    say(M); time.sleep(600)
elif mode == "refused":
    kinds = [dict(n=2), dict(logprobs=True, top_logprobs=3),
        dict(key="sk-other"), dict(path="/embeddings"), dict(messages=[{"role": "nobody", "content": ""}])]
    verdict["reasons"] = [refused(**kind) for kind in kinds]
    say(M)
elif mode == "constrained":
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    strict = {"type": "function", "function": {**tool["function"], "strict": True}}
    kinds = [dict(response_format={"type": "json_object"}), dict(guided_json={"type": "object"}), dict(tools=[tool], tool_choice="required"),
        dict(tools=[strict], parallel_tool_calls=False)]
    told = [refused(**kind) for kind in kinds]
    verdict["reasons"] = [" ".join(text.split("`")[1] for text in told if text)]
    if any(told): say(M)
elif mode == "stream":
    lines = ask(M, stream=True, stream_options={"include_usage": True}).split("\n\n")
    parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])
    say(M + [{"role": "assistant", "content": text}, user("Again.")])
    verdict["reasons"] = [text]
elif mode == "parallel":
    threads = [threading.Thread(target=say, args=(M + [user(str(number))],)) for number in range(3)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
elif mode == "rewrite":
    first = say(M)
    say(M + [{"role": "assistant", "content": "Something else."}, user("Again.")])
    say(M + [first, user("Again.")])
elif mode == "retry":
    say(M); first = say(M); say(M + [first, user("On.")])
elif mode == "truncated":
    first = say(M, max_tokens=1); say(M + [first, user("Go on.")])
elif mode == "stop":
    first = say(M, max_tokens=60, stop=[",", "}"]); say(M + [first, user("Go on.")])
    verdict["reasons"] = [first["content"]]
elif mode == "text":
    body = json.loads(ask(None, path="/completions", prompt="Hello", return_token_ids=True, logprobs=0))
    choice = body["choices"][0]
    verdict["reasons"] = [f"{len(choice['token_ids'])} {len(choice['logprobs']['token_logprobs'])}"]
elif mode == "tokens":
    ids = json.loads(ask(None, path="/completions", prompt="Hello", return_token_ids=True, logprobs=0))["choices"][0]["token_ids"]
    def generate(ids):
        return json.loads(ask(None, path="/completions", prompt=ids, max_tokens=8, return_token_ids=True, logprobs=0))["choices"][0]
    first = generate([5, 6, 7])
    second = generate([5, 6, 7, *first["token_ids"], 8])
    verdict["reasons"] = [f"{len(second['token_ids'])} {len(second['logprobs']['token_logprobs'])} tokens"]
elif mode == "responses":
    body = json.loads(ask(None, path="/responses", max_tokens=None, max_output_tokens=20, input=M))
    verdict["reasons"] = [body["output"][0]["type"]]
elif mode == "no line":
    say(M); verdict = None
elif mode == "no verdict":
    say(M); verdict = ["x"]
if verdict is not None: print(json.dumps(verdict))
"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn each_end_of_an_agent_has_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let task = task(here, "python3", TABLE, "kind = \"agent\"");
    let toml = task.join("task.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(
        &toml,
        text.replace("time_limit_seconds = 20", "time_limit_seconds = 5"),
    )
    .unwrap();
    // Mode, why it ended, requests that were answered, branches, and a part of the first reason.
    let table: [(&str, &str, usize, usize, &str); 27] = [
        (
            "never",
            "no_request",
            0,
            0,
            "the agent got no completion: it ended with exit code 0",
        ),
        (
            "forever",
            "time_limit",
            4,
            4,
            "the conversation ended without an answer: time_limit",
        ),
        (
            "many",
            "max_requests",
            4,
            4,
            "the conversation ended without an answer: max_requests",
        ),
        ("daemon", "truncated", 1, 1, ""),
        (
            "exit",
            "agent_error",
            1,
            1,
            "the agent ended with exit code 3",
        ),
        (
            "crash",
            "agent_error",
            1,
            1,
            "the agent ended with exit code 1: ValueError: no net",
        ),
        ("other model", "truncated", 1, 1, ""),
        ("large", "no_request", 0, 0, "the body is larger than 4 MiB"),
        (
            "context",
            "max_context_tokens",
            1,
            1,
            "the conversation ended without an answer: max_context_tokens",
        ),
        (
            "context handled",
            "truncated",
            1,
            1,
            "400 context_length_exceeded This model's maximum context length is 1024",
        ),
        ("key", "no_request", 0, 0, "the agent got no completion"),
        ("leak", "truncated", 1, 1, "$OPENAI_API_KEY"),
        (
            "hang",
            "time_limit",
            1,
            1,
            "the conversation ended without an answer: time_limit",
        ),
        (
            "refused",
            "truncated",
            1,
            1,
            "400 None `n`: a conversation with a policy has one completion a request",
        ),
        (
            "constrained",
            "truncated",
            4,
            4,
            "\"ignored\":{\"guided_json\":1,\"parallel_tool_calls\":1,\"response_format\":1,\"tool_choice\":1,\"tools.function.strict\":1}",
        ),
        ("stream", "truncated", 2, 1, "{"),
        ("parallel", "truncated", 3, 3, ""),
        ("rewrite", "truncated", 3, 2, ""),
        ("retry", "truncated", 3, 2, ""),
        ("truncated", "truncated", 2, 1, ""),
        ("stop", "truncated", 2, 1, "{\"vendor\":"),
        ("text", "truncated", 1, 1, "8 8"),
        ("tokens", "truncated", 3, 2, "8 8 tokens"),
        ("responses", "truncated", 1, 1, "message"),
        (
            "no line",
            "truncated",
            1,
            1,
            "the agent wrote no line: its last line is its verdict",
        ),
        (
            "no verdict",
            "truncated",
            1,
            1,
            "the agent wrote a malformed answer",
        ),
        ("unknown", "no_request", 0, 0, "the agent got no completion"),
    ];
    let content = json!([{"role": "user", "content": "Turn this invoice into JSON: Acme, 3 May 2024, 12.50 EUR."}]);
    let rows: String = table
        .iter()
        .map(|(mode, ..)| {
            format!(
                "{}\n",
                json!({"id": mode, "mode": mode, "messages": content})
            )
        })
        .collect();
    std::fs::write(task.join("modes.jsonl"), rows).unwrap();
    let task = task.to_str().unwrap();
    let refused = call(
        here,
        &[
            "sample",
            task,
            "--model",
            "tiny",
            "--on",
            &format!("{task}/modes.jsonl"),
        ],
    );
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("as an agent, which is not trusted"),
        "{refused:?}"
    );
    assert!(
        call(here, &["task", "trust", task, "--yes"])
            .status
            .success()
    );
    let found = json_lines(&call(
        here,
        &[
            "sample",
            task,
            "--model",
            "tiny",
            "--on",
            &format!("{task}/modes.jsonl"),
            "--n",
            "1",
            "--json",
        ],
    ));
    let mut wrong = Vec::new();
    for ((mode, end, requests, branches, reason), found) in table.iter().zip(&found) {
        let record = &found["chain"]["agent"];
        let all = record["requests"].as_array().unwrap();
        let followed = |number: &usize| {
            all.iter()
                .any(|request| request["follows"] == json!(number))
        };
        let leaves = (0..all.len()).filter(|number| !followed(number)).count();
        let text = found.to_string();
        let is_right = found["prompt_id"] == *mode
            && found["chain"]["end"] == *end
            && (all.len(), leaves) == (*requests, *branches)
            && (text.contains(json!(reason).to_string().trim_matches('"'))
                || text.contains(reason));
        if !is_right {
            wrong.push(format!(
                "{mode}: {} {} {leaves} {text}",
                found["chain"]["end"],
                all.len()
            ));
        }
        assert!(
            !text.contains("sk-") || *mode == "refused",
            "{mode}: the key is recorded: {text}"
        );
    }
    assert!(
        wrong.is_empty() && found.len() == table.len(),
        "{}",
        wrong.join("\n\n")
    );
    // The rules of a user who wants neither.
    let text = std::fs::read_to_string(&toml).unwrap();
    let strict = "[agent]\nconstraints = \"refuse\"\non_failure = \"no_reward\"\n";
    std::fs::write(&toml, text.replace("[agent]\n", strict)).unwrap();
    let rows = ["constrained", "crash"].map(|mode| {
        let row = json!({"id": mode, "mode": mode, "messages": content});
        format!("{row}\n")
    });
    std::fs::write(Path::new(task).join("strict.jsonl"), rows.concat()).unwrap();
    let rows = format!("{task}/strict.jsonl");
    let found = json_lines(&call(
        here,
        &[
            "sample", task, "--model", "tiny", "--on", &rows, "--n", "1", "--json",
        ],
    ));
    let told = ["response_format guided_json tool_choice tools.function.strict"];
    let table = [
        ("truncated", told[0]),
        ("agent_failed", "exit code 1: ValueError: no net"),
    ];
    for ((end, reason), found) in table.iter().zip(&found) {
        let text = found.to_string();
        let is_right = found["chain"]["end"] == *end && text.contains(reason);
        assert!(is_right && !text.contains("\"ignored\""), "{text}");
    }
    assert_eq!(found.len(), 2);
    let wrong = text.replace("[agent]\n", "[agent]\non_failure = \"none\"\n");
    std::fs::write(&toml, wrong).unwrap();
    let refused = stderr(&call(here, &["task", "check", task]));
    let why = "takes lowest_tier, no_reward, not \"none\"";
    assert!(refused.contains(why), "{refused}");
}

/// Each rank holds the conversations of its own groups, with a server of its own.
#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn agents_converse_with_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let [alone, two] = [1, 2].map(|ranks: usize| {
        let home = folder.path().join(ranks.to_string());
        let task = home.join("agent");
        copy_tree(&sample_data("templates/agent"), &task);
        let trusted = call(&home, &["task", "trust", "agent", "--yes"]);
        assert!(trusted.status.success(), "{}", stderr(&trusted));
        let output = call(
            &home,
            &words(&arguments_for(
                &task,
                &home,
                ranks,
                // Where rewards are equal there is a gradient all the same.
                &["max_steps=2", "entropy_coef=0.1"],
            )),
        );
        assert!(
            output.status.success(),
            "{ranks} ranks: {}",
            stderr(&output)
        );
        let run = run_in(&home);
        (
            sampled(&run),
            RunState::read(&run).unwrap().metrics["grad_norm"]
                .values()
                .to_vec(),
        )
    });
    assert_eq!(two.0, alone.0);
    assert!(
        two.1
            .iter()
            .zip(&alone.1)
            .all(|(a, b)| *b > 0.0 && (a - b).abs() <= 1e-4 * b),
        "{two:?}"
    );
}
