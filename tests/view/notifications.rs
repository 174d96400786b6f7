//! What reaches the terminal besides pictures: copies, notifications, and the words after a bug.

use super::live_run::LiveRun;
use super::pty_session::{Session, Start};

const RUN: &str = "20261120-120000-invoice-live01";

#[test]
fn a_copy_reaches_the_terminals_clipboard_also_through_tmux() {
    // The id in base64, as the emulators want it.
    let copied = "\x1b]52;c;MjAyNjExMjAtMTIwMDAwLWludm9pY2UtbGl2ZTAx\x07";
    let check = |variables: &[(&str, &str)], expected: &[&str]| {
        let home = tempfile::tempdir().unwrap();
        let _run = LiveRun::begin(&home.path().join("runs"), 5);
        let mut session = Session::start(
            home.path(),
            &Start {
                arguments: &["--runs", "runs"],
                variables,
                ..Start::PLAIN
            },
        );
        session.wait_text("[6 Live]");
        session.send("1");
        session.wait_text("[1 Runs]");
        session.wait_text("live01");
        session.send("y");
        for sequence in expected {
            session.wait_for(sequence, |session| session.received(sequence));
        }
        session.send("\x03");
        assert_eq!(session.wait_end(), 0);
    };
    check(&[], &[copied]);
    check(
        &[("TMUX", "/tmp/tmux-0/default,1,0")],
        &[copied, &format!("\x1bPtmux;\x1b{copied}\x1b\\")],
    );
}

#[test]
fn the_end_of_a_watched_run_is_notified() {
    let home = tempfile::tempdir().unwrap();
    let mut run = LiveRun::begin(&home.path().join("runs"), 5);
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    session.wait_text("live01");
    session.send("\r");
    session.wait_text("[6 Live]");
    session.wait_text("running");
    let finished = format!("\x1b]9;{RUN} is finished: no difference, all steps done\x07");
    assert!(!session.received(&finished));
    run.end();
    session.wait_for("the notification", |session| session.received(&finished));
    session.wait_text("finished");
    session.send("\x03");
    assert_eq!(session.wait_end(), 0);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn after_a_bug_the_terminal_is_restored_a_report_lies_there_and_the_draft_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let start = Start {
        shell: Some("\"$@\"; echo CODE $?"),
        variables: &[("GRPO_TUI_FAULT", "view.key=F12:1")],
        ..Start::PLAIN
    };
    let mut session = Session::start(home.path(), &start);
    session.write_unsaved(["2", "\"vendor\"", "\r", "esc leave"]);
    session.send("\x1b[24~");
    session.wait_text("CODE 101");
    assert!(
        session.is_cooked() && !session.on_other_screen() && session.shows_cursor(),
        "{}",
        session.screen()
    );
    let screen = session.screen().replace('\n', "");
    assert!(
        screen.contains("grpo-tui crashed: ") && screen.contains("runs continue"),
        "{screen}"
    );
    let reports = home.path().join("data/grpo-tui/reports");
    let report = std::fs::read_dir(&reports)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(report).unwrap();
    assert!(
        text.contains("the bug that GRPO_TUI_FAULT asks for at view.key")
            && text.contains("event_loop"),
        "{text}"
    );
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.take_up("2", "unsaved draft of", "t");
}
