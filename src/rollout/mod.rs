//! Rollouts: each prompt is prefilled once and its completions are decoded side by side; finished ones leave the batch.

mod decode_cpu; // some prompts decoded together
#[cfg(feature = "cuda")]
mod decode_gpu; // a rollout's rows decoded together on a GPU
mod scored; // completions with their scores: the one path for all who sample
mod thread_pool; // work spread over the processor's cores, in a fixed order

use candle_core::Result;

use crate::model::{Adapters, Decoder};
use crate::plan::CPU_DECODE_ROWS;
use crate::text::Tokenizer;

pub use scored::{RolloutContext, ScoredCompletion, signal_of};
pub use thread_pool::ThreadPool;

/// A prompt, and the number of its completions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Identifies the prompt in the random numbers; unique within a step.
    pub prompt_number: u32,
    /// The optimizer step or another count; also part of the random numbers' counter.
    pub step: u32,
    pub samples: usize,
}

/// Sampling parameters. There is no top-p and no top-k: training needs samples of the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// The stop token included.
    pub max_completion_tokens: usize,
    pub stop_ids: Vec<u32>,
    /// Determines every random number, together with a request's step and prompt number, the sample's number and the
    /// position.
    pub seed: u64,
}

impl Sampling {
    /// With the tokenizer's stop tokens.
    pub fn new(tokenizer: &Tokenizer, temperature: f64, max_completion_tokens: usize, seed: u64) -> Self {
        Self { temperature, max_completion_tokens, stop_ids: tokenizer.stop_ids().to_vec(), seed }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopReason {
    /// A stop token.
    Stop,
    /// `max_completion_tokens` reached.
    Length,
}

impl StopReason {
    /// As in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The stop token included.
    pub token_ids: Vec<u32>,
    /// Of each token under the sampling distribution, nats.
    pub log_probs: Vec<f32>,
    pub stop: StopReason,
}

/// Samples the completions of each request, in order.
///
/// # Errors
/// If a prompt and its completion do not fit the model's positions, a tensor operation fails, or the work is cancelled.
pub fn generate(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
    threads: &ThreadPool,
) -> Result<Vec<Vec<Completion>>> {
    #[cfg(feature = "cuda")]
    if model.device().is_cuda() {
        let shards = shards(requests, decode_gpu::rows_per_shard(model, sampling), crate::plan::GPU_PREFILL_ROWS);
        let results = shards
            .into_iter()
            .map(|shard| decode_gpu::decode(model, adapters, shard, sampling, threads))
            .collect::<Result<Vec<_>>>()?;
        return Ok(results.into_iter().flatten().collect());
    }
    let results = threads.map(&shards(requests, CPU_DECODE_ROWS, usize::MAX), |shard| {
        decode_cpu::decode(model, adapters, shard, sampling, threads)
    })?;
    Ok(results.into_iter().flatten().collect())
}

/// Splits requests, in order, into shards of at most `most_rows` completions and `most_prompt_rows` prompt tokens; a
/// larger request is alone.
fn shards(requests: &[Request], most_rows: usize, most_prompt_rows: usize) -> Vec<&[Request]> {
    let mut shards = Vec::new();
    let (mut start, mut rows, mut prompt_rows) = (0, 0, 0);
    for (index, request) in requests.iter().enumerate() {
        if rows > 0 && (rows + request.samples > most_rows || prompt_rows + request.prompt.len() > most_prompt_rows) {
            shards.push(&requests[start..index]);
            (start, rows, prompt_rows) = (index, 0, 0);
        }
        rows += request.samples;
        prompt_rows += request.prompt.len();
    }
    shards.push(&requests[start..]);
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_bounded_by_completions_and_by_prompts() {
        let check = |requests: &[(usize, usize)], most_rows, most_prompt_rows, expected: &[usize]| {
            let request = |&(prompt, samples): &(usize, usize)| Request {
                prompt: vec![1; prompt],
                prompt_number: 0,
                step: 0,
                samples,
            };
            let requests: Vec<Request> = requests.iter().map(request).collect();
            let sizes: Vec<usize> =
                shards(&requests, most_rows, most_prompt_rows).iter().map(|shard| shard.len()).collect();
            assert_eq!(sizes, expected);
        };
        check(&[(10, 8); 5], 16, usize::MAX, &[2, 2, 1]);
        check(&[(10, 8); 5], 64, 30, &[3, 2]);
        check(&[(10, 8), (50, 8), (10, 8)], 64, 30, &[1, 1, 1]);
        check(&[(10, 40), (10, 1)], 32, usize::MAX, &[1, 1]);
        check(&[], 32, 100, &[0]);
    }
}
