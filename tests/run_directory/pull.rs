//! `grpo-tui pull`: copies of another host's runs, read here and controlled there. In place of ssh a script that runs
//! what the other host would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use grpo_tui::run::{EventWriter, RunLock, StateWriter, Status};
use serde_json::Value;

use super::{create, step};
use crate::program::{json, program, stderr};

/// The program in `folder`, whose ssh drops the host's name and runs the rest here.
fn here(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let ssh = folder.join("ssh");
    fs::write(&ssh, "#!/bin/sh\nshift\nexec sh -c \"$*\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).unwrap();
    program(folder, arguments)
        .env("RSYNC_RSH", &ssh)
        .output()
        .unwrap()
}

#[test]
#[cfg_attr(not(has_rsync), ignore = "needs rsync")]
fn runs_of_another_host_are_read_here_and_controlled_there() {
    let folder = tempfile::tempdir().unwrap();
    let there = create(folder.path());
    let lock = RunLock::acquire(there.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut log = EventWriter::open(&lock).unwrap();
    log.append(step(1, 0.25)).unwrap();
    state.status(Status::Running, 1, None).unwrap();
    let weights = there.path().join("checkpoints/step-000000");
    fs::create_dir_all(&weights).unwrap();
    fs::write(weights.join("trainer.json"), "{}").unwrap();
    fs::write(weights.join("adapter_model.safetensors"), "weights").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", there.path().join("link")).unwrap();
    let runs = there.path().parent().unwrap().to_owned();
    let from = format!("gpu1:{}", runs.display());
    let pull = |more: &[&str]| {
        here(
            folder.path(),
            &[&["pull", from.as_str(), "--out", "copy", "--json"], more].concat(),
        )
    };
    assert_eq!(json(&pull(&[]))["runs"], 1);
    let copy = folder.path().join("copy").join(there.id());
    assert!(
        copy.join("checkpoints/step-000000/trainer.json").is_file() && !copy.join("link").exists()
    );
    assert!(
        !copy
            .join("checkpoints/step-000000/adapter_model.safetensors")
            .exists()
            && !copy.join("lock").exists()
    );
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o700
    );

    // It goes on there; a second copy brings what is new.
    log.append(step(2, 0.5)).unwrap();
    state.status(Status::Running, 2, None).unwrap();
    pull(&["--weights"]);
    assert_eq!(
        fs::read_to_string(copy.join("checkpoints/step-000000/adapter_model.safetensors")).unwrap(),
        "weights"
    );
    let show = |arguments: &[&str]| {
        here(
            folder.path(),
            &[&["runs"], arguments, &["--runs", "copy"]].concat(),
        )
    };
    let shown: Value = json(&show(&["show", there.id(), "--json"]));
    assert_eq!(
        (&shown["status"], &shown["step"]),
        (&"running".into(), &2.into()),
        "{shown}"
    );
    for verb in [
        &["pause", there.id()][..],
        &["annotate", there.id(), "text"],
        &["resume", there.id()],
    ] {
        let refused = show(verb);
        let text = stderr(&refused);
        assert!(
            !refused.status.success()
                && text.contains(&format!("is a copy from {from}, pulled at ")),
            "{text}"
        );
    }

    for (arguments, problem) in [
        (&["pull", "gpu1"][..], "gpu1: write HOST:RUNS"),
        (&["pull", "--", "-oProxyCommand=x:runs"], "write HOST:RUNS"),
        (&["pull", "gpu1::module"], "write HOST:RUNS"),
        (
            &["pull", "gpu1:runs", "--out", "home"],
            "home holds other files: choose a new folder with --out",
        ),
        (
            &["pull", "gpu1:/none/such", "--out", "other"],
            "rsync from gpu1:/none/such ended with exit code 23: check `ssh gpu1`",
        ),
    ] {
        fs::create_dir_all(folder.path().join("home/x")).unwrap();
        let refused = here(folder.path(), arguments);
        assert!(
            !refused.status.success() && stderr(&refused).contains(problem),
            "{}",
            stderr(&refused)
        );
    }
}
