//! A gradient at the longest shape before the first step, so that a lack of memory shows immediately.

use super::job::Job;
use crate::rollout::{Completion, StopReason};
use crate::update::{PolicyGroup, PolicySample, PolicySettings, StepTotals, policy_gradient};

/// Runs forward and backward of one full micro-batch of the longest prompt with the longest completions, without
/// updates or random numbers.
pub(super) fn own_probe(job: &Job, mut settings: PolicySettings) -> candle_core::Result<()> {
    let prompt = job
        .prompts
        .train
        .iter()
        .map(|prompt| prompt.token_ids.as_slice())
        .max_by_key(|ids| ids.len())
        .unwrap_or_default();
    let tokens = job.config.max_completion_tokens;
    let token_ids = vec![prompt.first().copied().unwrap_or(0); tokens];
    let completion = Completion { token_ids, log_probs: vec![-1.0; tokens], stop: StopReason::Length };
    settings.loss.kl_beta = 0.0;
    let most_tokens = settings.tokens_per_micro_batch.min(job.extent().all);
    let groups = full_micro_batch(prompt, &completion, job.config.completions_per_prompt, most_tokens);
    let sequences = groups.iter().map(|group| group.samples.len()).sum();
    let totals = StepTotals { sequences, tokens: sequences * tokens };
    policy_gradient(&job.model, &groups, totals, &settings, &job.threads)?;
    // Surfaces errors of asynchronous work, and frees its memory.
    job.engine.synchronize()
}

/// The prompt with the same completion as often as `most_tokens` allow, in groups of `together`; at least once.
fn full_micro_batch<'a>(
    prompt: &'a [u32],
    completion: &'a Completion,
    together: usize,
    most_tokens: usize,
) -> Vec<PolicyGroup<'a>> {
    let sample = |advantage| PolicySample::on_policy(completion, advantage);
    let mut groups = vec![PolicyGroup { prompt: prompt.into(), samples: vec![sample(1.0)] }];
    let completion_tokens = completion.token_ids.len();
    let mut rows = prompt.len() + completion_tokens;
    loop {
        let is_full = groups.last().is_none_or(|group| group.samples.len() >= together);
        rows += completion_tokens + if is_full { prompt.len() } else { 0 };
        if rows > most_tokens {
            return groups;
        }
        match groups.last_mut().filter(|_| !is_full) {
            Some(group) => group.samples.push(sample(if group.samples.len() % 2 == 0 { 1.0 } else { -1.0 })),
            None => groups.push(PolicyGroup { prompt: prompt.into(), samples: vec![sample(1.0)] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::pack;

    #[test]
    fn one_micro_batch_as_full_as_it_gets() {
        let (prompt, token_ids) = ([5; 10], vec![5; 20]);
        let completion = Completion { token_ids, log_probs: vec![-1.0; 20], stop: StopReason::Length };
        let check = |together, tokens, expected: &[usize]| {
            let groups = full_micro_batch(&prompt, &completion, together, tokens);
            let sizes: Vec<usize> = groups.iter().map(|group| group.samples.len()).collect();
            assert_eq!(sizes, expected, "{together} {tokens}");
            let parts = groups.iter().map(|group| {
                (&*group.prompt, group.samples.iter().map(|sample| &*sample.token_ids).collect::<Vec<_>>())
            });
            assert_eq!(pack(parts, tokens.max(30)).len(), 1, "{together} {tokens}");
        };
        check(8, 0, &[1]);
        check(8, 49, &[1]);
        check(8, 50, &[2]);
        check(2, 79, &[2]);
        check(2, 80, &[2, 1]);
        check(2, 100, &[2, 2]);
    }
}
