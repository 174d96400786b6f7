//! The files of drafts: which text each belongs to, which are offered, and the writer that keeps their order.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::score::Task;
use crate::screens::Screen;
use crate::task::TASK_FILE;
use crate::task_files;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The path of the task's file when the draft was written.
    pub task: String,
    /// The text of the task that was edited, in a format of the screen.
    pub of: serde_json::Value,
    /// Row and column of the cursor.
    pub cursor: (usize, usize),
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub text: String,
}

/// The text of the task that a draft belongs to.
#[derive(Debug, Clone)]
pub struct Location {
    pub title: String,
    pub current: String,
    /// How it has changed since the draft was written.
    pub note: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Offer {
    pub file: PathBuf,
    pub record: Record,
    pub location: Location,
    pub(super) screen: Screen,
}

/// The file of a text under edit; written once the text is changed.
#[derive(Debug, Default)]
pub struct DraftFile {
    pub task: String,
    mark: String,
    pub path: PathBuf,
    /// The content on disk; `None` if there is no file.
    pub stored: Option<String>,
}

/// Drafts that wait for a decision, and the writer of the files.
#[derive(Debug, Default)]
pub struct Drafts {
    /// Oldest first.
    pub(super) offers: Vec<Offer>,
    /// Files of this session, or those the user has decided about.
    pub(super) known: HashSet<PathBuf>,
    pub(super) writer: Arc<Writer>,
}

impl DraftFile {
    /// A name that no other text and no other session has.
    pub(super) fn new(stem: &str, extension: &str, now_ms: u64, data: &Path, task: &Task) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (mark, count) = (mark(task, TASK_FILE), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder(data).join(format!(
            "{stem}-{mark}-{now_ms}-{}-{count}.{extension}",
            std::process::id()
        ));
        Self {
            task: task.label(TASK_FILE),
            mark,
            path,
            stored: None,
        }
    }

    pub fn is_of(&self, task: &Task) -> bool {
        self.mark == mark(task, TASK_FILE)
    }
}

pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("drafts")
}

pub(super) fn mark(task: &Task, file: &str) -> String {
    crate::run::sha256(task.label(file).as_bytes())[..12].to_owned()
}

pub type Changes = Vec<(PathBuf, Option<String>)>;

/// Writes files in the requested order, whichever thread comes first.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: Mutex<VecDeque<Changes>>,
    /// Serializes the writing threads.
    turn: Mutex<()>,
    /// An error not yet reported: superseded work cannot report its own.
    failure: Mutex<Option<String>>,
}

impl Writer {
    pub(super) fn push(&self, changes: Changes) {
        self.queue.lock().push_back(changes);
    }

    pub(super) fn write_queued(&self) {
        let _turn = self.turn.lock();
        let change = |(path, content): &(PathBuf, Option<String>)| match content {
            Some(content) => task_files::write_private(path, content.as_bytes()),
            None => task_files::remove(path),
        };
        let next = || self.queue.lock().pop_front();
        for error in
            std::iter::from_fn(next).filter_map(|changes| changes.iter().try_for_each(change).err())
        {
            self.failure.lock().get_or_insert(error);
        }
    }

    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_in_order_and_a_failure_leaves_the_rest_of_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let writer = Writer::default();
        let some = |text: &str| Some(text.to_owned());
        writer.push(vec![(place("a/one"), some("first"))]);
        writer.push(vec![
            (place("a/one"), some("second")),
            (place("a/two"), some("")),
        ]);
        writer.push(vec![
            (place("a/one/no-folder"), some("")),
            (place("a/one"), None),
        ]);
        writer.push(vec![(place("a/two"), None)]);
        writer.write_queued();
        assert_eq!(std::fs::read_to_string(place("a/one")).unwrap(), "second");
        assert!(!place("a/two").exists());
        writer.write_queued();
        assert!(
            writer
                .take_failure()
                .is_some_and(|error| error.contains("a/one")),
            "reported after the queue was empty"
        );
        assert_eq!(writer.take_failure(), None);
    }
}
