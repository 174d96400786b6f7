//! Private scratch folders for programs, removed at the end; after a kill, by the next process that
//! creates one.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::files::{self, Access};

/// File in a private folder; locked while its process lives.
const LOCK: &str = "lock";
const WORK: &str = "work";

#[derive(Debug)]
pub(crate) struct PrivateFolder {
    folder: PathBuf,
    work: PathBuf,
    _lock: File,
}

impl PrivateFolder {
    pub(crate) fn new() -> std::result::Result<Self, String> {
        let mut problem = "no folder for temporary files: set HOME or XDG_RUNTIME_DIR".to_owned();
        for root in roots() {
            match Self::within(&root) {
                Ok(folder) => return Ok(folder),
                Err(error) => problem = format!("{}: {error}", root.display()),
            }
        }
        Err(problem)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.work
    }

    fn within(root: &Path) -> Result<Self> {
        static RECLAIM: Once = Once::new();
        files::ensure_folder(root, Access::Private)?;
        check_private(root)?;
        // An unlocked new folder looks like that of a killed process.
        let creating = lock_file(&root.join(LOCK))?;
        let is_locked = creating.lock().is_ok();
        RECLAIM.call_once(|| {
            if is_locked {
                reclaim(root)
            }
        });
        let folder = root.join(crate::format::hex(&files::random_bytes::<16>()?));
        files::create_folder(&folder, Access::Private)?;
        let lock = lock_file(&folder.join(LOCK))?;
        // On a file system without locks, nothing is reclaimed.
        _ = lock.try_lock();
        let work = folder.join(WORK);
        files::create_folder(&work, Access::Private)?;
        Ok(Self {
            folder,
            work,
            _lock: lock,
        })
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Candidate roots, best first. None is below a folder writable by others, since linters read
/// configuration from every parent. The session's is not below a home either, but ends with the
/// session.
fn roots() -> impl Iterator<Item = PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|folder| folder.is_absolute() && check_private(folder).is_ok());
    let cache = directories::ProjectDirs::from("", "", "grpo-tui")
        .map(|folders| folders.cache_dir().to_owned());
    session
        .map(|folder| folder.join("grpo-tui"))
        .into_iter()
        .chain(cache)
        .map(|folder| folder.join("scratch"))
}

fn check_private(folder: &Path) -> Result<()> {
    let found = std::fs::symlink_metadata(folder)?;
    if found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o022 == 0
    {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "not a folder that only you can write in: remove it, or `chmod go-w` it",
    ))
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn reclaim(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let folder = entry.path();
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .open(folder.join(LOCK));
        let has_ended = match &lock {
            Ok(lock) => lock.try_lock().is_ok(),
            // Killed before it had a lock.
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if has_ended && folder.is_dir() {
            _ = std::fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_processes_that_have_ended_are_removed_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("scratch");
        let live = PrivateFolder::within(&root).unwrap();
        std::fs::write(live.path().join("file"), "x").unwrap();
        for left in ["with-lock", "without"] {
            std::fs::create_dir_all(root.join(left).join("work/deep")).unwrap();
        }
        std::fs::write(root.join("with-lock/lock"), "").unwrap();
        reclaim(&root);
        assert!(live.path().join("file").exists());
        assert_eq!(
            std::fs::read_dir(&root).unwrap().count(),
            2,
            "the live one, and the lock"
        );
        drop(live);
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_others_may_write_in_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let message = PrivateFolder::within(root.path()).unwrap_err().to_string();
        assert!(message.contains("chmod go-w"), "{message}");
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        assert!(PrivateFolder::within(&root.path().join("link")).is_err());
    }
}
