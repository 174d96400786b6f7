//! Cuts a batch's segments into tiles for GPU blocks, most work first, and records which segment
//! reads whose keys.

use candle_core::{Result, bail};

use super::Segment;

/// Rows per tile, as in attention.cuh.
pub(super) const TILE: usize = 64;

/// Tile tables read by the attention kernels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// [segments, 5]: start, length, start and length of the prefix, number of following rows that
    /// have the segment as prefix.
    pub(super) segments: Vec<u32>,
    /// [rows]: position of each row in its sequence, from 0.
    pub(super) positions: Vec<u32>,
    /// [rows]: segment of each row.
    pub(super) owners: Vec<u32>,
    /// [tiles, 2]: segment, first row in it; as query tiles, most keys first.
    pub(super) queries: Vec<u32>,
    /// [tiles, 2]: as key tiles, most queries first.
    pub(super) keys: Vec<u32>,
    /// [tiles, 2]: in batch order; and each segment's first tile, [segments].
    pub(super) ordered: Vec<u32>,
    pub(super) firsts: Vec<u32>,
}

impl Tiles {
    /// # Errors
    /// A prefix that is not one whole earlier segment, or is separated by segments that do not have
    /// it.
    pub(super) fn new(segments: &[Segment]) -> Result<Self> {
        let mut readers = vec![0; segments.len()];
        let mut prompt = 0;
        for (index, segment) in segments.iter().enumerate() {
            if segment.prefix.1 == 0 {
                prompt = index;
            } else if segment.prefix != (segments[prompt].start, segments[prompt].length)
                || segment.start
                    != segments[prompt].start + segments[prompt].length + readers[prompt]
            {
                bail!(
                    "the prefix of a segment, rows {} + {}, is not a segment before it",
                    segment.prefix.0,
                    segment.prefix.1
                )
            } else {
                readers[prompt] += segment.length;
            }
        }
        let tiles: Vec<(usize, usize)> = segments
            .iter()
            .enumerate()
            .flat_map(|(index, segment)| {
                (0..segment.length)
                    .step_by(TILE)
                    .map(move |first| (index, first))
            })
            .collect();
        let flat = |tiles: Vec<(usize, usize)>| -> Vec<u32> {
            tiles
                .into_iter()
                .flat_map(|(index, first)| [index as u32, first as u32])
                .collect()
        };
        let sorted = |work: &dyn Fn(usize, usize) -> usize| {
            let mut tiles = tiles.clone();
            tiles.sort_by_key(|&(index, first)| std::cmp::Reverse(work(index, first)));
            flat(tiles)
        };
        let firsts = segments.iter().scan(0, |next, segment| {
            let first = *next;
            *next += segment.length.div_ceil(TILE) as u32;
            Some(first)
        });
        let numbers = |(segment, readers): (&Segment, &usize)| {
            [
                segment.start,
                segment.length,
                segment.prefix.0,
                segment.prefix.1,
                *readers,
            ]
            .map(|number| number as u32)
        };
        let mut positions = vec![
            0;
            segments
                .iter()
                .map(|segment| segment.start + segment.length)
                .max()
                .unwrap_or(0)
        ];
        let mut owners = positions.clone();
        for (index, segment) in segments.iter().enumerate() {
            let rows = segment.start..segment.start + segment.length;
            owners[rows.clone()].fill(index as u32);
            positions[rows]
                .iter_mut()
                .zip(segment.prefix.1 as u32..)
                .for_each(|(place, position)| *place = position);
        }
        Ok(Self {
            positions,
            owners,
            segments: segments.iter().zip(&readers).flat_map(numbers).collect(),
            queries: sorted(&|index, first| segments[index].prefix.1 + first),
            keys: sorted(&|index, first| segments[index].length - first + readers[index]),
            firsts: firsts.collect(),
            ordered: flat(tiles),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_comes_first_and_prompts_know_their_completions() {
        let segments = [
            Segment {
                start: 0,
                length: 70,
                prefix: (0, 0),
            },
            Segment {
                start: 70,
                length: 2,
                prefix: (0, 70),
            },
            Segment {
                start: 72,
                length: 3,
                prefix: (0, 70),
            },
            Segment {
                start: 75,
                length: 1,
                prefix: (0, 0),
            },
        ];
        let tiles = Tiles::new(&segments).unwrap();
        assert_eq!(
            tiles.segments,
            [
                0, 70, 0, 0, 5, 70, 2, 0, 70, 0, 72, 3, 0, 70, 0, 75, 1, 0, 0, 0
            ]
        );
        let positions: Vec<u32> = (0..70).chain([70, 71, 70, 71, 72, 0]).collect();
        assert_eq!(tiles.positions, positions);
        assert_eq!(tiles.owners, [vec![0; 70], vec![1, 1, 2, 2, 2, 3]].concat());
        assert_eq!(tiles.queries, [1, 0, 2, 0, 0, 64, 0, 0, 3, 0]);
        assert_eq!(tiles.keys, [0, 0, 0, 64, 2, 0, 1, 0, 3, 0]);
        assert_eq!(tiles.ordered, [0, 0, 0, 64, 1, 0, 2, 0, 3, 0]);
        assert_eq!(tiles.firsts, [0, 2, 3, 4]);
    }

    #[test]
    fn a_prefix_is_the_segment_before() {
        let prompt = Segment {
            start: 0,
            length: 3,
            prefix: (0, 0),
        };
        let other = Segment {
            start: 3,
            length: 2,
            prefix: (0, 0),
        };
        let completion = |start, prefix| Segment {
            start,
            length: 1,
            prefix,
        };
        assert!(Tiles::new(&[prompt, completion(3, (0, 3)), completion(4, (0, 3))]).is_ok());
        assert!(Tiles::new(&[prompt, completion(3, (0, 2))]).is_err());
        assert!(Tiles::new(&[prompt, other, completion(5, (0, 3))]).is_err());
        assert!(Tiles::new(&[completion(0, (0, 3)), prompt]).is_err());
    }
}
