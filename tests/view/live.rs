//! The live screen: on the recorded run, on one that a writer makes while it is watched, and on those that cannot be read.

use std::path::{Path, PathBuf};

use grpo_tui::view::{Message, Screen, workbench};

use super::stage::{Stage, finished_run};

fn finished(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    show(&mut stage, finished_run());
    stage
}

fn show(stage: &mut Stage, run: PathBuf) {
    stage.act(|model| workbench::show_run(model, run));
    stage.keys("f6");
    assert_eq!(stage.model.screen, Screen::Live);
}

/// The picture without what depends on the machine: times of day.
fn stable(stage: &Stage) -> String {
    let mut text = String::new();
    for line in stage.picture().lines() {
        let mut line = line.to_owned();
        for at in 0..line.len().saturating_sub(7) {
            let is_clock = line.get(at..at + 8).is_some_and(|clock| {
                clock.bytes().enumerate().all(|(index, byte)| if index % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() })
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
    for (columns, rows) in [(160, 48), (120, 36), (100, 30), (80, 24), (60, 20), (40, 14)] {
        let mut stage = finished(columns, rows);
        insta::assert_snapshot!(format!("live_{columns}x{rows}"), stable(&stage));
        stage.keys("home c");
        insta::assert_snapshot!(format!("live_first_step_{columns}x{rows}"), stable(&stage));
    }
}
