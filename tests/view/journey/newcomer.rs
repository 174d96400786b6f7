//! A newcomer opens the program, starts a run on the embedded model, watches it, and compares what it changed.

use super::{User, workspace};

#[test]
fn a_newcomer_starts_a_run_and_compares() {
    let mut user = User::at(workspace(), (120, 36));
    user.sees([
        "[1 Runs]",
        "Task invoice",
        "define",
        "preview",
        "train",
        "watch",
        "compare",
        "L  start a run",
    ]);
    // Help says what the screen is for.
    user.presses("?")
        .sees(["Help: Runs", "This screen"])
        .presses("esc")
        .no_longer_sees("Help: Runs");
    user.presses("5")
        .sees(["[5 Launch]", "START 2 steps", "tiny"]);
    user.starts().sees(["started in the background"]);
    // The groups of the first step come while it trains, then the result in place of the log.
    user.sees_in_time(["groups of step"]);
    user.sees_in_time([
        "step 2 of 2",
        "result: finished",
        "base",
        "valid",
        "exact",
        "best checkpoint",
    ]);
    user.presses("V")
        .sees(["[7 Eval]", "improvements", "regressions"]);
    user.presses("enter").sees(["expected"]);
    // The list has the run with its outcome.
    user.presses("1").sees(["Runs 1", "finished", "vs base"]);
    user.quits();
}
