//! A policy: a model with all that it needs to answer prompts. Training, evals, samples and the learnability check
//! converse with it in the same way.

mod agents; // programs that hold conversations
mod blocking; // threads for what waits
mod conversation; // answers with their scores
mod converse; // conversations held while what they ask is decoded
mod hold; // one conversation, from its first prompt to its last score
mod prompts; // rows as the model reads them
mod questions; // what is answered together, with tools and agents
mod sampler; // who samples
mod scores; // answers scored while others are decoded
mod served; // a model that another process has loaded
mod settings; // what is asked, and what is answered
mod tools; // calls of tools, their replies, and why a conversation ends
mod watch; // the progress of an eval
mod written; // demonstrations, and other conversations that nobody samples

use std::sync::{Arc, PoisonError};

use candle_core::{Error, Result};

use crate::dataset::PromptRow;
use crate::kernels::cuda_errors::is_out_of_memory;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder};
use crate::rollout::{
    Completion, DecodeCounts, GpuFallback, Request, RolloutMemory, RolloutOutput, Sampling,
    SizedSource, ThreadPool, generate, generate_from,
};
use crate::score::{Score, Scorer};
use crate::text::Tokenizer;
use scores::score_rows;

pub use conversation::{CallStep, Conversation, LaterPrompt, ToolTurn, Turn, signal_of};

pub use crate::rollout::KeptAnswers;
pub use prompts::{Lengths, Prompt, PromptError, prepare, prepare_rows, render};
pub use served::ServedModel;
pub use settings::{ConverseSettings, Conversed, Question, ScoredTask};
pub use watch::{EvalWatch, Watcher};
pub use written::{WrittenTokens, demonstrate, demonstrated_tokens, written_conversation};

/// The step of an eval's random numbers; no training has it, so an eval never repeats a rollout.
pub const EVAL_STEP: u32 = u32::MAX;
/// The same for a learnability check.
pub const SIGNAL_STEP: u32 = u32::MAX - 1;
/// The same for requested samples; a training begins with step 1.
pub const SAMPLE_STEP: u32 = 0;

/// A row, and the scorer that scores answers against it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRow<'a> {
    pub scorer: &'a Scorer,
    pub row: &'a PromptRow,
}

/// A model that answers prompts, and what it computes with.
#[derive(Debug)]
pub struct Policy {
    pub engine: Engine,
    pub model: Decoder,
    /// A frozen copy of the base, for a KL where all weights are trained. Without it the base is the model without its
    /// adapters.
    pub reference: Option<Decoder>,
    pub tokenizer: Arc<Tokenizer>,
    pub threads: ThreadPool,
    pub memory: RolloutMemory,
}

/// Whose answers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVersion {
    Trained,
    Base,
}

impl Policy {
    /// Nothing to draft from, and no copy of the base.
    pub fn new(engine: Engine, model: Decoder, tokenizer: Tokenizer, threads: ThreadPool) -> Self {
        Self {
            engine,
            model,
            reference: None,
            tokenizer: Arc::new(tokenizer),
            threads,
            memory: RolloutMemory::default(),
        }
    }

    /// The model that has these weights, and whether its adapters are on.
    pub fn model_of(&self, version: PolicyVersion) -> (&Decoder, Adapters) {
        match (version, &self.reference) {
            (PolicyVersion::Trained, _) => (&self.model, Adapters::On),
            (PolicyVersion::Base, Some(reference)) => (reference, Adapters::Off),
            (PolicyVersion::Base, None) => (&self.model, Adapters::Off),
        }
    }

    /// Samples the completions of each request.
    pub fn rollout(
        &self,
        version: PolicyVersion,
        requests: &[Request],
        sampling: &Sampling,
    ) -> Result<RolloutOutput> {
        let (model, adapters) = self.model_of(version);
        let completions = requests.iter().map(|request| request.samples).sum();
        let (memory, threads) = (&self.memory, &self.threads);
        let sample = || generate(model, adapters, requests, sampling, memory, threads);
        let (mut generated, fallback) = self.in_less_memory(completions, sample)?;
        generated.gpu_fallbacks.extend(fallback);
        Ok(generated)
    }

    /// Decodes what sources have.
    fn rollout_from(
        &self,
        version: PolicyVersion,
        sources: &[SizedSource<'_>],
        sampling: &Sampling,
    ) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
        let sizes = sources.iter().flat_map(|sized| &sized.sizes);
        let completions = sizes.map(|size| size.samples).sum();
        let (model, memory, threads) = (self.model_of(version), &self.memory, &self.threads);
        let sample = || {
            for sized in sources {
                let source = sized.source.lock();
                source.unwrap_or_else(PoisonError::into_inner).begin_again();
            }
            generate_from(model, sources, sampling, memory, threads)
        };
        let ((counts, mut fallbacks), fallback) = self.in_less_memory(completions, sample)?;
        fallbacks.extend(fallback);
        Ok((counts, fallbacks))
    }

    /// Samples; when a GPU runs out of memory it is done again, after unused memory is released, then with ever fewer
    /// completions together in ever smaller caches.
    fn in_less_memory<R>(
        &self,
        all: usize,
        sample: impl Fn() -> Result<R>,
    ) -> Result<(R, Option<GpuFallback>)> {
        let (memory, before) = (&self.memory, self.memory.halvings());
        let free = || _ = self.engine.trim_memory();
        let generated = retry(free, || memory.halve(all), sample)?;
        let halvings = memory.halvings();
        let parts = 1 << halvings;
        let fallback = (halvings > before).then_some(GpuFallback::Smaller { parts });
        Ok((generated, fallback))
    }

    /// Decodes and scores the completions of all groups, on every core. `rows`: one per group, with its scorer.
    ///
    /// # Errors
    /// If tokens cannot be decoded, or the work is cancelled.
    pub fn score<'r>(
        &self,
        groups: Vec<Vec<Completion>>,
        rows: impl IntoIterator<Item = ScoredRow<'r>>,
    ) -> Result<Vec<Vec<Turn>>> {
        let decode = |completion: &Completion| {
            let text = self.tokenizer.decode(&completion.token_ids, true);
            text.map_err(Error::wrap)
        };
        let texts = groups.iter().flatten().map(decode);
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let rows: Vec<ScoredRow<'_>> = rows.into_iter().collect();
        let all = groups.iter().zip(&rows);
        let all = all.flat_map(|(group, row)| std::iter::repeat_n(*row, group.len()));
        let answers: Vec<_> = texts.iter().map(String::as_str).zip(all).collect();
        let scores = score_rows(&answers, || self.threads.check().is_ok());
        let scores = scores.ok_or_else(ThreadPool::cancelled)?;
        let mut scored = texts.into_iter().zip(scores);
        let turns = |(group, row): (Vec<Completion>, ScoredRow<'_>)| {
            let turn = |(completion, (text, mut score)): (Completion, (String, Score))| {
                let tokens = completion.token_ids.len();
                row.scorer.add_length(&mut score, tokens);
                Turn::new(completion, text, score)
            };
            group.into_iter().zip(scored.by_ref()).map(turn).collect()
        };
        Ok(groups.into_iter().zip(rows).map(turns).collect())
    }
}

/// Attempts again when memory runs out: once as before, then as often as `smaller` makes it so.
fn retry<R>(
    free: impl Fn(),
    smaller: impl Fn() -> bool,
    attempt: impl Fn() -> Result<R>,
) -> Result<R> {
    let mut is_first = true;
    loop {
        match attempt() {
            Err(error)
                if is_out_of_memory(&error) && (std::mem::take(&mut is_first) || smaller()) =>
            {
                free()
            }
            result => return result,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

#[cfg(test)]
mod retry_tests {
    use std::cell::Cell;

    use super::*;
    use crate::kernels::cuda_errors::GpuFailure;

    #[test]
    fn a_rollout_is_tried_again_in_less_memory() {
        let check = |failures: usize, is_out_of_memory: bool, expected: (usize, u32, bool)| {
            let (attempts, memory) = (Cell::new(0), RolloutMemory::default());
            let failure = || GpuFailure {
                operation: "sampling".to_owned(),
                cause: "a code".to_owned(),
                is_out_of_memory,
            };
            let attempt = || {
                attempts.set(attempts.get() + 1);
                if attempts.get() <= failures {
                    Err(Error::Cuda(Box::new(failure())))
                } else {
                    Ok(())
                }
            };
            let result = retry(|| (), || memory.halve(7), attempt);
            assert_eq!(
                (attempts.get(), memory.halvings(), result.is_ok()),
                expected,
                "{failures} {is_out_of_memory}"
            );
        };
        check(0, true, (1, 0, true));
        check(1, true, (2, 0, true));
        check(2, true, (3, 1, true));
        check(3, true, (4, 2, true));
        check(4, true, (4, 2, false));
        check(1, false, (1, 0, false));
    }
}
