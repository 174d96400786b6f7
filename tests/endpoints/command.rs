//! Tests: `grpo-tui eval` with an endpoint beside models of this machine, its files, and what is asked again.

use std::path::Path;

use grpo_tui::run::EvalRecord;
use serde_json::{Value, json};

use super::{KEY, RIGHT, Reply, Server, conversation, good, prompt};
use crate::program::{call_in_process, program, stderr, stdout, until};

/// A folder with three prompts and an `endpoints.toml`, and the arguments of an eval there.
fn workspace(folder: &Path, server: &Server) -> Vec<&'static str> {
    let text: String = ["a", "b", "c"]
        .iter()
        .map(|id| format!("{}\n", prompt(id)))
        .collect();
    std::fs::write(folder.join("rows.jsonl"), text).unwrap();
    let endpoints = format!(
        "[api]\nbase_url = \"{}\"\nmodel = \"m\"\nconcurrency = 1\napi_key_env = \"API_KEY\"\nprice_per_million_input = 1\nprice_per_million_output = 1\n",
        server.address
    );
    std::fs::write(folder.join("endpoints.toml"), endpoints).unwrap();
    std::fs::create_dir(folder.join("tasks")).unwrap();
    vec![
        "eval",
        "invoice",
        "--on",
        "rows.jsonl",
        "--out",
        "out",
        "--model",
        "api=endpoint:api",
    ]
}

#[test]
fn an_eval_has_cost_and_latency_and_nowhere_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[
        Reply::Status(400, "", format!("bad {KEY}")),
        Reply::Body(good(KEY)),
    ]);
    let mut arguments = workspace(folder.path(), &server);
    arguments.extend([
        "--model",
        "base=tiny",
        "--max-completion-tokens",
        "2",
        "--gpu-price-per-hour",
        "3.6",
    ]);
    let output = program(folder.path(), &arguments)
        .env("API_KEY", KEY)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        stderr(&output)
    );
    assert!(output.status.success(), "{text}");
    let rows = [
        "endpoint errors",
        "cost of 1,000 answers",
        "latency, p95",
        "tok/s",
    ];
    for part in rows.iter().chain(&[
        "no answer to 1 of 3",
        "answered 400",
        "sampled on the CPU, so their cost is n/a",
    ]) {
        assert!(text.contains(part), "{part}: {text}");
    }
    let versus = stdout(&call_in_process(
        folder.path(),
        &["runs", "compare", "out", "--json"],
    ));
    let document: Value = serde_json::from_str(&versus).unwrap();
    let speed = &document["passes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|pass| pass["name"] == "base")
        .unwrap()["summary"];
    assert!(
        speed["speed"]["tokens_per_second"].as_f64().unwrap() > 0.0
            && speed["speed"]["cost"].is_null(),
        "{versus}"
    );
    let document: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/eval.json")).unwrap())
            .unwrap();
    assert_eq!(document["targets"]["api"]["endpoint_errors"], 1);
    let endpoint = &document["targets"]["api"]["endpoint"];
    assert_eq!(
        (&endpoint["cost"], endpoint.get("logprobs")),
        (&json!(2.0 * 120.0 / 1e6), None)
    );
    let number = |name: &str| endpoint[name].as_f64().unwrap();
    // Two answers of 20 tokens, one after the other.
    assert!(
        (number("tokens_per_second") * number("busy_seconds") - 40.0).abs() < 1e-6,
        "{endpoint}"
    );
    assert!(
        number("busy_seconds") >= number("latency_median_seconds"),
        "{endpoint}"
    );
    assert_eq!(document["endpoints"]["api"]["model"], "m");
    assert_eq!(document["comparisons"][0]["n"], 2);
    let mut files = vec![folder.path().join("out")];
    let mut all = text;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            all += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    assert!(all.contains("***") && !all.contains(KEY));
    let failed = program(folder.path(), &arguments[..2])
        .args(["--model", "api=endpoint:api"])
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr(&failed).contains("the environment variable API_KEY is not set"),
        "{}",
        stderr(&failed)
    );
}

/// An eval that was killed while the third of its answers was awaited; the arguments that continue it.
fn interrupted(folder: &Path) -> (Server, Vec<&'static str>) {
    let server = Server::start(&[Reply::Text("first"), Reply::Text("second"), Reply::Hang]);
    let arguments = workspace(folder, &server);
    let mut child = program(folder, &arguments)
        .env("API_KEY", KEY)
        .spawn()
        .unwrap();
    until("the third request", || server.requests().len() == 3);
    child.kill().unwrap();
    child.wait().unwrap();
    (server, arguments)
}

#[test]
fn an_interrupted_eval_asks_only_what_has_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (server, arguments) = interrupted(folder.path());
    let output = program(folder.path(), &arguments)
        .env("API_KEY", KEY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("2 of 3 answers are in the folder: 1 question left"),
        "{}",
        stderr(&output)
    );
    assert_eq!(server.requests().len(), 4);
    let text = std::fs::read_to_string(folder.path().join("out/evals/step-000000-rows-api.jsonl"))
        .unwrap();
    let found: Vec<EvalRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        found
            .iter()
            .map(|record| record.completion.as_str())
            .collect::<Vec<_>>(),
        ["first", "second", RIGHT]
    );
    // The time of both sessions is known, and that of the request that was killed is in neither.
    let document: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/eval.json")).unwrap())
            .unwrap();
    let endpoint = &document["targets"]["api"]["endpoint"];
    let seconds: f64 = found.iter().map(|record| record.seconds).sum();
    assert!(
        (endpoint["busy_seconds"].as_f64().unwrap() - seconds).abs() < 1e-4,
        "{endpoint} {seconds}"
    );
    assert!(
        (endpoint["tokens_per_second"].as_f64().unwrap() * seconds - 60.0).abs() < 1.0,
        "{endpoint}"
    );
}

#[test]
fn log_probs_stand_in_the_table_and_a_server_without_them_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let choice = json!({"message": {"content": RIGHT}, "logprobs": {"content": [{"logprob": -0.25}, {"logprob": -0.75}]}});
    let server = Server::start(&[Reply::Body(json!({"choices": [choice]}).to_string())]);
    let arguments = workspace(folder.path(), &server);
    let file = folder.path().join("endpoints.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}logprobs = true\n")).unwrap();
    let output = program(folder.path(), &arguments)
        .env("API_KEY", KEY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    let row = table
        .lines()
        .find(|line| line.contains("logprob, nats/token"))
        .unwrap_or_else(|| panic!("{table}"));
    assert!(row.ends_with("-0.500 (1 of 3)"), "{row}");
    assert!(
        stderr(&output).contains("api: logprobs = true, but the server gave none for 2 of 3"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_finished_eval_is_topped_up_with_what_an_endpoint_did_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let failure = || Reply::Status(400, "", String::new());
    // First turns of a to d; the second turn of d, which fails as b did.
    let replies = [
        Reply::Text("first"),
        failure(),
        Reply::Text(RIGHT),
        Reply::Text(RIGHT),
        failure(),
    ];
    let server = Server::start(&replies);
    let mut arguments = workspace(folder.path(), &server);
    let text = std::fs::read_to_string(folder.path().join("rows.jsonl")).unwrap();
    std::fs::write(
        folder.path().join("rows.jsonl"),
        format!("{text}{}\n", conversation("d", "again")),
    )
    .unwrap();
    arguments.extend([
        "--model",
        "base=tiny",
        "--max-completion-tokens",
        "4",
        "--json",
    ]);
    let run = |more: &[&str]| {
        let output = program(folder.path(), &arguments)
            .args(more)
            .env("API_KEY", KEY)
            .output()
            .unwrap();
        (
            output.status.code(),
            stderr(&output),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let counts = |text: &str| {
        let document: Value = serde_json::from_str(text).unwrap();
        let api = &document["targets"]["api"];
        (
            document["targets"]["base"].clone(),
            api["n"].clone(),
            api["endpoint_errors"].clone(),
        )
    };
    let (code, said, first) = run(&[]);
    assert_eq!(code, Some(0), "{said}");
    let (base, n, errors) = counts(&first);
    assert_eq!((n, errors), (json!(2), json!(2)), "{first}");
    let (code, said, _) = run(&["--seed", "7"]);
    assert_eq!(
        (
            code,
            said.contains("with other settings (seed): choose a new folder")
        ),
        (Some(1), true),
        "{said}"
    );
    let (code, said, second) = run(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("api: 3 of 4 answers are in the folder: 1 question left"),
        "{said}"
    );
    assert_eq!(
        server.requests().len(),
        5 + 2,
        "b, and the second turn of d"
    );
    let (same_base, n, errors) = counts(&second);
    // What was sampled here is not sampled again, or its speed would differ.
    assert_eq!(
        (same_base, n, errors),
        (base, json!(4), Value::Null),
        "{second}"
    );
    let (code, said, _) = run(&[]);
    assert_eq!(
        (code, said.contains("in which no answer is missing")),
        (Some(1), true),
        "{said}"
    );
    assert_eq!(server.requests().len(), 7);
}

#[test]
fn an_endpoint_is_only_asked_where_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let output = call_in_process(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(expected),
            "{:?} lacks {expected:?}",
            stderr(&output)
        );
    };
    check(
        &["eval", "invoice", "--model", "endpoint:api"],
        2,
        "no endpoints.toml (",
    );
    check(
        &[
            "eval",
            "invoice",
            "--model",
            "endpoint:api",
            "--endpoints",
            "x.toml",
        ],
        2,
        "x.toml: ",
    );
    check(
        &["sample", "invoice", "--model", "endpoint:api"],
        2,
        "only `eval` takes endpoints and constrained models",
    );
}

#[test]
fn confidence_needs_a_server_that_gives_log_probs() {
    let folder = tempfile::tempdir().unwrap();
    let with_tokens = |log_prob: f64| {
        let choice = json!({"message": {"content": RIGHT}, "finish_reason": "stop",
            "logprobs": {"content": [{"token": RIGHT, "logprob": log_prob}]}});
        Reply::Body(json!({"choices": [choice]}).to_string())
    };
    let server = Server::start(&[with_tokens(-0.5), with_tokens(0.0), Reply::Text(RIGHT)]);
    let mut arguments = workspace(folder.path(), &server);
    arguments.push("--confidence");
    let run = || {
        let mut command = program(folder.path(), &arguments);
        command.env("API_KEY", KEY).output().unwrap()
    };
    let output = run();
    assert_eq!(output.status.code(), Some(2));
    let expected = "--confidence: endpoint `api` is asked for no log-probs: set logprobs = true in endpoints.toml";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    let file = folder.path().join("endpoints.toml");
    let text = std::fs::read_to_string(&file).unwrap() + "logprobs = true\n";
    std::fs::write(&file, text).unwrap();
    let output = run();
    let expected = "endpoint `api` gave no log-probs with its answer to c: leave --confidence out";
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    // The third is asked again, and answers.
    server.reply(with_tokens(-1.0));
    let output = run();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(folder.path().join("out/evals/step-000000-rows-api.jsonl"));
    let text = text.unwrap();
    let records: Vec<EvalRecord> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let least: Vec<f64> = records
        .iter()
        .map(|record| record.confidence.as_ref().unwrap().least().unwrap())
        .collect();
    for (found, expected) in least.iter().zip([-0.5_f64, 0.0, -1.0]) {
        assert!((found - expected.exp()).abs() < 1e-9, "{least:?}");
    }
    let leaves = &records[0].confidence.as_ref().unwrap().leaves;
    assert!(
        leaves
            .iter()
            .all(|leaf| leaf.among == grpo_tui::confidence::Among::Vocabulary)
    );
}
