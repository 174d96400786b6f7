//! The Python package: its own tests and its notebook, with this program.

use std::process::{Command, Output};

use crate::program::{PROGRAM, peer, started_by};

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn the_tests_of_the_python_package_pass() {
    let tests = format!("{PACKAGE}/tests");
    let done = python("python3", &["-m", "unittest", "discover", "-s", &tests]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.trim_end().ends_with("OK"), "{said}");
}

#[test]
#[ignore = "nightly, with Jupyter: scripts/nightly"]
fn every_cell_runs_with_notebook() {
    let text = "import nbclient, nbformat, sys\nnbclient.NotebookClient(nbformat.read(sys.argv[1], 4), timeout=800).execute()";
    let notebook = format!("{PACKAGE}/notebook.ipynb");
    let done = python(&peer("NOTEBOOK_PYTHON"), &["-c", text, &notebook]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn python(interpreter: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let command = [&["--kill-after=10", "900", interpreter], arguments].concat();
    let mut python = started_by(Command::new("timeout"), folder.path(), &command);
    python
        .env("GRPO_TUI", PROGRAM)
        .env("PYTHONPATH", PACKAGE)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}
