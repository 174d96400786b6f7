//! The shape of a gradient: recomputed in a smaller one when memory runs out, and tried at its longest before the first
//! step.

use std::cell::Cell;

use super::TrainError;
use super::trainer::Trainer;
use crate::files::fails_at;
use crate::kernels::cuda_errors::{GpuFailure, is_out_of_memory};
use crate::plan::StepShape;
use crate::rollout::{Completion, StopReason};
use crate::run::events::Alert;
use crate::update::{PolicyGroup, PolicySample, StepTotals, policy_gradient};

/// The range of micro-batch sizes of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The smallest micro-batch, in tokens.
    pub(super) longest_sequence: usize,
    /// The largest micro-batch, in tokens.
    pub(super) all: usize,
}

/// Computes a gradient in `shape`, which `attempt` reads, and in ever smaller ones while memory runs out; `is_any` says
/// whether it has run out on any rank, `free` releases unused memory. `shape` keeps the one that worked. A failed
/// `attempt` must have changed nothing.
///
/// # Errors
/// [`TrainError::OutOfMemory`] if the smallest shape does not fit; other errors of `attempt` and those of `is_any`.
pub(super) fn retry_smaller<R>(
    shape: &Cell<StepShape>,
    extent: Extent,
    is_any: impl Fn(bool) -> Result<bool, TrainError>,
    mut free: impl FnMut(),
    mut attempt: impl FnMut() -> candle_core::Result<R>,
) -> Result<R, TrainError> {
    loop {
        let error = match attempt() {
            Ok(result) if !is_any(false)? => return Ok(result),
            Ok(_) => "on another rank".to_owned(),
            Err(error) if is_out_of_memory(&error) => {
                is_any(true)?;
                error.to_string()
            }
            Err(error) => return Err(error.into()),
        };
        free();
        let tokens_per_micro_batch = shape.get().tokens_per_micro_batch.min(extent.all);
        match (StepShape { tokens_per_micro_batch, ..shape.get() }).smaller(extent.longest_sequence) {
            Some(smaller) => shape.set(smaller),
            None => return Err(TrainError::OutOfMemory { tokens: extent.longest_sequence, error }),
        };
    }
}

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

/// # Errors
/// As when the memory of `rank` runs out, where a test asked for it.
pub(super) fn memory_point(rank: usize) -> candle_core::Result<()> {
    if !fails_at("gradient.memory", &rank.to_string()) {
        return Ok(());
    }
    let (operation, cause) = (format!("the gradient of rank {rank}"), "a test takes its memory".to_owned());
    Err(candle_core::Error::Cuda(Box::new(GpuFailure { operation, cause, is_out_of_memory: true })))
}

/// The alert after a retry; `None` if the shape is unchanged.
pub(super) fn shrunk(step: u64, before: StepShape, after: StepShape) -> Option<Alert> {
    if before == after {
        return None;
    }
    Some(Alert {
        rule: "out_of_memory".to_owned(),
        level: "warning".to_owned(),
        step,
        value: None,
        sentence: format!("GPU out of memory with {before}; the step was recomputed with {after}."),
        suggestion: format!(
            "Only time is lost. To avoid it: recompute_activations = {}, tokens_per_micro_batch = {}.",
            if after.recompute { "always" } else { "never" },
            after.tokens_per_micro_batch
        ),
        cleared: false,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::update::pack;

    const EXTENT: Extent = Extent { longest_sequence: 900, all: 5000 };

    fn out_of_memory() -> candle_core::Error {
        let (operation, cause) = ("swiglu".to_owned(), "out of memory".to_owned());
        candle_core::Error::Cuda(Box::new(GpuFailure { operation, cause, is_out_of_memory: true }))
    }

    /// The shapes tried when memory runs out `failures` times, and the result.
    fn tried(start: StepShape, failures: usize) -> (Vec<(usize, bool)>, usize, Result<StepShape, TrainError>) {
        let (shape, mut seen, mut freed) = (Cell::new(start), Vec::new(), 0);
        let result = retry_smaller(
            &shape,
            EXTENT,
            Ok,
            || freed += 1,
            || {
                seen.push((shape.get().tokens_per_micro_batch, shape.get().recompute));
                if seen.len() <= failures { Err(out_of_memory()) } else { Ok(shape.get()) }
            },
        );
        if let Ok(found) = result {
            assert_eq!(found, shape.get(), "the shape that worked stays");
        }
        (seen, freed, result)
    }

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

    #[test]
    fn the_same_work_is_tried_in_smaller_shapes() {
        let start = StepShape { tokens_per_micro_batch: 8192, recompute: false };
        let check = |failures, expected: &[(usize, bool)]| {
            let (seen, freed, result) = tried(start, failures);
            assert_eq!((seen.as_slice(), freed), (expected, failures));
            assert!(result.is_ok());
        };
        check(0, &[(8192, false)]);
        check(1, &[(8192, false), (5000, true)]);
        check(2, &[(8192, false), (5000, true), (2500, true)]);
        check(4, &[(8192, false), (5000, true), (2500, true), (1250, true), (900, true)]);
        let (seen, freed, result) = tried(start, 99);
        assert_eq!((seen.len(), freed), (5, 5));
        let message = result.unwrap_err().to_string();
        assert!(message.contains("900 tokens") && message.contains("max_completion_tokens"), "{message}");
    }

    #[test]
    fn other_errors_end_it_at_once() {
        let shape = Cell::new(StepShape { tokens_per_micro_batch: 8192, recompute: false });
        let mut count = 0;
        let result: Result<(), _> = retry_smaller(
            &shape,
            EXTENT,
            Ok,
            || {},
            || {
                count += 1;
                Err(candle_core::Error::Msg("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"...\")".to_owned()))
            },
        );
        assert!(result.unwrap_err().to_string().contains("ILLEGAL_ADDRESS") && count == 1);
        assert_eq!(shape.get(), StepShape { tokens_per_micro_batch: 8192, recompute: false });
    }

    #[test]
    fn what_changed_is_told_once() {
        let before = StepShape { tokens_per_micro_batch: 8192, recompute: false };
        assert_eq!(shrunk(3, before, before), None);
        let alert = shrunk(3, before, StepShape { tokens_per_micro_batch: 4096, recompute: true }).unwrap();
        assert!(
            alert.sentence.contains("8192 tokens with activations kept")
                && alert.sentence.contains("4096 tokens with activations recomputed")
        );
        assert!(
            alert.suggestion.contains("recompute_activations = always, tokens_per_micro_batch = 4096")
                && alert.step == 3
        );
    }
}
