//! XXH3 checksums: the digest of a file, and the last field of a JSON line or document, which
//! verifies what precedes it. They detect damage, not forgery.

use std::hash::Hasher;
use std::io::Read;
use std::path::Path;

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::format::hex;

pub const CHECKSUM_FIELD: &str = "xxh3";

const CHUNK_BYTES: usize = 1 << 20;

/// Text around the 16 hex digits of a line's checksum; for an indented document likewise.
const LINE_ENDS: [&str; 2] = [r#","xxh3":""#, r#""}"#];
const DOCUMENT_ENDS: [&str; 2] = [",\n  \"xxh3\": \"", "\"\n}"];
/// As [`LINE_ENDS`], for a TOML file: a comment.
const TOML_ENDS: [&str; 2] = ["# xxh3 ", ""];

/// 128-bit XXH3 of bytes given in pieces; as fast as memory.
#[derive(Clone, Default)]
pub struct Digest(XxHash3_128);

impl std::fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Digest")
    }
}

impl Digest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub fn finish(&self) -> String {
        hex(&self.0.finish_128().to_be_bytes())
    }
}

/// [`sum`] of bytes that come in parts.
#[derive(Clone, Default)]
pub struct Sum(XxHash3_64);

impl std::fmt::Debug for Sum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sum")
    }
}

impl Sum {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub fn finish(&self) -> String {
        hex(&self.0.finish().to_be_bytes())
    }
}

pub fn digest_file(path: &Path) -> std::io::Result<String> {
    let (mut file, mut digest) = (super::open_hidden(path)?, Digest::default());
    let mut buffer = vec![0u8; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            count => digest.update(&buffer[..count]),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Intact,
    /// No checksum: written by an older program.
    Without,
    Damaged,
}

/// Adds the checksum to a JSON object on one line without a line end; other text is unchanged.
pub fn seal_line(line: &mut Vec<u8>) {
    seal(line, b"}", LINE_ENDS);
}

/// Adds the checksum to an indented JSON object; other text is unchanged.
pub fn seal_document(text: &mut Vec<u8>) {
    seal(text, b"\n}", DOCUMENT_ENDS);
}

/// Adds the checksum to TOML, as a comment.
pub fn seal_toml(text: &mut String) {
    let sum = sum(text.as_bytes());
    text.push_str(&format!("{}{sum}\n", TOML_ENDS[0]));
}

fn seal(text: &mut Vec<u8>, closing: &[u8], [before, after]: [&str; 2]) {
    if text.ends_with(closing) && text.len() > closing.len() + 1 {
        text.truncate(text.len() - closing.len());
        let sum = sum(text);
        text.extend_from_slice(before.as_bytes());
        text.extend_from_slice(sum.as_bytes());
        text.extend_from_slice(after.as_bytes());
    }
}

/// 64-bit XXH3 as 16 hex digits.
pub fn sum(bytes: &[u8]) -> String {
    hex(&XxHash3_64::oneshot(bytes).to_be_bytes())
}

/// Verifies a line, an indented document or a TOML file; trailing white space is ignored.
pub fn check(text: &[u8]) -> Checked {
    let text = text.trim_ascii_end();
    let found = [LINE_ENDS, DOCUMENT_ENDS, TOML_ENDS].map(|ends| check_ends(text, ends));
    [Checked::Intact, Checked::Damaged]
        .into_iter()
        .find(|checked| found.contains(checked))
        .unwrap_or(Checked::Without)
}

fn check_ends(text: &[u8], [before, after]: [&str; 2]) -> Checked {
    const DIGITS: usize = 16;
    let (start, end) = (before.len(), before.len() + DIGITS);
    let Some(at) = text.len().checked_sub(end + after.len()) else {
        return Checked::Without;
    };
    let (content, tail) = text.split_at(at);
    let agreeing = |found: &[u8], expected: &str| {
        let pairs = found.iter().zip(expected.as_bytes());
        pairs.filter(|(found, expected)| found == expected).count()
    };
    let agreed = agreeing(&tail[..start], before) + agreeing(&tail[end..], after);
    match agreed {
        all if all == start + after.len() => match sum(content).as_bytes() == &tail[start..end] {
            true => Checked::Intact,
            false => Checked::Damaged,
        },
        // No other field of a record looks like it.
        most if 3 * most >= 2 * (start + after.len()) => Checked::Damaged,
        _ => Checked::Without,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_found() {
        let mut line = br#"{"step":1,"reward":0.25}"#.to_vec();
        seal_line(&mut line);
        let mut document = b"{\n  \"step\": 1,\n  \"more\": {}\n}".to_vec();
        seal_document(&mut document);
        let mut toml = "step = 1\n[more]\nname = \"a\"\n".to_owned();
        seal_toml(&mut toml);
        for text in [&line, &document] {
            let value: serde_json::Value = serde_json::from_slice(text).unwrap();
            let last = value.as_object().unwrap().iter().next_back().unwrap();
            assert_eq!(last.0, CHECKSUM_FIELD);
        }
        for text in [line, document, toml.trim_end().as_bytes().to_vec()] {
            assert_eq!(check(&text), Checked::Intact);
            for at in 0..text.len() {
                for bit in 0..8 {
                    let mut text = text.clone();
                    text[at] ^= 1 << bit;
                    let trailing = at + 1 == text.len() && text[at].is_ascii_whitespace();
                    assert!(trailing || check(&text) == Checked::Damaged, "byte {at}");
                }
            }
        }
        for older in ["", "{}", r#"{"step":1}"#, "{\n  \"step\": 1\n}", "a = 1\n"] {
            assert_eq!(check(older.as_bytes()), Checked::Without, "{older}");
        }
    }

    #[test]
    fn the_digest_of_a_file_is_that_of_its_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut digest = Digest::default();
        bytes.chunks(1234).for_each(|piece| digest.update(piece));
        assert_eq!(digest_file(&path).unwrap(), digest.finish());
        assert_eq!(digest.finish().len(), 32);
    }
}
