//! The Python package: its own tests, with this program.

use std::process::Command;

use crate::program::{PROGRAM, started_by};

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn the_tests_of_the_python_package_pass() {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
    let folder = tempfile::tempdir().unwrap();
    let tests = format!("{package}/tests");
    let arguments = [
        "300", "python3", "-B", "-m", "unittest", "discover", "-s", &tests,
    ];
    let mut python = started_by(Command::new("timeout"), folder.path(), &arguments);
    python.env("GRPO_TUI", PROGRAM).env("PYTHONPATH", package);
    let done = python.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.trim_end().ends_with("OK"), "{said}");
}
