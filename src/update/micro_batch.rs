//! Groups packed into micro-batches by their tokens. The split depends on the configuration alone, never on the machine, so neither do the gradients.

use crate::model::{PackedBatch, Sequence};

/// Some completions, with their prompts, laid end to end.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    /// The rows.
    pub batch: PackedBatch,
    /// Where each completion's log-probs come from.
    pub sequences: Vec<Sequence>,
    /// Which completion each sequence is: (group, sample).
    pub owners: Vec<(usize, usize)>,
}

/// Packs the completions of each (prompt, completions), in order. A group stays together, its prompt computed once, unless it alone passes
/// `tokens_per_micro_batch`; then its prompt is repeated. A single longer completion gets a micro-batch of its own.
pub fn pack<'a>(groups: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>, tokens_per_micro_batch: usize) -> Vec<MicroBatch> {
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
