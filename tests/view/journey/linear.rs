//! Linear mode: lines without control sequences, driven by keys at a terminal and by a script without one.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::super::pty_session::{Session, Start};
use super::{RUN_PATIENCE, recorded_run, workspace};
use crate::program::{PROGRAM, started_by};

/// The program with a script as its input, in a home with the recorded run.
fn scripted(script: &str) -> Output {
    let home = workspace();
    recorded_run(home.path(), "done01");
    scripted_in(home.path(), script)
}

fn scripted_in(home: &std::path::Path, script: &str) -> Output {
    let mut timeout = Command::new("timeout");
    timeout.args([&RUN_PATIENCE.as_secs().to_string(), PROGRAM]);
    let mut command = started_by(timeout, home, &["--linear"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Whether lines that begin like this come in this order.
fn assert_order(text: &str, starts: &[&str]) {
    let mut lines = text.lines();
    for start in starts {
        assert!(
            lines.any(|line| line.trim_start().starts_with(start)),
            "no `{start}` in order:\n{text}"
        );
    }
}

#[test]
fn a_script_reads_every_screen() {
    let output = scripted("runs.open\nlive.pane.log\nV\n2\n3\n4\n5\nwait START\n?\nesc\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !text.contains('\x1b') && !text.contains('\r'),
        "control sequences"
    );
    assert!(
        !text
            .chars()
            .any(|letter| matches!(letter, '\u{2500}'..='\u{259f}' | '\u{2800}'..='\u{28ff}' | '\u{10fff0}'..)),
        "lines of a drawing:\n{text}"
    );
    assert_order(
        &text,
        &[
            "Screen: Runs, ",
            "Pane: Task invoice",
            "Pane: Runs 1",
            "> ",
            "Keys: ",
            "Screen: Live, ",
            "finished",
            "Pane: groups of step 40",
            "Pane: result: finished",
            "Pane: reward, valid and exact",
            "reward: from ",
            "Pane: alerts and log (focused)",
            "Screen: Eval",
            "Screen: Schema",
            "Screen: Prompts",
            "Screen: Scores",
            "Screen: Launch",
            "Popup: Help: Launch",
            "Closed: Help: Launch",
        ],
    );
}

#[test]
#[ignore = "nightly: trains"]
fn a_script_trains() {
    let home = workspace();
    let output = scripted_in(
        home.path(),
        "# a run of one step\n5\nwait START\n/\ntype max_steps\nenter enter ctrl-u\ntype 1\nenter esc\nwait START 1 step \nL\nwait result: finished\nq\n",
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_order(
        &text,
        &[
            "Screen: Launch",
            "Message: ",
            "Screen: Live",
            "Pane: result: finished",
            "best checkpoint",
            "eval set, n = ",
            "valid ",
            "exact match ",
        ],
    );
}

#[test]
fn a_line_that_says_nothing_ends_a_script() {
    let output = scripted("j\nquti\n3\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.ends_with(
            "Error: line 2: unknown key or action `quti` (`grpo-tui keys` lists them): write `type quti` to type it\n"
        ),
        "{text}"
    );
}

#[test]
fn what_changes_is_told_once() {
    let text = String::from_utf8(scripted("2\n1\nj\n").stdout).unwrap();
    assert_eq!(
        text.matches("Screen: Runs").count(),
        2,
        "once for each time that it is shown:\n{text}"
    );
    let text = String::from_utf8(scripted("").stdout).unwrap();
    for line in ["> v finished    done01", "Pane: Runs 1", "  disk "] {
        assert_eq!(text.matches(line).count(), 1, "{line}:\n{text}");
    }
}

#[test]
fn at_a_terminal_keys_are_the_usual_ones() {
    let home = workspace();
    let start = Start {
        arguments: &["--linear"],
        rows: 200,
        columns: 200,
        ..Start::PLAIN
    };
    let mut session = Session::start(home.path(), &start);
    session.wait_text("Screen: Runs");
    assert!(!session.on_other_screen() && !session.is_cooked() && session.shows_cursor());
    session.send("3");
    session.wait_text("Screen: Prompts");
    session.send("?");
    session.wait_text("Popup: Help: Prompts");
    session.send("\x1b");
    session.wait_text("Closed: Help: Prompts");
    session.send("\x10quit");
    session.wait_text("Popup: Palette");
    session.send("\r");
    assert_eq!(session.wait_end(), 0);
    assert!(
        session.is_cooked() && !session.received("\x1b"),
        "{}",
        session.screen()
    );
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let home = workspace();
    let variables = [("TERM", "dumb")];
    let mut session = Session::start(
        home.path(),
        &Start {
            variables: &variables,
            ..Start::PLAIN
        },
    );
    session.wait_text("Keys: ");
    assert!(session.received("TERM=dumb cannot draw a screen: printing lines, as --linear does"));
    session.send("q");
    assert_eq!(session.wait_end(), 0);
    assert!(
        session.is_cooked() && !session.received("\x1b"),
        "{}",
        session.screen()
    );
}

#[test]
fn signals_end_it() {
    let home = workspace();
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--linear"],
            ..Start::PLAIN
        },
    );
    session.wait_text("Keys: ");
    kill_process(Pid::from_raw(session.process()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(session.wait_end(), 143);
    assert!(session.is_cooked());
}
