//! Private files and folders, written atomically, and append-only files of lines.

use std::fs::{DirEntry, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::{self, Access, failpoint, torn_write};
use crate::run::error::RunError;

pub(super) fn create_folder(path: &Path) -> Result<(), RunError> {
    files::create_folder(path, Access::Private).map_err(RunError::io("create", path))
}

/// Creates a missing folder whose parent must exist: the folder of a removed run must not be
/// recreated.
pub(in crate::run) fn ensure_one_folder(path: &Path) -> Result<(), RunError> {
    files::ensure_one_folder(path, Access::Private).map_err(RunError::io("create", path))
}

pub(in crate::run) fn ensure_folder(path: &Path) -> Result<(), RunError> {
    files::ensure_folder(path, Access::Private).map_err(RunError::io("create", path))
}

/// Makes the folder of runs if it is missing, and checks that its file system has locks, before anything is in it.
pub(crate) fn ensure_runs_folder(path: &Path) -> Result<(), RunError> {
    ensure_folder(path)?;
    files::check_locks(path).map_err(RunError::io("lock a file in", path))
}

pub(in crate::run) fn create_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    files::create_file(path, bytes, Access::Private).map_err(RunError::io("write", path))
}

pub(in crate::run) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    files::replace_file(path, bytes, Access::Private).map_err(RunError::io("write", path))
}

/// Replaces a private file by an indented JSON document with a final newline.
pub(in crate::run) fn replace_json(path: &Path, document: &impl Serialize) -> Result<(), RunError> {
    write_json(path, document, |_| ())
}

/// Like [`replace_json`], with a checksum as the object's last field.
pub(in crate::run) fn replace_sealed_json(
    path: &Path,
    document: &impl Serialize,
) -> Result<(), RunError> {
    write_json(path, document, files::seal_document)
}

fn write_json(
    path: &Path,
    document: &impl Serialize,
    seal: impl FnOnce(&mut Vec<u8>),
) -> Result<(), RunError> {
    let mut text =
        serde_json::to_vec_pretty(document).map_err(|error| RunError::malformed(path, error))?;
    seal(&mut text);
    text.push(b'\n');
    replace_file(path, &text)
}

/// Reads a file with a size limit; `None` if it does not exist.
pub(in crate::run) fn read_if_there(
    path: &Path,
    most_bytes: u64,
) -> Result<Option<Vec<u8>>, RunError> {
    match files::read_at_most(path, most_bytes) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some).map_err(RunError::io("read", path)),
    }
}

pub(in crate::run) fn remove_if_there(path: &Path) -> Result<(), RunError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RunError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The entries of a folder; empty if it does not exist.
pub(crate) fn entries(folder: &Path) -> Result<Vec<DirEntry>, RunError> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(Iterator::collect)
            .map_err(RunError::io("read", folder)),
    }
}

/// Checks before any computation that an export may be written to `path`.
///
/// # Errors
/// [`RunError::Exists`] if something is there and `force` is not given.
pub fn check_export(path: &Path, force: bool) -> Result<(), RunError> {
    if !force && path.symlink_metadata().is_ok() {
        Err(RunError::Exists {
            path: path.to_owned(),
        })
    } else {
        Ok(())
    }
}

/// Writes a file for the user, atomically.
///
/// # Errors
/// [`RunError::Exists`] if something is there and `force` is not given, [`RunError::Io`] naming the
/// file.
pub fn write_export(path: &Path, bytes: &[u8], force: bool) -> Result<(), RunError> {
    check_export(path, force)?;
    replace_file(path, bytes)
}

/// The first unused path of NAME.EXT, NAME-2.EXT, NAME-3.EXT, ….
pub fn free_path(path: &Path) -> PathBuf {
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    let end = if extension.is_empty() {
        extension
    } else {
        format!(".{extension}")
    };
    let numbered = (2..).map(|number: u64| path.with_file_name(format!("{stem}-{number}{end}")));
    std::iter::once(path.to_owned())
        .chain(numbered)
        .find(|path| path.symlink_metadata().is_err())
        .unwrap_or_else(|| path.to_owned())
}

/// Removes what killed processes left in a folder of runs: `.ID.partial` of unfinished creation,
/// `.ID.removed` of unfinished deletion.
pub(in crate::run) fn remove_left(runs: &Path) {
    files::remove_left_folders(runs, |name| {
        name.strip_prefix('.').is_some_and(|name| {
            [".partial", ".removed"]
                .iter()
                .any(|end| name.ends_with(end))
        })
    });
}

/// Deletes a folder. It is hidden as `.NAME.removed` first, so that what an interruption leaves looks like no run and
/// cannot be restored; [`remove_left`] deletes that.
pub(in crate::run) fn delete_folder(path: &Path, name: &str) -> Result<(), RunError> {
    let hidden = path.with_file_name(format!(".{name}.removed"));
    std::fs::rename(path, &hidden).map_err(RunError::io("remove", path))?;
    std::fs::remove_dir_all(&hidden)
        .map_err(RunError::io("remove all of (delete that folder)", &hidden))
}

pub(in crate::run) fn sync_folder(path: &Path) -> Result<(), RunError> {
    files::sync_folder(path).map_err(RunError::io("sync", path))
}

pub(in crate::run) fn open_append(path: &Path) -> Result<File, RunError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(RunError::io("open", path))
}

/// Appends a line with a single `write`. If only part of it fits on the disk, that part is
/// truncated, so the file still ends in a whole line. `kind` names the line for tests.
pub(in crate::run) fn append_line(
    file: &File,
    path: &Path,
    line: &[u8],
    kind: &str,
) -> Result<(), RunError> {
    failpoint("line.before", kind);
    torn_write("line.half", kind, line, |half| {
        drop((&mut &*file).write(half))
    });
    let length = file.metadata().map_err(RunError::io("read", path))?.len();
    let mut rest = line;
    let failure = loop {
        match (&mut &*file).write(rest) {
            Ok(written) if written == rest.len() => {
                failpoint("line.after", kind);
                return Ok(());
            }
            Ok(0) => break std::io::Error::from(std::io::ErrorKind::StorageFull),
            // Writing the rest returns the error: a full disk, or a limit on file size.
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    let _ = file.set_len(length);
    Err(RunError::io("write", path)(failure))
}

/// Truncates a torn last line. Returns the bytes dropped and the remaining length.
pub(in crate::run) fn seal(file: &File, path: &Path) -> Result<(u64, u64), RunError> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_err(RunError::io("read", path))?.len();
    let mut end = length;
    let mut buffer = vec![0u8; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.read_exact_at(chunk, start)
            .map_err(RunError::io("read", path))?;
        if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)
            .and_then(|()| file.sync_all())
            .map_err(RunError::io("seal", path))?;
    }
    Ok((length - end, end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_export_replaces_nothing_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        assert_eq!(free_path(&file("a.html")), file("a.html"));
        write_export(&file("a.html"), b"one", false).unwrap();
        assert!(matches!(
            write_export(&file("a.html"), b"two", false),
            Err(RunError::Exists { .. })
        ));
        assert_eq!(std::fs::read(file("a.html")).unwrap(), b"one");
        write_export(&file("a.html"), b"three", true).unwrap();
        assert_eq!(std::fs::read(file("a.html")).unwrap(), b"three");
        // A dangling link also occupies its name.
        std::os::unix::fs::symlink("nowhere", file("a-2.html")).unwrap();
        assert_eq!(free_path(&file("a.html")), file("a-3.html"));
        std::fs::write(file("notes"), "").unwrap();
        assert_eq!(free_path(&file("notes")), file("notes-2"));
    }
}
