//! What every pane does in the same way: movement by named actions, scrolling to the last row, lists and texts under the
//! wheel.

use crossterm::event::MouseEventKind;
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::keymap::Keymap;
use grpo_tui::view::{Screen, keymap_check};

use super::harness::{Stage, finished_run};
use super::launch::forecasting;
use super::runs::link_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

fn several_runs(folder: &std::path::Path) {
    for id in [
        RUN,
        "20261119-090000-invoice-aaaaaa",
        "20261118-090000-invoice-bbbbbb",
    ] {
        link_run(&folder.join("runs"), id, "", "finished");
    }
}

#[test]
fn movement_is_remapped_listed_and_checked() {
    fn chord(key: &str) -> Chord {
        Chord::parse(key).unwrap()
    }
    let mut stage = Stage::with(120, 36, |options| {
        several_runs(&options.here);
        options.keymap.set("move.down", vec![chord("e")]);
    });
    let row = |stage: &Stage| {
        stage
            .screen()
            .lines()
            .position(|line| line.starts_with("│▸"))
            .unwrap()
    };
    let first = row(&stage);
    stage.keys("j");
    assert_eq!(row(&stage), first, "j means nothing now");
    stage.keys("e e");
    assert_eq!(row(&stage), first + 2);
    stage.keys("g");
    assert_eq!(row(&stage), first);
    // In windows, too.
    stage.keys("? G");
    assert!(
        stage.shows("Movement") || stage.shows("Screens"),
        "{}",
        stage.screen()
    );
    let end = stage.screen();
    stage.keys("k");
    let above = stage.screen();
    assert_ne!(end, above);
    stage.keys("j");
    assert_eq!(stage.screen(), above);
    stage.keys("e");
    assert_eq!(stage.screen(), end);
    let found = |id: &str, key: &str| {
        let mut keymap = Keymap::default();
        keymap.set(id, vec![chord(key)]);
        keymap_check::check(&keymap)
            .into_iter()
            .map(|finding| finding.sentence)
            .collect::<Vec<_>>()
    };
    let both = "`j` is bound to both `runs.tag` and `move.down`";
    assert!(
        found("runs.tag", "j")
            .iter()
            .any(|sentence| sentence == both),
        "{:?}",
        found("runs.tag", "j")
    );
    assert!(
        found("move.up", "q")
            .iter()
            .any(|sentence| sentence.contains("`q` is bound to both"))
    );
}

/// The end of a text is in its last row at every width: it was looked for in lines as long as 60 or 80 columns.
#[test]
fn every_text_is_scrolled_to_its_last_row_and_no_further() {
    for (columns, rows) in [(120, 36), (80, 24), (60, 20)] {
        let mut stage = Stage::with(columns, rows, |options| {
            forecasting(options);
            link_run(&options.here.join("runs"), RUN, "", "finished");
            std::os::unix::fs::symlink(
                finished_run().parent().unwrap(),
                options.here.join("sample-data"),
            )
            .unwrap();
        });
        for (keys, screen, pane) in [
            ("5 f", Screen::Launch, "forecast"),
            ("4", Screen::Scores, "summary"),
            ("4", Screen::Scores, "completion"),
            ("3", Screen::Prompts, "prompt preview"),
            ("2", Screen::Schema, "sample scores"),
            ("2", Screen::Schema, "reward-hacking check"),
        ] {
            stage.keys(keys);
            let (of_screen, shared) = stage.model.screen_mut(screen);
            of_screen.focus(shared, pane);
            stage.keys("G");
            let end = stage.screen();
            stage.keys("j pagedown");
            assert_eq!(stage.screen(), end, "{pane} at {columns}x{rows}");
            stage.keys("k");
            let above = stage.screen();
            let scrolls = above != end;
            assert!(
                scrolls || !end.contains('┃') || pane != "forecast",
                "{pane} at {columns}x{rows}:\n{end}"
            );
            stage.keys("j");
            assert_eq!(
                stage.screen(),
                end,
                "{pane} at {columns}x{rows}: one key goes back at once"
            );
        }
    }
}

#[test]
fn the_wheel_moves_what_is_under_it() {
    let mut stage = Stage::with(120, 36, |options| several_runs(&options.here));
    let at = |stage: &Stage, text: &str| {
        let screen = stage.screen();
        let row = screen.lines().position(|line| line.contains(text)).unwrap();
        (4, row as u16)
    };
    let before = stage.screen();
    let (column, row) = at(&stage, "Runs 3");
    stage.mouse(MouseEventKind::ScrollDown, column, row + 2);
    assert_ne!(stage.screen(), before);
    stage.mouse(MouseEventKind::ScrollUp, column, row + 2);
    assert_eq!(stage.screen(), before);
    // Over the pipeline the list stays.
    let (column, row) = at(&stage, "compare");
    stage.mouse(MouseEventKind::ScrollDown, column, row);
    assert_eq!(stage.screen(), before);
}
