//! The open task on disk: what has changed is read again, and what cannot be read is tried again.

use std::path::PathBuf;
use std::sync::Arc;

use super::message::{Change, Command, Work};
use super::shared::{self, Shared};
use super::task_files;

/// Once a second: looks for changes of the task's files, or tries again to read it.
pub fn look(shared: &Shared) -> Vec<Command> {
    if is_busy(shared) || shared.is_busy("task.watch") {
        return Vec::new();
    }
    if let Some(failure) = &shared.task_error {
        return shared::open_task(shared, failure.name.clone());
    }
    let Some(open) = shared.task.clone().filter(|open| !open.stamps.is_empty()) else {
        return Vec::new();
    };
    vec![Work::once(
        "task.watch",
        move || {
            let changed: Vec<PathBuf> = open
                .stamps
                .iter()
                .filter(|(path, stamp)| task_files::stamp(path) != *stamp)
                .map(|(path, _)| path.clone())
                .collect();
            (open, changed)
        },
        |_: &mut (), shared: &mut Shared, (open, changed)| {
            let is_open = shared
                .task
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, &open));
            if changed.is_empty() || !is_open || is_busy(shared) {
                return Vec::new();
            }
            let names: Vec<_> = changed
                .iter()
                .filter_map(|path| path.file_name())
                .map(|name| name.to_string_lossy())
                .collect();
            shared.say(format!(
                "{} changed on disk: reading the task again",
                names.join(", ")
            ));
            vec![Command::Changed(Change::Files(changed))]
        },
    )]
}

fn is_busy(shared: &Shared) -> bool {
    ["task", "task.save", "task.rows", "task.samples"]
        .into_iter()
        .any(|key| shared.is_busy(key))
}
