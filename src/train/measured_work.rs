//! Work that is made up to be measured: prompts of random tokens, stop tokens off, plain GRPO, and advantages that none is left out for.

use crate::config::{KlEstimator, PolicyLoss};
use crate::kernels::philox::philox;
use crate::rollout::{Request, Sampling};
use crate::update::{LossSettings, PolicyGroup, PolicySample, PolicySettings};

/// `count` tokens below `vocabulary`; each stream has its own.
pub(super) fn random_tokens(stream: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|index| philox(1, [stream as u32, index as u32, 0, 0])[0] % vocabulary as u32).collect()
}

/// `prompts` prompts of `prompt_tokens` tokens, `samples` completions of each.
pub(super) fn requests(prompts: usize, samples: usize, prompt_tokens: usize, vocabulary: usize) -> Vec<Request> {
    let prompt = |number| random_tokens(number, prompt_tokens, vocabulary);
    (0..prompts).map(|number| Request { prompt: prompt(number), prompt_number: number as u32, step: 0, samples }).collect()
}

/// Every completion is `new_tokens` long.
pub(super) fn sampling(new_tokens: usize) -> Sampling {
    Sampling { temperature: 1.0, max_completion_tokens: new_tokens, stop_ids: Vec::new(), seed: 1 }
}

/// A prompt's completions (tokens, and the log-prob of each), with advantages none of which is 0.
pub(super) fn group(prompt: Vec<u32>, completions: impl IntoIterator<Item = (Vec<u32>, Vec<f32>)>) -> PolicyGroup {
    let sample = |(index, (token_ids, sampled_log_probs)): (usize, (Vec<u32>, Vec<f32>))| PolicySample {
        token_ids,
        sampled_log_probs,
        old_log_probs: None,
        reference_log_probs: None,
        advantage: if index.is_multiple_of(2) { 1.0 } else { -1.0 },
    };
    PolicyGroup { prompt, samples: completions.into_iter().enumerate().map(sample).collect() }
}

/// GRPO on the policy's own completions, without a KL.
pub(super) fn policy_settings(new_tokens: usize, tokens_per_micro_batch: usize, recompute: bool) -> PolicySettings {
    let loss = LossSettings {
        policy_loss: PolicyLoss::Grpo,
        clip_low: 0.2,
        clip_high: 0.2,
        cispo_cap: 5.0,
        kl_beta: 0.0,
        kl_estimator: KlEstimator::K3,
        kl_importance: true,
        max_completion_tokens: new_tokens,
    };
    PolicySettings { loss, temperature: 1.0, tokens_per_micro_batch, recompute }
}
