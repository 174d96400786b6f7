//! Runs that are submitted to Slurm: by `train --slurm`, and by `runs resume` of such a run.

use serde_json::json;

use super::{Failure, Outcome, print, print_indented};
use crate::format::quoted;
use crate::run::{JobRequest, RunDirectory, submit};

/// This program as the nodes find it, for a shell.
pub(super) fn program() -> Result<String, Failure> {
    let path = std::env::current_exe()?;
    let text = path.to_str().filter(|_| path.is_file()).map(quoted);
    text.ok_or_else(|| {
        Failure::failed(format!(
            "{}: the nodes start this file: install it where its path is UTF-8",
            path.display()
        ))
    })
}

/// Submits a run; `verb` is for the JSON document.
pub(super) fn submit_run(
    run: &RunDirectory,
    request: JobRequest,
    verb: &str,
    as_json: bool,
) -> Outcome {
    let job = submit(run, request, &program()?)?;
    let id = run.id();
    let text = format!(
        "{id} is submitted: {}; follow it with `grpo-tui runs attach {id}`",
        job.waits()
    );
    let document = json!({
        "run": id, "path": run.path(), "verb": verb, "text": text, "ready": false, "job": job.job, "log": run.log_path(),
    });
    if as_json {
        print_indented(&document)
    } else {
        print(&format!("{text}\n"))
    }
}
