//! Copies of another host's runs, as the line of rsync in docs/commands.md makes them: read here, controlled there.

use std::fs;

use grpo_tui::run::{EventWriter, RunLock, StateWriter, Status};

use super::command::runs_command;
use super::{create, step};
use crate::program::copy_tree;

#[test]
fn runs_of_another_host_are_read_here_and_controlled_there() {
    let folder = tempfile::tempdir().unwrap();
    let there = create(folder.path());
    let lock = RunLock::acquire(there.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut log = EventWriter::open(&lock).unwrap();
    log.append(step(1, 0.25)).unwrap();
    state.status(Status::Running, 1, None).unwrap();
    let copies = folder.path().join("copies");
    copy_tree(there.path(), &copies.join(there.id()));
    fs::remove_file(copies.join(there.id()).join("lock")).unwrap();
    fs::write(
        copies.join(".pulled.json"),
        r#"{"from": "gpu1:runs", "time": "2026-12-01T10:00:00+01:00"}"#,
    )
    .unwrap();
    let (_, shown, _) = runs_command(&copies, &["show", there.id(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["status"], &shown["step"]),
        (&"running".into(), &1.into()),
        "{shown}"
    );
    for verb in [
        &["pause", there.id()][..],
        &["annotate", there.id(), "text"],
        &["resume", there.id()],
    ] {
        let (code, _, said) = runs_command(&copies, verb);
        assert!(
            code != 0 && said.contains("is a copy from gpu1:runs, made at 2026-12-01T"),
            "{said}"
        );
    }
}
