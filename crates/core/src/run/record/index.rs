//! `events.index`: the folded state of a long log up to a position, so that only later events need
//! to be read. It may be deleted at any time.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::history::RunState;
use super::reader::Position;
use super::series::Series;
use crate::files::{self, Access, Sync, failpoint};
use crate::run::storage::directory::sha256;
use crate::run::storage::durable::ensure_folder;

/// An index is written after folding this many bytes.
pub(super) const WORTH_BYTES: u64 = 1 << 20;

/// The first line. The number changes with the layout and with the fold.
const HEAD: &[u8] = b"grpo-tui events.index 7\n";

/// Number of bytes before the position that identify the log.
const FINGERPRINT_BYTES: u64 = 4096;

/// A metric: name, stretches, and number of values.
type Column = (String, Vec<(u64, usize)>, usize);

/// JSON before the columns.
#[derive(Serialize, Deserialize)]
struct Header<S> {
    position: Position,
    /// SHA-256 of the log's bytes just before `position`.
    fingerprint: String,
    state: S,
    columns: Vec<Column>,
}

pub(super) fn load(run: &Path) -> Option<(RunState, Position)> {
    let log = files::open(&run.join("events.jsonl")).ok()?;
    places(run)
        .into_iter()
        .filter_map(|path| read(&path, &log))
        .max_by_key(|(_, position)| position.offset)
}

/// Writes the index next to the log, or to the user's cache if the run belongs to another user or
/// is read-only. Errors are ignored: an index only saves time.
pub(super) fn store(run: &Path, state: &RunState, position: Position) {
    let Ok(log) = files::open(&run.join("events.jsonl")) else {
        return;
    };
    let Some(fingerprint) = fingerprint(&log, position.offset) else {
        return;
    };
    for path in places(run) {
        if writable(run, &path) && write(&path, state, position, &fingerprint).is_ok() {
            return;
        }
    }
}

fn places(run: &Path) -> Vec<PathBuf> {
    let beside = run.join("events.index");
    let cache = directories::ProjectDirs::from("", "", "grpo-tui").zip(run.canonicalize().ok());
    let cached = cache.map(|(folders, run)| {
        let name = sha256(run.as_os_str().as_encoded_bytes());
        folders
            .cache_dir()
            .join("indexes")
            .join(format!("{}.index", &name[..32]))
    });
    std::iter::once(beside).chain(cached).collect()
}

fn writable(run: &Path, path: &Path) -> bool {
    let own = || {
        std::fs::metadata(run)
            .is_ok_and(|folder| folder.uid() == rustix::process::geteuid().as_raw())
    };
    path.parent().is_some_and(|parent| {
        if parent == run {
            own()
        } else {
            ensure_folder(parent).is_ok()
        }
    })
}

fn write(
    path: &Path,
    state: &RunState,
    position: Position,
    fingerprint: &str,
) -> std::io::Result<()> {
    remove_stale_temporaries(path);
    // Not synced: an incomplete index fails its checksum.
    files::replace_file_with(path, Access::Private, Sync::Never, |file| {
        fill(file, state, position, fingerprint)
    })
}

/// Removes temporary files of dead viewers. A live viewer on another host may lose its index.
fn remove_stale_temporaries(path: &Path) {
    let start = format!(
        "{}.",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let Some(entries) = path
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
    else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let writer = name
            .strip_prefix(&*start)
            .and_then(|rest| rest.strip_suffix(".tmp")?.split('.').next());
        if writer.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn fill(
    file: &mut File,
    state: &RunState,
    position: Position,
    fingerprint: &str,
) -> std::io::Result<()> {
    let columns = state.metrics.iter().map(|(name, series)| {
        let (stretches, values) = series.parts();
        (name.clone(), stretches.to_vec(), values.len())
    });
    let header = Header {
        position,
        fingerprint: fingerprint.to_owned(),
        state,
        columns: columns.collect(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut file = BufWriter::new(file);
    file.write_all(HEAD)?;
    let mut frame = zstd::stream::write::Encoder::new(file, 1)?;
    frame.include_checksum(true)?;
    frame.write_all(&(header.len() as u64).to_le_bytes())?;
    frame.write_all(&header)?;
    let mut bytes = Vec::new();
    for series in state.metrics.values() {
        for chunk in series.parts().1.chunks(8192) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            frame.write_all(&bytes)?;
        }
    }
    failpoint("index.half", "");
    frame.finish()?.flush()
}

/// `None` if the index is missing, damaged, or belongs to another version or log.
fn read(path: &Path, log: &File) -> Option<(RunState, Position)> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
        .bits()
        .cast_signed();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    let (own, log_metadata) = (file.metadata().ok()?, log.metadata().ok()?);
    if !own.is_file() {
        return None;
    }
    if own.uid() != log_metadata.uid() && own.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut head = [0u8; HEAD.len()];
    file.read_exact(&mut head).ok()?;
    if head != HEAD {
        return None;
    }
    let mut frame = BufReader::with_capacity(1 << 16, zstd::stream::read::Decoder::new(file).ok()?);
    let length = u64::from_le_bytes(bytes(&mut frame)?);
    // An index is smaller than its log, except for the header, which repeats some lines.
    let most = log_metadata.len();
    if length > most.saturating_mul(2).saturating_add(1 << 20) {
        return None;
    }
    let mut header = Vec::new();
    frame.by_ref().take(length).read_to_end(&mut header).ok()?;
    let header: Header<RunState> = serde_json::from_slice(&header).ok()?;
    let position = header.position;
    if position.offset > most || fingerprint(log, position.offset)? != header.fingerprint {
        return None;
    }
    let values: u64 = header
        .columns
        .iter()
        .map(|(_, _, count)| *count as u64)
        .fold(0, u64::saturating_add);
    if values > most {
        return None;
    }
    let mut state = header.state;
    state.metrics = columns(&mut frame, header.columns)?;
    // Reading to the frame's end verifies the checksum.
    (frame.read(&mut [0u8; 1]).ok()? == 0).then_some((state, position))
}

fn columns(frame: &mut impl Read, columns: Vec<Column>) -> Option<BTreeMap<String, Series>> {
    let mut metrics = BTreeMap::new();
    let mut buffer = vec![0u8; 1 << 16];
    for (name, stretches, count) in columns {
        // Spare capacity for later values.
        let mut values = Vec::with_capacity(count + count / 16);
        let mut left = count * 8;
        while left > 0 {
            let part = left.min(buffer.len());
            frame.read_exact(&mut buffer[..part]).ok()?;
            values.extend(
                buffer[..part]
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|value| f64::from_le_bytes(*value)),
            );
            left -= part;
        }
        metrics.insert(name, Series::from_parts(stretches, values)?);
    }
    Some(metrics)
}

fn bytes<const N: usize>(frame: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0u8; N];
    frame.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn fingerprint(log: &File, offset: u64) -> Option<String> {
    let start = offset.saturating_sub(FINGERPRINT_BYTES);
    let mut bytes = vec![0u8; usize::try_from(offset - start).ok()?];
    log.read_exact_at(&mut bytes, start).ok()?;
    Some(sha256(&bytes))
}
