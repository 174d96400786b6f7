//! A step's work in as many parts as there are ranks: contiguous, alike in size, and a function of the work alone, so
//! that the same number of ranks computes the same numbers.

use crate::rollout::Request;
use crate::update::PolicyGroup;

/// The requests with about as many completions in each part.
pub(super) fn split_requests(requests: &[Request], parts: usize) -> Vec<&[Request]> {
    let part_of = parts_of(requests.iter().map(|request| request.samples), parts);
    let start = |part| part_of.partition_point(|other| *other < part);
    (0..parts).map(|part| &requests[start(part)..start(part + 1)]).collect()
}

/// Items of any kind, by their weights.
pub(super) fn split<T: Clone>(items: &[T], weight: impl Fn(&T) -> usize, parts: usize) -> Vec<Vec<T>> {
    let mut split = vec![Vec::new(); parts];
    let weights: Vec<usize> = items.iter().map(weight).collect();
    for (item, part) in items.iter().zip(parts_of(weights.into_iter(), parts)) {
        split[part].push(item.clone());
    }
    split
}

/// The groups with about as many rows in each part. A group is divided, its prompt then in both parts, only where that
/// makes the largest part clearly smaller.
pub(super) fn split_groups(groups: Vec<PolicyGroup<'_>>, parts: usize) -> Vec<Vec<PolicyGroup<'_>>> {
    if parts == 1 {
        return vec![groups];
    }
    let whole = split(&groups, rows, parts);
    let samples = || groups.iter().flat_map(|group| &group.samples);
    let part_of = parts_of(samples().map(|sample| sample.token_ids.len()), parts);
    let mut divided: Vec<Vec<PolicyGroup<'_>>> = vec![Vec::new(); parts];
    let mut places = part_of.into_iter();
    for group in &groups {
        let mut last = None;
        for (sample, part) in group.samples.iter().zip(places.by_ref()) {
            if last != Some(part) {
                divided[part].push(PolicyGroup { prompt: group.prompt.clone(), samples: Vec::new() });
            }
            last = Some(part);
            if let Some(own) = divided[part].last_mut() {
                own.samples.push(sample.clone());
            }
        }
    }
    let largest = |split: &[Vec<PolicyGroup<'_>>]| {
        split.iter().map(|part| part.iter().map(rows).sum::<usize>()).max().unwrap_or(0)
    };
    // A prompt that is computed twice for little is not worth it.
    if largest(&divided) * 10 < largest(&whole) * 9 { divided } else { whole }
}

/// Tokens of the prompt and of the completions.
pub(super) fn rows(group: &PolicyGroup<'_>) -> usize {
    group.prompt.len() + group.samples.iter().map(|sample| sample.token_ids.len()).sum::<usize>()
}

/// The part of each item, ascending: the one in which the item's middle lies.
fn parts_of(weights: impl Iterator<Item = usize> + Clone, parts: usize) -> Vec<usize> {
    let total = weights.clone().sum::<usize>().max(1);
    let mut before = 0;
    weights
        .map(|weight| {
            let part = (2 * before + weight) * parts / (2 * total);
            before += weight;
            part.min(parts - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::PolicySample;

    fn group(prompt: usize, completions: &[usize]) -> PolicyGroup<'static> {
        let sample = |length: &usize| PolicySample {
            token_ids: vec![0; *length].into(),
            sampled_log_probs: vec![0.0; *length].into(),
            old_log_probs: None,
            reference_log_probs: None,
            advantage: 1.0,
        };
        PolicyGroup { prompt: vec![0; prompt].into(), samples: completions.iter().map(sample).collect() }
    }

    #[test]
    fn parts_are_alike_and_lose_nothing() {
        let shape = |split: Vec<Vec<PolicyGroup<'_>>>| -> Vec<Vec<usize>> {
            split.iter().map(|part| part.iter().map(|group| group.samples.len()).collect()).collect()
        };
        let equal = || vec![group(10, &[5; 4]), group(10, &[5; 4]), group(10, &[5; 4]), group(10, &[5; 4])];
        assert_eq!(shape(split_groups(equal(), 2)), [[4, 4], [4, 4]]);
        assert_eq!(shape(split_groups(equal(), 1)), [[4; 4]]);
        // One group more than parts would leave one with twice the work.
        assert_eq!(shape(split_groups(vec![group(2, &[5; 4]); 3], 2)), [[4, 2], [2, 4]]);
        // A long prompt is not computed twice for few tokens.
        assert_eq!(shape(split_groups(vec![group(500, &[5; 4]); 3], 2)), [vec![4], vec![4, 4]]);
        assert_eq!(shape(split_groups(vec![group(10, &[5])], 3)), [vec![], vec![1], vec![]]);
        assert_eq!(shape(split_groups(Vec::new(), 2)), [Vec::<usize>::new(), Vec::new()]);
    }

    #[test]
    fn requests_stay_in_order() {
        let request = |samples| Request::new(vec![1], 0, 0, samples);
        let check = |samples: &[usize], parts, expected: &[usize]| {
            let requests: Vec<Request> = samples.iter().copied().map(request).collect();
            let lengths: Vec<usize> = split_requests(&requests, parts).iter().map(|part| part.len()).collect();
            assert_eq!(lengths, expected, "{samples:?}");
        };
        check(&[8; 8], 2, &[4, 4]);
        check(&[8, 8, 8], 2, &[1, 2]);
        check(&[8, 1, 1, 1, 1, 1, 1, 1, 1], 2, &[1, 8]);
        check(&[4], 3, &[0, 1, 0]);
        check(&[], 2, &[0, 0]);
    }
}
