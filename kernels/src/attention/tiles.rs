//! A batch's segments cut into tiles for the blocks of a GPU, the longest work first, and who reads which segment's
//! keys.

use candle_core::{Result, bail};

use super::Segment;

/// Rows of a tile; attention.cuh has the same number.
pub(super) const TILE: usize = 64;

/// Numbers that the kernels read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// [tiles, 2]: segment, first row inside it; as tiles of queries, those that see the most keys first.
    pub(super) queries: Vec<u32>,
    /// [tiles, 2]: the same tiles as tiles of keys, those that the most queries see first.
    pub(super) keys: Vec<u32>,
    /// [segments + 1] places in this list itself, then for each segment the rows of those that have it as their prefix.
    pub(super) dependants: Vec<u32>,
}

impl Tiles {
    /// # Errors
    /// A prefix that is not one whole segment.
    pub(super) fn new(segments: &[Segment]) -> Result<Self> {
        let dependants = dependants(segments)?;
        let tiles: Vec<(usize, usize)> = segments
            .iter()
            .enumerate()
            .flat_map(|(index, segment)| (0..segment.length).step_by(TILE).map(move |first| (index, first)))
            .collect();
        let sorted = |work: &dyn Fn(usize, usize) -> usize| {
            let mut tiles = tiles.clone();
            tiles.sort_by_key(|&(index, first)| std::cmp::Reverse(work(index, first)));
            tiles.into_iter().flat_map(|(index, first)| [index as u32, first as u32]).collect()
        };
        let queries = sorted(&|index, first| segments[index].prefix.1 + first);
        let readers = |index: usize| (dependants[index + 1] - dependants[index]) as usize;
        let keys = sorted(&|index, first| segments[index].length - first + readers(index));
        Ok(Self { queries, keys, dependants })
    }
}

fn dependants(segments: &[Segment]) -> Result<Vec<u32>> {
    let places: std::collections::HashMap<(usize, usize), usize> =
        segments.iter().enumerate().map(|(index, segment)| ((segment.start, segment.length), index)).collect();
    let mut readers = vec![Vec::new(); segments.len()];
    for segment in segments.iter().filter(|segment| segment.prefix.1 > 0) {
        let Some(&prefix) = places.get(&segment.prefix) else {
            bail!("the prefix of a segment, rows {} + {}, is not a segment", segment.prefix.0, segment.prefix.1)
        };
        readers[prefix].extend((segment.start..segment.start + segment.length).map(|row| row as u32));
    }
    let mut list = Vec::with_capacity(segments.len() + 1);
    let mut end = segments.len() + 1;
    list.push(end as u32);
    for rows in &readers {
        end += rows.len();
        list.push(end as u32);
    }
    list.extend(readers.iter().flatten());
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_comes_first_and_prompts_know_their_completions() {
        let segments = [
            Segment { start: 0, length: 70, prefix: (0, 0) },
            Segment { start: 70, length: 2, prefix: (0, 70) },
            Segment { start: 72, length: 1, prefix: (0, 0) },
            Segment { start: 73, length: 3, prefix: (0, 70) },
        ];
        let tiles = Tiles::new(&segments).unwrap();
        assert_eq!(tiles.queries, [1, 0, 3, 0, 0, 64, 0, 0, 2, 0]);
        assert_eq!(tiles.keys, [0, 0, 0, 64, 3, 0, 1, 0, 2, 0]);
        assert_eq!(tiles.dependants, [5, 10, 10, 10, 10, 70, 71, 73, 74, 75]);
    }

    #[test]
    fn a_prefix_is_one_whole_segment() {
        let segments =
            [Segment { start: 0, length: 3, prefix: (0, 0) }, Segment { start: 3, length: 1, prefix: (0, 2) }];
        assert!(Tiles::new(&segments).is_err());
    }
}
