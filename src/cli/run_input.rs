//! What a run would train: tasks and configuration.

use super::Failure;
use crate::config::ResolvedConfig;
use crate::run::MixedTask;
use crate::score::Task;
use crate::train::TaskPart;

/// What a run would train.
#[derive(Debug)]
pub(super) struct RunInput {
    /// At least one.
    pub(super) parts: Vec<TaskPart>,
    /// Empty for one task.
    pub(super) mix: Vec<MixedTask>,
    pub(super) resolved: ResolvedConfig,
}

impl RunInput {
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.parts.iter().map(|part| &part.task)
    }

    /// The name of the task, or the names of several.
    pub(super) fn name(&self) -> String {
        self.tasks()
            .map(|task| task.name.as_str())
            .collect::<Vec<_>>()
            .join("+")
    }

    /// The files that a run freezes, with their paths there.
    pub(super) fn files(&self) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut found = Vec::new();
        for TaskPart { name, task, .. } in &self.parts {
            let files = task.files()?.into_iter();
            let inside = |file: String| {
                if name.is_empty() {
                    file
                } else {
                    format!("{name}/{file}")
                }
            };
            found.extend(files.map(|(file, bytes)| (inside(file), bytes)));
        }
        Ok(found)
    }
}
