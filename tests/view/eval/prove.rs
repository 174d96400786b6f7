//! A server compared with the open run, started by keys.

use std::path::PathBuf;

use grpo_tui::run::{
    CheckOutcome, ProveRecord, RunServer, ServingCheck, ServingFault, ServingFinding,
};
use grpo_tui::view::Command;
use serde_json::json;

use super::ID;
use crate::view::harness::{Stage, script};
use crate::view::runs::copy_run;

/// A verdict with one cause.
fn record(base_url: &str) -> ProveRecord {
    let sentence = "the adapter is not applied: 0.0000 nats/token from the base's log-probs, 0.2310 from the run's; these are 0.2310 apart";
    ProveRecord {
        base_url: base_url.to_owned(),
        model: "m".to_owned(),
        step: 30,
        task: "invoice".to_owned(),
        set: "test".to_owned(),
        prompts: 64,
        checks: vec![ServingCheck {
            name: "trained weights".to_owned(),
            outcome: CheckOutcome::Differs,
            detail: "0.0000 nats/token from the base's log-probs".to_owned(),
        }],
        findings: vec![ServingFinding {
            fault: ServingFault::Adapter,
            sentence: sentence.to_owned(),
        }],
        ..ProveRecord::default()
    }
}

/// The run is open, and `prove` keeps its arguments and does what `text` says.
fn stage(text: &str) -> (Stage, PathBuf) {
    let mut stage = Stage::with(120, 36, |options| {
        let kept = options.here.join("arguments");
        let text = format!("printf '%s ' \"$@\" >> '{}'\n{text}", kept.display());
        options.program = script(&options.here.join("program"), &text);
        std::fs::create_dir(options.here.join("tasks")).unwrap();
    });
    let run = copy_run(
        &stage.folder.path().join("runs"),
        ID,
        "small adapters",
        "finished",
    );
    let shown = run.clone();
    stage.act(|_| vec![Command::ShowRun(shown)]);
    stage.keys("7");
    (stage, run)
}

fn arguments(stage: &Stage) -> String {
    std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap_or_default()
}

#[test]
fn a_server_is_asked_for_and_its_verdict_is_said() {
    let found = json!(record("http://127.0.0.1:8000/v1"));
    let program = format!("echo 'log-probs: 3 of 64' >&2; echo '{found}'; exit 1")
        .replace("base's", "base")
        .replace("run's", "run");
    let (mut stage, run) = stage(&program);
    let server = RunServer::new("http://127.0.0.1:8000/v1".into(), "own".into(), None);
    let _served = server.announce(&run).unwrap();
    stage.keys("e");
    assert!(
        stage.shows("http://127.0.0.1:8000/v1 own"),
        "{}",
        stage.screen()
    );
    // The one that serves the run is the first.
    stage.keys("enter");
    assert!(
        stage.shows("differs: adapter") && stage.shows("the adapter is not applied"),
        "{}",
        stage.screen()
    );
    let expected = format!(
        "prove http://127.0.0.1:8000/v1 --model own --run {}@30 --json --runs ",
        run.display()
    );
    assert!(arguments(&stage).starts_with(&expected));
}

#[test]
fn a_failure_is_named() {
    let (mut stage, _) = stage("echo 'error: no answer' >&2; exit 2");
    stage.keys("e").types("endpoint:own").keys("enter");
    assert!(
        arguments(&stage).contains("prove endpoint:own --run "),
        "{}",
        arguments(&stage)
    );
    assert!(
        stage.shows("prove endpoint:own: no answer"),
        "{}",
        stage.screen()
    );
}
