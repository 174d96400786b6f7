//! The schema in the editor: its text, its problems, the last scorer that compiled, and the file on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::drafts::files::DraftFile;
use crate::help::Fault;
use crate::score::{FailureClass, Scorer, Task, Trust};
use crate::task::TASK_FILE;

#[derive(Debug, Default)]
pub struct SchemaDraft {
    pub text: String,
    /// On disk when it was read or saved.
    pub saved: String,
    /// The scorer of the last text that compiled.
    pub scorer: Option<Arc<Scorer>>,
    /// Why the text does not compile now: the scorer is that of an older text.
    pub stale: Option<String>,
    /// Whether the text is right, and only its command or judge may not be used or is not there.
    pub needs_command: bool,
    /// Counts the texts that compiled.
    pub version: u64,
    /// Errors and warnings, in the order of the text.
    pub faults: Vec<Fault>,
    /// The programs that it names, in the order of its scorers.
    pub programs: Vec<Trust>,
    /// The expected answers checked with it so far.
    pub expected: Option<ExpectedAnswers>,
    /// The task with the last text that compiled.
    pub task: Option<Arc<Task>>,
    pub saved_scorer: Option<Arc<Scorer>>,
    /// The file's text if it changed on disk while the text here is unsaved, until the user decides.
    pub theirs: Option<String>,
    /// The task that the text belongs to, as it was opened; [`Task::unread`] while `task.toml` is edited as a text.
    pub base: Option<Task>,
    /// The draft file while the text is unsaved.
    pub file: DraftFile,
    /// Whether the user chose `task.toml` where another file defines answers.
    pub edits_toml: bool,
}

/// How many expected answers there are, and of those checked how many are rejected; a row has one for each of its turns.
#[derive(Debug, Clone, Default)]
pub struct ExpectedAnswers {
    pub total: usize,
    pub checked: usize,
    pub rejected: usize,
    /// Expected answers in the order of the sets and their rows.
    pub rows: Vec<Expected>,
    /// Why the first invalid answer of each class is invalid.
    pub reasons: BTreeMap<FailureClass, String>,
}

/// The expected answers of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    #[default]
    Unchecked,
    Invalid(FailureClass),
    Absent,
    Valid,
}

impl SchemaDraft {
    pub fn is_changed(&self) -> bool {
        self.text != self.saved
    }

    pub fn is_toml(&self) -> bool {
        self.base
            .as_ref()
            .is_some_and(|base| base.definition_file == TASK_FILE)
    }

    pub fn expected_rows(&self) -> &[Expected] {
        self.expected
            .as_ref()
            .map_or(&[], |expected| &expected.rows)
    }

    /// Why nothing is scored, where no text has compiled so far.
    pub fn unscored(&self) -> Option<&str> {
        self.stale.as_deref().filter(|_| self.scorer.is_none())
    }

    /// What is wrong, without the reason; `name`: the text or its file.
    pub fn stale_title(&self, name: &str) -> String {
        if self.needs_command {
            format!("{name}: the scorer may not run")
        } else {
            format!("{name} does not compile")
        }
    }

    pub fn name(&self) -> &'static str {
        self.base.as_ref().map_or("schema", Task::definition_name)
    }

    /// The definition's file; `None` for an embedded task.
    pub fn path(&self) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        Some(base.folder()?.join(&base.definition_file))
    }
}
