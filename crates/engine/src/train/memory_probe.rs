//! A gradient at the longest shape before the first step, so that a lack of memory shows immediately.

use super::TrainError;
use super::gradient_shape::shrunk;
use super::trainer::Trainer;
use crate::rollout::{Completion, StopReason};
use crate::run::events::Alert;
use crate::update::{PolicyGroup, PolicySample, StepTotals, policy_gradient};

/// Computes forward and backward of one full micro-batch of the longest prompt with the longest completions, without
/// updates or random numbers; in smaller shapes when memory runs out. Returns an alert if it has.
///
/// # Errors
/// [`TrainError::OutOfMemory`] if not even one sequence fits.
pub(super) fn probe_memory(trainer: &Trainer) -> Result<Option<Alert>, TrainError> {
    let before = trainer.shape.get();
    // A later turn's prompt may be longer than any first one: the shape of a task counts both.
    let longest = trainer.prompts.train.iter().max_by_key(|prompt| prompt.most_tokens);
    let mut prompt = longest.map(|prompt| prompt.token_ids.clone()).unwrap_or_default();
    let token = prompt.first().copied().unwrap_or(0);
    prompt.resize(longest.map_or(1, |prompt| prompt.most_tokens), token);
    let tokens = trainer.config.max_completion_tokens;
    let (token_ids, log_probs) = (vec![token; tokens], vec![-1.0; tokens]);
    let completion = Completion { token_ids, log_probs, stop: StopReason::Length };
    trainer.shrink_together(trainer.extent(), || {
        let mut settings = trainer.policy_settings();
        settings.loss.kl_beta = 0.0;
        let max_tokens = settings.tokens_per_micro_batch.min(trainer.extent().all);
        let groups = full_micro_batch(&prompt, &completion, trainer.config.completions_per_prompt, max_tokens);
        let sequences = groups.iter().map(|group| group.samples.len()).sum();
        let totals = StepTotals { sequences, tokens: sequences * tokens };
        policy_gradient(&trainer.policy.model, &groups, totals, &settings, &trainer.policy.threads)?;
        // Surfaces errors of asynchronous work, and frees its memory.
        trainer.policy.engine.synchronize()
    })?;
    trainer.policy.engine.trim_memory()?;
    Ok(shrunk(trainer.state.step + 1, before, trainer.shape.get()))
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
