//! Gradient of a GRPO step: groups packed into micro-batches, policy loss on each, summed in a
//! fixed order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Result;
use serde::{Deserialize, Serialize};

use super::log_probs::{add_gradient, log_probs};
use super::loss::{
    LossSequence, LossSettings, SequenceLoss, SequenceTerms, StepTotals, sequence_loss, token_share,
};
use super::micro_batch::{MicroBatch, Piece, pack, sum_gradients};
use crate::kernels::log_probs::{TokenLogProb, TokenWeight};
use crate::model::{Adapters, Decoder, ExpertRecord, Gradients, RouterUse};
use crate::rollout::{Completion, ThreadPool};

/// A completion with its advantage and log-probs.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySample<'a> {
    /// Tokens read between the previous sample, which this one continues, and this one; `None`: it
    /// continues the group's prompt.
    pub follows: Option<Cow<'a, [u32]>>,
    /// Tokens as sampled, including the stop token.
    pub token_ids: Cow<'a, [u32]>,
    /// The sampler's, nats; empty for a guiding answer.
    pub sampled_log_probs: Cow<'a, [f32]>,
    /// Log-probs by a training forward of the weights that sampled it; `None` if these are the
    /// current ones: the ratio is exactly 1. The sampler's own round differently, which exceeds
    /// `gspo`'s clips.
    pub old_log_probs: Option<Cow<'a, [f32]>>,
    /// Set with `kl_beta` > 0.
    pub reference_log_probs: Option<Vec<f32>>,
    /// Set for a distilled completion.
    pub teacher_log_probs: Option<Vec<f32>>,
    pub advantage: f64,
    /// `None`: the completion is a sequence by itself.
    pub sequence: Option<LossSequence>,
    /// Tokens not chosen by the policy: read, but not part of the loss.
    pub forced: Range<usize>,
    /// Experts of its prompt and tokens; `None`: selected by current probabilities.
    pub experts: Option<&'a ExpertRecord>,
}

impl<'a> PolicySample<'a> {
    /// A completion sampled by the current weights.
    pub fn on_policy(completion: &'a Completion, advantage: f64) -> Self {
        Self {
            follows: None,
            token_ids: Cow::from(&completion.token_ids),
            sampled_log_probs: Cow::from(&completion.log_probs),
            old_log_probs: None,
            reference_log_probs: None,
            teacher_log_probs: None,
            advantage,
            sequence: None,
            forced: completion.forced.clone(),
            experts: completion.experts.as_ref(),
        }
    }

    fn for_teacher(&self, is_read: bool) -> PolicySample<'_> {
        let is_read = is_read && !self.sampled_log_probs.is_empty();
        PolicySample {
            follows: self.follows.as_deref().filter(|_| is_read).map(Cow::from),
            token_ids: if is_read {
                Cow::from(&*self.token_ids)
            } else {
                Cow::default()
            },
            sampled_log_probs: Cow::default(),
            old_log_probs: None,
            reference_log_probs: None,
            teacher_log_probs: None,
            advantage: 0.0,
            sequence: None,
            forced: 0..0,
            // Those of other weights, or after another prompt.
            experts: None,
        }
    }

    /// Drops values of forced tokens; `values`: one per token.
    fn chosen<'n, T: Clone>(&self, values: &'n [T]) -> Cow<'n, [T]> {
        match values.split_at_checked(self.forced.end) {
            Some((before, after)) if !self.forced.is_empty() => {
                [&before[..self.forced.start], after].concat().into()
            }
            _ => values.into(),
        }
    }
}

impl<'a> From<&'a PolicySample<'_>> for Piece<'a> {
    fn from(sample: &'a PolicySample<'_>) -> Self {
        Self {
            follows: sample.follows.as_deref(),
            token_ids: &sample.token_ids,
        }
    }
}

/// Completions of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyGroup<'a> {
    pub prompt: Cow<'a, [u32]>,
    /// The teacher's prompt, if the completions are distilled.
    pub teacher_prompt: Option<Cow<'a, [u32]>>,
    pub samples: Vec<PolicySample<'a>>,
}

impl<'a> PolicyGroup<'a> {
    /// Completions with nonzero advantages, so that a measurement omits nothing.
    pub fn alternating(
        prompt: &'a [u32],
        completions: impl IntoIterator<Item = &'a Completion>,
    ) -> Self {
        let advantages = [1.0, -1.0].into_iter().cycle();
        let samples = completions.into_iter().zip(advantages);
        let samples =
            samples.map(|(completion, advantage)| PolicySample::on_policy(completion, advantage));
        Self {
            prompt: prompt.into(),
            teacher_prompt: None,
            samples: samples.collect(),
        }
    }

    /// The group with the teacher's prompt. What is not distilled has no tokens, so is not
    /// forwarded: groups without a teacher, and guiding answers.
    pub fn for_teacher(&self) -> PolicyGroup<'_> {
        let prompt = Cow::from(self.teacher_prompt.as_deref().unwrap_or_default());
        let is_read = self.teacher_prompt.is_some();
        let samples = self
            .samples
            .iter()
            .map(|sample| sample.for_teacher(is_read))
            .collect();
        PolicyGroup {
            prompt,
            teacher_prompt: None,
            samples,
        }
    }

    /// Sets the teacher's log-probs per sample; empty if not distilled.
    pub fn set_teacher(&mut self, log_probs: Vec<Vec<f32>>) {
        for (sample, log_probs) in self.samples.iter_mut().zip(log_probs) {
            sample.teacher_log_probs = Some(log_probs).filter(|log_probs| !log_probs.is_empty());
        }
    }

    /// Sets the reference's log-probs per sample.
    pub fn set_reference(&mut self, log_probs: Vec<Vec<f32>>) {
        for (sample, log_probs) in self.samples.iter_mut().zip(log_probs) {
            sample.reference_log_probs = Some(log_probs);
        }
    }
}

/// Sets the mean log-ratio of each sequence that was sampled by older weights; turns without a
/// gradient are not forwarded and not in the mean. `log_probs`: under the current weights, as of
/// [`completion_log_probs`].
pub fn set_log_ratios(groups: &mut [PolicyGroup<'_>], log_probs: &[Vec<Vec<f32>>]) {
    let mut sums: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    let samples = groups.iter().flat_map(|group| &group.samples);
    for (sample, current) in samples.zip(log_probs.iter().flatten()) {
        if let (Some(sequence), Some(old)) = (sample.sequence, &sample.old_log_probs) {
            let (current, old) = (sample.chosen(current), sample.chosen(old));
            let log_ratios = current
                .iter()
                .zip(&*old)
                .map(|(current, old)| f64::from(*current) - f64::from(*old));
            let (sum, tokens) = sums.entry(sequence.number).or_default();
            *sum += log_ratios.sum::<f64>();
            *tokens += old.len();
        }
    }
    let samples = groups.iter_mut().flat_map(|group| &mut group.samples);
    for sequence in samples.filter_map(|sample| sample.sequence.as_mut()) {
        let mean = |(sum, tokens): &(f64, usize)| sum / (*tokens).max(1) as f64;
        sequence.log_ratio = sums.get(&sequence.number).map(mean);
    }
}

/// How a gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicySettings {
    pub loss: LossSettings,
    /// Temperature of the rollout.
    pub temperature: f64,
    pub tokens_per_micro_batch: usize,
    /// Whether to keep only layer inputs and recompute the rest.
    pub recompute: bool,
}

/// Statistics of a step's forward passes, summed over tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatistics {
    /// Near 0 on-policy by construction: advantages sum to 0.
    pub loss: f64,
    /// Completion tokens forwarded.
    pub tokens: usize,
    /// Freely sampled tokens.
    pub sampled_tokens: usize,
    /// Rows forwarded, including prompts.
    pub rows: usize,
    /// Nats.
    pub entropy: f64,
    /// Nats; `None` without a reference.
    pub kl: Option<f64>,
    /// Sum of own - teacher's log-probs, nats.
    pub reverse_kl: f64,
    /// Tokens in that sum.
    pub distilled_tokens: usize,
    /// Tokens clipped below.
    pub clipped_low: usize,
    /// Tokens clipped above.
    pub clipped_high: usize,
    /// Sum of |training - sampler's log-prob|, nats, both under the sampling weights.
    pub sampling_difference: f64,
    /// Maximum of those.
    pub sampling_difference_max: f64,
    /// Sum of the importance weights between sampler and trainer.
    pub importance: f64,
    /// Router statistics by layer; empty on a GPU.
    pub routers: Vec<RouterUse>,
}

/// Gradient of the step over `groups`; `totals`: denominators, which also count groups not passed
/// here.
pub fn policy_gradient(
    model: &Decoder,
    groups: &[PolicyGroup<'_>],
    totals: StepTotals,
    settings: &PolicySettings,
    threads: &ThreadPool,
) -> Result<(Gradients, PolicyStatistics)> {
    let micro_batches = pack_groups(groups, settings.tokens_per_micro_batch);
    let work = |micro_batch: &MicroBatch, gradients: &mut Gradients| {
        let mut statistics = PolicyStatistics {
            rows: micro_batch.batch.rows(),
            ..PolicyStatistics::default()
        };
        let d_log_probs = |sequence: usize, tokens: &[TokenLogProb]| {
            let (group, sample) = micro_batch.owners[sequence];
            let sample = &groups[group].samples[sample];
            statistics.d_log_probs(sample, tokens, totals, &settings.loss)
        };
        let routers = add_gradient(
            model,
            micro_batch,
            settings.temperature,
            settings.recompute,
            gradients,
            d_log_probs,
        )?;
        Ok(PolicyStatistics {
            routers,
            ..statistics
        })
    };
    let (sum, found) = sum_gradients(model, &micro_batches, threads, work)?;
    let mut statistics = PolicyStatistics::default();
    found.into_iter().for_each(|part| statistics.add(part));
    Ok((sum, statistics))
}

/// Log-probs of every completion without gradient: under the reference, or the weights that sampled
/// it. Uses the micro-batches of [`policy_gradient`], so equal weights give equal bits.
pub fn completion_log_probs(
    model: &Decoder,
    adapters: Adapters,
    groups: &[PolicyGroup<'_>],
    settings: &PolicySettings,
    threads: &ThreadPool,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let micro_batches = pack_groups(groups, settings.tokens_per_micro_batch);
    let results = threads.map(&micro_batches, |micro_batch| {
        log_probs(model, micro_batch, adapters, settings.temperature)
    })?;
    let mut found: Vec<Vec<Vec<f32>>> = groups
        .iter()
        .map(|group| vec![Vec::new(); group.samples.len()])
        .collect();
    for (micro_batch, sequences) in micro_batches.iter().zip(results) {
        for (&(group, sample), tokens) in micro_batch.owners.iter().zip(sequences) {
            found[group][sample] = tokens.into_iter().map(|token| token.log_prob).collect();
        }
    }
    Ok(found)
}

fn pack_groups(groups: &[PolicyGroup<'_>], tokens_per_micro_batch: usize) -> Vec<MicroBatch> {
    let parts = groups
        .iter()
        .map(|group| (&*group.prompt, group.samples.iter().collect()));
    let mut micro_batches = pack::<&PolicySample<'_>>(parts, tokens_per_micro_batch);
    micro_batches
        .iter_mut()
        .for_each(|micro_batch| replay_experts(micro_batch, groups));
    micro_batches
}

/// Replays recorded experts; a prompt uses the record of its first completion with one. If it was
/// prefilled more than once, the last bits of its rows may differ.
fn replay_experts(
    MicroBatch {
        batch,
        sequences,
        owners,
    }: &mut MicroBatch,
    groups: &[PolicyGroup<'_>],
) {
    let (mut last_prompt, mut last_row) = (0, 0);
    for (sequence, &(group, sample)) in sequences.iter().zip(&*owners) {
        let PolicySample {
            experts, follows, ..
        } = &groups[group].samples[sample];
        let read_before = std::mem::replace(
            &mut last_row,
            sequence.rows.last().map_or(0, |row| *row as usize),
        );
        let (Some(record), [last, own @ ..]) = (experts, &*sequence.rows) else {
            continue;
        };
        let prompt_end = *last as usize + 1;
        let positions = batch.positions[*last as usize] as usize + 1;
        let first = match follows {
            // The previous completion's last token, read only now, and what follows it.
            Some(_) => read_before + 1,
            None if prompt_end > last_prompt => prompt_end - positions,
            None => prompt_end,
        };
        if follows.is_none() {
            last_prompt = last_prompt.max(prompt_end);
        }
        let experts: usize = record.prompt.iter().map(|piece| piece.len()).sum();
        let (per_token, mut end) = ((experts / positions).max(1), prompt_end);
        for piece in record.prompt.iter().rev().filter(|piece| !piece.is_empty()) {
            let rows = end.saturating_sub(piece.len() / per_token).max(first)..end;
            end = rows.start;
            if rows.is_empty() {
                break;
            }
            let of_rows = rows.len() * per_token;
            let experts = match of_rows == piece.len() {
                true => Arc::clone(piece),
                false => Arc::new(piece[piece.len() - of_rows..].to_vec()),
            };
            batch.replayed.push((rows, experts));
        }
        if let Some(&first) = own.first() {
            batch.replayed.push((
                first as usize..first as usize + own.len(),
                record.completion.clone(),
            ));
        }
    }
}

impl PolicyStatistics {
    /// Derivative of the loss by log-prob and entropy of each token of a completion; updates the
    /// statistics.
    fn d_log_probs(
        &mut self,
        sample: &PolicySample<'_>,
        tokens: &[TokenLogProb],
        totals: StepTotals,
        settings: &LossSettings,
    ) -> Vec<TokenWeight> {
        let tokens = sample.chosen(tokens);
        let current: Vec<f32> = tokens.iter().map(|token| token.log_prob).collect();
        let old = sample
            .old_log_probs
            .as_deref()
            .map(|old| sample.chosen(old));
        let reference = sample
            .reference_log_probs
            .as_deref()
            .map(|reference| sample.chosen(reference));
        let teacher = sample
            .teacher_log_probs
            .as_deref()
            .map(|teacher| sample.chosen(teacher));
        let sampled_log_probs = sample.chosen(&sample.sampled_log_probs);
        let is_corrected = settings.corrects_sampling && !sampled_log_probs.is_empty();
        let terms = SequenceTerms {
            sequence: sample.sequence,
            log_probs: &current,
            old: old.as_deref(),
            reference: reference.as_deref(),
            teacher: teacher.as_deref(),
            sampler: is_corrected.then_some(&*sampled_log_probs),
            advantage: sample.advantage,
        };
        let SequenceLoss {
            loss,
            d_log_probs,
            clipped_low,
            clipped_high,
            kl,
        } = sequence_loss(settings, terms, totals);
        let entropy_sum = tokens
            .iter()
            .map(|token| f64::from(token.entropy))
            .sum::<f64>();
        let entropy = -settings.entropy_coef * token_share(settings, terms.tokens(), totals);
        self.loss += loss + entropy * entropy_sum;
        if terms.reference.is_some() {
            self.kl = Some(self.kl.unwrap_or(0.0) + kl);
        }
        for (&own, &teacher) in terms
            .sampled()
            .iter()
            .zip(terms.teacher.unwrap_or_default())
        {
            self.reverse_kl += f64::from(own) - f64::from(teacher);
            self.distilled_tokens += 1;
        }
        self.clipped_low += clipped_low;
        self.clipped_high += clipped_high;
        self.tokens += tokens.len();
        self.sampled_tokens += sampled_log_probs.len();
        self.importance += (0..sampled_log_probs.len())
            .map(|token| terms.importance(token))
            .sum::<f64>();
        self.entropy += entropy_sum;
        for (&trained, &sampled) in old
            .as_deref()
            .unwrap_or(&current)
            .iter()
            .zip(&*sampled_log_probs)
        {
            let difference = f64::from((trained - sampled).abs());
            self.sampling_difference += difference;
            self.sampling_difference_max = self.sampling_difference_max.max(difference);
        }
        let mut weights: Vec<_> = d_log_probs
            .into_iter()
            .map(|log_prob| TokenWeight { log_prob, entropy })
            .collect();
        let unchosen = TokenWeight {
            log_prob: 0.0,
            entropy: 0.0,
        };
        weights.splice(
            sample.forced.start..sample.forced.start,
            sample.forced.clone().map(|_| unchosen),
        );
        weights
    }

    /// Mean |training - sampler's log-prob|, nats/token.
    pub fn mean_sampling_difference(&self) -> f64 {
        self.sampling_difference / self.sampled_tokens.max(1) as f64
    }

    /// Adds more tokens of the same step.
    pub fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.sampled_tokens += other.sampled_tokens;
        self.rows += other.rows;
        self.entropy += other.entropy;
        self.kl = self
            .kl
            .map_or(other.kl, |kl| Some(kl + other.kl.unwrap_or(0.0)));
        self.reverse_kl += other.reverse_kl;
        self.distilled_tokens += other.distilled_tokens;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.sampling_difference += other.sampling_difference;
        self.importance += other.importance;
        self.sampling_difference_max = self
            .sampling_difference_max
            .max(other.sampling_difference_max);
        self.routers.resize_with(
            other.routers.len().max(self.routers.len()),
            RouterUse::default,
        );
        self.routers
            .iter_mut()
            .zip(&other.routers)
            .for_each(|(own, other)| own.add(other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KlEstimator, PolicyLoss};

    /// Forced tokens have no weight, and do not change the others'.
    #[test]
    fn forced_tokens_are_no_part_of_the_loss() {
        let log_probs: Vec<f32> = vec![-0.5, -1.0, -9.0, -9.0, -0.25];
        let numbers = |offset: f32| {
            log_probs
                .iter()
                .map(|log_prob| log_prob + offset)
                .collect::<Vec<f32>>()
        };
        let token = |&log_prob: &f32| TokenLogProb {
            log_prob,
            entropy: 2.0,
        };
        let old = numbers(0.01);
        let reference = numbers(-0.1);
        let sampled = numbers(0.02);
        let teacher = numbers(0.5);
        let totals = StepTotals {
            sequences: 2,
            tokens: 7,
        };
        let sample = |range: Range<usize>, kept: &dyn Fn(&[f32]) -> Vec<f32>| PolicySample {
            follows: None,
            token_ids: vec![1; kept(&old).len()].into(),
            sampled_log_probs: kept(&sampled).into(),
            old_log_probs: Some(kept(&old).into()),
            reference_log_probs: Some(kept(&reference)),
            teacher_log_probs: Some(kept(&teacher)),
            advantage: -0.5,
            sequence: None,
            forced: range,
            experts: None,
        };
        let all = |numbers: &[f32]| numbers.to_vec();
        let chosen = |numbers: &[f32]| [&numbers[..2], &numbers[4..]].concat();
        for policy_loss in &PolicyLoss::ALL {
            let settings = LossSettings {
                policy_loss: *policy_loss,
                clip_low: 0.2,
                clip_high: 0.2,
                cispo_cap: 5.0,
                kl_beta: 0.1,
                kl_estimator: KlEstimator::K3,
                kl_importance: true,
                max_completion_tokens: 10,
                entropy_coef: 0.01,
                distill_coef: 0.5,
                corrects_sampling: true,
            };
            let weights = |sample: PolicySample<'_>, log_probs: &[f32]| {
                let mut statistics = PolicyStatistics::default();
                let tokens: Vec<TokenLogProb> = log_probs.iter().map(token).collect();
                (
                    statistics.d_log_probs(&sample, &tokens, totals, &settings),
                    statistics,
                )
            };
            let (mut found, statistics) = weights(sample(2..4, &all), &log_probs);
            let (expected, without) = weights(sample(0..0, &chosen), &chosen(&log_probs));
            let forced: Vec<TokenWeight> = found.drain(2..4).collect();
            assert!(
                forced
                    .iter()
                    .all(|weight| weight.log_prob == 0.0 && weight.entropy == 0.0),
                "{policy_loss:?}"
            );
            assert_eq!((found, statistics), (expected, without), "{policy_loss:?}");
        }
    }
}
