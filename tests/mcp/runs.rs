//! Runs over the Model Context Protocol: budget, test set, limits of calls.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{Client, TRAIN, workspace};
use crate::program::{self, NANO_RUN, call, json as document};

/// What makes a run of the test model short.
fn nano_settings() -> Vec<String> {
    let own = ["base_model", "max_steps"];
    let set = NANO_RUN
        .iter()
        .filter(|set| !own.iter().any(|own| set.starts_with(own)));
    let short = [
        "prompt_groups_per_step=2",
        "completions_per_prompt=2",
        "eval_every=0",
    ];
    set.chain(&short).map(|set| (*set).to_owned()).collect()
}

#[test]
fn a_run_outlives_its_client_and_the_test_set_answers_once() {
    let (_folder, root) = workspace();
    let limits = [TRAIN, &["--steps", "3", "--device-minutes", "20"]].concat();
    let mut client = Client::new(&root, &limits);
    let train = |steps: u64| json!({"task": "bills", "model": "nano", "steps": steps, "cpu": true, "set": nano_settings()});
    let refusal = client.refusal("train", train(4));
    assert!(refusal.contains("\"steps_left\":3"), "{refusal}");
    let started = client.call("train", train(2));
    let run = started["run"].as_str().unwrap().to_owned();
    assert_eq!(started["budget"]["steps_left"], 1);
    client.close();

    // As after a restart: the budget is what was left.
    let mut client = Client::new(&root, &limits);
    let id = client.ask("tools/call", json!({"name": "status", "arguments": {"run": run, "wait_seconds": 300}, "_meta": {"progressToken": "p"}}));
    let answer = client.answer(id);
    let status = &answer["result"]["structuredContent"];
    assert_eq!(
        (&status["status"], &status["step"]),
        (&json!("finished"), &json!(2)),
        "{answer}"
    );
    let sets: Vec<&Value> = status["evals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|eval| &eval["set"])
        .collect();
    assert_eq!(sets, ["eval", "eval"]);
    let refusal = client.refusal("final_eval", json!({"run": run}));
    assert!(refusal.contains("\"steps_left\":1"), "{refusal}");
    let refusal = client.refusal("dataset_split", json!({"task": "bills", "by": "prompt"}));
    assert!(refusal.contains("stay as they are"), "{refusal}");
    let again = client.call("train", train(1));
    let second = again["run"].as_str().unwrap().to_owned();
    client.call("status", json!({"run": second, "wait_seconds": 300}));
    let metrics = client.call("metrics", json!({"run": run, "names": ["reward"]}));
    let steps = metrics["items"].as_array().unwrap().iter();
    let steps: Vec<&Value> = steps.map(|item| &item["step"]).collect();
    assert_eq!(steps, [1, 2]);
    assert!(
        client
            .refusal("metrics", json!({"run": run, "names": ["rewrd"]}))
            .contains("did you mean `reward`")
    );
    let rollouts = client.call("rollouts", json!({"run": run, "step": "1"}));
    assert_eq!(
        (
            &rollouts["items"][0]["step"],
            rollouts["items"].as_array().unwrap().len()
        ),
        (&json!(1), 4)
    );
    assert!(
        client
            .refusal("rollouts", json!({"run": run, "step": "9"}))
            .contains("no such rollouts")
    );
    client.call("compare", json!({"run": [run, second]}));
    assert!(
        client
            .refusal("compare", json!({"run": run, "on": "test"}))
            .contains("has no argument")
    );
    client.call("notes", json!({"run": run, "text": "--a note"}));
    assert_eq!(
        client.call("status", json!({"run": run}))["notes"],
        json!(["--a note"])
    );

    let proof = client.call("final_eval", json!({"run": run, "cpu": true}));
    assert_eq!(
        (&proof["set"], &proof["trained"]["n"]),
        (&json!("test"), &json!(8)),
        "{proof}"
    );
    assert_eq!(
        client.call("final_eval", json!({"run": run, "cpu": true})),
        proof
    );
    assert!(
        client
            .refusal("final_eval", json!({"run": second}))
            .contains("has answered")
    );
    assert!(
        client
            .refusal("train", train(1))
            .contains("training is closed")
    );
    client.close();
    let mut client = Client::new(&root, TRAIN);
    let status = client.call("status", json!({}));
    assert_eq!(
        (&status["budget"]["steps_spent"], &status["final_eval"]),
        (&json!(3), &json!(run))
    );
    client.close();
}

#[test]
fn results_on_test_sets_of_other_runs_are_hidden() {
    let (_folder, root) = workspace();
    let settings = nano_settings();
    let set = settings.iter().flat_map(|set| ["--set", set.as_str()]);
    let words: Vec<&str> = [
        "train",
        "bills",
        "--cpu",
        "--json",
        "--model",
        "nano",
        "--set",
        "max_steps=1",
    ]
    .into_iter()
    .chain(set)
    .collect();
    let trained = document(&call(&root, &words));
    assert_eq!(trained["set"], "test");
    let run = trained["run"].as_str().unwrap();
    let mut client = Client::new(&root, TRAIN);
    for status in [
        client.call("status", json!({"run": run})),
        client.call("status", json!({})),
    ] {
        let text = status.to_string();
        assert!(
            !text.contains("\"test\"") && !text.contains("test set") && text.contains("\"eval\""),
            "{text}"
        );
    }
    let compared = client.call("compare", json!({"run": run}));
    assert_eq!(compared["set"], "eval", "{compared}");
    let refusal = client.refusal("stop", json!({"run": run}));
    assert!(
        refusal.contains("was not started by this server"),
        "{refusal}"
    );
    client.close();
}

#[test]
fn calls_are_bounded_cut_and_cancelled() {
    let (folder, root) = workspace();
    let mut client = Client::new(&root, TRAIN);
    let long = client.call("score", json!({"task": "bills", "completions": vec![json!({"completion": "{\"vendor\": 7}"}); 1000]}));
    let note = long["cut"].as_str().unwrap();
    assert!(
        long.to_string().len() < 25_000 && note.contains("the whole has"),
        "{note}"
    );

    // A plan trains a little: it is still under way when it is cancelled.
    let plan = json!({"name": "plan", "arguments": {"task": "bills", "model": "tiny", "cpu": true, "sample": true}, "_meta": {"progressToken": 7}});
    let cancelled = client.ask("tools/call", plan);
    let progress = client.next();
    assert_eq!(
        (&progress["method"], &progress["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!(7)),
        "{progress}"
    );
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": cancelled}}));
    program::until("the end of the plan", || {
        let processes = program::processes_of(folder.path());
        processes.iter().all(|command| !command.contains("--plan"))
    });
    let answer = {
        let id = client.ask("ping", json!({}));
        loop {
            let message = client.next();
            assert_ne!(message["id"], cancelled, "{message}");
            if message["id"] == id {
                break message;
            }
        }
    };
    assert_eq!(answer["result"], json!({}));
    // A flood is answered, too.
    let ids: Vec<u64> = (0..40)
        .map(|_| client.ask("tools/call", json!({"name": "doctor"})))
        .collect();
    let mut answers: BTreeMap<u64, Value> = BTreeMap::new();
    while answers.len() < ids.len() {
        let message = client.next();
        answers.insert(message["id"].as_u64().unwrap(), message["result"].clone());
    }
    let refused = answers.values().filter(|result| result["isError"] == true);
    let refused: Vec<&Value> = refused
        .map(|result| &result["content"][0]["text"])
        .collect();
    assert!(
        !refused.is_empty()
            && refused
                .iter()
                .all(|text| text.as_str().unwrap().starts_with("8 calls")),
        "{refused:?}"
    );
    client.close();
}
