//! The recorded run of `sample-data/finished-run` is read as it stands in a clone: by anybody, without being written
//! to, and it names nobody.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use grpo_tui::advantage::GroupSignal;
use grpo_tui::run::{
    RunDirectory, RunState, State, Status, list_checkpoints, read_evals, read_step,
};

use crate::program::{call_in_process as call, names, sample_data, stdout};
use grpo_tui::facts::Target;

fn recorded() -> PathBuf {
    sample_data("finished-run")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
            std::fs::set_permissions(&target, PermissionsExt::from_mode(0o444)).unwrap();
        }
    }
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn it_has_something_for_every_screen() {
    let run = recorded();
    let state = RunState::read(&run).unwrap();
    assert_eq!(
        (state.skipped, state.gaps, state.unknown, state.last_step),
        (0, 0, 0, 40)
    );
    assert_eq!(State::observe(&run).unwrap().status, Status::Finished);
    let groups = |signal| {
        state
            .groups
            .values()
            .flat_map(|groups| groups.values())
            .filter(|group| group.signal == signal)
            .count()
    };
    assert!(
        groups(GroupSignal::Mixed) > 20
            && groups(GroupSignal::AllMax) > 20
            && groups(GroupSignal::AllEqual) > 0
    );
    assert!(state.alerts.len() >= 2 && !state.notes.is_empty() && !state.controls.is_empty());
    let (base, trained) = (
        state.latest_eval(&"test".into(), Target::Base).unwrap(),
        state.latest_eval(&"test".into(), Target::Trained).unwrap(),
    );
    assert!(
        trained.summary.valid > base.summary.valid + 0.2,
        "it learns visibly"
    );
    for eval in state.evals.values() {
        assert_eq!(
            read_evals(&run.join(&eval.file)).unwrap().len(),
            eval.summary.n,
            "{}",
            eval.file
        );
    }
    for step in 1..=40 {
        assert_eq!(read_step(&run, step).unwrap().len(), 4, "step {step}");
    }
    assert_eq!(
        list_checkpoints(&run).unwrap(),
        state.checkpoints.keys().copied().collect::<Vec<_>>()
    );
}

#[test]
fn a_clone_is_read_and_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let runs = folder.path().join("runs");
    std::fs::create_dir(&runs).unwrap();
    copy(&recorded(), &runs.join("finished-run"));
    let before = names(&runs.join("finished-run"));
    let program = |arguments: &[&str]| stdout(&call(folder.path(), arguments));
    assert!(program(&["runs", "show", "runs/finished-run"]).contains("steps        40 of 40"));
    assert!(program(&["runs", "list", "--runs", "runs"]).contains("99.0%"));
    assert_eq!(
        program(&["runs", "export", "runs/finished-run", "--csv"])
            .lines()
            .count(),
        41
    );
    assert!(program(&["runs", "attach", "runs/finished-run"]).contains("finished"));
    assert_eq!(names(&runs.join("finished-run")), before);
}

#[test]
fn it_names_nobody() {
    let run = RunDirectory::open(&recorded()).unwrap();
    assert_eq!(
        (run.file().host.as_str(), run.file().argv[0].as_str()),
        ("workstation", "grpo-tui")
    );
    for name in [
        "run.toml",
        "state.json",
        "events.jsonl",
        "worker.log",
        "notes.md",
    ] {
        let text = std::fs::read_to_string(run.path().join(name)).unwrap();
        for place in ["/home/", "/root/", "/work/", "/tmp/", "/Users/"] {
            assert!(!text.contains(place), "{name} names {place}");
        }
    }
}
