//! The chart below the lines of `runs attach`.

use std::collections::BTreeMap;

use grpo_tui::run::events::Step;
use grpo_tui::run::{
    EvalProgress, EventWriter, RunDirectory, RunLock, RunState, StateWriter, Status,
};
use grpo_tui::view::run_chart::RunChart;
use grpo_tui::view::terminal_capability::ColourDepth;
use grpo_tui::view::theme::Theme;

use super::pty_session::{Session, Start};
use crate::run_directory::finished::{Made, made};

#[test]
fn rewards_and_the_latest_evals_within_the_width() {
    let folder = tempfile::tempdir().unwrap();
    let run = made(folder.path(), &Made::default());
    let history = RunState::read(run.path()).unwrap();
    let plain = RunChart::from(Theme::default().at_depth(ColourDepth::None).in_ascii());
    for columns in [40, 80, 200] {
        let lines = plain.lines_of(&history, columns);
        assert_eq!(lines.len(), 9, "{columns}: {lines:#?}");
        assert!(
            lines.iter().all(|line| line.len() < columns.min(101)),
            "{columns}: {lines:#?}"
        );
        assert!(
            lines[0].contains("reward") && (columns < 80 || lines[0].contains("eval valid 0.92")),
            "{lines:#?}"
        );
        assert!(
            columns < 80 || lines[0].contains("eval exact 0.72"),
            "{lines:#?}"
        );
        assert!(lines[8].contains("40"), "the steps are below: {lines:#?}");
    }
    let coloured = RunChart::from(Theme::default()).lines_of(&history, 80);
    assert!(coloured[0].contains("\u{1b}[38;"), "{coloured:#?}");
    assert_eq!(
        plain.lines_of(&RunState::default(), 80),
        [""; 0],
        "without steps there is no chart"
    );
}

#[test]
fn the_chart_stays_below_the_lines_and_is_drawn_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let run: RunDirectory = made(
        &folder.path().join("runs"),
        &Made {
            status: Status::Running,
            ..Made::default()
        },
    );
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut events = EventWriter::open(&lock).unwrap();
    state.status(Status::Running, 40, None).unwrap();
    let path = run.path().display().to_string();
    let attach = |more: &[&str]| {
        let arguments = [&["runs", "attach", &path], more].concat();
        Session::start(
            folder.path(),
            &Start {
                arguments: &arguments,
                columns: 80,
                rows: 24,
                ..Start::PLAIN
            },
        )
    };
    let (mut session, mut lines_only) = (attach(&[]), attach(&["--no-chart"]));
    session.wait_text("eval exact 0.72");
    for step in 41..=44 {
        let metrics = BTreeMap::from([("reward".to_owned(), 0.5)]);
        events
            .append(Step {
                step,
                seconds: 1.0,
                metrics,
                ..Step::default()
            })
            .unwrap();
        session.wait_text(&format!("step {step}/40  reward 0.500"));
    }
    session.wait_for("one chart below the lines", |session| {
        let screen = session.screen();
        let (chart, lines) = (screen.find("eval exact"), screen.rfind("step 44/40"));
        screen.matches("eval exact").count() == 1
            && chart > lines
            && screen.contains("reward 0.500  ")
    });
    // An eval takes minutes: how far it is is below the lines, too, and goes with it.
    let eval = EvalProgress {
        step: Some(44),
        set: "test".into(),
        answers: 120,
        total: 500,
        ..EvalProgress::default()
    };
    state.eval(Some(eval)).unwrap();
    for session in [&mut session, &mut lines_only] {
        session.wait_text("eval of step 44 on test: 120 of 500");
    }
    state.eval(None).unwrap();
    for session in [&mut session, &mut lines_only] {
        session.wait_for("the eval is over", |session| {
            !session.screen().contains("of 500")
        });
    }
    state
        .status(Status::Finished, 44, Some("all steps done".into()))
        .unwrap();
    drop((events, state, lock));
    assert_eq!((session.wait_end(), lines_only.wait_end()), (0, 0));
    let screen = session.screen();
    assert_eq!(screen.matches("eval exact").count(), 1, "{screen}");
    assert!(
        !lines_only.screen().contains("eval exact"),
        "{}",
        lines_only.screen()
    );
}
