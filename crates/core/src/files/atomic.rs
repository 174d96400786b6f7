//! Atomic files and folders, also across a crash: written under a temporary name in the same
//! folder, synced, renamed.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::failpoint::{failpoint, torn_write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This user alone.
    Private,
    Umask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    Disk,
    /// Readers detect an incomplete file themselves.
    Never,
}

/// Creates or replaces a file: readers see the old bytes or the new ones, never a mixture.
pub fn replace_file(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    replace_file_with(path, access, Sync::Disk, |file| {
        torn_write("replace.half", &name, bytes, |half| {
            drop(file.write_all(half))
        });
        file.write_all(bytes)
    })
}

/// As [`replace_file`], for several: none is replaced before all are on disk, so an error or a kill
/// while writing leaves all unchanged. An error names its path.
pub fn replace_files<'a>(
    files: &[(&'a Path, &[u8])],
    access: Access,
) -> std::result::Result<(), (&'a Path, Error)> {
    let mut written: Vec<(&Path, PathBuf)> = Vec::new();
    let mut held = Vec::new();
    let outcome = files.iter().try_for_each(|(path, bytes)| {
        remove_leftovers(path);
        let temporary = temporary(path);
        written.push((path, temporary.clone()));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut file = create_temporary(&temporary, access).map_err(|error| (*path, error))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| (*path, error))?;
        held.push(file);
        failpoint("replace.written", &name);
        Ok(())
    });
    let renamed = outcome.and_then(|()| {
        written.iter().try_for_each(|(path, temporary)| {
            std::fs::rename(temporary, path).map_err(|error| (*path, error))
        })?;
        files.iter().try_for_each(|(path, _)| {
            sync_folder(path.parent().unwrap_or(path)).map_err(|error| (*path, error))
        })
    });
    if renamed.is_err() {
        for (_, temporary) in &written {
            let _ = std::fs::remove_file(temporary);
        }
    }
    renamed
}

fn temporary(path: &Path) -> PathBuf {
    // Two threads may write the same file at once, and processes of two hosts or containers have the same id.
    let random = RandomState::new().hash_one(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{random:016x}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Removes temporary files of `path` that dead processes left, and one of an earlier process with this id.
fn remove_leftovers(path: &Path) {
    let prefix = format!(
        "{}.",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let middle = name
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".tmp"));
        let owner = middle.and_then(|middle| middle.split_once('.')?.0.parse().ok());
        // A process of another host that shares the folder holds the lock.
        if owner.is_some_and(is_dead) && is_unlocked(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_dead(process: i32) -> bool {
    let process = rustix::process::Pid::from_raw(process);
    process.is_none_or(|process| {
        std::process::id() == process.as_raw_nonzero().get().unsigned_abs()
            || rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH)
    })
}

fn is_unlocked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// As [`replace_file`], written by `fill`.
pub fn replace_file_with(
    path: &Path,
    access: Access,
    sync: Sync,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let known = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = temporary(path);
    let written = create_temporary(&temporary, access).and_then(|mut file| {
        fill(&mut file)?;
        if sync == Sync::Disk {
            file.sync_all()?;
        }
        failpoint("replace.written", &known);
        std::fs::rename(&temporary, path)
    });
    failpoint("replace.renamed", &known);
    if written.is_err() {
        // Report the error that stopped the writing.
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| {
        if sync == Sync::Disk {
            sync_folder(path.parent().unwrap_or(path))
        } else {
            Ok(())
        }
    })
}

/// Fills a new folder `.NAME.partial` through `fill`, then renames it to `target`, which must not
/// exist. Its lock belongs to the process that fills it: of two processes that create the same
/// folder one is refused. `fill` syncs its files itself. `fail` makes an error from a path and the
/// system's error. An error leaves nothing under either name, unless only the rename could not be
/// made durable.
pub fn create_folder_with<T, E>(
    target: &Path,
    access: Access,
    fail: impl Fn(&Path, Error) -> E,
    fill: impl FnOnce(&Path) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let (partial, _lock) = lock_partial(target, access).map_err(|error| fail(target, error))?;
    let written = fill(&partial).and_then(|written| {
        sync_folder(&partial).map_err(|error| fail(&partial, error))?;
        failpoint("folder.filled", &name);
        rename_to_new(&partial, target).map_err(|error| fail(target, exists(error)))?;
        failpoint("folder.renamed", &name);
        let parent = target.parent().unwrap_or(target);
        sync_folder(parent)
            .map_err(|error| fail(parent, error))
            .map(|()| written)
    });
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    written
}

/// Makes an empty, locked folder for what becomes `target`; what an ended process left in it is removed. Where the file
/// system cannot lock folders (NFS), its name is one that no other process uses, and nothing is removed.
fn lock_partial(target: &Path, access: Access) -> Result<(PathBuf, Option<File>)> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = target.with_file_name(format!(".{name}.partial"));
    loop {
        if partial.is_symlink() {
            let why = format!("{} is a link: remove it", partial.display());
            return Err(Error::new(ErrorKind::AlreadyExists, why));
        }
        match create_folder(&partial, access) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = match File::open(&partial) {
            // Renamed or removed by another process in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            folder => folder?,
        };
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why =
                    "another process is creating it: wait for that one, or choose another name";
                return Err(Error::new(ErrorKind::ResourceBusy, why));
            }
            Err(TryLockError::Error(_)) => {
                let random = u64::from_ne_bytes(super::random_bytes()?);
                let own = target.with_file_name(format!(".{name}.{random:016x}.partial"));
                return create_folder(&own, access).map(|()| (own, None));
            }
        }
        let own = folder.metadata()?;
        let is_same = |found: Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
        if !partial.symlink_metadata().is_ok_and(is_same) {
            continue;
        }
        if target.symlink_metadata().is_ok() {
            std::fs::remove_dir_all(&partial)?;
            return Err(exists(ErrorKind::AlreadyExists.into()));
        }
        if partial.read_dir()?.next().is_none() {
            return Ok((partial, Some(folder)));
        }
        std::fs::remove_dir_all(&partial)?;
    }
}

/// Renames a folder to a name that must be unused, even by an empty folder where the file system can tell.
fn rename_to_new(from: &Path, to: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// Waits for the folder's lock and holds it until the file is dropped. Does not wait on file
/// systems that cannot lock folders.
pub fn lock_folder(folder: &Path) -> Result<File> {
    let file = File::open(folder)?;
    let _ = file.lock();
    Ok(file)
}

/// Removes folders in `parent` that an ended process was filling ([`create_folder_with`]) or
/// removing: accepted by `is_left`, and not locked, neither themselves nor through a file `lock` in
/// them.
pub fn remove_left_folders(parent: &Path, is_left: impl Fn(&str) -> bool) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for path in entries
        .filter(|entry| is_left(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
    {
        let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let locked = |path: &Path| File::open(path).ok().filter(|file| file.try_lock().is_ok());
        let lock = path.join("lock");
        // Held until it is gone, since another process may begin to fill it.
        let Some(_held) = Some(&path)
            .filter(|_| is_folder)
            .and_then(|path| locked(path))
        else {
            continue;
        };
        if !lock.exists() || locked(&lock).is_some() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

pub fn create(path: &Path, access: Access) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if access == Access::Private {
            0o600
        } else {
            0o666
        })
        .open(path)
        .map_err(exists)
}

/// Creates a temporary file, locked as long as it is open: so another process sees that it is in use. Where the file
/// system has no locks, none is removed.
fn create_temporary(path: &Path, access: Access) -> Result<File> {
    let file = create(path, access)?;
    let _ = file.try_lock();
    Ok(file)
}

pub fn create_file(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let mut file = create(path, access)?;
    torn_write("create.half", &path.to_string_lossy(), bytes, |half| {
        drop(file.write_all(half))
    });
    file.write_all(bytes)?;
    file.sync_all()
}

pub fn create_folder(path: &Path, access: Access) -> Result<()> {
    folder_builder(access).create(path).map_err(exists)
}

/// Creates a missing folder; its parent must exist, so that a removed one is not created again.
pub fn ensure_one_folder(path: &Path, access: Access) -> Result<()> {
    create_folder(path, access).or_else(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            Ok(())
        } else {
            Err(error)
        }
    })
}

pub fn ensure_folder(path: &Path, access: Access) -> Result<()> {
    let in_the_way = |error: Error| match error.kind() {
        kind @ (ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => {
            let text = "a file is in the way: remove it, or choose another folder";
            Error::new(kind, text)
        }
        _ => error,
    };
    folder_builder(access)
        .recursive(true)
        .create(path)
        .map_err(in_the_way)
}

/// Adds the remedy to the system's "File exists".
fn exists(error: Error) -> Error {
    match error.kind() {
        kind @ (ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
            Error::new(kind, "it exists: remove it, or choose another name")
        }
        _ => error,
    }
}

pub fn sync_folder(path: &Path) -> Result<()> {
    // The parent of a bare file name is empty: the current folder.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

fn folder_builder(access: Access) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(if access == Access::Private {
        0o700
    } else {
        0o777
    });
    builder
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_said_with_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let (file, folder) = (parent.path().join("file"), parent.path().join("folder"));
        create_file(&file, b"", Access::Private).unwrap();
        create_folder(&folder, Access::Private).unwrap();
        create_file(&folder.join("a"), b"", Access::Private).unwrap();
        let fill = |partial: &Path| create_file(&partial.join("b"), b"", Access::Private);
        let exists = "it exists: remove it, or choose another name";
        let in_the_way = "a file is in the way: remove it, or choose another folder";
        for (made, expected) in [
            (create_file(&file, b"", Access::Private), exists),
            (create_folder(&folder, Access::Private), exists),
            (
                create_folder_with(&folder, Access::Private, |_, error| error, fill),
                exists,
            ),
            (ensure_folder(&file, Access::Private), in_the_way),
            (ensure_folder(&file.join("a"), Access::Private), in_the_way),
            (ensure_one_folder(&folder, Access::Private), ""),
        ] {
            let said = made
                .err()
                .map_or_else(String::new, |error| error.to_string());
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn folders_that_a_killed_process_left_are_removed_and_those_in_use_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let make = |name: &str| std::fs::create_dir_all(path(name).join("deep")).unwrap();
        [
            ".left.partial",
            ".left.removed",
            ".held.removed",
            ".other",
            "whole",
        ]
        .into_iter()
        .for_each(make);
        std::fs::write(path(".left.removed/lock"), "").unwrap();
        std::fs::write(path(".held.removed/lock"), "").unwrap();
        let held = File::open(path(".held.removed/lock")).unwrap();
        held.try_lock().unwrap();
        let remove = || {
            remove_left_folders(parent.path(), |name| {
                name.ends_with(".partial") || name.ends_with(".removed")
            })
        };
        let names = || {
            let entries = std::fs::read_dir(parent.path()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let fill = |_: &Path| {
            remove();
            assert_eq!(
                names(),
                [".held.removed", ".new.partial", ".other", "whole"]
            );
            Ok::<_, Error>(())
        };
        create_folder_with(&path("new"), Access::Umask, |_, error| error, fill).unwrap();
        assert_eq!(names(), [".held.removed", ".other", "new", "whole"]);
    }
}
