//! A run whose values drift: its alert is seen, its result opened, a checkpoint chosen, and a new run started from it
//! with other settings.

use std::fs;

use super::{User, recorded_run, workspace};

/// A new run from a checkpoint of the one that drifts, ready to start.
fn better_run() -> User {
    let home = workspace();
    let run = recorded_run(home.path(), "drift1");
    // The alert stands to the end.
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let is_standing =
        |line: &&str| !(line.contains("value_drift") && line.contains("\"cleared\":true"));
    let events: String = text
        .lines()
        .filter(is_standing)
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(run.join("events.jsonl"), events).unwrap();
    let mut user = User::at(home, (120, 36));
    user.sees(["[1 Runs]", "drift1", "value drift"])
        .presses("enter");
    user.sees([
        "[6 Live]",
        "1 alert",
        "value drift (step 29)",
        "Give values a weight",
        "best checkpoint: step 30",
    ]);
    user.presses("V").sees(["[7 Eval]", "+38.0 points (95% CI"]);
    user.presses("5").sees(["[5 Launch]", "START 2 steps"]);
    // The list opens once the models have been searched.
    user.presses("m").sees(["drift1@best"]);
    user.types("drift1@30").sees(["as typed"]).presses("enter");
    user.sees(["START 2 steps of 2 x 4, drift1@30"]);
    user.sets("max_steps", "1").sets("learning_rate", "2e-5");
    user
}

#[test]
fn a_drifting_run_is_found_and_a_better_one_prepared() {
    let mut user = better_run();
    user.sees(["START 1 step", "drift1@30"]);
    user.quits();
}

#[test]
#[ignore = "nightly: trains"]
fn the_better_run_has_the_checkpoint_and_the_settings() {
    let mut user = better_run();
    user.starts()
        .sees_in_time(["step 1 of 1", "result: finished"]);
    let runs = user.runs();
    let started = fs::read_to_string(runs[1].join("run.toml")).unwrap();
    assert!(
        ["base_model=drift1@30", "learning_rate=2e-5"]
            .iter()
            .all(|set| started.contains(set)),
        "{started}"
    );
    user.quits();
}
