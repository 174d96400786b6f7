//! Scored rollouts, for training, evals, samples and the learnability check.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use candle_core::{Error, Result};

use super::{
    Completion, EndedCompletion, GpuFallback, Request, RolloutMemory, RolloutOutput, Sampling, ThreadPool, generate,
};
use crate::advantage::{GroupSignal, group_signal};
use crate::dataset::PromptRow;
use crate::kernels::cuda_errors::is_out_of_memory;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder};
use crate::score::{Score, Scorer};
use crate::text::Tokenizer;

/// The model to sample from, with tokenizer, memory and threads.
#[derive(Clone, Copy, Debug)]
pub struct RolloutContext<'a> {
    pub engine: &'a Engine,
    pub model: &'a Decoder,
    /// On: the trained model; off: the base.
    pub adapters: Adapters,
    pub tokenizer: &'a Tokenizer,
    pub threads: &'a ThreadPool,
    pub memory: &'a RolloutMemory,
}

#[derive(Clone, Debug)]
pub struct ScoredCompletion {
    pub completion: Completion,
    pub text: String,
    pub score: Score,
}

/// Is told of each completion's score while others are decoded, on a thread of its own.
pub trait Watcher: Send {
    /// Whether it learns of the completions of `request`.
    fn wants(&self, request: &Request) -> bool;

    /// Learns of one, and of its score where its prompt is that of a row.
    fn on_end(&mut self, ended: &EndedCompletion, score: Option<&Score>);
}

impl RolloutContext<'_> {
    /// Samples the completions of each request. When a GPU runs out of memory it is done again, after unused memory is
    /// released, then with ever fewer completions together in ever smaller caches.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn rollout(&self, requests: &[Request], sampling: &Sampling) -> Result<RolloutOutput> {
        let smaller = || self.memory.halve(requests.iter().map(|request| request.samples).sum());
        let sample = || generate(self.model, self.adapters, requests, sampling, self.memory, self.threads);
        let before = self.memory.halvings();
        let mut generated = retry(|| _ = self.engine.trim_memory(), smaller, sample)?;
        let halvings = self.memory.halvings();
        generated.gpu_fallbacks.extend((halvings > before).then_some(GpuFallback::Smaller { parts: 1 << halvings }));
        Ok(generated)
    }

    /// As [`Self::rollout`]; a scorer that runs programs begins with the completions that end first, so that it has few
    /// to answer afterwards, and so does one whose scores a `watcher` wants. `rows`: by the tokens of their prompts.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn rollout_while_scoring<'r>(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        scorer: &Scorer,
        rows: impl Iterator<Item = (&'r [u32], &'r PromptRow)>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<RolloutOutput> {
        if !scorer.runs_programs() && watcher.is_none() {
            return self.rollout(requests, sampling);
        }
        let rows: HashMap<&[u32], &PromptRow> = rows.collect();
        let (sender, finished) = channel();
        let keep_going = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let wanted = &keep_going;
            let rows = &rows;
            scope.spawn(move || self.score_early(finished, scorer, (rows, wanted), watcher));
            let _listening = self.memory.listen(sender);
            let generated = self.rollout(requests, sampling);
            keep_going.store(generated.is_ok(), Ordering::Relaxed);
            generated
        })
    }

    /// Asks the scorer; one that runs programs remembers its answers.
    fn score_early(
        &self,
        finished: Receiver<EndedCompletion>,
        scorer: &Scorer,
        (rows, keep_going): (&HashMap<&[u32], &PromptRow>, &AtomicBool),
        mut watcher: Option<&mut dyn Watcher>,
    ) {
        while let Ok(first) = finished.recv() {
            let is_watched =
                |ended: &EndedCompletion| watcher.as_ref().is_some_and(|watcher| watcher.wants(&ended.request));
            let ended: Vec<EndedCompletion> = std::iter::once(first)
                .chain(finished.try_iter())
                .filter(|ended| scorer.runs_programs() || is_watched(ended))
                .collect();
            let asked = |ended: &EndedCompletion| {
                let row = *rows.get(ended.request.prompt.as_slice())?;
                Some((self.tokenizer.decode(&ended.completion.token_ids, true).ok()?, row))
            };
            let asked: Vec<Option<(String, &PromptRow)>> = ended.iter().map(asked).collect();
            let texts: Vec<_> = asked.iter().flatten().map(|(text, row)| (text.as_str(), Some(*row))).collect();
            let keep_going = || keep_going.load(Ordering::Relaxed) && self.threads.check().is_ok();
            let scores = scorer.score_while(&texts, keep_going);
            let (Some(scores), Some(watcher)) = (scores, watcher.as_mut()) else { continue };
            let mut scores = scores.iter();
            for (ended, asked) in ended.iter().zip(&asked) {
                let score = asked.as_ref().and_then(|_| scores.next());
                if watcher.wants(&ended.request) {
                    watcher.on_end(ended, score);
                }
            }
        }
    }

    /// Decodes and scores the completions of all groups, on every core. `rows`: one per group.
    ///
    /// # Errors
    /// If tokens cannot be decoded, or the work is cancelled.
    pub fn score<'r>(
        &self,
        scorer: &Scorer,
        groups: Vec<Vec<Completion>>,
        rows: impl IntoIterator<Item = &'r PromptRow>,
    ) -> Result<Vec<Vec<ScoredCompletion>>> {
        let decode = |completion: &Completion| self.tokenizer.decode(&completion.token_ids, true).map_err(Error::wrap);
        let texts = groups.iter().flatten().map(decode).collect::<Result<Vec<_>>>()?;
        let rows = groups.iter().zip(rows).flat_map(|(group, row)| std::iter::repeat_n(Some(row), group.len()));
        let asked: Vec<_> = texts.iter().map(String::as_str).zip(rows).collect();
        let scores = scorer.score_while(&asked, || self.threads.check().is_ok()).ok_or_else(ThreadPool::cancelled)?;
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

/// Whether a prompt's rewards differ, and if not, where they are.
pub fn signal_of(group: &[ScoredCompletion]) -> GroupSignal {
    let rewards: Vec<f64> = group.iter().map(|scored| scored.score.reward).collect();
    let every = |is: fn(&Score) -> bool| group.iter().all(|scored| is(&scored.score));
    group_signal(&rewards, every(Score::is_max), every(Score::is_min))
}

/// Attempts again when memory runs out: once as before, then as often as `smaller` makes it so.
fn retry<R>(free: impl Fn(), smaller: impl Fn() -> bool, attempt: impl Fn() -> Result<R>) -> Result<R> {
    let mut is_first = true;
    loop {
        match attempt() {
            Err(error) if is_out_of_memory(&error) && (std::mem::take(&mut is_first) || smaller()) => free(),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::kernels::cuda_errors::GpuFailure;

    #[test]
    fn a_rollout_is_tried_again_in_less_memory() {
        let check = |failures: usize, is_out_of_memory: bool, expected: (usize, u32, bool)| {
            let (attempts, memory) = (Cell::new(0), RolloutMemory::default());
            let failure =
                || GpuFailure { operation: "sampling".to_owned(), cause: "a code".to_owned(), is_out_of_memory };
            let attempt = || {
                attempts.set(attempts.get() + 1);
                if attempts.get() <= failures { Err(Error::Cuda(Box::new(failure()))) } else { Ok(()) }
            };
            let result = retry(|| (), || memory.halve(7), attempt);
            assert_eq!((attempts.get(), memory.halvings(), result.is_ok()), expected, "{failures} {is_out_of_memory}");
        };
        check(0, true, (1, 0, true));
        check(1, true, (2, 0, true));
        check(2, true, (3, 1, true));
        check(3, true, (4, 2, true));
        check(4, true, (4, 2, false));
        check(1, false, (1, 0, false));
    }
}
