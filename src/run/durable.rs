//! Private files that are whole or not there: mode 0600, folders 0700, replaced by temporary file, fsync and rename.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::RunError;
use super::fault::{fault, tear};

/// Create a new private folder; its parent must exist.
pub(super) fn create_folder(path: &Path) -> Result<(), RunError> {
    DirBuilder::new().mode(0o700).create(path).map_err(RunError::io("create", path))
}

/// Create a private folder where it is missing. Its parent must exist: a run's folder that was removed must not come back by one within it.
pub(super) fn ensure_one_folder(path: &Path) -> Result<(), RunError> {
    match create_folder(path) {
        Err(RunError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// Create a private folder and its parents where they are missing.
pub(super) fn ensure_folder(path: &Path) -> Result<(), RunError> {
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(RunError::io("create", path))
}

/// Write a new private file and make it durable. An existing file is an error.
pub(super) fn create_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(RunError::io("create", path))?;
    tear("create.half", &path.to_string_lossy(), bytes, |half| drop(file.write_all(half)));
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(RunError::io("write", path))
}

/// Replace a file, or create it: readers see the old bytes or the new ones, never a mixture, also after a crash.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let known = path.file_name().unwrap_or_default().to_string_lossy();
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            tear("replace.half", &known, bytes, |half| drop(file.write_all(half)));
            file.write_all(bytes).and_then(|()| file.sync_all())
        })
        .and_then(|()| {
            fault("replace.written", &known);
            std::fs::rename(&temporary, path)
        });
    fault("replace.renamed", &known);
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(RunError::io("write", path)(error));
    }
    sync_folder(path.parent().unwrap_or(path))
}

/// Make the entries of a folder durable: new files, renames, removals.
pub fn sync_folder(path: &Path) -> Result<(), RunError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(RunError::io("sync", path))
}

/// Open a private file for appending, creating it where it is missing. Readable too, so that its tail can be inspected.
pub(super) fn open_append(path: &Path) -> Result<File, RunError> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(RunError::io("open", path))
}

/// Append one line with a single `write`. When the disk takes only a part of it, that part is cut off again, so that the file still ends in whole lines.
/// `kind` names the line for tests.
pub(super) fn append_line(file: &File, path: &Path, line: &[u8], kind: &str) -> Result<(), RunError> {
    fault("line.before", kind);
    tear("line.half", kind, line, |half| drop((&mut &*file).write(half)));
    let length = file.metadata().map_err(RunError::io("read", path))?.len();
    let mut rest = line;
    let failure = loop {
        match (&mut &*file).write(rest) {
            Ok(written) if written == rest.len() => {
                fault("line.after", kind);
                return Ok(());
            }
            Ok(0) => break std::io::Error::from(std::io::ErrorKind::StorageFull),
            // Only the rest tells why not all was taken: a full disk, or a limit on the size of files.
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    let _ = file.set_len(length);
    Err(RunError::io("write", path)(failure))
}

/// Cut a torn last line off a file of lines. Returns the bytes dropped and the length that is left.
pub(super) fn seal(file: &File, path: &Path) -> Result<(u64, u64), RunError> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_err(RunError::io("read", path))?.len();
    let mut end = length;
    let mut buffer = vec![0u8; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.read_exact_at(chunk, start).map_err(RunError::io("read", path))?;
        if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end).and_then(|()| file.sync_all()).map_err(RunError::io("seal", path))?;
    }
    Ok((length - end, end))
}
