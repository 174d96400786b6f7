//! Opens files that others may have written: regular files only, without blocking, inside their
//! folder, size-limited. Atomic writes.

mod atomic;
mod checksum;
#[cfg(debug_assertions)]
mod failpoint;
mod hidden;

pub use atomic::{
    Access, Sync, create, create_file, create_folder, create_folder_with, ensure_folder,
    ensure_one_folder, lock_folder, remove_left_folders, replace_file, replace_file_with,
    replace_files, sync_folder,
};
pub use checksum::{
    CHECKSUM_FIELD, Checked, Digest, Sum, check, digest_file, seal_document, seal_line, seal_toml,
    sum,
};
pub use failpoint::{failpoint, fails_at, panic_point, rendezvous_timeout, test_clock, torn_write};
pub use hidden::{FileId, HIDDEN_FILES, file_id, hide_files, hides_test_sets};

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Default limit of a file that is read whole.
pub const MAX_WHOLE_FILE_BYTES: u64 = 1 << 30;

/// Whether another open file has an exclusive lock of this one.
pub fn is_locked(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Checks that files in `folder` can be locked, with a file that is removed again.
///
/// # Errors
/// The system's, on a file system without locks.
pub fn check_locks(folder: &Path) -> Result<()> {
    let path = folder.join(format!(
        ".lock-{}",
        crate::format::hex(&random_bytes::<8>()?)
    ));
    // What else is wrong with the folder is said where a file is written.
    let Ok(file) = create(&path, Access::Private) else {
        return Ok(());
    };
    let locked = file.try_lock();
    std::fs::remove_file(path)?;
    match locked {
        Err(TryLockError::Error(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Takes the exclusive lock of a file; `false` if another open file still has it after `timeout`.
pub fn lock_within(file: &File, timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Opens a regular file for reading, following links. Refuses a FIFO, socket or device at once,
/// since opening it could block or have effects.
///
/// # Errors
/// The system's error, [`ErrorKind::InvalidInput`] for anything but a regular file, and a hidden file ([`hide_files`]).
pub fn open(path: &Path) -> Result<File> {
    let file = open_hidden(path)?;
    hidden::refuse_hidden(&file.metadata()?)?;
    Ok(file)
}

/// [`open`], also of a hidden file: for copies and digests, which show nothing of it.
fn open_hidden(path: &Path) -> Result<File> {
    // Checked before opening, which can act on a device, and again afterwards, as the file may have
    // been exchanged.
    regular(&std::fs::metadata(path)?)?;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Marks all descriptors from `first` on as close-on-exec. Only system calls: safe between fork and
/// exec.
pub fn close_on_exec_from(first: RawFd) {
    // SAFETY: the call takes plain numbers and changes only flags of this process's descriptors.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if outcome != 0 {
        // Kernels before 5.11.
        for descriptor in first..4096 {
            // SAFETY: a number that is not an open descriptor only makes the call fail.
            let _ = rustix::io::fcntl_setfd(
                unsafe { BorrowedFd::borrow_raw(descriptor) },
                rustix::io::FdFlags::CLOEXEC,
            );
        }
    }
}

pub fn connect(socket: &Path) -> Result<UnixStream> {
    let (folder, name) = socket
        .parent()
        .zip(socket.file_name())
        .ok_or(ErrorKind::InvalidInput)?;
    let flags = (rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY)
        .bits()
        .cast_signed();
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(folder)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

pub fn open_null() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`], and [`ErrorKind::FileTooLarge`] above [`MAX_WHOLE_FILE_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_WHOLE_FILE_BYTES)
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`], and [`ErrorKind::FileTooLarge`] above `most_bytes`.
pub fn read_at_most(path: &Path, most_bytes: u64) -> Result<Vec<u8>> {
    read_file(open(path)?, most_bytes)
}

/// [`read`], also of a hidden file.
pub fn read_hidden(path: &Path) -> Result<Vec<u8>> {
    read_file(open_hidden(path)?, MAX_WHOLE_FILE_BYTES)
}

fn read_file(file: File, most_bytes: u64) -> Result<Vec<u8>> {
    let size = file.metadata()?.len();
    // A file in /proc has size 0 and may still be long.
    let mut bytes = Vec::with_capacity(size.min(most_bytes) as usize);
    if size <= most_bytes {
        file.take(most_bytes.saturating_add(1))
            .read_to_end(&mut bytes)?;
    }
    if size.max(bytes.len() as u64) > most_bytes {
        let found = size.max(bytes.len() as u64);
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("too large: {found} bytes, at most {most_bytes} are read"),
        ));
    }
    Ok(bytes)
}

/// Reads a regular file of UTF-8.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] otherwise.
pub fn read_text(path: &Path) -> Result<String> {
    text(read(path)?).map_err(|error| {
        Error::new(
            ErrorKind::InvalidData,
            format!("not UTF-8 text (byte {})", error.valid_up_to()),
        )
    })
}

/// The text of a file of UTF-8, without the byte order mark with which some editors begin it.
///
/// # Errors
/// Not UTF-8.
pub fn text(bytes: Vec<u8>) -> std::result::Result<String, std::str::Utf8Error> {
    let mut text = String::from_utf8(bytes).map_err(|error| error.utf8_error())?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Why a path is not inside a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// Absolute, empty, or contains `..`.
    Written,
    /// A link in the path leads outside, to this place.
    Link(PathBuf),
    /// A link in the path is dangling or cyclic.
    Broken(PathBuf),
}

/// Resolves `relative` in `folder`, following every link; missing parts are taken as written. Opens
/// nothing.
///
/// # Errors
/// [`PathError`] if the path is written as, or leads, outside the folder.
pub fn inside(folder: &Path, relative: &str) -> std::result::Result<PathBuf, PathError> {
    let mut names = Vec::new();
    for part in Path::new(relative).components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(PathError::Written);
            }
        }
    }
    if names.is_empty() {
        return Err(PathError::Written);
    }
    // A missing folder holds no links.
    let Ok(root) = std::fs::canonicalize(folder) else {
        return Ok(folder.join(relative));
    };
    let mut place = root.clone();
    for name in names {
        place.push(name);
        match std::fs::canonicalize(&place) {
            Ok(found) if found.starts_with(&root) => place = found,
            Ok(found) => return Err(PathError::Link(found)),
            // Its target is unknown.
            Err(_) if place.is_symlink() => {
                return Err(PathError::Broken(
                    std::fs::read_link(&place).unwrap_or_default(),
                ));
            }
            Err(_) => {}
        }
    }
    Ok(place)
}

fn regular(found: &std::fs::Metadata) -> Result<()> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("not a regular file but {what}"),
    ))
}

/// No failpoints in release builds, and no variables that set them.
#[cfg(not(debug_assertions))]
mod failpoint {
    #[inline]
    pub fn failpoint(_: &str, _: &str) {}
    #[inline]
    pub fn fails_at(_: &str, _: &str) -> bool {
        false
    }
    #[inline]
    pub fn panic_point(_: &str, _: &str) {}
    #[inline]
    pub fn torn_write(_: &str, _: &str, _: &[u8], _: impl FnOnce(&[u8])) {}
    #[inline]
    pub fn test_clock(milliseconds: u64) -> u64 {
        milliseconds
    }
    #[inline]
    pub fn rendezvous_timeout(usual: std::time::Duration) -> std::time::Duration {
        usual
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        symlink("file", path("link")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(path("fifo"))
            .status()
            .unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(
            read_text(&path("file")).unwrap() + &read_text(&path("link")).unwrap(),
            "texttext"
        );
        let check = |path: &Path, expected: &str| {
            let message = read(path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&path("fifo"), "a FIFO");
        check(&path("socket"), "a socket");
        check(Path::new("/dev/zero"), "a device");
        check(work.path(), "directory");
        check(&path("absent"), "No such file");
    }

    #[test]
    fn no_more_is_read_than_is_asked_for() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("file");
        // Sparse: it is never read.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert_eq!(
            message,
            "too large: 1099511627776 bytes, at most 1073741824 are read"
        );
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(
            (
                read_at_most(&path, 5).unwrap().len(),
                read_at_most(&path, 4).unwrap_err().kind()
            ),
            (5, ErrorKind::FileTooLarge)
        );
        // Its reported size is 0.
        assert_eq!(
            read_at_most(Path::new("/proc/self/status"), 10)
                .unwrap_err()
                .kind(),
            ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn a_path_stays_inside_its_folder_whatever_links_say() {
        let work = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(work.path()).unwrap();
        let folder = root.join("task");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(root.join("secret"), "x").unwrap();
        std::fs::write(folder.join("file"), "x").unwrap();
        symlink("../secret", folder.join("out")).unwrap();
        symlink("../absent", folder.join("dangling")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("../file", folder.join("sub/back")).unwrap();
        symlink(folder.join("file"), folder.join("absolute")).unwrap();
        symlink(&folder, root.join("by-link")).unwrap();
        let check = |relative: &str, expected: std::result::Result<&str, PathError>| {
            for folder in [&folder, &root.join("by-link")] {
                assert_eq!(
                    inside(folder, relative),
                    expected.clone().map(|path| root.join("task").join(path)),
                    "{relative}"
                );
            }
        };
        check("file", Ok("file"));
        check("./sub/../file", Err(PathError::Written));
        check("./file", Ok("file"));
        check("sub/back", Ok("file"));
        check("absolute", Ok("file"));
        check("new/deep/file", Ok("new/deep/file"));
        check("../secret", Err(PathError::Written));
        check("/etc/passwd", Err(PathError::Written));
        check("", Err(PathError::Written));
        check(".", Err(PathError::Written));
        check("out", Err(PathError::Link(root.join("secret"))));
        check("up/secret", Err(PathError::Link(root.clone())));
        check(
            "dangling",
            Err(PathError::Broken(PathBuf::from("../absent"))),
        );
        assert_eq!(inside(&root.join("none"), "x"), Ok(root.join("none/x")));
    }
}
