//! Rows of a CSV become a task, its schema is inferred, a completion is scored, and at night a short run trains on it.

use std::fs;

use super::{SHORT_RUN, User};

/// Tickets as a spreadsheet exports them.
fn tickets() -> String {
    let texts = [
        "Screen is black",
        "Invoice is wrong",
        "How do I log in?",
        "App crashes",
    ];
    let answers = ["bug,high", "billing,low", "question,low", "bug,low"];
    let row = |index: usize| format!("{} ({index}),{}\n", texts[index % 4], answers[index % 4]);
    std::iter::once("body,category,priority\n".to_owned())
        .chain((0..20).map(row))
        .collect()
}

/// The launch form of a task that was made of the tickets.
fn task_of_tickets() -> User {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("tickets.csv"), tickets()).unwrap();
    let mut user = User::at(home, (120, 36));
    user.sees(["[1 Runs]"]).presses("3").sees(["[3 Prompts]"]);
    user.presses("N")
        .sees(["new task", "files here: tickets.csv", "creates the task"]);
    user.types("tickets")
        .presses("tab")
        .types("tickets.csv")
        .presses("tab")
        .types("body");
    user.presses("tab*2").types("category, priority");
    // The preview shows the sets, the schema that was inferred, and a row as it will be written.
    user.sees([
        "train 16, eval 2, test 2",
        "schema.json",
        "\"category\"",
        "\"enum\"",
        "\"billing\"",
    ]);
    user.presses("ctrl-o").sees(["[2 Schema]", "\"priority\""]);
    user.presses("3")
        .sees(["[3 Prompts]", "20 rows", "Screen is black (0)"]);
    // An answer that the schema does not allow is invalid, and says why.
    user.presses("4")
        .sees(["[4 Scores]", "no completions scored", "n/a"])
        .presses("a")
        .types("{\"category\": \"spam\", \"priority\": \"low\"}");
    user.sees(["invalid", "/category"])
        .presses("esc")
        .no_longer_sees("editing:");
    let task = user.home().join("tasks/tickets/task.toml");
    let text = fs::read_to_string(&task).unwrap();
    fs::write(
        &task,
        text.replace("[train]\n", &format!("[train]\n{SHORT_RUN}")),
    )
    .unwrap();
    user.presses("5")
        .sees(["[5 Launch]", "tickets"])
        .sets("max_steps", "1");
    user
}

#[test]
fn a_spreadsheet_becomes_a_task() {
    let mut user = task_of_tickets();
    user.sees(["START 1 step"]);
    user.quits();
}

#[test]
#[ignore = "nightly: trains"]
fn a_task_of_a_spreadsheet_trains() {
    let mut user = task_of_tickets();
    user.starts()
        .sees_in_time(["step 1 of 1", "result: finished"]);
    user.quits();
}
