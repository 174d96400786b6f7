//! A sweep that another release began.

use std::collections::BTreeMap;
use std::fs;

use grpo_tui::run::RunDirectory;
use serde_json::Value;

use super::{runs, started, states};
use crate::program::{call, json, small_task};

#[test]
fn later_runs_of_a_resumed_sweep_have_the_defaults_of_its_start() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let command = "sweep task --runs runs --name kept --set max_steps=1 --set temperature=0.9,0.8";
    call(
        folder.path(),
        &[started(command), vec!["--max-runs", "1"]].concat(),
    );
    // As of a program with another default, and without a key of this one.
    let file = folder.path().join("runs/.sweeps/kept/sweep.json");
    let mut sweep: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for setting in sweep["settings"].as_array_mut().unwrap() {
        let resolved = setting["resolved"].as_object_mut().unwrap();
        assert_eq!(resolved["grad_clip_norm"], "1.0");
        resolved["grad_clip_norm"] = "0.5".into();
        assert_eq!(resolved.remove("on_collapse").unwrap(), "recover");
    }
    fs::write(&file, sweep.to_string()).unwrap();
    let resumed = "sweep --resume kept --runs runs --max-runs 2 --json";
    let document = json(&call(
        folder.path(),
        &resumed.split_whitespace().collect::<Vec<_>>(),
    ));
    assert_eq!(states(&document), ["finished", "finished"], "{document:#}");
    for (name, clip, collapse, temperature) in [
        ("kept-001", 1.0, "recover", 0.9),
        ("kept-002", 0.5, "continue", 0.8),
    ] {
        let id = &runs(folder.path())[name].0;
        let run = RunDirectory::open(&folder.path().join("runs").join(id)).unwrap();
        let values: BTreeMap<String, Value> = run.file().config.values().into_iter().collect();
        assert_eq!(
            [&values["grad_clip_norm"], &values["temperature"]],
            [&Value::from(clip), &Value::from(temperature)]
        );
        assert_eq!(values["on_collapse"], collapse, "{name}");
    }
}
