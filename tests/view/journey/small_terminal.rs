//! Everything is reached in 80 columns and 24 rows.

use super::{User, recorded_run, workspace};

#[test]
fn every_screen_is_used_at_80x24() {
    let home = workspace();
    recorded_run(home.path(), "done01");
    let mut user = User::at(home, (80, 24));
    user.sees(["[1 Runs]", "done01", "finished"])
        .presses("enter")
        .sees(["[6 Live]", "best checkpoint"]);
    // Each pane has a key; the help names them.
    for (key, title) in [
        ("alt-1", "reward, valid and exact"),
        ("alt-2", "groups of step 40"),
        ("alt-3", "reward "),
        ("alt-4", "prompt "),
        ("alt-5", "tiers, failures, advantages"),
        ("alt-6", "informative groups 1/"),
        ("alt-7", "step time"),
        ("alt-8", "alerts and log"),
        ("alt-9", "result: finished"),
    ] {
        user.presses(key).sees([title]);
    }
    user.presses("?")
        .sees(["Help: Live"])
        .presses("esc")
        .no_longer_sees("Help: Live");
    user.presses("V")
        .sees(["[7 Eval]", "improvements"])
        .presses("enter")
        .sees(["the whole prompt is below"]);
    user.presses("2")
        .sees(["[2 Schema]", "\"vendor\""])
        .presses("3")
        .sees(["[3 Prompts]", "train-001"]);
    user.presses("enter")
        .sees(["system"])
        .presses("4")
        .sees(["[4 Scores]", "valid"]);
    user.presses("5")
        .sees(["[5 Launch]", "START 2 steps"])
        .presses("tab")
        .sees(["forecast"]);
    user.presses("ctrl-p")
        .types("sort")
        .sees(["Palette", "Sort by next column"])
        .presses("esc");
    user.no_longer_sees("Palette")
        .presses("1")
        .sees(["[1 Runs]"]);
    user.quits();
}
