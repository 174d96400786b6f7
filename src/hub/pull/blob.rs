//! One file on its way into the cache: resumed where it stopped, checked before it has its name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::listing::Listed;
use super::{PullError, PullSettings};

/// Attempts in a row that bring nothing new before it is given up.
const ATTEMPTS: u32 = 5;

/// Fetches `file` from `url` into `blobs` and returns its path there. `told` hears how many of its bytes are here.
pub(super) fn fetch(
    client: &Client,
    settings: &PullSettings,
    url: &str,
    file: &Listed,
    blobs: &Path,
    told: &mut dyn FnMut(u64),
) -> Result<PathBuf, PullError> {
    let path = blobs.join(&file.blob);
    if path.metadata().is_ok_and(|metadata| metadata.len() == file.size_bytes) {
        return Ok(path);
    }
    let partial = blobs.join(format!("{}.incomplete", file.blob));
    let disk = |source| PullError::Disk { path: partial.clone(), source };
    let mut out = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&partial).map_err(disk)?;
    if out.try_lock().is_err() {
        return Err(PullError::Busy { path: partial });
    }
    let mut hasher = Sha256::new();
    let mut length = read_back(&mut out, &mut hasher, file.size_bytes).map_err(disk)?;
    let mut fruitless = 0;
    while length < file.size_bytes {
        told(length);
        let before = length;
        match continue_at(client, url, file, &mut out, &mut hasher, &mut length, told) {
            Ok(()) => {}
            Err(Ended::ForGood(error)) => return Err(error),
            Err(Ended::Broken(error)) => {
                fruitless = if length > before { 1 } else { fruitless + 1 };
                if fruitless >= ATTEMPTS {
                    return Err(error);
                }
                std::thread::sleep(settings.pause * 2_u32.pow(fruitless - 1));
            }
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != found) {
        let _ = std::fs::remove_file(&partial);
        return Err(PullError::Damaged {
            file: file.name.clone(),
            problem: format!("its SHA-256 is {found}, the model's list says {expected}"),
        });
    }
    out.sync_all().map_err(disk)?;
    std::fs::rename(&partial, &path).map_err(disk)?;
    told(length);
    Ok(path)
}

/// Why an attempt ended before the file did.
enum Ended {
    /// Another attempt may go on from here.
    Broken(PullError),
    /// It would end the same way.
    ForGood(PullError),
}

/// Appends what the server sends from byte `length` on.
fn continue_at(
    client: &Client,
    url: &str,
    file: &Listed,
    out: &mut File,
    hasher: &mut Sha256,
    length: &mut u64,
    told: &mut dyn FnMut(u64),
) -> Result<(), Ended> {
    let broken = |problem: String| Ended::Broken(PullError::Network { url: url.to_owned(), problem, hint: String::new() });
    let disk = |source| Ended::ForGood(PullError::Disk { path: PathBuf::from(&file.name), source });
    let response = client.get(url, *length).map_err(Ended::Broken)?;
    let starts_there = |response: &ureq::http::Response<ureq::Body>| {
        let range = response.headers().get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
        range.strip_prefix("bytes ").and_then(|range| range.split('-').next()).and_then(|start| start.parse().ok()) == Some(*length)
    };
    match response.status().as_u16() {
        206 if starts_there(&response) => {}
        // A server that cannot go on in the middle begins anew.
        200 => {
            *hasher = Sha256::new();
            *length = 0;
            out.set_len(0).map_err(disk)?;
        }
        status @ (408 | 429 | 500..=599) => return Err(Ended::Broken(client.refused(url, status))),
        206 => return Err(broken("the server sent another part than was asked for".to_owned())),
        status => return Err(Ended::ForGood(client.refused(url, status))),
    }
    out.seek(SeekFrom::Start(*length)).map_err(disk)?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 20];
    loop {
        // A network error in the middle: what came before it is kept.
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(words(&error))),
        };
        if *length + count as u64 > file.size_bytes {
            let problem = format!("the server sends more than the {} bytes of the model's list", file.size_bytes);
            return Err(Ended::ForGood(PullError::Listing { name: file.name.clone(), problem }));
        }
        out.write_all(&buffer[..count]).map_err(disk)?;
        hasher.update(&buffer[..count]);
        *length += count as u64;
        told(*length);
    }
    if *length < file.size_bytes {
        return Err(broken(format!("the server ended after {length} of {} bytes", file.size_bytes)));
    }
    Ok(())
}

fn words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Timeout(_)) => "the server stalls".to_owned(),
        _ if error.kind() == std::io::ErrorKind::TimedOut || error.kind() == std::io::ErrorKind::WouldBlock => {
            "the server stalls".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Hashes what an earlier attempt left; what cannot be a beginning of the file is dropped. Returns how many bytes are there.
fn read_back(out: &mut File, hasher: &mut Sha256, most: u64) -> std::io::Result<u64> {
    let length = out.metadata()?.len();
    if length > most {
        out.set_len(0)?;
        return Ok(0);
    }
    out.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match out.read(&mut buffer)? {
            0 => return Ok(length),
            count => hasher.update(&buffer[..count]),
        }
    }
}
