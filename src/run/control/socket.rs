//! The listening socket: bound with mode 0600 under a name where nothing but our own stale socket may stand, and noticed when it is removed.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::socket_path::{private_folder, user_id};
use crate::run::error::RunError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket that was bound so recently may not be listened to yet.
const YOUNG: Duration = Duration::from_secs(5);

/// A bound socket. Its file is removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    identity: (u64, u64),
}

impl Bound {
    /// Bind `name` in the first of `folders` that will have it. Without any: why not, folder by folder.
    pub(super) fn bind(folders: &[PathBuf], name: &str) -> Result<Self, Vec<RunError>> {
        let mut refusals = Vec::new();
        for folder in folders {
            match private_folder(folder).and_then(|()| bind(folder.join(name))) {
                Ok(bound) => return Ok(bound),
                Err(error) => refusals.push(error),
            }
        }
        Err(refusals)
    }

    /// Whether the socket's file is still the one that was bound.
    pub(super) fn stands(&self) -> bool {
        identity(&self.path) == Some(self.identity)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.stands() {
            // Left over, it would be replaced by the run's next worker.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind(path: PathBuf) -> Result<Bound, RunError> {
    clear(&path)?;
    let failed = |error: rustix::io::Errno| RunError::io("bind the control socket", &path)(error.into());
    let address = SocketAddrUnix::new(&path).map_err(failed)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    // The file takes its mode from the socket, so that it is private from its first moment, whatever the umask.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(RunError::io("listen on", &path))?;
    let identity = identity(&path).ok_or_else(|| RunError::io("find", &path)(std::io::ErrorKind::NotFound.into()))?;
    Ok(Bound { listener, path, identity })
}

/// Remove our own stale socket. Anything else in its place is refused: a symlink, a file, another user's socket.
fn clear(path: &Path) -> Result<(), RunError> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    check_socket(path, &found)?;
    std::fs::remove_file(path).map_err(RunError::io("remove", path))
}

/// Remove sockets that nobody listens to any more: their workers died without a last word. Returns how many there were. Only this user's own sockets in
/// private folders are looked at.
pub fn remove_dead_sockets(folders: &[PathBuf]) -> usize {
    let entries =
        folders.iter().filter(|folder| private_folder_stands(folder)).flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "sock"));
    paths.filter(|path| is_dead(path) && std::fs::remove_file(path).is_ok()).count()
}

fn private_folder_stands(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == user_id() && found.mode() & 0o777 == 0o700)
}

fn is_dead(path: &Path) -> bool {
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    // A worker that has just bound its socket listens an instant later.
    let is_new = found.modified().is_ok_and(|bound| bound.elapsed().is_ok_and(|age| age < YOUNG));
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    check_socket(path, &found).is_ok() && !is_new && UnixStream::connect(path).is_err_and(refused)
}

fn check_socket(path: &Path, found: &std::fs::Metadata) -> Result<(), RunError> {
    let kind = found.file_type();
    let why = if kind.is_symlink() {
        "is a symlink where a socket should be".to_owned()
    } else if !kind.is_socket() {
        "is not a socket".to_owned()
    } else if found.uid() != user_id() {
        format!("belongs to user {}, not to user {}", found.uid(), user_id())
    } else {
        return Ok(());
    };
    Err(RunError::Unsafe { path: path.to_owned(), why })
}

/// Connect to a worker's socket, if it is one of ours.
pub(super) fn connect(path: &Path) -> Result<UnixStream, RunError> {
    let found = std::fs::symlink_metadata(path).map_err(RunError::io("find", path))?;
    check_socket(path, &found)?;
    let stream = UnixStream::connect(path).map_err(RunError::io("connect to", path))?;
    let peer = peer_user(&stream).map_err(RunError::io("connect to", path))?;
    match stranger(peer) {
        None => Ok(stream),
        Some(why) => Err(RunError::Unsafe { path: path.to_owned(), why }),
    }
}

/// The user at the other end, as the kernel knows it.
pub(super) fn peer_user(stream: &UnixStream) -> std::io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Why that user may not talk to us, if so.
pub(super) fn stranger(peer: u32) -> Option<String> {
    (peer != user_id()).then(|| format!("speaks for user {peer}, not for user {}", user_id()))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_may_speak() {
        assert_eq!(stranger(user_id()), None);
        assert!(stranger(user_id() + 1).is_some_and(|why| why.contains("not for user")));
    }
}
