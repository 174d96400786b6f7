//! Launch: what is checked and asked before a run starts.

use std::path::Path;

use grpo_tui::view::message::Change;
use grpo_tui::view::{Command, Options};

use super::harness::Stage;
use super::launch::{answering, arguments, go_to};

#[test]
fn an_unsaved_schema_is_asked_about() {
    let mut stage = Stage::with(120, 36, |options| {
        answering(options, "echo 'error: stop here' >&2; exit 1")
    });
    stage.keys("f5");
    stage.model.shared.draft.text.push(' ');
    stage.keys("L");
    assert!(stage.shows("Schema not saved"), "{}", stage.screen());
    stage.keys("n");
    assert!(!stage.folder.path().join("arguments").exists());
    stage.keys("L y");
    assert!(stage.shows("stop here"));
}

/// The sample task in the workspace, changed.
fn changed_task(options: &Options, change: impl Fn(&Path)) {
    let folder = options.here.join("tasks/invoice");
    crate::program::sample_task(&folder, [24, 8, 8]);
    change(&folder);
}

#[test]
fn findings_are_asked_about_before_the_start() {
    let spoilt = |folder: &Path| {
        let (train, eval) = (folder.join("train.jsonl"), folder.join("eval.jsonl"));
        let text = std::fs::read_to_string(&train).unwrap();
        super::runs::change(&train, &[("\"currency\":", "\"money\":")]);
        let first = text
            .lines()
            .next()
            .unwrap()
            .replacen("\"id\":\"", "\"id\":\"copy-", 1);
        std::fs::write(
            &eval,
            std::fs::read_to_string(&eval).unwrap() + &first + "\n",
        )
        .unwrap();
    };
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = Stage::with(columns, rows, |options| {
            changed_task(options, spoilt);
            answering(options, "echo 'error: stop here' >&2; exit 1");
        });
        stage.keys("f5");
        assert!(
            stage.shows("preflight: 1 error, 2 warnings"),
            "{}",
            stage.screen()
        );
        stage.keys("L");
        for part in [
            "Before the start: 1 error, 2 warnings",
            "24 of 24 expected answers are",
            "start despite errors",
        ] {
            assert!(stage.shows(part), "{part}:\n{}", stage.screen());
        }
        assert!(stage.shows("leakage: ") && stage.shows("Not checked: memory, learnability."));
        stage.keys("n");
        assert!(
            !stage.folder.path().join("arguments").exists(),
            "a no starts nothing"
        );
        stage.keys("g enter");
        let screen = stage.screen();
        let row = screen
            .lines()
            .position(|line| line.contains("y start despite errors"))
            .unwrap();
        let before = screen
            .lines()
            .nth(row)
            .unwrap()
            .split("start despite")
            .next()
            .unwrap()
            .chars()
            .count();
        stage.click(before as u16, row as u16);
        let started = arguments(&stage).join(" ");
        assert!(
            started.ends_with("--detach --ignore-preflight-errors --json"),
            "{started}"
        );
        assert!(stage.shows("stop here"), "{}", stage.screen());
        // The same findings are asked about once.
        std::fs::remove_file(stage.folder.path().join("arguments")).unwrap();
        stage.keys("L");
        assert!(
            stage.folder.path().join("arguments").exists(),
            "{}",
            stage.screen()
        );
        // The limit is a setting like others: below it, an error is a warning, which needs no flag.
        stage
            .keys("/")
            .types("max_invalid")
            .keys("enter enter ctrl-u")
            .types("1")
            .keys("enter esc L");
        assert!(
            stage.shows("Before the start: 3 warnings") && stage.shows("start anyway"),
            "{}",
            stage.screen()
        );
        stage.keys("y");
        assert!(
            !arguments(&stage).join(" ").contains("--ignore"),
            "{:?}",
            arguments(&stage)
        );
    }
}

#[test]
fn a_start_waits_for_the_checks_of_a_changed_file() {
    let mut stage = Stage::with(120, 36, |options| {
        changed_task(options, |_| {});
        answering(options, "echo 'error: stop here' >&2; exit 1");
    });
    stage.keys("f5");
    assert!(
        stage.shows("✓ preflight passed: prompt sets, expected"),
        "{}",
        stage.screen()
    );
    let train = stage.folder.path().join("tasks/invoice/train.jsonl");
    std::fs::write(&train, "no row\n").unwrap();
    stage.act(|_| vec![Command::Changed(Change::Files(vec![train]))]);
    stage.keys("L");
    assert!(
        stage.shows("Before the start: 1 error") && stage.shows("prompt sets: "),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_forecast_is_part_of_the_checks_while_it_is_valid() {
    let too_large = r#"echo '{"fits":false,"why":"weights of 16 GB do not fit","memory":{"parts":[],"peak_bytes":16000000000,"peak_recomputed_bytes":16000000000,"machine_bytes":8000000000}}'; exit 1"#;
    let mut stage = Stage::with(120, 36, |options| answering(options, too_large));
    stage.keys("f5 f");
    assert!(
        stage.shows("✗ memory: peak 16.0 GB of 8.00 GB: it does not"),
        "{}",
        stage.screen()
    );
    go_to(&mut stage, "lora_rank");
    stage.keys("enter ctrl-u").types("8").keys("enter");
    assert!(
        !stage.shows("it does not fit"),
        "a stale forecast says nothing:\n{}",
        stage.screen()
    );
}
