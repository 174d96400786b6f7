//! Compression of complete rollout files: one zstd frame per step, so that single steps can be
//! read, and a table of frames at the end.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::files::{self, Access, Sync, failpoint, torn_write};
use crate::run::error::RunError;
use crate::run::storage::durable::sync_folder;

/// Takes negligible time compared with a training step.
const LEVEL: i32 = 3;

/// Magic number of a skippable zstd frame, which contains the table.
const SKIPPABLE: u32 = 0x184D_2A50;

/// The last bytes of a file: with a checksum of the table, and as older programs wrote them.
const TAG: [u8; 4] = *b"GTR2";
const OLDER_TAG: [u8; 4] = *b"GTR1";
/// Checksum of the table, in hexadecimal digits.
const SUM_BYTES: u64 = 16;

/// Larger frames are refused as hostile.
const MAX_STEP_BYTES: u64 = 4 << 30;

pub(in crate::run) fn compressed_path(plain: &Path) -> PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(".zst");
    name.into()
}

/// Compresses a complete file. The plain file stays until the compressed one is durable, and counts
/// while both exist.
pub(super) fn compress(
    plain: &Path,
    step_of: impl Fn(&[u8]) -> Option<u64>,
) -> Result<(), RunError> {
    let target = compressed_path(plain);
    replace(&target, |file| write_frames(plain, file, step_of))?;
    failpoint("rollouts.both", "compress");
    std::fs::remove_file(plain).map_err(RunError::io("remove", plain))?;
    sync_folder(plain.parent().unwrap_or(plain))
}

pub(super) fn expand(plain: &Path, step: u64) -> Result<(), RunError> {
    let source = compressed_path(plain);
    let frames = frames(&source).map_err(RunError::io("read", &source))?;
    replace(plain, |target| {
        let mut target = BufWriter::new(target);
        match &frames {
            Some(frames) => {
                for frame in frames.iter().filter(|frame| frame.step <= step) {
                    std::io::copy(&mut open_frame(&source, frame)?, &mut target)?;
                }
            }
            // Without a table the whole file is decompressed; the caller truncates it.
            None => drop(std::io::copy(
                &mut zstd::stream::read::Decoder::new(files::open(&source)?)?,
                &mut target,
            )?),
        }
        target.flush()
    })?;
    failpoint("rollouts.both", "expand");
    std::fs::remove_file(&source).map_err(RunError::io("remove", &source))?;
    sync_folder(plain.parent().unwrap_or(plain))
}

/// Opens the lines of one step, or of the whole file if its table is damaged.
pub(super) fn open_step(path: &Path, step: u64) -> std::io::Result<Box<dyn BufRead>> {
    match frames(path)? {
        Some(frames) => match frames.into_iter().find(|frame| frame.step == step) {
            Some(frame) => Ok(Box::new(BufReader::new(open_frame(path, &frame)?))),
            None => Ok(Box::new(std::io::empty())),
        },
        None => Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::new(
            files::open(path)?,
        )?))),
    }
}

fn replace(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), RunError> {
    files::replace_file_with(path, Access::Private, Sync::Disk, fill)
        .map_err(RunError::io("write", path))
}

#[derive(Debug)]
pub(in crate::run) struct Frame {
    pub(in crate::run) step: u64,
    pub(in crate::run) offset: u64,
    pub(in crate::run) length: u64,
}

fn write_frames(
    plain: &Path,
    file: &mut File,
    step_of: impl Fn(&[u8]) -> Option<u64>,
) -> std::io::Result<()> {
    let mut source = BufReader::with_capacity(1 << 18, files::open(plain)?);
    let mut file = BufWriter::new(file);
    let mut frames: Vec<Frame> = Vec::new();
    let (mut line, mut bytes, mut offset) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        let whole = source.read_until(b'\n', &mut line)? > 0;
        let step = if whole { step_of(&line) } else { None };
        // A line without a step belongs to the previous step.
        let new = step.is_some_and(|step| frames.last().is_none_or(|frame| frame.step != step));
        if (new || !whole)
            && let Some(frame) = frames.last_mut()
        {
            let packed = pack(&bytes)?;
            torn_write("rollouts.half", "", &packed, |half| {
                drop(file.write_all(half).and_then(|()| file.flush()))
            });
            file.write_all(&packed)?;
            (frame.offset, frame.length) = (offset, packed.len() as u64);
            offset += frame.length;
            bytes.clear();
        }
        if !whole {
            break;
        }
        if let Some(step) = step.filter(|_| new) {
            frames.push(Frame {
                step,
                offset: 0,
                length: 0,
            });
        }
        bytes.extend_from_slice(&line);
    }
    file.write_all(&table(&frames))?;
    file.flush()
}

fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut frame = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    frame.include_checksum(true)?;
    frame.write_all(bytes)?;
    frame.finish()
}

fn table(frames: &[Frame]) -> Vec<u8> {
    let mut content: Vec<u8> = frames
        .iter()
        .flat_map(|frame| [frame.step, frame.offset, frame.length])
        .flat_map(u64::to_le_bytes)
        .collect();
    content.extend(files::sum(&content).into_bytes());
    content.extend((frames.len() as u32).to_le_bytes());
    content.extend(TAG);
    [
        &SKIPPABLE.to_le_bytes()[..],
        &(content.len() as u32).to_le_bytes()[..],
        &content,
    ]
    .concat()
}

/// `None` without a valid table.
pub(in crate::run) fn frames(path: &Path) -> std::io::Result<Option<Vec<Frame>>> {
    let file = files::open(path)?;
    let length = file.metadata()?.len();
    let mut end = [0u8; 8];
    if length < 16 || file.read_exact_at(&mut end, length - 8).is_err() {
        return Ok(None);
    }
    let count = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    let sum_bytes = match &end[4..] {
        tag if tag == TAG => SUM_BYTES,
        tag if tag == OLDER_TAG => 0,
        _ => return Ok(None),
    };
    let Some(start) = length.checked_sub(16 + 24 * count + sum_bytes) else {
        return Ok(None);
    };
    let mut bytes = vec![0u8; (length - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    let head: Vec<u8> = [
        SKIPPABLE.to_le_bytes(),
        ((24 * count + sum_bytes + 8) as u32).to_le_bytes(),
    ]
    .concat();
    let (table, sum) = bytes[..bytes.len() - 8].split_at(8 + 24 * count as usize);
    if table[..8] != head || (sum_bytes > 0 && sum != files::sum(&table[8..]).as_bytes()) {
        return Ok(None);
    }
    let numbers: Vec<u64> = table[8..]
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .collect();
    let frames: Vec<Frame> = numbers
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[step, offset, length]| Frame {
            step: *step,
            offset: *offset,
            length: *length,
        })
        .collect();
    let fits = frames.iter().all(|frame| {
        frame
            .offset
            .checked_add(frame.length)
            .is_some_and(|end| end <= start)
    });
    Ok(fits.then_some(frames))
}

fn open_frame(path: &Path, frame: &Frame) -> std::io::Result<impl Read + use<>> {
    let mut file = files::open(path)?;
    file.seek(SeekFrom::Start(frame.offset))?;
    Ok(zstd::stream::read::Decoder::new(file.take(frame.length))?.take(MAX_STEP_BYTES))
}
