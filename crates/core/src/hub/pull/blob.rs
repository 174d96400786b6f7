//! Downloads one file into the cache: resumed, and verified before it gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::listing::{Checksum, RemoteFile};
use super::stall_guard::{StallGuard, words};
use super::{PullError, PullSettings};
use crate::files;

/// Consecutive attempts with almost no progress before giving up.
const ATTEMPTS: u32 = 5;
/// Minimum progress of an attempt.
const WORTH_BYTES: u64 = 1 << 20;

/// Downloads `file` from `url` into `blobs` and returns its path. `on_progress` gets the bytes
/// received.
pub(super) fn fetch(
    client: &Client,
    settings: &PullSettings,
    url: &str,
    file: &RemoteFile,
    blobs: &Path,
    on_progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, PullError> {
    let path = blobs.join(file.checksum.hex());
    if is_whole(&path, file, on_progress).map_err(PullError::disk(&path))? {
        return Ok(path);
    }
    let mut partial = PartialDownload::open(
        blobs.join(format!("{}.incomplete", file.checksum.hex())),
        file,
    )?;
    let mut fruitless = 0;
    while partial.length < file.size_bytes {
        on_progress(partial.length);
        let before = partial.length;
        match continue_at(client, settings, url, file, &mut partial, on_progress) {
            Ok(()) => {}
            Err(AttemptError::ForGood(error)) => return Err(error),
            Err(AttemptError::Broken(error)) => {
                // Judged by bytes, so that a server that sends a few and disconnects is not retried
                // forever.
                fruitless = if partial.length >= before.saturating_add(WORTH_BYTES) {
                    1
                } else {
                    fruitless + 1
                };
                if fruitless >= ATTEMPTS {
                    return Err(error);
                }
                std::thread::sleep(settings.pause * 2_u32.pow(fruitless - 1));
            }
        }
    }
    partial.finish(file, &path)?;
    on_progress(file.size_bytes);
    Ok(path)
}

/// Whether the file exists with the right hash; removes a damaged copy.
fn is_whole(
    path: &Path,
    file: &RemoteFile,
    on_progress: &mut dyn FnMut(u64),
) -> std::io::Result<bool> {
    let mut opened = match files::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut hasher = Hasher::new(file);
    let length = opened.metadata()?.len();
    if length == file.size_bytes {
        hasher.read(&mut opened, on_progress)?;
        if hasher.hex() == file.checksum.hex() {
            return Ok(true);
        }
    }
    std::fs::remove_file(path).map(|()| false)
}

/// The hash that the Hub lists for a file.
#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        match file.checksum {
            Checksum::Sha256(_) => Self::Sha256(Sha256::new()),
            Checksum::GitBlob(_) => {
                Self::GitBlob(Sha1::new_with_prefix(format!("blob {}\0", file.size_bytes)))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
        }
    }

    fn read(&mut self, from: &mut File, on_progress: &mut dyn FnMut(u64)) -> std::io::Result<()> {
        let (mut buffer, mut done) = (vec![0; 1 << 20], 0);
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.update(&buffer[..count]);
            done += count as u64;
            on_progress(done);
        }
    }

    fn hex(&self) -> String {
        match self {
            Self::Sha256(hash) => crate::format::hex(&hash.clone().finalize()),
            Self::GitBlob(hash) => crate::format::hex(&hash.clone().finalize()),
        }
    }
}

/// A partial download, locked by this process; appended to.
struct PartialDownload {
    path: PathBuf,
    file: File,
    /// Covers all its bytes; `fresh` has hashed none.
    hasher: Hasher,
    fresh: Hasher,
    length: u64,
}

impl PartialDownload {
    /// Opens a previous partial download; drops bytes beyond the file's size.
    fn open(path: PathBuf, listed: &RemoteFile) -> Result<Self, PullError> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(PullError::disk(&path))?;
        let shown = path.display();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PullError::Other(format!(
                    "{shown} is being fetched by another process; wait for it, or end it"
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(PullError::Other(format!(
                    "cannot lock {shown}: {error}; its file system has no locks: set HF_HOME to a folder on another one, or mount it with locks"
                )));
            }
        }
        let fresh = Hasher::new(listed);
        let mut hasher = fresh.clone();
        let length =
            read_back(&mut file, &mut hasher, listed.size_bytes).map_err(PullError::disk(&path))?;
        Ok(Self {
            path,
            file,
            hasher,
            fresh,
            length,
        })
    }

    fn begin_anew(&mut self) -> Result<(), PullError> {
        self.hasher = self.fresh.clone();
        self.length = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(PullError::disk(&self.path))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file
            .write_all(bytes)
            .map_err(PullError::disk(&self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Renames the complete file; removes it if its hash is wrong.
    fn finish(self, file: &RemoteFile, path: &Path) -> Result<(), PullError> {
        let (found, expected) = (self.hasher.hex(), file.checksum.hex());
        if found != expected {
            let _ = std::fs::remove_file(&self.path);
            let kind = match file.checksum {
                Checksum::Sha256(_) => "SHA-256",
                Checksum::GitBlob(_) => "git hash (SHA-1)",
            };
            return Err(PullError::Other(format!(
                "{}: its {kind} is {found}, the model's list says {expected}; it was removed: run the same command again",
                file.name
            )));
        }
        let named = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, path));
        named
            .and_then(|()| files::sync_folder(path.parent().unwrap_or(path)))
            .map_err(PullError::disk(&self.path))
    }
}

/// Why an attempt ended early.
enum AttemptError {
    Broken(PullError),
    /// Retrying is useless.
    ForGood(PullError),
}

/// Appends the server's bytes from the end of `partial` on.
fn continue_at(
    client: &Client,
    settings: &PullSettings,
    url: &str,
    file: &RemoteFile,
    partial: &mut PartialDownload,
    on_progress: &mut dyn FnMut(u64),
) -> Result<(), AttemptError> {
    let broken = |problem| AttemptError::Broken(PullError::broken(url, problem));
    let response = client
        .get(url, partial.length)
        .map_err(AttemptError::Broken)?;
    match response.status().as_u16() {
        206 if start_of_range(&response) == Some(partial.length) => {}
        // A server without range support starts over.
        200 => partial.begin_anew().map_err(AttemptError::ForGood)?,
        status @ (408 | 429 | 500..=599) => {
            return Err(AttemptError::Broken(client.status_error(url, status)));
        }
        206 => {
            return Err(broken(
                "the server sent a different range than requested".to_owned(),
            ));
        }
        status => return Err(AttemptError::ForGood(client.status_error(url, status))),
    }
    let mut body = StallGuard::new(response.into_body().into_reader(), settings);
    let mut buffer = vec![0; 1 << 20];
    loop {
        // Bytes received before a network error are kept.
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(words(&error))),
        };
        if partial.length + count as u64 > file.size_bytes {
            let problem = format!(
                "the server sends more than the {} bytes in the model's list",
                file.size_bytes
            );
            return Err(AttemptError::ForGood(PullError::Listing {
                name: file.name.clone(),
                problem,
            }));
        }
        partial
            .append(&buffer[..count])
            .map_err(AttemptError::ForGood)?;
        on_progress(partial.length);
    }
    if partial.length < file.size_bytes {
        return Err(broken(format!(
            "the server closed the connection after {} of {} bytes",
            partial.length, file.size_bytes
        )));
    }
    Ok(())
}

/// First byte of a partial response.
fn start_of_range(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Hashes a previous partial download and drops an impossible one. Returns its length.
fn read_back(out: &mut File, hasher: &mut Hasher, most: u64) -> std::io::Result<u64> {
    let length = out.metadata()?.len();
    if length > most {
        out.set_len(0)?;
        return Ok(0);
    }
    hasher.read(out, &mut |_| ())?;
    Ok(length)
}
