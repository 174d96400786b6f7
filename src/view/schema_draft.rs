//! The schema as it stands in the editor: its text, what is wrong with it, the last scorer that it made, and the file
//! on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::drafts::files::DraftFile;
use crate::score::{Fault, Scorer};
use crate::task::Task;

/// The draft of a task's schema.
#[derive(Debug, Default)]
pub struct SchemaDraft {
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
    /// What is wrong or odd in the text, in its order.
    pub faults: Vec<Fault>,
    /// The task with the last text that compiled.
    pub task: Option<Arc<Task>>,
    /// The scorer of the text as saved, to compare with.
    pub saved_scorer: Option<Arc<Scorer>>,
    /// What somebody else has written into the file while the text here is unsaved, until the user has decided.
    pub theirs: Option<String>,
    /// The task that the text is of, as it was opened.
    pub base: Option<Task>,
    /// Where the text is kept while it is unsaved.
    pub file: DraftFile,
    /// Time and length of the file when it was last looked at.
    pub seen: Option<(Option<SystemTime>, u64)>,
}

impl SchemaDraft {
    /// Whether the text differs from the file.
    pub fn is_changed(&self) -> bool {
        self.text != self.saved
    }

    /// The schema's file; `None` where the task is a part of the program.
    pub fn path(&self) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        Some(base.folder()?.join(&base.schema_file))
    }
}
