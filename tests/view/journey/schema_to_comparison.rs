//! A schema is edited and saved; at night a run is launched from the form, watched, and its answers compared.

use std::fs;

use super::{User, workspace};

/// The launch form after an edit of the schema, and the schema.
fn launch_after_an_edit() -> (User, String) {
    let mut user = User::at(workspace(), (120, 36));
    user.sees(["[1 Runs]"]).presses("2").sees(["sample scores"]);
    let valid = |count: usize| format!("█ valid      1.00  {count:>3} ");
    user.sees([&valid(5)]);
    // The amount gets a bound that nothing satisfies, then one that all do.
    user.presses("enter down*6 end left*3")
        .types(", \"maximum\": 0")
        .sees([&valid(0)]);
    user.presses("backspace")
        .types("100000000")
        .sees([&valid(5)]);
    user.presses("ctrl-o").no_longer_sees("(unsaved)");
    user.presses("esc").no_longer_sees("esc leaves");
    let schema = fs::read_to_string(user.home().join("tasks/invoice/schema.json")).unwrap();
    assert!(
        schema.contains("\"amount\": { \"type\": \"number\", \"maximum\": 100000000 }"),
        "{schema}"
    );
    user.presses("5")
        .sees(["START 2 steps"])
        .sets("max_steps", "3")
        .sees(["START 3 steps"]);
    (user, schema)
}

#[test]
fn from_the_schema_to_the_launch() {
    launch_after_an_edit().0.quits();
}

#[test]
#[ignore = "nightly: trains"]
fn from_the_schema_to_the_comparison() {
    let (mut user, schema) = launch_after_an_edit();
    user.starts();
    user.sees_in_time([
        "finished",
        "step 3 of 3",
        "groups of step 3",
        "best checkpoint",
    ]);
    user.presses("V").sees(["[7 Eval]"]);
    user.sees([
        "base → ",
        "exact match",
        "95% CI",
        "improvements",
        "neither",
    ]);
    let runs = user.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let frozen = fs::read_to_string(runs[0].join("task/schema.json")).unwrap();
    assert_eq!(frozen, schema, "the run has the schema as it was saved");
    user.quits();
}
