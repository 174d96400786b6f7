//! Unsaved texts, kept where a crash does not reach them: a private file each below the user's data, written in the order asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::{Command, Work};
use super::task_files;
use crate::task::Task;

/// Writes and removes such files. What comes late and is old is not done.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// How often each file was to be written or removed.
    asked: Mutex<HashMap<PathBuf, u64>>,
    /// One at a time.
    writing: Mutex<()>,
}

impl Keeper {
    /// The work that writes a text into a file of its own; `what` is named where that fails.
    pub(super) fn keep(self: &Arc<Self>, key: &'static str, what: &'static str, path: &Path, text: String) -> Command {
        self.work(key, what, path, Some(text))
    }

    /// The work that removes a file whose text is saved or given up.
    pub(super) fn forget(self: &Arc<Self>, key: &'static str, what: &'static str, path: &Path) -> Command {
        self.work(key, what, path, None)
    }

    /// Writes a text at once, for an end that leaves no time for work beside the view.
    ///
    /// # Errors
    /// A sentence with the file.
    pub(super) fn keep_now(&self, path: &Path, text: &str) -> Result<(), String> {
        self.carry_out(path, self.ask(path), Some(text))
    }

    /// Moves files into other places, each before a file that is there already: that one is newer. What was asked for here stays as asked.
    ///
    /// # Errors
    /// A sentence with the file that could not be moved.
    pub(super) fn move_all(&self, moves: &[(PathBuf, PathBuf)]) -> Result<(), String> {
        let _turn = locked(&self.writing);
        for (from, to) in moves.iter().filter(|(from, _)| !locked(&self.asked).contains_key(from)) {
            match to.exists() {
                true => task_files::remove(from)?,
                false => std::fs::rename(from, to).map_err(|error| format!("{}: {error}", from.display()))?,
            }
        }
        Ok(())
    }

    fn work(self: &Arc<Self>, key: &'static str, what: &'static str, path: &Path, text: Option<String>) -> Command {
        let (keeper, path, number) = (Arc::clone(self), path.to_owned(), self.ask(path));
        Work::once(
            key,
            move || keeper.carry_out(&path, number, text.as_deref()),
            move |model, done| {
                if let Err(error) = done {
                    model.shared.complain(format!("{what}: draft not saved: {error}"));
                }
                Vec::new()
            },
        )
    }

    fn ask(&self, path: &Path) -> u64 {
        let mut asked = locked(&self.asked);
        let number = asked.entry(path.to_owned()).or_default();
        *number += 1;
        *number
    }

    fn carry_out(&self, path: &Path, number: u64, text: Option<&str>) -> Result<(), String> {
        let _turn = locked(&self.writing);
        if locked(&self.asked).get(path) != Some(&number) {
            return Ok(());
        }
        match text {
            Some(text) => task_files::write_private(path, text.as_bytes()),
            None => task_files::remove(path),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where unsaved texts are kept.
pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("drafts")
}

/// A few letters that stand for a file of a task, wherever the task lies.
pub(super) fn mark(task: &Task, file: &str) -> String {
    crate::run::sha256(task.label(file).as_bytes())[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, path) = (Keeper::default(), folder.path().join("a/text"));
        let read = || std::fs::read_to_string(&path).ok();
        let (first, second) = (keeper.ask(&path), keeper.ask(&path));
        keeper.carry_out(&path, second, Some("second")).unwrap();
        keeper.carry_out(&path, first, Some("first")).unwrap();
        assert_eq!(read().as_deref(), Some("second"));
        // Another file's order is its own.
        keeper.keep_now(&folder.path().join("other"), "").unwrap();
        let third = keeper.ask(&path);
        keeper.keep_now(&path, "now").unwrap();
        keeper.carry_out(&path, third, None).unwrap();
        assert_eq!(read().as_deref(), Some("now"));
        let last = keeper.ask(&path);
        keeper.carry_out(&path, last, None).unwrap();
        assert_eq!(read(), None);
    }

    #[test]
    fn a_move_leaves_what_is_newer_and_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let write = |name: &str| std::fs::write(place(name), name).unwrap();
        let read = |name: &str| std::fs::read_to_string(place(name)).ok();
        ["old", "twice", "newer", "own"].into_iter().for_each(write);
        let keeper = Keeper::default();
        keeper.keep_now(&place("own"), "own").unwrap();
        keeper.move_all(&[("old", "new"), ("twice", "newer"), ("own", "moved")].map(|(from, to)| (place(from), place(to)))).unwrap();
        assert_eq!((read("old"), read("new").as_deref()), (None, Some("old")));
        assert_eq!((read("twice"), read("newer").as_deref()), (None, Some("newer")));
        assert_eq!((read("own").as_deref(), read("moved")), (Some("own"), None));
    }
}
