//! The live screen: on the recorded run, on one that a writer makes while it is watched, and on those that cannot be
//! read.

mod charts;

use std::path::PathBuf;

use grpo_tui::run::{EvalProgress, EvalRecord};
use grpo_tui::view::message::RunNews;
use grpo_tui::view::{Message, Screen};

use super::harness::{Stage, finished_run};
use super::live_run::LiveRun;

fn finished(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    show(&mut stage, finished_run());
    stage
}

fn show(stage: &mut Stage, run: PathBuf) {
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run)]);
    stage.keys("f6");
    assert_eq!(stage.model.shared.screen, Screen::Live);
}

/// The screen without what depends on the machine: times of day.
pub(super) fn stable(stage: &Stage) -> String {
    let mut text = String::new();
    for line in stage.screen().lines() {
        let mut line = line.to_owned();
        for at in 0..line.len().saturating_sub(7) {
            let is_clock = line.get(at..at + 8).is_some_and(|clock| {
                clock.bytes().enumerate().all(|(index, byte)| {
                    if index % 3 == 2 {
                        byte == b':'
                    } else {
                        byte.is_ascii_digit()
                    }
                })
            });
            if is_clock {
                line.replace_range(at..at + 8, "HH:MM:SS");
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[test]
fn every_size_of_the_recorded_run() {
    for (columns, rows) in [(120, 36), (80, 24), (40, 14)] {
        let stage = finished(columns, rows);
        insta::assert_snapshot!(format!("live_{columns}x{rows}"), stable(&stage));
    }
}

/// Until step 1 the answers of the base are what there is to see.
#[test]
fn answers_of_the_base_are_shown_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let live = LiveRun::begin(&runs, 0);
    let mut eval = EvalProgress {
        step: Some(0),
        set: "test".into(),
        target: "base".into(),
        answers: 2,
        total: 500,
        ..EvalProgress::default()
    };
    for (id, text) in [
        ("test-001", "{\"vendor\": 1}"),
        ("test-002", "no\u{1b}[31m JSON"),
    ] {
        eval.show(EvalRecord {
            prompt_id: id.to_owned(),
            completion: text.to_owned(),
            reward: 0.25,
            tokens: Some(7),
            ..EvalRecord::default()
        });
    }
    live.evaluate(eval);
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = Stage::with(columns, rows, |options| {
            options.run_folders = grpo_tui::run::RunFolders::discover(Some(&runs), folder.path());
        });
        show(&mut stage, live.path.clone());
        for expected in [
            "base eval on test: 2 of 500",
            "▸ ? test-002  0.25",
            "no␛[31m JSON",
        ] {
            assert!(stage.shows(expected), "{expected}\n{}", stage.screen());
        }
        stage.keys("j");
        assert!(stage.shows("{\"vendor\": 1}"), "{}", stage.screen());
    }
}

#[test]
fn an_eval_shows_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let live = LiveRun::begin(&runs, 0);
    live.evaluate(EvalProgress {
        step: Some(0),
        set: "test".into(),
        target: "base".into(),
        answers: 120,
        total: 500,
        seconds: 40.0,
        scored: 120,
        valid: 74,
        with_expected: 120,
        exact: 48,
        ..EvalProgress::default()
    });
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = Stage::with(columns, rows, |options| {
            options.run_folders = grpo_tui::run::RunFolders::discover(Some(&runs), folder.path());
        });
        show(&mut stage, live.path.clone());
        for expected in [
            "running: base eval on test: 120 of 500, 3/s, 2m 7s left",
            "so far valid 61.7% [52.7, 69.9]",
            // Those of the eval that is recorded.
            "base answers: 150",
        ] {
            assert!(stage.shows(expected), "{expected}\n{}", stage.screen());
        }
    }
}

#[test]
fn without_a_run_and_with_one_that_cannot_be_read() {
    let mut stage = Stage::new(120, 36);
    stage.keys("f6");
    for expected in ["No run is open", "1  list runs", "5  start a run"] {
        assert!(stage.shows(expected), "{}", stage.screen());
    }
    for key in ["[", "p", "v", "y", "enter", "s"] {
        stage.keys(key);
        let last = stage
            .model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| notice.text.clone())
            .unwrap_or_default();
        assert!(last.contains("no run is open"), "{key}: {last}");
    }
    let missing = stage.folder.path().join("runs/gone");
    show(&mut stage, missing.clone());
    assert!(
        stage.shows("cannot read gone") && stage.shows("1  list runs"),
        "{}",
        stage.screen()
    );
    // A run that has vanished while it is watched stays on the screen, with a word.
    show(&mut stage, finished_run());
    let batch = grpo_tui::run::Batch {
        gone: true,
        ..Default::default()
    };
    stage.send(Message::Run(finished_run(), RunNews::Events(batch)));
    assert!(
        stage.shows("no longer exists") && stage.shows("groups of step 40"),
        "{}",
        stage.screen()
    );
    // The word is there wherever the run lies and however narrow the screen is: a long path is cut, not the word.
    let long = stage
        .folder
        .path()
        .join("a-folder-with-a-long-name/".repeat(8))
        .join("run");
    std::fs::create_dir_all(&long).unwrap();
    for file in std::fs::read_dir(finished_run())
        .unwrap()
        .flatten()
        .filter(|file| file.path().is_file())
    {
        std::fs::copy(file.path(), long.join(file.file_name())).unwrap();
    }
    show(&mut stage, long.clone());
    stage.send(Message::Run(
        long,
        RunNews::Events(grpo_tui::run::Batch {
            gone: true,
            ..Default::default()
        }),
    ));
    for columns in [160, 80, 60] {
        stage.send(Message::Resize(columns, 24));
        assert!(
            stage.shows("no longer exists"),
            "{columns}: {}",
            stage.screen()
        );
    }
}

#[test]
fn one_column_has_both_rates_and_says_what_does_not_fit() {
    let stage = finished(60, 20);
    for text in [
        "step 40 of 40",
        "exact 98% (eval 40)",
        "reward 0.984 ",
        " valid 0.969 exact 0.969",
        "┃",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
}

#[test]
fn keys_go_through_panes_groups_and_completions() {
    let mut stage = finished(120, 36);
    let check = |stage: &mut Stage, keys: &str, expected: &[&str]| {
        stage.keys(keys);
        let screen = stage.screen();
        for text in expected {
            assert!(
                screen.contains(text),
                "after {keys}: {text} is missing\n{screen}"
            );
        }
    };
    check(
        &mut stage,
        "home",
        &[
            "groups of step 1 ",
            "train-012 1 of 8",
            "(0.000 - 0.875) / (0.354 + 0.0001) = -2.474",
            "trailing comma",
        ],
    );
    check(&mut stage, "l", &["train-012 2 of 8", "(1.000 - 0.875)"]);
    check(&mut stage, "j", &["train-033 2 of 8"]);
    check(&mut stage, "G", &["train-078 2 of 8", "(zero variance)"]);
    check(&mut stage, "g enter", &["▸ train-012 2 of 8"]);
    check(
        &mut stage,
        "enter",
        &["▸ prompt train-012", "<|im_start|>system"],
    );
    check(&mut stage, "esc esc", &["▸ groups of step 1"]);
    check(&mut stage, "} ]", &["groups of step 12 "]);
    check(&mut stage, "{", &["groups of step 2 "]);
    check(&mut stage, "end", &["groups of step 40, latest"]);
    check(
        &mut stage,
        "alt-1 { h",
        &[
            "▸ reward, valid and exact",
            "step 29 ",
            "groups of step 29 ",
            "±",
        ],
    );
    check(&mut stage, "l", &["step 30 ", "◆ eval 1 ◇ 0.98"]);
    check(&mut stage, "w", &["log scale"]);
    check(
        &mut stage,
        "w j",
        &["▸ informative groups", "zero-variance groups give"],
    );
    check(
        &mut stage,
        "k s s s s",
        &["reward, valid and exact", "not smoothed"],
    );
    check(&mut stage, "end tab tab tab", &["▸ prompt train-"]);
    check(&mut stage, "tab", &["▸ tiers, failures"]);
    check(&mut stage, "tab l", &["▸ entropy 2/10"]);
    check(&mut stage, "h h", &["KL to reference 10/10"]);
    check(
        &mut stage,
        "tab",
        &["▸ step time", "█ rollout 72%", "measured on GPUs only"],
    );
    check(&mut stage, "tab k k k", &["▸ alerts and log, 3 back"]);
    check(&mut stage, "z", &["value drift", "exact ones fell to 84 %"]);
    check(&mut stage, "z G", &["finished after step 40"]);
    stage.keys("home backtab y");
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.starts_with("Copy(")),
        "{:?}",
        stage.commands
    );
    for key in ["p", "x", "a", "r"] {
        stage.keys(key);
        let last = stage
            .model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| notice.text.clone())
            .unwrap_or_default();
        assert!(last.contains("is finished"), "{key}: {last}");
    }
}

#[test]
fn the_mouse_chooses_panes_and_groups() {
    let mut stage = finished(120, 36);
    stage.click(80, 7);
    assert!(
        stage.shows("▸ train-159") && stage.shows("train-159 1 of 8"),
        "{}",
        stage.screen()
    );
    stage.click(10, 16);
    assert!(stage.shows("▸ train-159 1 of 8"), "{}", stage.screen());
    stage.click(10, 5);
    assert!(
        stage.shows("▸ reward, valid and exact") && stage.shows("groups of step 40"),
        "{}",
        stage.screen()
    );
    // In the chart that has the focus a click goes to its step: where the axis says 20, the middle.
    let screen = stage.screen();
    let numbers = screen
        .lines()
        .find(|line| line.contains(" 20 ") && line.contains(" 30 "))
        .unwrap();
    let column = numbers
        .chars()
        .collect::<String>()
        .find("20")
        .map(|byte| numbers[..byte].chars().count())
        .unwrap();
    stage.click(column as u16, 8);
    assert!(
        stage.shows("groups of step 20 ") && stage.shows("step 20 "),
        "{}",
        stage.screen()
    );
    // Beside the curves, on the labels, nothing is chosen.
    stage.click(2, 8);
    assert!(stage.shows("groups of step 20 "), "{}", stage.screen());
}

/// Whatever a font lacks: with ASCII only the screen says the same, at every size and in every pane.
#[test]
fn nothing_but_ascii_where_nothing_else_may_be_drawn() {
    let mut stage = finished(120, 36);
    stage.model.shared.theme = grpo_tui::view::theme::Theme::monochrome().in_ascii();
    stage.keys("home");
    for (columns, rows) in [
        (160, 48),
        (120, 36),
        (100, 30),
        (80, 24),
        (60, 20),
        (40, 14),
    ] {
        stage.send(Message::Resize(columns, rows));
        for _ in 0..10 {
            stage.keys("tab");
            let screen = stage.screen();
            let odd: Vec<char> = screen.chars().filter(|letter| !letter.is_ascii()).collect();
            assert!(odd.is_empty(), "{columns}x{rows}: {odd:?}\n{screen}");
        }
    }
    stage.send(Message::Resize(120, 36));
    insta::assert_snapshot!("live_ascii_120x36", stable(&stage));
}

/// Every pane alone on the screen, at sizes from nothing on.
#[test]
fn every_pane_fills_the_screen_at_every_size() {
    let mut stage = finished(120, 36);
    stage.keys("home alt-1 z");
    for (columns, rows) in [
        (0, 0),
        (1, 1),
        (40, 10),
        (41, 11),
        (60, 12),
        (80, 24),
        (200, 60),
    ] {
        stage.send(Message::Resize(columns, rows));
        for _ in 0..10 {
            stage.keys("tab");
            _ = stage.screen();
        }
    }
    stage.send(Message::Resize(100, 30));
    stage.keys("alt-6");
    for expected in [
        "informative groups 1/10",
        "entropy 2/10",
        "sampler/trainer logprob difference 6/10",
    ] {
        assert!(
            stage.shows(expected),
            "zoomed, the small charts are a grid:\n{}",
            stage.screen()
        );
    }
}

#[test]
fn an_ended_run_shows_its_result_in_place() {
    let expected = [
        "result: finished",
        "best checkpoint: step 30",
        "test set, n = 100",
        "60.0% [50.2, 69.1]",
        "exact match",
        "97.0% [",
        "valid: +39.0 points (95% CI [",
        "V compare answers",
    ];
    let mut stage = finished(120, 36);
    for text in expected {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    stage.keys("alt-8");
    assert!(
        stage.shows("▸ alerts and log") && !stage.shows("best checkpoint"),
        "{}",
        stage.screen()
    );
    stage.keys("V");
    assert_eq!(stage.model.shared.screen, Screen::Eval);
    assert!(stage.shows("step 30"), "{}", stage.screen());
    // Where it shares its place with the completion, looking at groups brings that back.
    let mut stage = finished(80, 24);
    for text in expected {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    stage.keys("j");
    assert!(
        stage.shows("train-095 1 of 8") && !stage.shows("best checkpoint"),
        "{}",
        stage.screen()
    );
    stage.keys("alt-9 enter");
    assert_eq!(stage.model.shared.screen, Screen::Eval);
    // Without evals nothing is said to be measured.
    let mut stage = Stage::new(120, 36);
    let run = super::runs::copy_run(
        &stage.folder.path().join("runs"),
        "20261119-090000-invoice-aaaaaa",
        "",
        "failed",
    );
    let log = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let others: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains(r#""kind":"eval""#))
        .collect();
    std::fs::write(run.join("events.jsonl"), others.join("\n") + "\n").unwrap();
    show(&mut stage, run);
    assert!(
        stage.shows("not measured (no set has an eval of both base and trained)"),
        "{}",
        stage.screen()
    );
    stage.keys("V");
    assert_eq!(stage.model.shared.screen, Screen::Live);
}

#[test]
fn the_log_has_levels_and_a_filter_and_no_steps() {
    let mut stage = finished(120, 36);
    stage.keys("alt-8 z");
    let has = |stage: &Stage, texts: &[(&str, bool)]| {
        for (text, expected) in texts {
            assert_eq!(stage.shows(text), *expected, "{text}\n{}", stage.screen());
        }
    };
    has(
        &stage,
        &[
            ("checkpoint saved", true),
            ("eval on test", true),
            ("value drift", true),
            ("reward 0.", false),
        ],
    );
    stage.keys("l");
    has(
        &stage,
        &[
            ("checkpoint saved", false),
            ("eval on test", true),
            ("log: info hidden", true),
        ],
    );
    stage.keys("l");
    has(
        &stage,
        &[
            ("eval on test", false),
            ("warnings and errors", true),
            ("value drift): ", true),
        ],
    );
    stage.keys("l /").types("eval on (test|proof)");
    has(
        &stage,
        &[
            ("eval on test (trained)", true),
            ("eval on eval", false),
            ("2 of ", true),
        ],
    );
    // What is typed is text, also what is a key elsewhere; the first esc removes it, the next leaves.
    stage.keys("enter k");
    has(&stage, &[("1 back", true)]);
    stage.keys("esc");
    has(
        &stage,
        &[("eval on eval", true), ("▸ alerts and log", true)],
    );
    stage.keys("esc z");
    has(&stage, &[("▸ groups", true)]);
}

#[test]
fn one_key_reaches_each_pane() {
    let mut stage = finished(160, 48);
    let titles = [
        "groups of",
        "reward, valid",
        "train-",
        "prompt train-",
        "tiers",
        "informative groups",
        "step time",
        "alerts and log",
        "result",
    ];
    for (number, key) in [
        "alt-2", "alt-1", "alt-3", "alt-4", "alt-5", "alt-6", "alt-7", "alt-8", "alt-9",
    ]
    .into_iter()
    .enumerate()
    {
        stage.keys(key);
        assert!(
            stage.shows(&format!("▸ {}", titles[number])),
            "{key}\n{}",
            stage.screen()
        );
        assert!(
            number > 4 || stage.shows(&format!(" {key} ")),
            "{key}\n{}",
            stage.screen()
        );
    }
}
