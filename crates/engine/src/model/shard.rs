//! Sharding of a flat buffer over ranks.

use std::ops::Range;

/// A rank's part of a flat buffer. Parts have equal size, so the last ones may be zero-padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub rank: usize,
    pub ranks: usize,
}

/// A range of one rank's parts of one or more buffers, concatenated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPiece {
    pub rank: usize,
    pub range: Range<usize>,
}

/// Alignment of parts: 16 bytes in bf16, NCCL's copy unit.
const ALIGNMENT: usize = 8;

impl Shard {
    /// Unsharded.
    pub const WHOLE: Self = Self { rank: 0, ranks: 1 };

    pub fn is_whole(self) -> bool {
        self.ranks <= 1
    }

    /// Elements of a part, padded.
    pub fn size(self, count: usize) -> usize {
        if self.is_whole() {
            count
        } else {
            count.div_ceil(self.ranks).next_multiple_of(ALIGNMENT)
        }
    }

    /// Elements of the buffer, padded.
    pub fn padded(self, count: usize) -> usize {
        self.size(count) * self.ranks.max(1)
    }

    /// First element of this part.
    pub fn start(self, count: usize) -> usize {
        self.size(count) * self.rank
    }

    /// This part, without padding.
    pub fn range(self, count: usize) -> Range<usize> {
        let start = self.start(count);
        start.min(count)..(start + self.size(count)).min(count)
    }

    /// Locates `range` of concatenated buffers of `count` elements, without padding, on the ranks,
    /// in pieces of at most `most`.
    pub fn pieces(self, count: usize, range: Range<usize>, most: usize) -> Vec<ShardPiece> {
        let size = self.size(count);
        let (mut pieces, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let (buffer, inside) = (at / count, at % count);
            let (rank, local) = (inside / size, inside % size);
            let length = (size - local)
                .min(count - inside)
                .min(range.end - at)
                .min(most.max(1));
            pieces.push(ShardPiece {
                rank,
                range: buffer * size + local..buffer * size + local + length,
            });
            at += length;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_disjoint_and_cover_all() {
        let check = |count: usize, ranks: usize, expected: &[Range<usize>]| {
            let shards = (0..ranks).map(|rank| Shard { rank, ranks });
            let found: Vec<Range<usize>> = shards.clone().map(|shard| shard.range(count)).collect();
            assert_eq!(found, expected, "{count} by {ranks}");
            for shard in shards {
                assert!(
                    shard.padded(count) >= count
                        && shard.padded(count) == ranks * shard.size(count)
                );
            }
        };
        assert_eq!(
            (Shard::WHOLE.range(10), Shard::WHOLE.padded(10)),
            (0..10, 10)
        );
        check(16, 2, &[0..8, 8..16]);
        check(17, 2, &[0..16, 16..17]);
        check(40, 3, &[0..16, 16..32, 32..40]);
        // More ranks than minimum-sized parts.
        check(10, 4, &[0..8, 8..10, 10..10, 10..10]);
        check(0, 2, &[0..0, 0..0]);
    }

    #[test]
    fn pieces_name_the_rank_and_the_place_there() {
        let shard = Shard { rank: 0, ranks: 3 };
        let found = |shard: Shard, range, most| -> Vec<(usize, Range<usize>)> {
            shard
                .pieces(20, range, most)
                .into_iter()
                .map(|piece| (piece.rank, piece.range))
                .collect()
        };
        let check = |range: Range<usize>, most: usize, expected: &[(usize, Range<usize>)]| {
            assert_eq!(found(shard, range.clone(), most), expected, "{range:?}");
        };
        // Parts of 8 elements, the last with 4; for two buffers each rank has 16.
        check(0..20, 100, &[(0, 0..8), (1, 0..8), (2, 0..4)]);
        check(7..17, 100, &[(0, 7..8), (1, 0..8), (2, 0..1)]);
        check(18..30, 100, &[(2, 2..4), (0, 8..16), (1, 8..10)]);
        check(0..8, 3, &[(0, 0..3), (0, 3..6), (0, 6..8)]);
        check(5..5, 100, &[]);
        assert_eq!(found(Shard::WHOLE, 3..40, 100), [(0, 3..20), (0, 20..40)]);
    }
}
