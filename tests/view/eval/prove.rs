//! A server compared with the open run, started by keys.

use std::path::PathBuf;

use grpo_tui::run::{
    CheckOutcome, ProveRecord, RunServer, ServingCheck, ServingFault, ServingFinding, write_prove,
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
            fault: ServingFault::AdapterOff,
            sentence: sentence.to_owned(),
        }],
        ..ProveRecord::default()
    }
}

/// The run is open, and `prove` keeps its arguments and does what `text` says.
fn stage(columns: u16, rows: u16, text: &str) -> (Stage, PathBuf) {
    let mut stage = Stage::with(columns, rows, |options| {
        let kept = options.here.join("arguments");
        let text = format!("printf '%s ' \"$@\" >> '{}'\n{text}", kept.display());
        options.program = script(&options.here.join("program"), &text);
        std::fs::create_dir(options.here.join("tasks")).unwrap();
        let endpoints = "[priced]\nbase_url = \"https://api.example/v1\"\nmodel = \"large\"\nprice_per_million_input = 1\nprice_per_million_output = 2\n";
        std::fs::write(options.here.join("endpoints.toml"), endpoints).unwrap();
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
fn a_server_is_chosen_and_its_verdict_is_shown_with_the_remedy() {
    let found = json!(record("http://127.0.0.1:8000/v1"));
    let program = format!("echo 'log-probs: 3 of 64' >&2; echo '{found}'; exit 1")
        .replace("base's", "base")
        .replace("run's", "run");
    for (columns, rows) in [(120, 36), (80, 24)] {
        let (mut stage, run) = stage(columns, rows, &program);
        let server = RunServer::new("http://127.0.0.1:8000/v1".into(), "own".into(), None);
        let _served = server.announce(&run).unwrap();
        stage.keys("e");
        for expected in ["http://127.0.0.1:8000/v1", "model own", "priced", "large"] {
            assert!(stage.shows(expected), "{expected}: {}", stage.screen());
        }
        // The one that serves the run is the first.
        stage.keys("enter");
        for expected in [
            "differs: adapter not applied",
            "the adapter is not applied",
            "--lora-modules",
            "trained weights",
        ] {
            assert!(stage.shows(expected), "{expected}: {}", stage.screen());
        }
        insta::assert_snapshot!(format!("prove_{columns}x{rows}"), stage.screen());
        let asked = arguments(&stage);
        let expected = format!(
            "prove http://127.0.0.1:8000/v1 --model own --run {}@30 --json --runs ",
            run.display()
        );
        assert!(asked.starts_with(&expected), "{asked}");
        stage.keys("esc");
        assert!(stage.shows("improvements"), "{}", stage.screen());
    }
}

#[test]
fn the_cost_is_limited_where_there_are_prices_and_failures_are_named() {
    let (mut stage, _) = stage(120, 36, "echo 'error: no answer' >&2; exit 2");
    stage.keys("e").types("priced").keys("enter").types("0");
    assert!(stage.shows("enter a number > 0"), "{}", stage.screen());
    stage.keys("backspace").types("2.5").keys("enter");
    assert!(
        arguments(&stage).contains("prove endpoint:priced --run ")
            && arguments(&stage).contains(" --max-cost 2.5 --json"),
        "{}",
        arguments(&stage)
    );
    assert!(
        stage.shows("prove priced: no answer") && stage.shows("enter compares a server"),
        "{}",
        stage.screen()
    );
    // A URL of one's own, with the name of its model.
    stage
        .keys("enter")
        .types("http://127.0.0.1:9/v1 other")
        .keys("enter");
    assert!(
        arguments(&stage).contains("prove http://127.0.0.1:9/v1 --model other --run "),
        "{}",
        arguments(&stage)
    );
    // A file with a fault is named, not left out.
    std::fs::write(stage.folder.path().join("endpoints.toml"), "x = 1\n").unwrap();
    stage.keys("enter");
    assert!(
        stage.shows("`x` is outside of a table"),
        "{}",
        stage.screen()
    );
}

#[test]
fn kept_verdicts_are_shown_first() {
    let (mut stage, run) = stage(120, 36, "");
    write_prove(&run, &record("http://127.0.0.1:1/v1")).unwrap();
    stage.keys("e");
    assert!(
        stage.shows("m at http://127.0.0.1:1/v1") && stage.model.shared.popup.is_none(),
        "{}",
        stage.screen()
    );
    stage.keys("f");
    assert!(
        stage.shows("esc goes back to the comparison"),
        "{}",
        stage.screen()
    );
}
