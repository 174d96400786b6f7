//! The one way from requests to scored completions: for training, evals, samples and the learnability check.

use candle_core::Result;

use super::{Completion, Request, Sampling, ThreadPool, generate};
use crate::advantage::{GroupSignal, group_signal};
use crate::dataset::PromptRow;
use crate::kernels::cuda_errors::is_out_of_memory;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder};
use crate::score::{Score, Scorer};
use crate::text::{TextError, Tokenizer};

/// The model that is sampled from, and what it needs for that.
#[derive(Clone, Copy, Debug)]
pub struct RolloutContext<'a> {
    pub engine: &'a Engine,
    pub model: &'a Decoder,
    /// On: the trained model; off: the base.
    pub adapters: Adapters,
    pub tokenizer: &'a Tokenizer,
    pub threads: &'a ThreadPool,
}

/// A completion as text, and what it earned.
#[derive(Clone, Debug)]
pub struct ScoredCompletion {
    pub completion: Completion,
    pub text: String,
    pub score: Score,
}

impl RolloutContext<'_> {
    /// The completions of each request, in order. Sampling changes nothing and always gives the same, so where a GPU's
    /// memory runs out it is done once more, with the memory that no tensor holds given back.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn rollout(&self, requests: &[Request], sampling: &Sampling) -> Result<Vec<Vec<Completion>>> {
        let sample = || generate(self.model, self.adapters, requests, sampling, self.threads);
        retry_once(|| _ = self.engine.trim_memory(), sample)
    }

    /// Text and score of each group's completions, all of them scored together on every core. `rows`: that of each
    /// group.
    ///
    /// # Errors
    /// When tokens cannot become text.
    pub fn score<'r>(
        &self,
        scorer: &Scorer,
        groups: Vec<Vec<Completion>>,
        rows: impl IntoIterator<Item = &'r PromptRow>,
    ) -> std::result::Result<Vec<Vec<ScoredCompletion>>, TextError> {
        let decode = |completion: &Completion| self.tokenizer.decode(&completion.token_ids, true);
        let texts = groups.iter().flatten().map(decode).collect::<std::result::Result<Vec<_>, _>>()?;
        let rows = groups.iter().zip(rows).flat_map(|(group, row)| std::iter::repeat_n(Some(row), group.len()));
        let scores = scorer.score_all(&texts.iter().map(String::as_str).zip(rows).collect::<Vec<_>>());
        let mut scored = texts.into_iter().zip(scores);
        let mut found = Vec::with_capacity(groups.len());
        for group in groups {
            let completions = group.into_iter().zip(scored.by_ref());
            found.push(
                completions.map(|(completion, (text, score))| ScoredCompletion { completion, text, score }).collect(),
            );
        }
        Ok(found)
    }
}

/// Whether a prompt's completions differ in reward, and where they lie if not.
pub fn signal_of(group: &[ScoredCompletion]) -> GroupSignal {
    let rewards: Vec<f64> = group.iter().map(|scored| scored.score.reward).collect();
    let every = |is: fn(&Score) -> bool| group.iter().all(|scored| is(&scored.score));
    group_signal(&rewards, every(Score::is_max), every(Score::is_min))
}

fn retry_once<R>(free: impl FnOnce(), attempt: impl Fn() -> Result<R>) -> Result<R> {
    match attempt() {
        Err(error) if is_out_of_memory(&error) => {
            free();
            attempt()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::Error;

    use super::*;
    use crate::kernels::cuda_errors::GpuFailure;

    #[test]
    fn a_rollout_is_tried_once_more() {
        let check = |failures: usize, is_out_of_memory: bool, expected: (usize, usize, bool)| {
            let (attempts, freed) = (Cell::new(0), Cell::new(0));
            let failure =
                || GpuFailure { operation: "sampling".to_owned(), cause: "a code".to_owned(), is_out_of_memory };
            let attempt = || {
                attempts.set(attempts.get() + 1);
                if attempts.get() <= failures { Err(Error::Cuda(Box::new(failure()))) } else { Ok(()) }
            };
            let result = retry_once(|| freed.set(1), attempt);
            assert_eq!((attempts.get(), freed.get(), result.is_ok()), expected, "{failures} {is_out_of_memory}");
        };
        check(0, true, (1, 0, true));
        check(1, true, (2, 1, true));
        check(2, true, (2, 1, false));
        check(1, false, (1, 0, false));
    }
}
