//! A run with several viewers, one more of them killed again and again, a second worker that is refused, and a clock that
//! jumps; and an index whose writer dies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use grpo_tui::run::events::{End, Note};
use grpo_tui::run::{EventReader, EventWriter, RunLock, RunState, Status};

use super::evidence;
use super::story::{Stage, log};
use crate::program::until;

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;

fn viewer(stage: &Stage, run: &Path, output: &Path) -> Child {
    let output = std::fs::File::create(output).unwrap();
    stage
        .program(run)
        .args(["runs", "attach", "--json"])
        .arg(run)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn viewers_a_second_worker_and_a_clock_that_jumps_change_nothing() {
    watched(3, &[("back", -DAY)]);
}

#[test]
#[ignore = "nightly: eight viewers, and a clock that jumps forward"]
fn eight_viewers_a_second_worker_and_a_clock_that_jumps_change_nothing() {
    watched(8, &[("back", -DAY), ("forward", DAY)]);
}

/// In the middle of each run the clock jumps.
fn watched(viewers: usize, jumps: &[(&str, i64)]) {
    let stage = Stage::new();
    let (_, expected) = stage.expected(&[]);
    for (name, jump) in jumps {
        let run = stage.create(name, &[]);
        let outputs: Vec<PathBuf> = (0..viewers)
            .map(|number| stage.folder.path().join(format!("viewer-{name}-{number}")))
            .collect();
        let viewers: Vec<Child> = outputs
            .iter()
            .map(|output| viewer(&stage, &run, output))
            .collect();
        let mut worker = stage
            .worker(&run)
            .env("GRPO_TUI_FAULT_CLOCK", format!("45:{jump}"))
            // There is a while to be watched in.
            .env("GRPO_TUI_FAULT_DELAY", "line.before:20")
            .spawn()
            .unwrap();
        let mut refused = 0;
        while worker.try_wait().unwrap().is_none() {
            let output = stage.folder.path().join("killed");
            let mut killed = viewer(&stage, &run, &output);
            until("it follows", || {
                std::fs::metadata(&output).is_ok_and(|found| found.len() > 0)
            });
            killed.kill().unwrap();
            killed.wait().unwrap();
            if run.join("state.json").exists()
                && refused == 0
                && worker.try_wait().unwrap().is_none()
            {
                let output = stage
                    .program(&run)
                    .args(["worker", "--cpu", "--resume", "--run"])
                    .arg(&run)
                    .output()
                    .unwrap();
                let messages = String::from_utf8_lossy(&output.stderr).into_owned();
                if messages.contains(&format!("is in use by process {}", worker.id())) {
                    refused += 1;
                }
            }
        }
        assert!(
            worker.wait().unwrap().success() && refused == 1,
            "{refused} refused: {}",
            log(&run)
        );
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
        for (mut viewer, output) in viewers.into_iter().zip(&outputs) {
            assert_eq!(viewer.wait().unwrap().code(), Some(0), "{name}");
            assert!(
                std::fs::read_to_string(output).unwrap() == events,
                "{name}: {} differs from the log",
                output.display()
            );
        }
        evidence::check_whole(&run, true);
        let differences = evidence::differences(&evidence::collect(&run, true), &expected);
        assert!(differences.is_empty(), "{name}: {differences:?}");
        // The clock did jump, and whoever subtracts times has to live with it.
        let state = RunState::read(&run).unwrap();
        let apart = state.last_ms.unwrap() as i64 - state.first_ms.unwrap() as i64;
        assert!((apart - jump).abs() < DAY / 2, "{name}: {apart}");
        for arguments in [
            &["runs", "show"][..],
            &["runs", "show", "--json"],
            &["runs", "export", "--csv"],
        ] {
            let output = stage
                .program(&run)
                .args(arguments)
                .arg(&run)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_viewer_that_dies_in_its_index_leaves_nothing_in_the_way() {
    let stage = Stage::new();
    let run = stage.create("long", &[]);
    let lock = RunLock::acquire(&run).unwrap();
    let mut log = EventWriter::open(&lock).unwrap();
    (0..1500).for_each(|number| {
        _ = log
            .append(Note {
                text: format!("{number} {}", "x".repeat(1000)),
            })
            .unwrap()
    });
    log.append(End {
        status: Status::Finished,
        cause: "all steps done".into(),
        ..End::default()
    })
    .unwrap();
    drop((log, lock));
    let show = |fault: Option<&str>| {
        let mut command: Command = stage.program(&run);
        command
            .args(["runs", "show"])
            .arg(&run)
            .env("HOME", stage.folder.path())
            .env("XDG_CACHE_HOME", stage.folder.path());
        fault.map(|fault| command.env("GRPO_TUI_FAULT", fault));
        command.output().unwrap()
    };
    let names = || {
        let found = std::fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        found
            .filter(|name| name.starts_with("events.index"))
            .collect::<Vec<_>>()
    };
    let expected = EventReader::new(&run.join("events.jsonl"))
        .read()
        .unwrap()
        .events
        .len();
    for place in ["index.half:1", "replace.written=events.index:1"] {
        let _ = std::fs::remove_file(run.join("events.index"));
        assert!(
            !show(Some(place)).status.success(),
            "{place} was not reached"
        );
        assert_eq!(names().len(), 1, "{place}: {:?}", names());
        assert!(names()[0].ends_with(".tmp"), "{place}: {:?}", names());
        let shown = show(None);
        assert!(
            shown.status.success(),
            "{place}: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        assert_eq!(names(), ["events.index"], "{place}");
        let state = RunState::read(&run).unwrap();
        assert_eq!(
            (state.notes.len() + 1, state.skipped, state.gaps),
            (expected, 0, 0)
        );
    }
}
