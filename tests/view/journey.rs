//! The whole way in one terminal, with the real engine: a schema is edited and saved, a run launched from the form,
//! watched, and its answers compared.

use std::path::Path;
use std::time::Duration;

use super::pty_session::{Session, Start};

/// A run of three steps and two proofs of twenty prompts; the machine may be busy.
const RUN_PATIENCE: Duration = Duration::from_secs(300);

/// The embedded task as a folder below `home`, with a short proof set.
fn task(home: &Path) {
    crate::program::sample_task(&home.join("tasks/invoice"), [usize::MAX, usize::MAX, 20]);
}

#[test]
fn from_the_schema_to_the_comparison() {
    let home = tempfile::tempdir().unwrap();
    task(home.path());
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.wait_text("[1 Runs]");
    // The schema: the amount becomes a text, samples fall; taken back and narrowed truly, it is saved.
    session.send("2");
    session.wait_text("sample scores");
    let valid = |count: usize| {
        let line = format!("█ valid      1.00  {count:>3} ");
        move |session: &Session| session.screen().contains(&line)
    };
    session.wait_for("the samples are scored", valid(5));
    session.send("\r");
    session.send(&"\x1b[B".repeat(6));
    session.send("\x1b[F\x1b[D\x1b[D\x1b[D");
    session.send(", \"maximum\": 0");
    session.wait_for("no sample passes the draft", valid(0));
    session.send("\x7f100000000");
    session.wait_for("the wider bound lets them pass again", valid(5));
    // Ctrl-o.
    session.send("\x0f");
    session.wait_for("saved", |session| !session.screen().contains("(unsaved)"));
    session.send("\x1b");
    session.wait_for("the editor is left", |session| !session.screen().contains("esc leaves"));
    let schema = std::fs::read_to_string(home.path().join("tasks/invoice/schema.json")).unwrap();
    assert!(schema.contains("\"amount\": { \"type\": \"number\", \"maximum\": 100000000 }"), "{schema}");
    // The launch: three steps instead of forty.
    session.send("5");
    session.wait_text("START 40 steps");
    session.send("/max_steps\r");
    session.wait_for("only that row", |session| !session.screen().contains("lora_rank"));
    session.send("\r\x15");
    session.send("3\r");
    session.wait_text("max_steps              3 steps");
    session.send("\x1b");
    session.wait_text("START 3 steps");
    session.send("L");
    session.wait_text("[6 Live]");
    // It is watched to its end, then compared with what it began as.
    session.wait_within(RUN_PATIENCE, "the run's end", |session| session.screen().contains("finished: all steps done"));
    session.wait_text("step 3 of 3");
    session.wait_text("groups of step 3");
    session.send("7");
    session.wait_text("20 of 20");
    for text in ["base → ", "valid: ", "exact: ", "95% CI [", "improvements", "neither"] {
        assert!(session.screen().contains(text), "{text} is missing:\n{}", session.screen());
    }
    session.send("q");
    assert_eq!(session.wait_end(), 0, "{}", session.screen());
    let places = grpo_tui::run::RunFolders::discover(Some(&home.path().join("runs")), home.path());
    let runs: Vec<_> = places.list().into_iter().map(|(path, _)| path).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let frozen = std::fs::read_to_string(runs[0].join("task/schema.json")).unwrap();
    assert_eq!(frozen, schema, "the run has schema as it was saved");
}
