//! A disk that fills, with the worker killed while it waits for room; and one that cannot be written to at all.

use grpo_tui::run::{State, Status};

use super::evidence;
use super::story::{Stage, log};
use crate::program::until;
use crate::small_disk::SmallDisk;

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root, to mount a small file system")]
fn a_disk_that_fills_pauses_the_run_and_costs_it_nothing() {
    let stage = Stage::new();
    // Three checkpoints of 0.5 MB do not fit, with 1 MB that is to stay free.
    let disk = SmallDisk::mount(&stage.folder.path().join("disk"), "size=2700k,mode=0700");
    let (_, expected) = stage.expected(&[]);
    let run = stage.create("disk/run", &[]);
    let mut worker = stage.worker(&run).spawn().unwrap();
    let paused = || State::observe(&run).filter(|state| state.status == Status::Paused);
    until("the run is paused", || {
        assert!(
            worker.try_wait().unwrap().is_none(),
            "the worker ended: {}",
            log(&run)
        );
        paused().is_some()
    });
    let cause = paused().unwrap().cause.unwrap_or_default();
    assert!(cause.contains("free") && cause.contains("MB"), "{cause}");
    let output = stage
        .program(&run)
        .args(["runs", "show"])
        .arg(&run)
        .output()
        .unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("paused"),
        "{output:?}"
    );
    worker.kill().unwrap();
    worker.wait().unwrap();
    evidence::check_whole(&run, false);
    // With room, the next one goes on.
    disk.remount("size=200m");
    let status = stage.live(&run, None);
    assert!(status.success(), "{}", log(&run));
    evidence::check_whole(&run, true);
    let differences = evidence::differences(&evidence::collect(&run, true), &expected);
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
#[cfg_attr(
    not(all(can_mount, debug_assertions)),
    ignore = "needs root, to mount a small file system, and failpoints"
)]
fn a_disk_that_cannot_be_written_to_is_read() {
    let stage = Stage::new();
    let disk = SmallDisk::mount(&stage.folder.path().join("disk"), "size=100m,mode=0700");
    let run = stage.create("disk/run", &[]);
    let place = "line.after=step";
    let status = stage.live(&run, Some(&super::story::Death::At(format!("{place}:3"))));
    assert!(!status.success());
    // The log of what the workers print lies beside the run, on the same disk.
    let output = |arguments: &[&str]| {
        let output = stage
            .program(&stage.folder.path().join("elsewhere"))
            .args(arguments)
            .arg(&run)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let expected = output(&["runs", "show"]);
    assert!(
        expected.0 == Some(0) && expected.1.contains("interrupted"),
        "{expected:?}"
    );
    disk.remount("ro");
    assert_eq!(output(&["runs", "show"]), expected);
    let (code, messages) = output(&["worker", "--cpu", "--resume", "--run"]);
    assert!(
        code == Some(1) && messages.contains("Read-only file system") && messages.contains("lock"),
        "{code:?} {messages}"
    );
    assert_eq!(output(&["runs", "attach"]).0, Some(130));
    disk.remount("rw");
    assert!(stage.live(&run, None).success(), "{}", log(&run));
    evidence::check_whole(&run, true);
}
