//! A policy: a model with everything needed to answer prompts, used alike by training, evals,
//! samples and learnability checks.

mod agents; // agents' conversations
mod blocking; // threads for blocking work
mod conversation; // answers with scores
mod converse; // runs conversations during decoding
mod hold; // one conversation, from first prompt to last score
mod prompts; // rendered rows
mod questions; // questions answered together
mod sampler; // a policy, or a served model
mod scores; // scores answers in batches
mod served; // a model loaded by another process
mod settings; // questions and results
mod tools; // tool calls, replies, ends of conversations
mod watch; // progress of an eval
mod written; // demonstrations and other prepared conversations

use std::sync::Arc;

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

pub use prompts::{Lengths, Prompt, PromptError, prepare, prepare_rows, render};
pub use served::ServedModel;
pub use settings::{ConverseSettings, Conversed, Question, ScoredTask};
pub use watch::{EvalWatch, Watcher};
pub use written::{
    WrittenTokens, answer_to_learn, demonstrate, demonstrated_tokens, written_conversation,
};

/// Step of an eval's random numbers; not used in training, so evals never repeat rollouts.
pub const EVAL_STEP: u32 = u32::MAX;
/// Step of a learnability check's random numbers.
pub const SIGNAL_STEP: u32 = u32::MAX - 1;
/// Step of requested samples; training begins at 1.
pub const SAMPLE_STEP: u32 = 0;

/// A row with its scorer.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRow<'a> {
    pub scorer: &'a Scorer,
    pub row: &'a PromptRow,
}

/// A model with its execution context.
#[derive(Debug)]
pub struct Policy {
    pub engine: Engine,
    pub model: Decoder,
    /// Frozen copy of the base, for KL in full training. Otherwise the base is the model without
    /// adapters.
    pub reference: Option<Decoder>,
    pub tokenizer: Arc<Tokenizer>,
    pub threads: ThreadPool,
    pub memory: RolloutMemory,
}

/// Whose answers are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVersion {
    Trained,
    Base,
}

impl Policy {
    /// Starts with an empty draft history, and no copy of the base.
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

    /// The model with these weights, and whether its adapters are on.
    pub fn model_of(&self, version: PolicyVersion) -> (&Decoder, Adapters) {
        match (version, &self.reference) {
            (PolicyVersion::Trained, _) => (&self.model, Adapters::On),
            (PolicyVersion::Base, Some(reference)) => (reference, Adapters::Off),
            (PolicyVersion::Base, None) => (&self.model, Adapters::Off),
        }
    }

    /// Samples completions of each request.
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

    /// Decodes requests of sources.
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
                sized.source.lock().begin_again();
            }
            generate_from(model, sources, sampling, memory, threads)
        };
        let ((counts, mut fallbacks), fallback) = self.in_less_memory(completions, sample)?;
        fallbacks.extend(fallback);
        Ok((counts, fallbacks))
    }

    /// Samples, retrying on GPU out-of-memory: after releasing unused memory, then with ever
    /// smaller batches and caches.
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

    /// Decodes and scores completions of all groups, on all cores. `rows`: one per group, with its
    /// scorer.
    ///
    /// # Errors
    /// Tokens that cannot be decoded, or cancellation.
    pub fn score<'r>(
        &self,
        groups: Vec<Vec<Completion>>,
        rows: impl IntoIterator<Item = ScoredRow<'r>>,
    ) -> Result<Vec<Vec<Turn>>> {
        let decode = |completion: &Completion| {
            let text = self.tokenizer.decode_answer(&completion.token_ids);
            text.map_err(Error::wrap)
        };
        let texts = groups.iter().flatten().map(decode);
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let rows: Vec<ScoredRow<'_>> = rows.into_iter().collect();
        let all = groups.iter().zip(&rows);
        let all = all.flat_map(|(group, row)| std::iter::repeat_n(*row, group.len()));
        let ids = groups.iter().flatten().map(|one| one.token_ids.as_slice());
        let answers = texts.iter().zip(ids).zip(all);
        let answers: Vec<_> = answers
            .map(|((text, ids), row)| (text.as_str(), ids, row))
            .collect();
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

/// Retries on out-of-memory: once unchanged, then while `smaller` reduces the size.
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
