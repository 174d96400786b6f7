//! The lock of a run: an exclusive `flock`, held for the worker's whole life. It alone says whether a worker lives; a
//! process id does not.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::directory::host_name;
use super::pulled::Pulled;
use crate::files::lock_within;
use crate::run::clock::local_now;
use crate::run::error::RunError;

/// How long a starting worker waits for viewers that are testing the lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// The right to write to a run directory. Released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct RunLock {
    identity: FolderIdentity,
}

/// Identifies the folder that the worker locked: `lock` in it must be the file that the worker holds.
#[derive(Debug, Clone)]
pub(in crate::run) struct FolderIdentity {
    run: PathBuf,
    lock: Arc<File>,
}

impl FolderIdentity {
    /// Checks that the folder was not removed, moved or replaced; otherwise nothing may be written under its path.
    ///
    /// # Errors
    /// [`RunError::Lost`] with what has happened.
    pub(in crate::run) fn check(&self) -> Result<(), RunError> {
        let path = self.run.join("lock");
        let is_ours = match std::fs::symlink_metadata(&path) {
            Ok(found) => self
                .lock
                .metadata()
                .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino())),
            // A file system that does not answer proves nothing.
            Err(error) => !matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ),
        };
        if is_ours {
            return Ok(());
        }
        let why = match self.moved_to() {
            Some(place) => format!(
                "its folder was moved to {}: resume it there with `grpo-tui train --resume {0}`",
                place.display()
            ),
            None if self.run.is_dir() => "its lock file was removed or replaced".to_owned(),
            None => "its folder was removed".to_owned(),
        };
        Err(RunError::Lost {
            path: self.run.clone(),
            why,
        })
    }

    pub(in crate::run) fn release_to(&mut self, folder: PathBuf) {
        self.run = folder;
    }

    /// The folder's new path, if it was moved.
    pub(in crate::run) fn moved_to(&self) -> Option<PathBuf> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", self.lock.as_raw_fd())).ok()?;
        let folder = path
            .parent()
            .filter(|folder| *folder != self.run && path.exists())?;
        Some(folder.to_owned())
    }
}

impl RunLock {
    /// Takes the run's lock.
    ///
    /// # Errors
    /// [`RunError::InUse`] with the process that holds it, [`RunError::NoWorker`] of a copy of another host's.
    pub fn acquire(run: &Path) -> Result<Self, RunError> {
        if let Some(copy) = Pulled::for_run(run) {
            return Err(RunError::NoWorker {
                path: run.to_owned(),
                standing: copy.standing(),
            });
        }
        let path = run.join("lock");
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = open.map_err(RunError::io("open", &path))?;
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return Err(RunError::io("open", &path)(std::io::Error::other(
                "not a regular file",
            )));
        }
        if !lock_within(&file, LOCK_TIMEOUT).map_err(RunError::io("lock", &path))? {
            return Err(RunError::InUse {
                path: run.to_owned(),
                holder: holder(&mut file),
            });
        }
        let started = local_now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        file.set_len(0)
            .and_then(|()| {
                file.write_all(
                    format!(
                        "process {} on {}, since {started}\n",
                        std::process::id(),
                        host_name()
                    )
                    .as_bytes(),
                )
            })
            .map_err(RunError::io("write", &path))?;
        Ok(Self {
            identity: FolderIdentity {
                run: run.to_owned(),
                lock: Arc::new(file),
            },
        })
    }

    /// Whether some process holds the lock. A missing or unreadable lock file is not held.
    pub fn is_held(run: &Path) -> bool {
        crate::files::open(&run.join("lock")).is_ok_and(|file| crate::files::is_locked(&file))
    }

    pub fn run(&self) -> &Path {
        &self.identity.run
    }

    pub(in crate::run) fn identity(&self) -> FolderIdentity {
        self.identity.clone()
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just forked holds the same lock until it executes
        // another program.
        let _ = self.identity.lock.unlock();
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}
