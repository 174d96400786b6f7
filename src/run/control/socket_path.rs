//! Where a run's control socket is: a short hashed name in a private folder that both sides can derive from the run's path. And the folder within the run
//! for what goes by files.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::run::directory::sha256;
use crate::run::error::RunError;

/// The folder within a run's, for requests by file and for promises that the log does not hold yet.
pub(super) const FOLDER: &str = "control";

/// The folders in which this user's control sockets may be, the best first: of the session (`$XDG_RUNTIME_DIR/grpo-tui`), which may vanish at logout, and
/// of the host (`$TMPDIR/grpo-tui-UID`).
pub fn socket_folders() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let session = absolute("XDG_RUNTIME_DIR").filter(|folder| folder.is_dir()).map(|folder| folder.join("grpo-tui"));
    let temporary = absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")).join(format!("grpo-tui-{}", user_id()));
    session.into_iter().chain([temporary]).collect()
}

/// The socket's file name for a run.
pub(super) fn socket_name(run: &Path) -> String {
    let path = std::fs::canonicalize(run).unwrap_or_else(|_| run.to_owned());
    let hash = sha256(path.as_os_str().as_encoded_bytes());
    format!("{}.sock", &hash[..12])
}

/// The user that this process acts as.
pub(in crate::run) fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Make sure of a folder that only this user can look into: created 0700 where it is missing, else refused unless it is one.
pub(in crate::run) fn private_folder(path: &Path) -> Result<(), RunError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(RunError::io("create", path)(error)),
        _ => {}
    }
    let unsafe_because = |why: String| RunError::Unsafe { path: path.to_owned(), why };
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => unsafe_because("is a symlink".to_owned()),
        Some(code) if code == rustix::io::Errno::NOTDIR.raw_os_error() => unsafe_because("is a symlink or not a folder".to_owned()),
        _ => RunError::io("open", path)(error),
    })?;
    let found = folder.metadata().map_err(RunError::io("read", path))?;
    if found.uid() != user_id() {
        return Err(unsafe_because(format!("belongs to user {}, not to user {}", found.uid(), user_id())));
    }
    match found.mode() & 0o777 {
        0o700 => Ok(()),
        mode => Err(unsafe_because(format!("has mode {mode:04o} instead of 0700"))),
    }
}
