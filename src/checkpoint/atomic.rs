//! A folder of files that appears at once: written beside its place, forced to disk, then renamed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::CheckpointError;
use super::tensor_file::WriteChunk;
use crate::run::{failpoint, torn_write};

/// As [`write_folder`], wherever the user wants it: parents that are missing are made.
pub(super) fn write_folder_anywhere(
    target: &Path,
    fill: impl FnOnce(&AtomicFolder) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|source| CheckpointError::Write { path: parent.to_owned(), source })?;
    }
    write_folder(target, fill)
}

/// Fills a fresh folder through `fill`, then gives it the name `target`, which must not exist. On any error nothing of it is left under that name.
pub(super) fn write_folder(target: &Path, fill: impl FnOnce(&AtomicFolder) -> Result<(), CheckpointError>) -> Result<(), CheckpointError> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = target.file_name().map_or_else(|| "checkpoint".into(), |name| name.to_string_lossy().into_owned());
    let partial = parent.join(format!(".{name}.partial"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Write { path, source }
    };
    // Not its parents: a run's folder that was removed must not come back by a checkpoint.
    match DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(parent)(error)),
        _ => {}
    }
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed(&partial))?;
    }
    DirBuilder::new().mode(0o700).create(&partial).map_err(failed(&partial))?;
    let written = fill(&AtomicFolder { path: partial.clone() }).and_then(|()| {
        sync(&partial)?;
        failpoint("checkpoint.filled", &name);
        fs::rename(&partial, target).map_err(failed(target))?;
        failpoint("checkpoint.renamed", &name);
        sync(parent)
    });
    if written.is_err() {
        // The error that stopped the writing is the one to tell; leftovers are removed at the next try.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// A folder that is being filled.
pub(super) struct AtomicFolder {
    path: PathBuf,
}

impl AtomicFolder {
    /// One file, on disk when this returns.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.streamed(name, bytes.len() as u64, |take| take(bytes))
    }

    /// One file of `length` bytes, which `fill` hands over in pieces; on disk when this returns.
    pub(super) fn streamed(
        &self,
        name: &str,
        length: u64,
        fill: impl FnOnce(&mut WriteChunk<'_>) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let path = self.path.join(name);
        let failed = |source| CheckpointError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let mut written = 0;
        fill(&mut |bytes| {
            let end = written + bytes.len() as u64;
            // Where a test wants a torn file, it is torn in the middle.
            if (written..end).contains(&(length / 2)) {
                torn_write("checkpoint.half", name, bytes, |half| drop(file.write_all(half)));
            }
            written = end;
            file.write_all(bytes).map_err(failed)
        })?;
        file.sync_all().map_err(failed)
    }
}

fn sync(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })
}
