//! One file on its way into the cache: resumed where it stopped, checked before it has its name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::listing::{Checksum, RemoteFile};
use super::stall_guard::{StallGuard, words};
use super::{PullError, PullSettings};
use crate::files;

/// Attempts in a row that bring next to nothing before it is given up.
const ATTEMPTS: u32 = 5;
/// Less than this is next to nothing.
const WORTH_BYTES: u64 = 1 << 20;

/// Fetches `file` from `url` into `blobs` and returns its path there. `on_progress` gets the bytes received.
pub(super) fn fetch(
    client: &Client,
    settings: &PullSettings,
    url: &str,
    file: &RemoteFile,
    blobs: &Path,
    on_progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, PullError> {
    let path = blobs.join(file.checksum.hex());
    if is_whole(&path, file, on_progress).map_err(|source| PullError::Disk {
        path: path.clone(),
        source,
    })? {
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
                // Counted by bytes, so that one that sends a few and hangs up is not asked for ever.
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

/// Whether the file is there already, by its hash: a copy that was damaged or exchanged is removed and fetched again.
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

    /// Hashes `from` to its end; `on_progress` gets the bytes hashed.
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

/// A partly downloaded file, locked while this process fetches it; the next byte is appended.
struct PartialDownload {
    path: PathBuf,
    file: File,
    /// Hashes all its bytes; `fresh` has hashed none.
    hasher: Hasher,
    fresh: Hasher,
    length: u64,
}

impl PartialDownload {
    /// Opens the remains of an earlier attempt; more bytes than the file has are dropped.
    fn open(path: PathBuf, listed: &RemoteFile) -> Result<Self, PullError> {
        let disk = |source| PullError::Disk {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(disk)?;
        if file.try_lock().is_err() {
            return Err(PullError::Busy { path });
        }
        let fresh = Hasher::new(listed);
        let mut hasher = fresh.clone();
        let length = read_back(&mut file, &mut hasher, listed.size_bytes).map_err(disk)?;
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
            .map_err(|source| self.disk(source))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file
            .write_all(bytes)
            .map_err(|source| self.disk(source))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Gives the whole file its name; one that is not what was promised is removed.
    fn finish(self, file: &RemoteFile, path: &Path) -> Result<(), PullError> {
        let (found, expected) = (self.hasher.hex(), file.checksum.hex());
        if found != expected {
            let _ = std::fs::remove_file(&self.path);
            let kind = match file.checksum {
                Checksum::Sha256(_) => "SHA-256",
                Checksum::GitBlob(_) => "git hash (SHA-1)",
            };
            let problem = format!("its {kind} is {found}, the model's list says {expected}");
            return Err(PullError::Damaged {
                file: file.name.clone(),
                problem,
            });
        }
        let named = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, path));
        named
            .and_then(|()| files::sync_folder(path.parent().unwrap_or(path)))
            .map_err(|source| self.disk(source))
    }

    fn disk(&self, source: std::io::Error) -> PullError {
        PullError::Disk {
            path: self.path.clone(),
            source,
        }
    }
}

/// Why an attempt ended before the file did.
enum AttemptError {
    /// Another attempt may continue from here.
    Broken(PullError),
    /// It would end the same way.
    ForGood(PullError),
}

/// Appends what the server sends from the end of `partial` on.
fn continue_at(
    client: &Client,
    settings: &PullSettings,
    url: &str,
    file: &RemoteFile,
    partial: &mut PartialDownload,
    on_progress: &mut dyn FnMut(u64),
) -> Result<(), AttemptError> {
    let broken = |problem: String| {
        AttemptError::Broken(PullError::Network {
            url: url.to_owned(),
            problem,
            hint: String::new(),
        })
    };
    let response = client
        .get(url, partial.length)
        .map_err(AttemptError::Broken)?;
    match response.status().as_u16() {
        206 if start_of_range(&response) == Some(partial.length) => {}
        // A server that cannot continue in the middle starts over.
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
        // A network error in the middle: what came before it is kept.
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

/// The first byte that an answer with a part says it begins at.
fn start_of_range(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Hashes what an earlier attempt left; what cannot be a beginning of the file is dropped. Returns how many bytes are
/// there.
fn read_back(out: &mut File, hasher: &mut Hasher, most: u64) -> std::io::Result<u64> {
    let length = out.metadata()?.len();
    if length > most {
        out.set_len(0)?;
        return Ok(0);
    }
    hasher.read(out, &mut |_| ())?;
    Ok(length)
}
