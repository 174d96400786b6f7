//! A model's digest: SHA-256 over its files, with large weight files sampled evenly.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::{HubError, ModelSource};

/// Files that affect numbers, prompts or ends, if present.
const READ_WHOLE: [&str; 5] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// Larger weight files are sampled.
const SAMPLED_ABOVE_BYTES: u64 = 64 << 20;
/// Blocks hashed besides the header, first and last included.
const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 64 << 10;

impl ModelSource {
    /// Returns SHA-256 in hex over `config.json`, tokenizer files and weights; of weight files
    /// above 64 MiB over name, size, header and 64 blocks of 64 KiB (docs/run-directory.md).
    ///
    /// # Errors
    /// As [`ModelSource::weight_files`] and [`ModelSource::read`].
    pub fn digest(&self) -> Result<String, HubError> {
        // For 16 GB this reads 20 MB, where a full hash takes a minute; two checkpoints of one
        // shape cannot agree by accident, since training changes every matrix.
        digest_sampling(self, SAMPLED_ABOVE_BYTES)
    }
}

fn digest_sampling(source: &ModelSource, above_bytes: u64) -> Result<String, HubError> {
    let mut hasher = Sha256::new();
    let is_read = |file: &&str| match *file {
        "config.json" => true,
        file => source.exists(file),
    };
    for file in READ_WHOLE.into_iter().filter(is_read) {
        let bytes = source.read(file)?;
        hasher.update(format!("{file}\n{}\n", bytes.len()));
        hasher.update(&bytes);
    }
    for file in source.weight_files()? {
        let refused = |error| source.refused(&file, error);
        if let Some(bytes) = source.embedded_bytes(&file) {
            hasher.update(format!("{file}\n{}\n", bytes.len()));
            hasher.update(bytes);
            continue;
        }
        let data_start = source
            .tensors(&file)?
            .first()
            .map_or(0, |entry| entry.offset_bytes);
        let mut opened = source.open_file(&file)?;
        let size = opened.metadata().map_err(refused)?.len();
        hasher.update(format!("{file}\n{size}\n"));
        let ranges = if size <= above_bytes {
            vec![(0, size)]
        } else {
            sample(data_start, size)
        };
        for (start, length) in ranges {
            hash_range(&mut opened, start, length, &mut hasher).map_err(refused)?;
        }
    }
    Ok(crate::format::hex(&hasher.finalize()))
}

/// The header, and [`BLOCKS`] blocks after it: (first byte, length).
fn sample(data_start: u64, size: u64) -> Vec<(u64, u64)> {
    let last = size.saturating_sub(BLOCK_BYTES).max(data_start);
    let block = |number: u64| {
        let start = data_start
            + (u128::from(last - data_start) * u128::from(number) / u128::from(BLOCKS - 1)) as u64;
        (start, BLOCK_BYTES.min(size - start))
    };
    std::iter::once((0, data_start))
        .chain((0..BLOCKS).map(block))
        .collect()
}

fn hash_range(
    file: &mut File,
    start: u64,
    length: u64,
    hasher: &mut Sha256,
) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut left = length;
    let mut buffer = vec![0; (1 << 20).min(length) as usize];
    while left > 0 {
        let length = buffer.len().min(left as usize);
        file.read_exact(&mut buffer[..length])?;
        hasher.update(&buffer[..length]);
        left -= length as u64;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::weights::tests::weight_file;
    use super::*;

    /// A folder with `data` as the only tensor `name`.
    fn folder(config: &str, name: &str, data: &[u8]) -> tempfile::TempDir {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("config.json"), config).unwrap();
        let header = format!(
            r#"{{"{name}":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#,
            data.len()
        );
        let bytes = weight_file(&header, data);
        std::fs::write(work.path().join("model.safetensors"), bytes).unwrap();
        work
    }

    fn of(work: &tempfile::TempDir, above_bytes: u64) -> String {
        digest_sampling(&ModelSource::at("m", work.path()), above_bytes).unwrap()
    }

    #[test]
    fn it_changes_with_every_byte_and_name_of_a_small_model() {
        let digest = |config: &str, data: u8, name: &str| {
            of(&folder(config, name, &[data]), SAMPLED_ABOVE_BYTES)
        };
        let base = digest("{}", 1, "a");
        assert_eq!(base.len(), 64);
        assert_eq!(base, digest("{}", 1, "a"));
        for other in [
            digest("{} ", 1, "a"),
            digest("{}", 2, "a"),
            digest("{}", 1, "b"),
        ] {
            assert_ne!(base, other);
        }
        let with_tokenizer = folder("{}", "a", &[1]);
        std::fs::write(with_tokenizer.path().join("tokenizer.json"), "{}").unwrap();
        assert_ne!(base, of(&with_tokenizer, SAMPLED_ABOVE_BYTES));
    }

    #[test]
    fn a_large_file_counts_by_its_size_header_and_spread_blocks() {
        let data = vec![7; 5_000_000];
        let base = of(&folder("{}", "a", &data), 1_000_000);
        let changed = |position: usize| {
            let mut data = data.clone();
            data[position] = 8;
            of(&folder("{}", "a", &data), 1_000_000)
        };
        assert_ne!(base, changed(0));
        assert_ne!(base, changed(data.len() - 1));
        // Between the first and the second block, 78,326 bytes further on.
        assert_eq!(base, changed(70_000));
        assert_ne!(base, changed(2 * 78_326 + 10));
        assert_ne!(base, of(&folder("{}", "b", &data), 1_000_000));
        assert_ne!(base, of(&folder("{}", "a", &data[1..]), 1_000_000));
        assert_ne!(base, of(&folder("{}", "a", &data), u64::MAX));
    }

    #[test]
    fn blocks_are_inside_the_file_whatever_its_size() {
        for (data_start, size) in [
            (100, 100),
            (100, 101),
            (100, 1 << 16),
            (100, 70_000),
            (5_000, 20_000_000_000),
        ] {
            let found = sample(data_start, size);
            assert_eq!((found[0], found.len()), ((0, data_start), 65));
            assert!(
                found.iter().all(|(start, length)| start + length <= size),
                "{data_start} {size}: {found:?}"
            );
            assert_eq!(
                found.last().map(|(start, length)| start + length),
                Some(size)
            );
        }
    }
}
