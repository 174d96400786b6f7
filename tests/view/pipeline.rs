//! The stages from a schema to a compared model on the runs screen: their state, the ways to their screens.

use std::path::PathBuf;

use grpo_tui::view::{Message, Screen};

use super::harness::Stage;
use super::live_run::LiveRun;
use super::runs::{change, copy_run};

const RUN: &str = "20261120-143041-invoice-6sx3dn";
const SIZES: [(u16, u16); 2] = [(120, 36), (80, 24)];

#[test]
fn without_runs_it_says_what_the_program_is_for() {
    for (columns, rows) in SIZES {
        let mut stage = Stage::new(columns, rows);
        for text in [
            "Define what a correct answer is",
            "▸ 2 define ",
            "schema.json · expected: 750 valid · 200 train, 50 eval, 500 test",
            "task samples: 24% valid · 19% exact · n = 21",
            "no runs yet",
            "no result yet",
            "L  start a run on this machine",
        ] {
            assert!(stage.shows(text), "{text}\n{}", stage.screen());
        }
        // What an edit breaks is seen here.
        stage
            .keys("f2 enter")
            .keys("ctrl-f")
            .types("number\n")
            .keys("enter")
            .types("9")
            .keys("f1");
        assert!(
            stage.shows("schema.json does not compile"),
            "{}",
            stage.screen()
        );
        for (place, screen) in [
            Screen::Schema,
            Screen::Scores,
            Screen::Launch,
            Screen::Live,
            Screen::Eval,
        ]
        .into_iter()
        .enumerate()
        {
            stage.keys("f1 g");
            (0..place).for_each(|_| _ = stage.keys("j"));
            stage.keys("enter");
            assert_eq!(stage.model.shared.screen, screen);
        }
    }
}

#[test]
fn one_key_starts_a_run_and_one_opens_the_recorded_one() {
    let started = |stage: &Stage| {
        stage
            .model
            .shared
            .commands
            .all()
            .iter()
            .any(|line| line.text.contains(" train "))
    };
    let mut stage = Stage::with(80, 24, |options| options.program = "/bin/false".into());
    assert!(
        stage.shows("O  open a recorded run") && !started(&stage),
        "{}",
        stage.screen()
    );
    stage.keys("L");
    assert!(started(&stage) && stage.model.shared.screen == Screen::Launch);
    stage.keys("f1 O");
    assert!(
        stage.model.shared.screen == Screen::Live && stage.shows("recording"),
        "{}",
        stage.screen()
    );
    // It is not one of the user's runs, and nothing is written into it.
    let last = |stage: &Stage| {
        stage
            .model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| notice.text.clone())
    };
    stage.keys("a esc");
    assert_eq!(
        last(&stage).as_deref(),
        Some("this is a recording: 5 starts a run of your own")
    );
    assert!(
        !stage.folder.path().join("runs").exists(),
        "{}",
        stage.screen()
    );
    stage.keys("f1");
    assert!(stage.shows("no runs yet"), "{}", stage.screen());
    let mut stage = Stage::with(80, 24, |options| {
        options.program = "/bin/false".into();
        copy_run(&options.here.join("runs"), RUN, "", "finished");
    });
    let screen = stage.screen();
    assert!(
        screen.contains("▸ Runs 1") && screen.lines().last().unwrap().contains(" L start run "),
        "{screen}"
    );
    stage.keys("L");
    assert!(
        started(&stage) && stage.model.shared.screen == Screen::Launch,
        "also from the list"
    );
}

#[test]
fn with_runs_it_has_their_state_above_a_short_list() {
    for (columns, rows) in SIZES {
        let mut stage = Stage::with(columns, rows, |options| {
            copy_run(
                &options.here.join("runs"),
                RUN,
                "small adapters",
                "finished",
            );
        });
        for text in [
            "Task invoice",
            "train    1 run",
            "6sx3dn finished · step 40 of 40",
            "valid and exact above base · valid 60% → 99%, exact 59% → 97%",
        ] {
            assert!(stage.shows(text), "{text}\n{}", stage.screen());
        }
        assert!(
            stage.shows("▸ Runs 1"),
            "the list has the focus\n{}",
            stage.screen()
        );
        let line = |text: &str| {
            stage
                .screen()
                .lines()
                .position(|line| line.contains(text))
                .unwrap() as u16
        };
        let (watch, compare) = (line(" watch "), line(" compare "));
        for _ in 0..2 {
            stage.click(20, watch);
        }
        assert_eq!(stage.model.shared.screen, Screen::Live);
        stage.keys("f1").send(Message::Tick);
        stage.click(20, compare);
        stage.keys("enter");
        assert!(
            stage.model.shared.screen == Screen::Eval && stage.shows("step 30"),
            "{}",
            stage.screen()
        );
    }
}

#[test]
fn a_run_that_lost_exact_match_is_a_warning() {
    let mut stage = Stage::with(120, 36, |options| {
        let run = copy_run(&options.here.join("runs"), RUN, "", "finished");
        // Its answers are still valid at the end, and no longer the expected ones; the rates in its log are as they were.
        let exact = r#""exact":{"fixed":20,"broken":1,"both":29,"#;
        let lost = r#""exact":{"fixed":0,"broken":30,"both":0,"#;
        change(&run.join("events.jsonl"), &[(exact, lost)]);
    });
    stage.keys("f1");
    assert!(
        stage.shows(
            "exact below base · step 40: valid 100%, exact 98% · valid 60% → 99%, exact 59% → 97%"
        ),
        "{}",
        stage.screen()
    );
    let row = stage
        .screen()
        .lines()
        .position(|line| line.contains("exact below base · "))
        .unwrap() as u16;
    let column = stage
        .screen()
        .lines()
        .nth(row.into())
        .unwrap()
        .find("exact below")
        .unwrap();
    let column = stage.screen().lines().nth(row.into()).unwrap()[..column]
        .chars()
        .count() as u16;
    let warning = stage
        .model
        .shared
        .theme
        .style(grpo_tui::view::style_role::Role::Warning);
    assert_eq!(stage.buffer()[(column, row)].fg, warning.fg.unwrap());
}

#[test]
fn a_long_list_has_the_place_until_the_stages_get_the_focus() {
    let mut stage = Stage::with(80, 24, |options| {
        for letter in ["a", "b", "c", "d", "e"] {
            let id = format!("20261119-090000-invoice-{}", letter.repeat(6));
            copy_run(&options.here.join("runs"), &id, "", "finished");
        }
    });
    assert!(
        !stage.shows("Task invoice") && stage.shows("▸ Runs 5"),
        "{}",
        stage.screen()
    );
    stage.keys("backtab");
    assert!(
        stage.shows("▸ Task invoice") && stage.shows("5 runs"),
        "{}",
        stage.screen()
    );
    stage.keys("esc");
    assert!(
        !stage.shows("Task invoice") && stage.shows("▸ Runs 5"),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_live_run_is_opened_at_the_start_and_is_the_one_to_watch() {
    let folder = tempfile::tempdir().unwrap();
    let live = LiveRun::begin(&folder.path().join("runs"), 5);
    let runs: PathBuf = folder.path().join("runs");
    let mut stage = Stage::with(120, 36, |options| {
        options.run_folders = grpo_tui::run::RunFolders::discover(Some(&runs), folder.path());
    });
    assert_eq!(stage.model.shared.screen, Screen::Live);
    assert_eq!(stage.model.shared.current.as_ref(), Some(&live.path));
    stage.keys("1");
    for text in [
        "schema.json · expected: 750 valid",
        "task samples: 24% valid · 19% exact · n = 21",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    assert!(
        stage.shows("1 run · 1 active") && stage.shows("live01 running"),
        "{}",
        stage.screen()
    );
}

/// It is right, and says on every screen that nothing is scored, and what to do.
#[test]
fn a_text_whose_command_is_not_trusted_is_no_broken_one() {
    let mut stage = Stage::with(120, 36, |options| {
        let task = options.here.join("tasks/shell-lint");
        crate::program::sample_task_named("shell-lint", &task, [4, 2, 2]);
        // What one run of the tests trusts, the next has not trusted; Bash is there, where shellcheck may be missing.
        let checker = "\"shellcheck\", \"--norc\", \"--shell=bash\", \"--format=gcc\", \"{file}\"";
        let own = format!("\"bash\", \"-n\", \"{{file}}\", \"{}\"", task.display());
        super::runs::change(&task.join("task.toml"), &[(checker, &own)]);
    });
    stage.keys("f2");
    assert!(
        stage.shows("not scored, because the command is not trusted: T"),
        "{}",
        stage.screen()
    );
    assert!(stage.shows("1 error in line 18"), "{}", stage.screen());
    stage.keys("enter").types("# mine\n").keys("ctrl-o esc");
    let saved =
        std::fs::read_to_string(stage.folder.path().join("tasks/shell-lint/task.toml")).unwrap();
    assert!(
        saved.starts_with("# mine\n"),
        "saved without a question:\n{}",
        stage.screen()
    );
    for (key, text) in [
        ("f1", "task.toml: the scorer may not run"),
        ("f3", "expected answers not checked: shell-lint: scores"),
        ("f4", "T trusts"),
        ("f5", "read it, then type `grpo-tui task"),
    ] {
        assert!(stage.keys(key).shows(text), "{key}:\n{}", stage.screen());
    }
    stage.keys("f2 esc T");
    assert!(
        stage.shows("isolation ") && !stage.shows("with your rights"),
        "{}",
        stage.screen()
    );
    stage.keys("y");
    assert!(stage.shows("trusted: 1 command"), "{}", stage.screen());
    stage.keys("f5");
    assert!(
        !stage.shows("not trusted") && !stage.shows("1 error"),
        "{}",
        stage.screen()
    );
}
