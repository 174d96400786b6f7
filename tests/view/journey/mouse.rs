//! With the mouse alone: tabs, rows, the form, the start of a run, and its answers.

use super::{User, recorded_run, workspace};

/// Two recorded runs, opened and compared, and a new one about to start.
fn opened_by_clicks() -> User {
    let home = workspace();
    recorded_run(home.path(), "done01");
    recorded_run(home.path(), "done02");
    let mut user = User::at(home, (120, 36));
    user.sees(["Runs 2", "newest first"]);
    user.double_clicks("done02")
        .sees(["[6 Live]", "groups of step 40", "result: finished"]);
    user.clicks("informative groups 1/")
        .sees(["▸ informative groups 1/"]);
    user.clicks("7 Eval").sees(["[7 Eval]", "improvements"]);
    user.clicks("= test-066").sees(["▸= test-066"]);
    user.clicks("3 Prompts")
        .sees(["[3 Prompts]", "train-002"])
        .clicks("train-002")
        .sees(["▸train train-002"]);
    user.clicks("5 Launch").sees(["START 2 steps"]);
    user
}

#[test]
fn runs_are_opened_and_compared_by_clicks() {
    let mut user = opened_by_clicks();
    user.clicks("1 Runs").sees(["Runs 2"]);
    user.quits();
}

#[test]
#[ignore = "nightly: trains"]
fn a_run_is_started_by_clicks() {
    let mut user = opened_by_clicks();
    user.double_clicks("START 2 steps").sees(["[6 Live]"]);
    user.sees_in_time(["step 2 of 2", "result: finished"])
        .clicks("7 Eval")
        .sees(["[7 Eval]", "improvements"]);
    user.clicks("x eval-003")
        .sees(["▸x eval-003"])
        .clicks("1 Runs")
        .sees(["Runs 3"]);
    user.quits();
}
