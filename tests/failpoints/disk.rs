//! A disk that fills, with the worker killed while it waits for room; and one that cannot be written to at all.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use grpo_tui::run::{State, Status};

use super::evidence;
use super::story::{Stage, log};

/// A small file system in memory; unmounted again when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this user may not mount.
    fn new(path: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        mount(path, options).then(|| Self(path.to_owned()))
    }

    fn change(&self, options: &str) {
        assert!(mount(&self.0, &format!("remount,{options}")), "{options}");
    }
}

fn mount(path: &Path, options: &str) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
    mounted.is_ok_and(|output| output.status.success())
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_pauses_the_run_and_costs_it_nothing() {
    let stage = Stage::new();
    // Three checkpoints of 13 MB do not fit.
    let Some(disk) = Mount::new(&stage.folder.path().join("disk"), "size=36m,mode=0700") else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let (_, expected) = stage.expected(&[]);
    let run = stage.create("disk/run", &[]);
    let mut worker = stage.worker(&run).spawn().unwrap();
    let begun = Instant::now();
    let paused = loop {
        assert!(worker.try_wait().unwrap().is_none(), "the worker ended: {}", log(&run));
        assert!(begun.elapsed() < Duration::from_secs(120), "it never paused: {}", log(&run));
        match State::observe(&run) {
            Some(state) if state.status == Status::Paused => break state,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let cause = paused.cause.unwrap_or_default();
    assert!(cause.contains("free") && cause.contains("MB"), "{cause}");
    let output = stage.program(&run).args(["runs", "show"]).arg(&run).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("paused"), "{output:?}");
    worker.kill().unwrap();
    worker.wait().unwrap();
    evidence::check_whole(&run, false);
    // With room, the next one goes on.
    disk.change("size=200m");
    let status = stage.live(&run, None);
    assert!(status.success(), "{}", log(&run));
    evidence::check_whole(&run, true);
    let differences = evidence::differences(&evidence::of(&run, true), &expected);
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_disk_that_cannot_be_written_to_is_read() {
    let stage = Stage::new();
    let Some(disk) = Mount::new(&stage.folder.path().join("disk"), "size=100m,mode=0700") else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let run = stage.create("disk/run", &[]);
    let place = "line.after=step";
    let status = stage.live(&run, Some(&super::story::Death::At(format!("{place}:3"))));
    assert!(!status.success());
    // The log of what the workers print lies beside the run, on the same disk.
    let output = |arguments: &[&str]| {
        let output = stage.program(&stage.folder.path().join("elsewhere")).args(arguments).arg(&run).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let expected = output(&["runs", "show"]);
    assert!(expected.0 == Some(0) && expected.1.contains("interrupted"), "{expected:?}");
    disk.change("ro");
    assert_eq!(output(&["runs", "show"]), expected);
    let (code, said) = output(&["worker", "--cpu", "--resume", "--run"]);
    assert!(code == Some(1) && said.contains("Read-only file system") && said.contains("lock"), "{code:?} {said}");
    assert_eq!(output(&["runs", "attach"]).0, Some(130));
    disk.change("rw");
    assert!(stage.live(&run, None).success(), "{}", log(&run));
    evidence::check_whole(&run, true);
}
