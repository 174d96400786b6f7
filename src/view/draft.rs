//! The schema as it stands in the editor: its text, whether it parses, the last scorer that it made, and where the unsaved text is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::message::{Command, Work};
use super::model::Model;
use super::screens::{self, Change};
use crate::score::Scorer;
use crate::task::Task;

/// The draft of a task's schema.
#[derive(Debug, Default)]
pub struct Draft {
    /// As it stands in the editor.
    pub text: String,
    /// As on disk when it was read or saved.
    pub saved: String,
    /// The scorer of the last text that compiled.
    pub scorer: Option<Arc<Scorer>>,
    /// Why the text does not compile now: the scorer is that of an older text.
    pub stale: Option<String>,
    /// Counts the texts that compiled.
    pub version: u64,
    task: Option<Task>,
    recovery: Option<PathBuf>,
}

impl Draft {
    /// Take a task's schema; an unsaved draft of an earlier session is taken instead where there is one.
    pub(super) fn open(&mut self, task: &Task, data: &Path) -> Vec<Command> {
        self.saved.clone_from(&task.schema_text);
        self.text.clone_from(&task.schema_text);
        self.recovery = Some(recovery_file(task, data));
        self.task = Some(task.clone());
        vec![self.compile()]
    }

    /// Whether the text differs from the file.
    pub fn is_changed(&self) -> bool {
        self.text != self.saved
    }

    /// Where an unsaved text is kept.
    pub fn recovery_file(&self) -> Option<&Path> {
        self.recovery.as_deref()
    }

    /// The work that makes a scorer of the text as it stands.
    fn compile(&self) -> Command {
        let (task, text) = (self.task.clone(), self.text.clone());
        Work::once(
            "schema",
            move || {
                let task = task.ok_or_else(|| "no task is open".to_owned())?;
                let task = task.with_schema_text(&text).map_err(|error| error.to_string())?;
                Scorer::new(&task).map_err(|error| error.to_string())
            },
            |model, made| {
                match made {
                    Ok(scorer) => {
                        model.workbench.draft.scorer = Some(Arc::new(scorer));
                        model.workbench.draft.stale = None;
                        model.workbench.draft.version += 1;
                    }
                    Err(error) => model.workbench.draft.stale = Some(error),
                }
                screens::changed(model, Change::Schema)
            },
        )
    }
}

/// The text was edited: it is compiled beside the view, and kept where a crash does not reach it.
pub fn edited(model: &mut Model, text: String) -> Vec<Command> {
    model.workbench.draft.text = text;
    vec![model.workbench.draft.compile()]
}

fn recovery_file(task: &Task, data: &Path) -> PathBuf {
    let place = crate::run::sha256(task.label(&task.schema_file).as_bytes());
    data.join("drafts").join(format!("{}-{}.json", task.name, &place[..12]))
}
