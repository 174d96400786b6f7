//! Near duplicates in bounded memory: a 64-byte MinHash sketch per text, and a fixed-size table of
//! candidates.

use crate::dataset::random::{GOLDEN, mix};

/// Minima of a sketch.
const BINS: usize = 64;
/// Groups of minima of which one must agree for two texts to be compared: finds 95% of texts with
/// 80% similarity, all with 90%.
const BANDS: usize = 10;
/// Minima per group.
const BAND_WIDTH: usize = 6;
/// Entries per group's table; newer texts overwrite older ones, so memory is constant.
const TABLE_ENTRIES: usize = 1 << 20;
const SHINGLE_BYTES: usize = 8;
/// Minimum for a reliable estimate.
const MIN_SHINGLES: usize = 40;

/// Share of common shingles of near duplicates.
pub(super) const MIN_SIMILARITY: f64 = 0.8;

/// Hash table of all sketches so far.
#[derive(Debug)]
pub(super) struct NearIndex {
    /// Index of a sketch + 1, 0 if empty: [BANDS * TABLE_ENTRIES].
    table: Vec<u32>,
    sketches: Vec<[u8; BINS]>,
}

impl NearIndex {
    pub(super) fn new() -> Self {
        Self {
            table: vec![0; BANDS * TABLE_ENTRIES],
            sketches: Vec::new(),
        }
    }

    /// Adds a text, numbered 0, 1, 2, …; returns the most similar earlier one with its similarity
    /// in `[MIN_SIMILARITY, 1]`.
    pub(super) fn insert(&mut self, text: &str) -> Option<(u32, f64)> {
        let number = self.sketches.len() as u32;
        let Some(minima) = minima(text) else {
            self.sketches.push([0; BINS]);
            return None;
        };
        let sketch = minima.map(|minimum| (mix(minimum) & 0xff) as u8);
        let mut best: Option<(u32, f64)> = None;
        for (band, group) in minima.chunks_exact(BAND_WIDTH).take(BANDS).enumerate() {
            let hash = group.iter().fold(band as u64, |hash, minimum| {
                mix(hash ^ minimum).wrapping_add(GOLDEN)
            });
            let entry = &mut self.table[band * TABLE_ENTRIES + hash as usize % TABLE_ENTRIES];
            if let Some(earlier) = entry.checked_sub(1) {
                let likeness = likeness(&sketch, &self.sketches[earlier as usize]);
                if likeness >= MIN_SIMILARITY && best.is_none_or(|(_, other)| likeness > other) {
                    best = Some((earlier, likeness));
                }
            }
            *entry = number + 1;
        }
        self.sketches.push(sketch);
        best
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.table.capacity() * size_of::<u32>() + self.sketches.capacity() * BINS
    }
}

/// Minimum hash of each bin (one-permutation hashing, Li, Owen and Zhang 2012); an empty bin copies
/// its neighbour. `None` for a short text.
fn minima(text: &str) -> Option<[u64; BINS]> {
    let plain = normalise(text);
    if plain.len() < MIN_SHINGLES + SHINGLE_BYTES {
        return None;
    }
    let mut minima = [u64::MAX; BINS];
    for shingle in plain.windows(SHINGLE_BYTES) {
        let bytes: [u8; SHINGLE_BYTES] = shingle.try_into().unwrap_or_default();
        let hash = mix(u64::from_le_bytes(bytes) ^ GOLDEN);
        let bin = &mut minima[(hash >> 58) as usize];
        *bin = (*bin).min(hash);
    }
    let filled = minima;
    for (bin, minimum) in minima.iter_mut().enumerate() {
        let mut steps = 0;
        while *minimum == u64::MAX && steps < BINS {
            steps += 1;
            let neighbour = filled[(bin + steps) % BINS];
            // Mixes in the distance, so that bins agree only if empty over the same distance.
            *minimum = if neighbour == u64::MAX {
                u64::MAX
            } else {
                neighbour.wrapping_add(GOLDEN.wrapping_mul(steps as u64))
            };
        }
    }
    Some(minima)
}

/// Lower case, runs of white space as one blank.
fn normalise(text: &str) -> Vec<u8> {
    let mut plain = String::with_capacity(text.len() + 1);
    for word in text.split_whitespace() {
        match word.is_ascii() {
            true => {
                let start = plain.len();
                plain.push_str(word);
                plain[start..].make_ascii_lowercase();
            }
            false => plain.extend(word.chars().flat_map(char::to_lowercase)),
        }
        plain.push(' ');
    }
    plain.into_bytes()
}

/// Share of common shingles, estimated from two sketches; one byte in 256 agrees by chance.
fn likeness(left: &[u8; BINS], right: &[u8; BINS]) -> f64 {
    let same = left
        .iter()
        .zip(right)
        .filter(|(left, right)| left == right)
        .count() as f64
        / BINS as f64;
    ((same - 1.0 / 256.0) / (255.0 / 256.0)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::random::CounterRandom;

    fn words(count: usize, seed: u64) -> Vec<String> {
        let mut random = CounterRandom::new(&[seed]);
        (0..count)
            .map(|_| format!("{:x}", random.below(1 << 20)))
            .collect()
    }

    #[test]
    fn likeness_is_near_the_true_share() {
        let base = words(100, 1);
        for changed in [0, 3, 6, 12, 25, 100] {
            let mut other = base.clone();
            for (place, word) in words(changed, 2).into_iter().enumerate() {
                other[place] = word;
            }
            // A block of c changed words of about 6 bytes leaves (100 - c) words' shingles in
            // common.
            let expected = (100.0 - changed as f64) / (100.0 + changed as f64);
            let sketch = |words: &[String]| {
                minima(&words.join(" "))
                    .unwrap()
                    .map(|minimum| (mix(minimum) & 0xff) as u8)
            };
            let found = likeness(&sketch(&base), &sketch(&other));
            assert!(
                (found - expected).abs() < 0.13,
                "{changed} changed: {found:.2}, meant {expected:.2}"
            );
        }
    }

    #[test]
    fn one_changed_word_is_near_and_other_text_is_not() {
        let mut index = NearIndex::new();
        let base = words(60, 3);
        assert_eq!(index.insert(&base.join(" ")), None);
        assert_eq!(index.insert(&words(60, 4).join(" ")), None);
        let mut changed = base.clone();
        changed[30] = "other".into();
        assert_eq!(
            index
                .insert(&changed.join("  ").to_uppercase())
                .map(|(number, _)| number),
            Some(0)
        );
        assert_eq!(index.insert("short"), None);
    }

    #[test]
    fn memory_grows_by_a_sketch_a_text() {
        let mut index = NearIndex::new();
        let empty = index.held_bytes();
        (0..20_000).for_each(|seed| assert!(index.insert(&words(20, seed).join(" ")).is_none()));
        let each = (index.held_bytes() - empty) / 20_000;
        assert!(
            empty <= 42 << 20 && each <= 2 * BINS,
            "{empty} bytes and {each} a text"
        );
    }
}
