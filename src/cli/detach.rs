//! Starting a run's worker in the background, and telling how to find it again.

use serde_json::json;

use super::{Outcome, print, print_json};
use crate::run::{Launch, RunDirectory, launch};

/// Launch and tell. `verb`: what the user asked for, in the JSON document.
pub(super) fn detach(run: &RunDirectory, how: &Launch, verb: &str, json: bool) -> Outcome {
    let launched = launch(run, how)?;
    let (id, pid) = (run.id(), launched.pid);
    let ready = if launched.ready { "" } else { "; not ready yet, see worker.log" };
    let does = if how.resume { "continues" } else { "runs" };
    let text = format!("{id} {does} in the background (pid {pid}){ready}; follow it with `grpo-tui runs attach {id}`");
    let document =
        json!({"run": id, "path": run.path(), "verb": verb, "text": text, "ready": launched.ready, "pid": pid, "log": launched.log});
    if json { print_json(&format!("{document:#}\n")) } else { print(&format!("{text}\n")) }
}
