//! The trash of a folder of runs: removed runs and checkpoints, until a week has passed or it is emptied.
//!
//! It is a folder in that of the runs, so that what is removed is renamed, and never copied: nothing is lost on the way.

use std::fs::DirEntry;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::durable::{
    create_folder, delete_folder, ensure_one_folder, entries, remove_left, replace_json,
    sync_folder,
};
use super::lock::RunLock;
use crate::files::{lock_folder, remove_left_folders};
use crate::run::clock::now_ms;
use crate::run::error::RunError;

const FOLDER: &str = ".trash";
const ITEM_FILE: &str = "item.json";
/// The removed folder in that of its item.
const CONTENT: &str = "content";

/// How long an item stays.
pub const TRASH_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A removed run or checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashItem {
    /// The name by which it is restored: the run's id, for a checkpoint `ID@STEP`; with a number if that was taken.
    #[serde(skip)]
    pub name: String,
    pub run: String,
    /// Of a checkpoint.
    pub step: Option<u64>,
    /// The path that it had, below the folder of runs.
    pub path: PathBuf,
    /// Milliseconds since 1970.
    pub removed_ms: u64,
    pub bytes: u64,
}

/// The trash of a folder of runs.
#[derive(Debug, Clone)]
pub struct Trash {
    runs: PathBuf,
}

impl TrashItem {
    /// When it is deleted for good, in milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        self.removed_ms + TRASH_TIME.as_millis() as u64
    }
}

impl Trash {
    pub fn new(runs: &Path) -> Self {
        Self {
            runs: runs.to_owned(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.runs.join(FOLDER)
    }

    /// Moves a folder of a run that the caller has locked here.
    ///
    /// # Errors
    /// [`RunError::Io`]; the folder is where it was.
    pub fn put(&self, item: TrashItem) -> Result<TrashItem, RunError> {
        let trash = self.folder();
        ensure_one_folder(&trash)?;
        let step = item
            .step
            .map_or_else(String::new, |step| format!("@{step}"));
        let base = format!("{}{step}", item.run);
        let mut names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        let name = loop {
            let name = names.next().unwrap_or_default();
            match create_folder(&trash.join(&name)) {
                Ok(()) => break name,
                Err(_) if trash.join(&name).symlink_metadata().is_ok() => {}
                Err(error) => return Err(error),
            }
        };
        let (own, from) = (trash.join(&name), self.runs.join(&item.path));
        // Until it has its content, `expire` of another process leaves it.
        let _lock = lock_folder(&own).map_err(RunError::io("lock", &own))?;
        let moved = replace_json(&own.join(ITEM_FILE), &item).and_then(|()| {
            std::fs::rename(&from, own.join(CONTENT)).map_err(|error| {
                let error = match error.kind() {
                    ErrorKind::CrossesDevices => Error::new(
                        error.kind(),
                        "the trash is on another file system: add --permanent to delete it for good",
                    ),
                    _ => error,
                };
                RunError::io("move to the trash", &from)(error)
            })
        });
        if let Err(error) = moved {
            let _ = std::fs::remove_dir_all(&own);
            return Err(error);
        }
        sync_folder(&own)?;
        sync_folder(from.parent().unwrap_or(&self.runs))?;
        Ok(TrashItem { name, ..item })
    }

    /// What is in it, the latest last; a folder that is none of its items is left out.
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be read.
    pub fn items(&self) -> Result<Vec<TrashItem>, RunError> {
        let item = |folder: PathBuf| {
            let text = crate::files::read_text(&folder.join(ITEM_FILE)).ok()?;
            let item: TrashItem = serde_json::from_str(&text).ok()?;
            let name = folder.file_name()?.to_str()?.to_owned();
            let is_whole = folder.join(CONTENT).is_dir() && !name.starts_with('.');
            is_whole.then_some(TrashItem { name, ..item })
        };
        let mut items: Vec<TrashItem> = entries(&self.folder())?
            .into_iter()
            .filter_map(|entry| item(entry.path()))
            .collect();
        items.sort_by(|a, b| (a.removed_ms, &a.name).cmp(&(b.removed_ms, &b.name)));
        Ok(items)
    }

    /// Moves an item back to where it was; returns its path.
    ///
    /// # Errors
    /// [`RunError::Io`] if something else has that path, or a checkpoint's run is gone; [`RunError::InUse`] if a worker
    /// computes that run. The item stays.
    pub fn restore(&self, item: &TrashItem) -> Result<PathBuf, RunError> {
        let is_inside = item
            .path
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let path = self.runs.join(&item.path);
        let refuse = |why: String| Err(RunError::io("restore", &path)(Error::other(why)));
        if !is_inside {
            return refuse("the trash names a path outside the folder of runs".to_owned());
        }
        if path.symlink_metadata().is_ok() {
            return refuse("it exists: rename or remove that one first".to_owned());
        }
        let _lock = match item.step {
            None => None,
            Some(_) if !self.runs.join(&item.run).is_dir() => {
                return refuse(format!(
                    "the run {} is not there: restore it first",
                    item.run
                ));
            }
            Some(_) => Some(RunLock::acquire(&self.runs.join(&item.run))?),
        };
        let own = self.folder().join(&item.name);
        std::fs::rename(own.join(CONTENT), &path).map_err(RunError::io("restore", &path))?;
        let _ = std::fs::remove_dir_all(&own);
        sync_folder(path.parent().unwrap_or(&self.runs))?;
        Ok(path)
    }

    /// Deletes an item for good.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn delete(&self, item: &TrashItem) -> Result<(), RunError> {
        delete_folder(&self.folder().join(&item.name), &item.name)
    }

    /// Deletes what has been in it for a week, and what interrupted deletions, [`put`](Self::put) and
    /// [`restore`](Self::restore) left: an item without its content.
    pub fn expire(&self) {
        let trash = self.folder();
        remove_left(&trash);
        let is_of_item =
            |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with(ITEM_FILE);
        remove_left_folders(&trash, |name| {
            entries(&trash.join(name)).is_ok_and(|found| found.iter().all(is_of_item))
        });
        let items = self.items().unwrap_or_default();
        for item in items.iter().filter(|item| item.expires_ms() <= now_ms()) {
            let _ = self.delete(item);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn item(run: &str, step: Option<u64>, removed_ms: u64) -> TrashItem {
        let checkpoint = step.map(|step| format!("/checkpoints/step-{step:06}"));
        TrashItem {
            name: String::new(),
            run: run.to_owned(),
            step,
            path: format!("{run}{}", checkpoint.unwrap_or_default()).into(),
            removed_ms,
            bytes: 3,
        }
    }

    #[test]
    fn what_is_removed_comes_back_unless_its_place_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, trash) = (folder.path(), Trash::new(folder.path()));
        let create = |text: &str| {
            std::fs::create_dir_all(runs.join("a/checkpoints/step-000002")).unwrap();
            std::fs::write(runs.join("a/file"), text).unwrap();
        };
        assert_eq!(trash.items().unwrap(), []);
        create("one");
        let first = trash.put(item("a", None, now_ms())).unwrap();
        create("two");
        let checkpoint = trash.put(item("a", Some(2), now_ms())).unwrap();
        let second = trash.put(item("a", None, now_ms() + 1)).unwrap();
        let names = [&first, &checkpoint, &second].map(|item| item.name.as_str());
        assert_eq!(names, ["a", "a@2", "a-2"]);
        let error = trash.restore(&checkpoint).unwrap_err().to_string();
        assert!(
            error.contains("the run a is not there: restore it first"),
            "{error}"
        );
        assert_eq!(trash.restore(&second).unwrap(), runs.join("a"));
        let error = trash.restore(&first).unwrap_err().to_string();
        assert!(
            error.contains("it exists: rename or remove that one first"),
            "{error}"
        );
        let lock = RunLock::acquire(&runs.join("a")).unwrap();
        assert!(matches!(
            trash.restore(&checkpoint),
            Err(RunError::InUse { .. })
        ));
        drop(lock);
        trash.restore(&checkpoint).unwrap();
        assert!(runs.join("a/checkpoints/step-000002").is_dir());
        assert_eq!(std::fs::read(runs.join("a/file")).unwrap(), b"two");
        assert_eq!(trash.items().unwrap(), std::slice::from_ref(&first));
        let evil = TrashItem {
            path: "../b".into(),
            ..first
        };
        assert!(trash.restore(&evil).is_err());
    }

    #[test]
    fn items_are_deleted_after_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, trash) = (folder.path(), Trash::new(folder.path()));
        let week = TRASH_TIME.as_millis() as u64;
        for (run, age) in [("old", week + 1000), ("new", week - 60_000)] {
            std::fs::create_dir(runs.join(run)).unwrap();
            trash.put(item(run, None, now_ms() - age)).unwrap();
        }
        trash.expire();
        let names: Vec<String> = trash
            .items()
            .unwrap()
            .into_iter()
            .map(|item| item.name)
            .collect();
        assert_eq!(names, ["new"]);
        assert_eq!(std::fs::read_dir(runs.join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, trash) = (folder.path(), Trash::new(folder.path()));
        std::fs::create_dir(runs.join("whole")).unwrap();
        let whole = trash.put(item("whole", None, now_ms())).unwrap();
        let at = |name: &str| runs.join(FOLDER).join(name);
        for name in ["empty", "no-content", "half-written", "other"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::copy(at("whole/item.json"), at("no-content/item.json")).unwrap();
        std::fs::write(at("half-written/item.json.7.0.tmp"), "{").unwrap();
        std::fs::write(at("other/file"), "").unwrap();
        let _lock = lock_folder(&at("empty")).unwrap();
        trash.expire();
        let mut names: Vec<_> = std::fs::read_dir(runs.join(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        // One that a process holds, and one that is not of the trash, stay.
        assert_eq!(names, ["empty", "other", "whole"]);
        assert_eq!(trash.items().unwrap(), [whole]);
    }

    #[test]
    fn what_cannot_be_moved_stays() {
        let folder = tempfile::tempdir().unwrap();
        let trash = Trash::new(folder.path());
        let error = trash.put(item("gone", None, 0)).unwrap_err().to_string();
        assert!(error.contains("cannot move to the trash"), "{error}");
        assert_eq!(
            std::fs::read_dir(folder.path().join(FOLDER))
                .unwrap()
                .count(),
            0
        );
        // Another file system.
        let memory = Path::new("/dev/shm");
        let Ok(other) = tempfile::tempdir_in(memory) else {
            return;
        };
        std::fs::remove_dir(folder.path().join(FOLDER)).unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join(FOLDER)).unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let put = trash.put(item("run", None, 0));
        let is_same = std::os::unix::fs::MetadataExt::dev(&memory.metadata().unwrap())
            == std::os::unix::fs::MetadataExt::dev(&folder.path().metadata().unwrap());
        if !is_same {
            let error = put.unwrap_err().to_string();
            assert!(
                error.contains("on another file system: add --permanent"),
                "{error}"
            );
            assert!(folder.path().join("run").is_dir());
        }
    }
}
