//! The gradient of a GRPO step: groups packed into micro-batches, the policy loss on each, summed in a fixed order.

use std::borrow::Cow;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use super::log_probs::{add_gradient, log_probs};
use super::loss::{LossSettings, SequenceLoss, SequenceTerms, StepTotals, sequence_loss, token_share};
use super::micro_batch::{MicroBatch, pack, sum_gradients};
use crate::kernels::log_probs::{TokenLogProb, TokenWeight};
use crate::model::{Adapters, Decoder, Gradients, RouterUse};
use crate::rollout::{Completion, ThreadPool};

/// A completion with its advantage and log-probs.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySample<'a> {
    /// Its tokens as they were sampled, the stop token included.
    pub token_ids: Cow<'a, [u32]>,
    /// The sampler's log-probs, nats; empty for an answer that was not sampled freely.
    pub sampled_log_probs: Cow<'a, [f32]>,
    /// Log-probs by a training forward of the weights that sampled it; None where those are the current ones: then the
    /// ratio is exactly 1. The sampler's own would not do: their rounding is another, and passes `gspo`'s clips.
    pub old_log_probs: Option<Cow<'a, [f32]>>,
    /// The reference's log-probs, where `kl_beta` > 0.
    pub reference_log_probs: Option<Vec<f32>>,
    pub advantage: f64,
}

impl<'a> PolicySample<'a> {
    /// A completion that the current weights sampled.
    pub fn on_policy(completion: &'a Completion, advantage: f64) -> Self {
        let Completion { token_ids, log_probs, .. } = completion;
        let (token_ids, sampled_log_probs) = (token_ids.into(), log_probs.into());
        Self { token_ids, sampled_log_probs, old_log_probs: None, reference_log_probs: None, advantage }
    }
}

/// The completions of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyGroup<'a> {
    pub prompt: Cow<'a, [u32]>,
    pub samples: Vec<PolicySample<'a>>,
}

impl<'a> PolicyGroup<'a> {
    /// Completions with advantages none of which is 0, so that nothing is left out of a measurement.
    pub fn alternating(prompt: &'a [u32], completions: impl IntoIterator<Item = &'a Completion>) -> Self {
        let advantages = [1.0, -1.0].into_iter().cycle();
        let samples = completions.into_iter().zip(advantages);
        let samples = samples.map(|(completion, advantage)| PolicySample::on_policy(completion, advantage));
        Self { prompt: prompt.into(), samples: samples.collect() }
    }

    /// Gives each sample the reference's log-probs of its tokens.
    pub fn set_reference(&mut self, log_probs: Vec<Vec<f32>>) {
        for (sample, log_probs) in self.samples.iter_mut().zip(log_probs) {
            sample.reference_log_probs = Some(log_probs);
        }
    }
}

/// How a gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicySettings {
    pub loss: LossSettings,
    /// As in the rollout.
    pub temperature: f64,
    pub tokens_per_micro_batch: usize,
    /// Keep only layer inputs and compute the rest again.
    pub recompute: bool,
}

/// Statistics of a step's forward passes, summed over tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatistics {
    /// The loss. Near 0 on-policy by construction: advantages sum to 0.
    pub loss: f64,
    /// Completion tokens forwarded.
    pub tokens: usize,
    /// How many of the tokens the policy sampled freely.
    pub sampled_tokens: usize,
    /// Rows forwarded, prompts included.
    pub rows: usize,
    /// Sum of entropies, nats.
    pub entropy: f64,
    /// Sum of KL terms, nats; None where no reference was forwarded.
    pub kl: Option<f64>,
    /// Tokens that the lower clip cut.
    pub clipped_low: usize,
    /// Tokens that the upper clip cut.
    pub clipped_high: usize,
    /// Sum of |training log-prob - sampler's log-prob|, nats, both under the weights that sampled.
    pub sampling_difference: f64,
    /// The largest of them.
    pub sampling_difference_max: f64,
    /// What the routers did with the rows, by layer that has one; empty on a GPU.
    pub routers: Vec<RouterUse>,
}

/// The step's gradient over `groups`; `totals` are the denominators, which also count the groups that are not here.
pub fn policy_gradient(
    model: &Decoder,
    groups: &[PolicyGroup<'_>],
    totals: StepTotals,
    settings: &PolicySettings,
    threads: &ThreadPool,
) -> Result<(Gradients, PolicyStatistics)> {
    let micro_batches = pack_groups(groups, settings.tokens_per_micro_batch);
    let (sum, found) = sum_gradients(model, &micro_batches, threads, |micro_batch, gradients| {
        let mut statistics = PolicyStatistics { rows: micro_batch.batch.rows(), ..PolicyStatistics::default() };
        let d_log_probs = |sequence: usize, tokens: &[TokenLogProb]| {
            let (group, sample) = micro_batch.owners[sequence];
            statistics.d_log_probs(&groups[group].samples[sample], tokens, totals, &settings.loss)
        };
        let routers =
            add_gradient(model, micro_batch, settings.temperature, settings.recompute, gradients, d_log_probs)?;
        Ok(PolicyStatistics { routers, ..statistics })
    })?;
    let mut statistics = PolicyStatistics::default();
    found.into_iter().for_each(|part| statistics.add(part));
    Ok((sum, statistics))
}

/// The log-probs of every completion, without a gradient: under the reference, or under the weights that sampled it.
/// The micro-batches are those of [`policy_gradient`] with the same groups, so the same weights give the very same
/// numbers there.
pub fn completion_log_probs(
    model: &Decoder,
    adapters: Adapters,
    groups: &[PolicyGroup<'_>],
    settings: &PolicySettings,
    threads: &ThreadPool,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let micro_batches = pack_groups(groups, settings.tokens_per_micro_batch);
    let results =
        threads.map(&micro_batches, |micro_batch| log_probs(model, micro_batch, adapters, settings.temperature))?;
    let mut found: Vec<Vec<Vec<f32>>> = groups.iter().map(|group| vec![Vec::new(); group.samples.len()]).collect();
    for (micro_batch, sequences) in micro_batches.iter().zip(results) {
        for (&(group, sample), tokens) in micro_batch.owners.iter().zip(sequences) {
            found[group][sample] = tokens.into_iter().map(|token| token.log_prob).collect();
        }
    }
    Ok(found)
}

fn pack_groups(groups: &[PolicyGroup<'_>], tokens_per_micro_batch: usize) -> Vec<MicroBatch> {
    let groups = groups.iter().map(|group| {
        let completions = group.samples.iter().map(|sample| &*sample.token_ids).collect();
        (&*group.prompt, completions)
    });
    pack(groups, tokens_per_micro_batch)
}

impl PolicyStatistics {
    /// The derivative of the loss by the log-prob and the entropy of each token of a completion, which is counted.
    fn d_log_probs(
        &mut self,
        sample: &PolicySample<'_>,
        tokens: &[TokenLogProb],
        totals: StepTotals,
        settings: &LossSettings,
    ) -> Vec<TokenWeight> {
        let current: Vec<f32> = tokens.iter().map(|token| token.log_prob).collect();
        let terms = SequenceTerms {
            log_probs: &current,
            old: sample.old_log_probs.as_deref(),
            reference: sample.reference_log_probs.as_deref(),
            advantage: sample.advantage,
        };
        let SequenceLoss { loss, d_log_probs, clipped_low, clipped_high, kl } = sequence_loss(settings, terms, totals);
        let entropy_sum = tokens.iter().map(|token| f64::from(token.entropy)).sum::<f64>();
        let entropy = -settings.entropy_coef * token_share(settings, tokens.len(), totals);
        self.loss += loss + entropy * entropy_sum;
        if terms.reference.is_some() {
            self.kl = Some(self.kl.unwrap_or(0.0) + kl);
        }
        self.clipped_low += clipped_low;
        self.clipped_high += clipped_high;
        self.tokens += tokens.len();
        self.sampled_tokens += sample.sampled_log_probs.len();
        self.entropy += entropy_sum;
        for (&trained, &sampled) in
            sample.old_log_probs.as_deref().unwrap_or(&current).iter().zip(&*sample.sampled_log_probs)
        {
            let difference = f64::from((trained - sampled).abs());
            self.sampling_difference += difference;
            self.sampling_difference_max = self.sampling_difference_max.max(difference);
        }
        d_log_probs.into_iter().map(|log_prob| TokenWeight { log_prob, entropy }).collect()
    }

    /// Those of more tokens of the same step.
    pub fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.sampled_tokens += other.sampled_tokens;
        self.rows += other.rows;
        self.entropy += other.entropy;
        self.kl = self.kl.map_or(other.kl, |kl| Some(kl + other.kl.unwrap_or(0.0)));
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.sampling_difference += other.sampling_difference;
        self.sampling_difference_max = self.sampling_difference_max.max(other.sampling_difference_max);
        self.routers.resize_with(other.routers.len().max(self.routers.len()), RouterUse::default);
        self.routers.iter_mut().zip(&other.routers).for_each(|(own, other)| own.add(other));
    }
}
