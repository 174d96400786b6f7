//! Tries a gradient at the longest shape before the first step, to fail early.

use super::error::TrainError;
use super::gradient_shape::shrunk;
use super::trainer::Trainer;
use crate::rollout::{Completion, StopReason};
use crate::run::events::Alert;
use crate::task::PromptSet;
use crate::update::{PolicyGroup, StepTotals, policy_gradient};

/// Computes forward and backward of a full micro-batch of each task's longest prompt and
/// completions, without updates or random numbers, shrinking on out-of-memory. Returns an alert if
/// it shrank.
///
/// # Errors
/// [`TrainError::OutOfMemory`] if not even one sequence fits.
pub(super) fn probe_memory(trainer: &Trainer) -> Result<Option<Alert>, TrainError> {
    let before = trainer.shape.get();
    (0..trainer.tasks.len()).try_for_each(|task| probe_task(trainer, task))?;
    trainer.policy.engine.trim_memory()?;
    Ok(shrunk(trainer.state.step + 1, before, trainer.shape.get()))
}

fn probe_task(trainer: &Trainer, task: usize) -> Result<(), TrainError> {
    // A later turn's prompt may exceed all first ones: the task's shape covers both.
    let rows = trainer.prompts.set(PromptSet::Train, task);
    let longest = rows.iter().max_by_key(|prompt| prompt.most_tokens);
    let mut prompt = longest
        .map(|prompt| prompt.token_ids.clone())
        .unwrap_or_default();
    let token = prompt.first().copied().unwrap_or(0);
    prompt.resize(longest.map_or(1, |prompt| prompt.most_tokens), token);
    let tokens = trainer.tasks[task].part.max_completion_tokens;
    let (token_ids, log_probs) = (vec![token; tokens], vec![-1.0; tokens]);
    let completion = Completion::new(token_ids, log_probs, StopReason::Length);
    let group =
        |samples| PolicyGroup::alternating(&prompt, std::iter::repeat_n(&completion, samples));
    trainer.shrink_together(trainer.extent(), || {
        let mut settings = trainer.policy_settings();
        settings.loss.kl_beta = 0.0;
        let most_tokens = settings.tokens_per_micro_batch.min(trainer.extent().all);
        let sizes = group_sizes(
            prompt.len(),
            tokens,
            trainer.config.completions_per_prompt,
            most_tokens,
        );
        let sequences = sizes.iter().sum();
        let groups: Vec<PolicyGroup<'_>> = sizes.into_iter().map(group).collect();
        let totals = StepTotals {
            sequences,
            tokens: sequences * tokens,
        };
        policy_gradient(
            &trainer.policy.model,
            &groups,
            totals,
            &settings,
            &trainer.policy.threads,
        )?;
        // Surfaces errors of asynchronous work, and frees its memory.
        trainer.policy.engine.synchronize()
    })
}

/// Completions per group in a full micro-batch of `most_tokens`: groups of `together`, then what
/// fits; at least one.
fn group_sizes(
    prompt: usize,
    completion: usize,
    together: usize,
    most_tokens: usize,
) -> Vec<usize> {
    let group_tokens = prompt + together * completion;
    let mut sizes = vec![together; most_tokens / group_tokens];
    let rest = (most_tokens % group_tokens).saturating_sub(prompt) / completion;
    if rest > 0 || sizes.is_empty() {
        sizes.push(rest.max(1));
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::pack;

    #[test]
    fn one_micro_batch_as_full_as_it_gets() {
        let (prompt, completion) = ([5; 10], [5; 20]);
        let check = |together, tokens: usize, expected: &[usize]| {
            let sizes = group_sizes(10, 20, together, tokens);
            assert_eq!(sizes, expected, "{together} {tokens}");
            let parts = sizes
                .iter()
                .map(|samples| (prompt.as_slice(), vec![completion.as_slice(); *samples]));
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
