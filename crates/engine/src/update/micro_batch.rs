//! Packs groups into micro-batches by tokens, and sums gradients in their order. Both depend only
//! on the configuration, not on the machine or number of threads.

use candle_core::Result;

use crate::model::{Decoder, Gradients, PackedBatch, Sequence};
use crate::rollout::ThreadPool;

/// Prompts and completions, packed without padding.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    pub batch: PackedBatch,
    /// Rows of each completion's log-probs.
    pub sequences: Vec<Sequence>,
    /// (group, sample) of each sequence.
    pub owners: Vec<(usize, usize)>,
}

/// A completion of a group.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Tokens read between the previous completion, which this one continues, and this one; `None`:
    /// it continues the prompt.
    pub follows: Option<&'a [u32]>,
    pub token_ids: &'a [u32],
}

impl<'a> From<&'a [u32]> for Piece<'a> {
    fn from(token_ids: &'a [u32]) -> Self {
        Self {
            follows: None,
            token_ids,
        }
    }
}

/// Packs completions of each (prompt, completions), in order; see [`Packer`].
pub fn pack<'a, P: Into<Piece<'a>>>(
    groups: impl IntoIterator<Item = (&'a [u32], Vec<P>)>,
    tokens_per_micro_batch: usize,
) -> Vec<MicroBatch> {
    let mut packer = Packer::new(tokens_per_micro_batch);
    let mut packed = Vec::new();
    for (prompt, pieces) in groups {
        packer.push(prompt, pieces, &mut packed);
    }
    packed.extend(packer.finish());
    packed
}

/// Packs groups as they come. A group stays together, its prompt computed once, unless it exceeds
/// `tokens_per_micro_batch`; then its prompt is repeated. Consecutive completions form one
/// sequence, each token computed once; a longer sequence gets its own micro-batch.
#[derive(Debug)]
struct Packer {
    tokens_per_micro_batch: usize,
    /// Not full yet.
    current: MicroBatch,
    /// Groups so far.
    groups: usize,
}

impl Packer {
    fn new(tokens_per_micro_batch: usize) -> Self {
        Self {
            tokens_per_micro_batch,
            current: MicroBatch::default(),
            groups: 0,
        }
    }

    /// Adds a group; passes full micro-batches to `packed`.
    fn push<'a, P: Into<Piece<'a>>>(
        &mut self,
        prompt: &[u32],
        pieces: Vec<P>,
        packed: &mut Vec<MicroBatch>,
    ) {
        let (group, most) = (self.groups, self.tokens_per_micro_batch);
        self.groups += 1;
        let current = &mut self.current;
        let pieces: Vec<Piece<'a>> = pieces.into_iter().map(P::into).collect();
        let chains: Vec<(&[Piece<'_>], Vec<u32>)> = pieces
            .chunk_by(|_, next| next.follows.is_some())
            .map(|chain| (chain, joined(chain)))
            .collect();
        let whole = prompt.len()
            + chains
                .iter()
                .map(|(_, token_ids)| token_ids.len())
                .sum::<usize>();
        if current.batch.rows() > 0 && current.batch.rows() + whole > most {
            packed.push(std::mem::take(current));
        }
        let (mut place, mut sample) = (None, 0);
        for (chain, token_ids) in chains {
            let first = sample;
            sample += chain.len();
            if chain.iter().all(|piece| piece.token_ids.is_empty()) {
                continue;
            }
            if place.is_some() && current.batch.rows() + token_ids.len() > most {
                packed.push(std::mem::take(current));
                place = None;
            }
            let prompt_place = *place.get_or_insert_with(|| current.batch.push_prompt(prompt));
            let Sequence { rows, targets } =
                current.batch.push_completion(prompt_place, &token_ids);
            let mut end = 0;
            for (sample, piece) in (first..).zip(chain) {
                let start = end + piece.follows.map_or(0, <[u32]>::len);
                end = start + piece.token_ids.len();
                let own = Sequence {
                    rows: rows[start..end].to_vec(),
                    targets: targets[start..end].to_vec(),
                };
                current.sequences.push(own);
                current.owners.push((group, sample));
            }
        }
    }

    /// The last micro-batch.
    fn finish(self) -> Option<MicroBatch> {
        Some(self.current).filter(|last| !last.sequences.is_empty())
    }
}

fn joined(chain: &[Piece<'_>]) -> Vec<u32> {
    chain
        .iter()
        .flat_map(|piece| [piece.follows.unwrap_or_default(), piece.token_ids].concat())
        .collect()
}

/// Sums what `work` adds per micro-batch; returns its results in order.
pub(super) fn sum_gradients<R: Send>(
    model: &Decoder,
    micro_batches: &[MicroBatch],
    threads: &ThreadPool,
    work: impl Fn(&MicroBatch, &mut Gradients) -> Result<R> + Sync + Send,
) -> Result<(Gradients, Vec<R>)> {
    let mut sum = Gradients::zeros(model.parameters())?;
    let mut found = Vec::with_capacity(micro_batches.len());
    // A GPU computes sequentially in one buffer, which may be as large as all weights.
    if !model.device().is_cpu() {
        for micro_batch in micro_batches {
            threads.check()?;
            found.push(work(micro_batch, &mut sum)?);
        }
        return Ok((sum, found));
    }
    // In waves, so that there are at most as many buffers as threads.
    for wave in micro_batches.chunks(threads.count()) {
        let results = threads.map(wave, |micro_batch| {
            let mut gradients = Gradients::zeros(model.parameters())?;
            let part = work(micro_batch, &mut gradients)?;
            Ok((gradients, part))
        })?;
        for (gradients, part) in results {
            sum.add_all(&gradients)?;
            found.push(part);
        }
    }
    Ok((sum, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_until_they_do_not_fit() {
        let prompt = [1_u32; 4];
        let completion = [2_u32; 3];
        let check = |sizes: &[usize], budget, expected: &[&[(usize, usize)]]| {
            let groups = sizes
                .iter()
                .map(|&n| (prompt.as_slice(), vec![completion.as_slice(); n]));
            let owners: Vec<_> = pack(groups, budget)
                .into_iter()
                .map(|micro_batch| micro_batch.owners)
                .collect();
            assert_eq!(owners, expected);
        };
        check(&[2, 2], 100, &[&[(0, 0), (0, 1), (1, 0), (1, 1)]]);
        check(&[2, 2], 12, &[&[(0, 0), (0, 1)], &[(1, 0), (1, 1)]]);
        check(&[3], 9, &[&[(0, 0), (0, 1)], &[(0, 2)]]);
        check(&[1], 2, &[&[(0, 0)]]);
        check(&[], 10, &[]);
    }

    #[test]
    fn what_follows_is_computed_once() {
        let piece = |follows, token_ids| Piece { follows, token_ids };
        let chain = [
            piece(None, &[1, 2][..]),
            piece(Some(&[7, 8][..]), &[3, 4][..]),
            piece(None, &[5][..]),
        ];
        let packed = pack([(&[9, 9][..], chain.to_vec())], 100);
        assert_eq!(packed[0].batch.token_ids, [9, 9, 1, 2, 7, 8, 3]);
        assert_eq!(packed[0].batch.positions, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(packed[0].owners, [(0, 0), (0, 1), (0, 2)]);
        let sequence = |rows: &[u32], targets: &[u32]| Sequence {
            rows: rows.to_vec(),
            targets: targets.to_vec(),
        };
        assert_eq!(
            packed[0].sequences,
            [
                sequence(&[1, 2], &[1, 2]),
                sequence(&[5, 6], &[3, 4]),
                sequence(&[1], &[5])
            ]
        );
        // A chain is not split: here it does not fit beside the previous completion.
        let chain = [
            piece(None, &[1; 5][..]),
            piece(None, &[1, 2][..]),
            piece(Some(&[7, 8][..]), &[3, 4][..]),
        ];
        let owners: Vec<_> = pack([(&[9, 9][..], chain.to_vec())], 10)
            .into_iter()
            .map(|packed| packed.owners)
            .collect();
        assert_eq!(owners, [vec![(0, 0)], vec![(0, 1), (0, 2)]]);
    }
}
