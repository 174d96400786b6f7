//! Text search through all rollouts of runs, on every core.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use regex::bytes::Regex as BytesRegex;
use serde::Deserialize;

use crate::facts::TierOutcome;
use crate::files;
use crate::run::error::RunError;
use crate::run::record::rollout_zst::{compressed_path, frames};
use crate::run::record::rollouts::{rollout_file, rollout_segments, step_of};

/// Compressed bytes that are decompressed at once: enough to keep a decoder busy, few enough to share among cores.
const PIECE_BYTES: u64 = 128 << 10;
/// Decompressed bytes that are searched at once, unless a line is longer.
const BLOCK_BYTES: usize = 1 << 20;
/// A longer line is hostile.
const MAX_LINE_BYTES: usize = 256 << 20;

/// A text to find, literally: without regard to case unless it has an upper-case letter.
#[derive(Debug, Clone)]
pub struct TextSearch {
    text: regex::Regex,
    /// As JSON writes it: completions are searched without being parsed.
    raw: BytesRegex,
    /// The JSON before a completion's text.
    completion: BytesRegex,
}

/// A completion that contains the text.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// The index of the run among those searched.
    pub run: usize,
    pub step: u64,
    pub prompt_id: String,
    /// The sample of that prompt, from 0.
    pub sample: usize,
    pub text: String,
    /// The bytes of the first match in `text`.
    pub at: std::ops::Range<usize>,
    pub reward: Option<f64>,
    /// `None` if unknown.
    pub tier: Option<TierOutcome>,
    pub exact: Option<bool>,
    /// The scorer's reasons.
    pub errors: Vec<String>,
}

/// The hits in one piece of the files.
#[derive(Debug, Default)]
pub struct SearchBatch {
    /// Only of the first matches; see [`search_rollouts`].
    pub hits: Vec<SearchHit>,
    /// Completions that contain the text, however often.
    pub matches: usize,
    /// Completions searched.
    pub completions: usize,
    pub decompressed_bytes: u64,
    /// Why the piece could not be read.
    pub problem: Option<String>,
    /// The share of the files that was searched, with this piece.
    pub progress: f64,
}

impl SearchHit {
    /// By run, step, prompt and sample.
    pub fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        let key = |hit: &Self| (hit.run, hit.step);
        key(a)
            .cmp(&key(b))
            .then_with(|| a.prompt_id.cmp(&b.prompt_id))
            .then(a.sample.cmp(&b.sample))
    }
}

impl TextSearch {
    /// # Errors
    /// The text is empty or too long to search for.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("enter a text to find".to_owned());
        }
        let folded = !text.chars().any(char::is_uppercase);
        let json = serde_json::Value::from(text).to_string();
        let too_long =
            |_: regex::Error| format!("a text of {} bytes is too long to search for", text.len());
        let literal = |text: &str| {
            regex::bytes::RegexBuilder::new(&regex::escape(text))
                .case_insensitive(folded)
                .build()
        };
        Ok(Self {
            text: regex::RegexBuilder::new(&regex::escape(text))
                .case_insensitive(folded)
                .build()
                .map_err(too_long)?,
            raw: literal(&json[1..json.len() - 1]).map_err(too_long)?,
            completion: BytesRegex::new(r#"\{"text":""#).map_err(too_long)?,
        })
    }

    /// Whether a text contains it, as JSON writes that text.
    fn is_in(&self, json: &[u8]) -> bool {
        let mut from = 0;
        while let Some(found) = self.raw.find_at(json, from) {
            if !is_inside_escape(json, found.start()) {
                return true;
            }
            from = found.start() + 1;
        }
        false
    }
}

/// Whether `at` is inside a sequence such as `\n` or `\u001b` of a JSON string.
fn is_inside_escape(json: &[u8], at: usize) -> bool {
    (1..=at.min(5)).any(|back| {
        let start = at - back;
        let escaped = json[..start]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count()
            % 2
            == 1;
        let length = if json.get(start + 1) == Some(&b'u') {
            6
        } else {
            2
        };
        json[start] == b'\\' && !escaped && back < length
    })
}

/// Where a JSON string that begins at `from` ends: at its closing quote.
fn string_end(json: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < json.len() && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    at.min(json.len())
}

/// Searches the completions of all steps that `runs` still have. All matches are counted; the first `most`, in
/// [`SearchHit::order`], come as hits, with some more. `take` gets what each piece of the files contained, in any order
/// and from several threads; once it returns false the search ends.
///
/// # Errors
/// [`RunError::Io`] naming a folder of rollouts that cannot be read. A file that cannot be read is a
/// [`SearchBatch::problem`], and the others are searched.
pub fn search_rollouts(
    runs: &[PathBuf],
    search: &TextSearch,
    most: usize,
    take: &(dyn Fn(SearchBatch) -> bool + Sync),
) -> Result<(), RunError> {
    let pieces = pieces(runs)?;
    let all: u64 = pieces.iter().map(|piece| piece.length).sum();
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(SearchProgress {
        hits: vec![None; pieces.len()],
        ..SearchProgress::default()
    });
    // The pieces before this one have the first `most` matches.
    let enough = AtomicUsize::new(usize::MAX);
    let work = || {
        while !ended.load(Ordering::Relaxed)
            && let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(piece) = pieces.get(index)
        {
            let mut batch = SearchBatch::default();
            let most_here = if index < enough.load(Ordering::Relaxed) {
                most
            } else {
                0
            };
            if let Err(error) = piece.search(search, most_here, &mut batch) {
                batch.problem = Some(format!("{}: {error}", piece.path.display()));
            }
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.bytes += piece.length;
            batch.progress = done.bytes as f64 / all.max(1) as f64;
            done.hits[index] = Some(batch.hits.len());
            if done.hits_in_order() >= most {
                enough.store(done.leading, Ordering::Relaxed);
            }
            // Under the lock, so that progress is in order.
            if !take(batch) {
                ended.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(pieces.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| _ = scope.spawn(work));
        work();
    });
    Ok(())
}

/// The pieces searched so far, and their hits.
#[derive(Default)]
struct SearchProgress {
    bytes: u64,
    /// By piece.
    hits: Vec<Option<usize>>,
    /// Pieces before the first that is not done.
    leading: usize,
    /// Hits in these pieces.
    leading_hits: usize,
}

impl SearchProgress {
    fn hits_in_order(&mut self) -> usize {
        while let Some(Some(hits)) = self.hits.get(self.leading) {
            self.leading_hits += hits;
            self.leading += 1;
        }
        self.leading_hits
    }
}

/// A file, or whole frames of a compressed one: all groups of its steps.
struct Piece {
    run: usize,
    path: PathBuf,
    offset: u64,
    length: u64,
    compressed: bool,
}

fn pieces(runs: &[PathBuf]) -> Result<Vec<Piece>, RunError> {
    let mut pieces = Vec::new();
    for (run, folder) in runs.iter().enumerate() {
        for segment in rollout_segments(folder)? {
            let plain = folder.join(rollout_file(segment.last_step));
            let path = if segment.compressed {
                compressed_path(&plain)
            } else {
                plain
            };
            let whole = |path: &Path| Piece {
                run,
                path: path.to_owned(),
                offset: 0,
                length: segment.bytes,
                compressed: segment.compressed,
            };
            let Some(frames) = segment
                .compressed
                .then(|| frames(&path).ok().flatten())
                .flatten()
            else {
                pieces.push(whole(&path));
                continue;
            };
            let mut open: Option<Piece> = None;
            for frame in frames {
                match &mut open {
                    Some(piece)
                        if piece.length < PIECE_BYTES
                            && piece.offset + piece.length == frame.offset =>
                    {
                        piece.length += frame.length;
                    }
                    _ => pieces.extend(open.replace(Piece {
                        offset: frame.offset,
                        length: frame.length,
                        ..whole(&path)
                    })),
                }
            }
            pieces.extend(open);
        }
    }
    Ok(pieces)
}

impl Piece {
    /// Matches after the first `most` and those of the same step are only counted.
    fn search(
        &self,
        search: &TextSearch,
        most: usize,
        batch: &mut SearchBatch,
    ) -> std::io::Result<()> {
        let opened = files::open(&self.path);
        // Meanwhile a worker may have replaced the plain file by the compressed one.
        let (file, compressed) = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.compressed => {
                (files::open(&compressed_path(&self.path))?, true)
            }
            opened => (opened?, self.compressed),
        };
        let part = Part {
            file: &file,
            offset: self.offset,
            left: if compressed == self.compressed {
                self.length
            } else {
                u64::MAX
            },
        };
        match compressed {
            // A decoder continues to the next frame.
            true => self.blocks(zstd::stream::read::Decoder::new(part)?, search, most, batch),
            false => self.blocks(part, search, most, batch),
        }
    }

    /// Searches whole lines, a block at a time; a torn last line is left out.
    fn blocks(
        &self,
        mut reader: impl Read,
        search: &TextSearch,
        most: usize,
        batch: &mut SearchBatch,
    ) -> std::io::Result<()> {
        let (mut block, mut filled) = (vec![0u8; BLOCK_BYTES], 0);
        loop {
            if filled == block.len() {
                if filled >= MAX_LINE_BYTES {
                    return Err(std::io::Error::other("a line is too long"));
                }
                block.resize(filled * 2, 0);
            }
            let count = reader.read(&mut block[filled..])?;
            filled += count;
            if count > 0 && filled < block.len() {
                continue;
            }
            let Some(end) = block[..filled]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map(|end| end + 1)
            else {
                if count == 0 {
                    return Ok(());
                }
                continue;
            };
            self.completions(&block[..end], search, most, batch);
            batch.decompressed_bytes += end as u64;
            block.copy_within(end..filled, 0);
            filled -= end;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn completions(&self, block: &[u8], search: &TextSearch, most: usize, batch: &mut SearchBatch) {
        // The end of the line whose hits were taken.
        let (mut at, mut taken) = (0, 0);
        while let Some(found) = search.completion.find_at(block, at) {
            at = string_end(block, found.end());
            batch.completions += 1;
            if !search.is_in(&block[found.end()..at]) {
                continue;
            }
            batch.matches += 1;
            let last_step = batch
                .hits
                .last()
                .map(|hit| hit.step)
                .filter(|_| batch.hits.len() >= most);
            if most == 0 || at < taken {
                continue;
            }
            let begin = block[..at]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            taken = block[at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(block.len(), |length| at + length);
            let line = &block[begin..taken];
            if files::check(line) == files::Checked::Damaged {
                let path = self.path.display();
                batch.problem = Some(format!("{path}: a group does not match its checksum"));
                continue;
            }
            // A line that cannot be parsed is damaged; the screens that show its step say so.
            if last_step.is_none_or(|step| step_of(line) == Some(step))
                && let Ok(group) = serde_json::from_slice::<Group>(line)
            {
                batch.hits.extend(group.hits(self.run, search));
            }
        }
    }
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A line of a rollout file, without tokens.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Group {
    step: u64,
    prompt_id: String,
    completions: Vec<Completion>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Completion {
    text: String,
    reward: Option<f64>,
    score: serde_json::Value,
}

impl Group {
    fn hits(self, run: usize, search: &TextSearch) -> impl Iterator<Item = SearchHit> {
        let (step, prompt_id) = (self.step, self.prompt_id);
        self.completions
            .into_iter()
            .enumerate()
            .filter_map(move |(sample, completion)| {
                let Completion {
                    text,
                    reward,
                    score,
                } = completion;
                let errors = score["errors"].as_array().into_iter().flatten();
                let errors =
                    errors.filter_map(|error| {
                        let place = error["instance_path"]
                            .as_str()
                            .filter(|place| !place.is_empty());
                        let message = error["message"].as_str()?;
                        Some(place.map_or_else(
                            || message.to_owned(),
                            |place| format!("{place}: {message}"),
                        ))
                    });
                Some(SearchHit {
                    run,
                    step,
                    prompt_id: prompt_id.clone(),
                    sample,
                    at: search.text.find(&text)?.range(),
                    reward,
                    tier: match reward.is_some_and(f64::is_finite) {
                        true => score["tier"].as_str().and_then(TierOutcome::from_name),
                        false => Some(TierOutcome::NotScored),
                    },
                    exact: score["exact"].as_bool(),
                    errors: errors.collect(),
                    text,
                })
            })
    }
}
