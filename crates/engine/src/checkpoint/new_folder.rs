//! A checkpoint or export folder, created atomically.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::CheckpointError;
use crate::files::{self, Access, Digest, torn_write};

/// Writes the next piece of a file.
pub type WriteChunk<'a> = dyn FnMut(&[u8]) -> Result<(), CheckpointError> + 'a;

/// A folder being filled.
#[derive(Debug)]
pub(super) struct NewFolder<'a> {
    path: &'a Path,
    /// Digests by file name.
    digests: RefCell<BTreeMap<String, String>>,
}

impl NewFolder<'_> {
    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn digests(&self) -> BTreeMap<String, String> {
        self.digests.borrow().clone()
    }
}

/// Creates and fills a private folder.
pub(super) fn write_folder(
    target: &Path,
    fill: impl FnOnce(&NewFolder<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    files::create_folder_with(target, Access::Private, failed, |path| {
        fill(&NewFolder {
            path,
            digests: RefCell::default(),
        })
    })
}

/// Durable on return.
pub(super) fn write_file(
    folder: &NewFolder<'_>,
    name: &str,
    bytes: &[u8],
) -> Result<(), CheckpointError> {
    stream_file(folder, name, bytes.len() as u64, |write| write(bytes))
}

/// Streams a file of `length` bytes from `fill`; durable on return.
pub(super) fn stream_file(
    folder: &NewFolder<'_>,
    name: &str,
    length: u64,
    fill: impl FnOnce(&mut WriteChunk<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let path = folder.path.join(name);
    let failed = |source| failed(&path, source);
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(failed)?;
    let mut file = files::create(&path, Access::Private).map_err(failed)?;
    let (mut written, mut digest) = (0, Digest::default());
    fill(&mut |bytes| {
        let end = written + bytes.len() as u64;
        // For tests with torn files.
        if (written..end).contains(&(length / 2)) {
            torn_write("checkpoint.half", name, bytes, |half| {
                drop(file.write_all(half))
            });
        }
        written = end;
        digest.update(bytes);
        file.write_all(bytes).map_err(failed)
    })?;
    let mut digests = folder.digests.borrow_mut();
    digests.insert(name.to_owned(), digest.finish());
    file.sync_all().map_err(failed)
}

pub(super) fn failed(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Write {
        path: path.to_owned(),
        source,
    }
}
