//! Groups packed into micro-batches by their tokens, and gradients summed in the order of the micro-batches. The split
//! depends on the configuration alone, never on the machine or the number of threads, so neither do the gradients.

use candle_core::Result;

use crate::model::{Decoder, Gradients, PackedBatch, Sequence};
use crate::rollout::ThreadPool;

/// Prompts and completions, packed without padding.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    pub batch: PackedBatch,
    /// Where each completion's log-probs come from.
    pub sequences: Vec<Sequence>,
    /// Which completion each sequence is: (group, sample).
    pub owners: Vec<(usize, usize)>,
}

/// Packs the completions of each (prompt, completions), in order. A group stays together, its prompt computed once,
/// unless it alone passes `tokens_per_micro_batch`; then its prompt is repeated. A single longer completion gets a
/// micro-batch of its own.
pub fn pack<'a>(
    groups: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>,
    tokens_per_micro_batch: usize,
) -> Vec<MicroBatch> {
    let mut packed = Vec::new();
    let mut current = MicroBatch::default();
    for (group, (prompt, completions)) in groups.into_iter().enumerate() {
        let whole = prompt.len() + completions.iter().map(|completion| completion.len()).sum::<usize>();
        if current.batch.rows() > 0 && current.batch.rows() + whole > tokens_per_micro_batch {
            packed.push(std::mem::take(&mut current));
        }
        let mut place = None;
        for (sample, completion) in completions.into_iter().enumerate() {
            if completion.is_empty() {
                continue;
            }
            if place.is_some() && current.batch.rows() + completion.len() > tokens_per_micro_batch {
                packed.push(std::mem::take(&mut current));
                place = None;
            }
            let prompt_place = *place.get_or_insert_with(|| current.batch.push_prompt(prompt));
            current.sequences.push(current.batch.push_completion(prompt_place, completion));
            current.owners.push((group, sample));
        }
    }
    if !current.sequences.is_empty() {
        packed.push(current);
    }
    packed
}

/// The sum of what `work` adds for each micro-batch, and what else it found, in order.
pub(super) fn sum_gradients<R: Send>(
    model: &Decoder,
    micro_batches: &[MicroBatch],
    threads: &ThreadPool,
    work: impl Fn(&MicroBatch, &mut Gradients) -> Result<R> + Sync + Send,
) -> Result<(Gradients, Vec<R>)> {
    let mut sum = Gradients::zeros(model.parameters())?;
    let mut found = Vec::with_capacity(micro_batches.len());
    // A GPU computes one after the other: they share the one buffer, which may be as large as all weights.
    if !model.device().is_cpu() {
        for micro_batch in micro_batches {
            threads.check()?;
            found.push(work(micro_batch, &mut sum)?);
        }
        return Ok((sum, found));
    }
    // A wave at a time, so that there are never more buffers than threads.
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
            let groups = sizes.iter().map(|&n| (prompt.as_slice(), vec![completion.as_slice(); n]));
            let owners: Vec<_> = pack(groups, budget).into_iter().map(|micro_batch| micro_batch.owners).collect();
            assert_eq!(owners, expected);
        };
        check(&[2, 2], 100, &[&[(0, 0), (0, 1), (1, 0), (1, 1)]]);
        check(&[2, 2], 12, &[&[(0, 0), (0, 1)], &[(1, 0), (1, 1)]]);
        check(&[3], 9, &[&[(0, 0), (0, 1)], &[(0, 2)]]);
        check(&[1], 2, &[&[(0, 0)]]);
        check(&[], 10, &[]);
    }
}
