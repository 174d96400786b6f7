//! The files of a checkpoint or an export, in a folder created atomically.

use std::io::Write;
use std::path::Path;

use super::CheckpointError;
use crate::files::{self, Access, torn_write};

/// Writes the next piece of a file.
pub type WriteChunk<'a> = dyn FnMut(&[u8]) -> Result<(), CheckpointError> + 'a;

/// Creates and fills a private folder.
pub(super) fn write_folder(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    files::create_folder_with(target, Access::Private, failed, fill)
}

/// On disk when this returns.
pub(super) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
    stream_file(folder, name, bytes.len() as u64, |write| write(bytes))
}

/// A file of `length` bytes, which `fill` writes in pieces; on disk when this returns.
pub(super) fn stream_file(
    folder: &Path,
    name: &str,
    length: u64,
    fill: impl FnOnce(&mut WriteChunk<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let path = folder.join(name);
    let failed = |source| failed(&path, source);
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(failed)?;
    let mut file = files::create(&path, Access::Private).map_err(failed)?;
    let mut written = 0;
    fill(&mut |bytes| {
        let end = written + bytes.len() as u64;
        // For tests with torn files.
        if (written..end).contains(&(length / 2)) {
            torn_write("checkpoint.half", name, bytes, |half| {
                drop(file.write_all(half))
            });
        }
        written = end;
        file.write_all(bytes).map_err(failed)
    })?;
    file.sync_all().map_err(failed)
}

pub(super) fn failed(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Write {
        path: path.to_owned(),
        source,
    }
}
