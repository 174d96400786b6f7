//! Tests: the chart is zoomed and overlaid, the small charts are filtered.

use super::super::harness::Stage;
use super::finished;

#[test]
fn zoom_pan_and_the_whole_again() {
    let mut stage = finished(120, 36);
    let axis = |stage: &Stage| {
        stage
            .screen()
            .lines()
            .nth(11)
            .unwrap_or_default()
            .to_owned()
    };
    stage.keys("alt-1 h h h h h h h h h h h h h h h h h h h h");
    let whole = axis(&stage);
    stage.keys("+");
    let near = axis(&stage);
    assert_ne!(whole, near);
    assert!(near.contains("20") && !near.contains(" 0 "), "{near}");
    stage.keys("+ +");
    assert!(axis(&stage).contains("18"), "{}", axis(&stage));
    // The step takes the stretch along.
    stage.keys("{");
    assert!(axis(&stage).contains("10"), "{}", axis(&stage));
    stage.keys("- - - -");
    assert_eq!(axis(&stage), whole);
    stage.keys("+ 0");
    assert_eq!(axis(&stage), whole);
}

#[test]
fn other_runs_lie_over_the_chart() {
    let mut stage = finished(120, 36);
    stage.keys("v");
    assert!(stage.shows("no other runs"), "{}", stage.screen());
    stage.keys("esc");
    let written = super::super::synthetic_run::Written::begin(stage.folder.path());
    let other = written.path();
    drop(written);
    // Nobody has opened it: it is found, and followed once it is chosen.
    stage.keys("v");
    assert!(
        stage.shows("overlay runs") && stage.shows("[ ]"),
        "{}",
        stage.screen()
    );
    stage.keys("space");
    assert!(stage.shows("[x]"), "{}", stage.screen());
    assert_eq!(stage.model.shared.overlay, std::slice::from_ref(&other));
    assert!(stage.model.shared.followed.contains_key(&other));
    stage.keys("esc");
    assert!(
        stage.shows("▸ reward, valid and exact") && stage.shows("╍ valid"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("e eval  C eval+checkpoint  n note"),
        "{}",
        stage.screen()
    );
    stage.keys("v space esc");
    assert!(
        stage.model.shared.overlay.is_empty() && stage.shows("╍ valid"),
        "{}",
        stage.screen()
    );
}

#[test]
fn small_charts_are_filtered_and_enlarged() {
    let mut stage = finished(120, 36);
    assert!(
        stage.shows("informative groups 1/10") && stage.shows("alt-6"),
        "{}",
        stage.screen()
    );
    stage.keys("/").types("^time/(rollout|update)$");
    assert!(stage.shows("time/rollout 1/2"), "{}", stage.screen());
    assert!(
        stage.shows("2 charts"),
        "as many as the titles count:\n{}",
        stage.screen()
    );
    stage.types("(");
    assert!(
        stage.shows("no metrics match") && stage.shows("not a regular"),
        "{}",
        stage.screen()
    );
    stage.keys("backspace enter enter");
    assert!(
        stage.shows("▸ time/rollout"),
        "the first of them is enlarged:\n{}",
        stage.screen()
    );
}
