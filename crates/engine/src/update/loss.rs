//! Policy losses as functions of log-probs, one enum arm and function each, so that they can be
//! checked by hand.
//!
//! Notation: `ratio = exp(log_prob - old)`, `A` the token's advantage, N sequences and M tokens in
//! the whole optimizer step, T tokens in this sequence. A sequence is a conversation: what was
//! sampled over all of its turns and calls, without the text of templates and tools between.

use crate::config::{KlEstimator, PolicyLoss};

/// Log-ratios are clamped to this before exponentiation.
const LOG_RATIO_LIMIT: f64 = 20.0;
/// Ratio cap of completions sampled by older weights, so that one stale completion cannot dominate:
/// beyond it a term is constant. Has no effect below the clip; matters at negative advantages,
/// where the clip does not apply (`delta` of a two-sided clip). `cispo` has its own cap.
const RATIO_CAP: f64 = 2.0;
/// Cap of a token's importance weight between sampler and trainer (TRL's `token_truncate`).
const IMPORTANCE_CAP: f64 = 2.0;

/// The policy loss and its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    pub policy_loss: PolicyLoss,
    /// Lower clip: no gradient for ratios below `1 - clip_low` at negative advantages.
    pub clip_low: f64,
    /// Upper clip. `bnpo` clips symmetrically by `clip_low`; `cispo` uses `cispo_cap` instead.
    pub clip_high: f64,
    /// Ratio cap of `cispo`.
    pub cispo_cap: f64,
    /// Weight of the KL to the reference.
    pub kl_beta: f64,
    pub kl_estimator: KlEstimator,
    /// Whether KL terms are weighted by their token's ratio, which makes the gradients of k1 and k3
    /// the KL's own.
    pub kl_importance: bool,
    /// `dr_grpo` divides by this instead of lengths.
    pub max_completion_tokens: usize,
    /// Weight of the entropy bonus.
    pub entropy_coef: f64,
    /// Weight of (teacher - own) log-prob in each token's advantage.
    pub distill_coef: f64,
    /// Whether policy terms have the weight of their token between sampler and trainer.
    pub corrects_sampling: bool,
}

/// Denominators of the whole optimizer step: include zero-variance groups, not replaced groups and
/// masked completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTotals {
    /// N.
    pub sequences: usize,
    /// M.
    pub tokens: usize,
}

/// The conversation that a completion is a part of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSequence {
    /// Unique in the batch.
    pub number: usize,
    /// T: tokens that the policy chose.
    pub tokens: usize,
    /// Mean log-ratio over its completions, nats, as `gspo` needs; `None`: all have ratio 1.
    pub log_ratio: Option<f64>,
}

/// Log-probs and advantage of a completion.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceTerms<'a> {
    /// `None`: the completion is a sequence by itself.
    pub sequence: Option<LossSequence>,
    /// Log-probs under the trained weights, nats.
    pub log_probs: &'a [f32],
    /// Log-probs under the weights that sampled it, if older; `None`: the ratio is exactly 1.
    pub old: Option<&'a [f32]>,
    /// Log-probs under the reference, with `kl_beta` > 0.
    pub reference: Option<&'a [f32]>,
    /// Log-probs under the teacher, for a distilled completion.
    pub teacher: Option<&'a [f32]>,
    /// Log-probs as the sampler computed them, if `corrects_sampling`.
    pub sampler: Option<&'a [f32]>,
    /// Advantage of all tokens, without the teacher's part.
    pub advantage: f64,
}

impl<'a> SequenceTerms<'a> {
    /// Log-probs under the weights that sampled it, nats; constants if these are the current ones.
    pub(super) fn sampled(self) -> &'a [f32] {
        self.old.unwrap_or(self.log_probs)
    }

    /// T.
    pub(super) fn tokens(self) -> usize {
        self.sequence
            .map_or(self.log_probs.len(), |sequence| sequence.tokens)
    }

    /// Truncated importance weight of a token, without gradient: its probability under the weights
    /// that sampled it, as the trainer computes it over as the sampler did.
    pub(super) fn importance(self, token: usize) -> f64 {
        self.sampler.map_or(1.0, |sampler| {
            let difference = f64::from(self.sampled()[token]) - f64::from(sampler[token]);
            bounded_exp(difference).min(IMPORTANCE_CAP)
        })
    }
}

/// A completion's contribution to the step's loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceLoss {
    pub loss: f64,
    /// Derivative by each token's log-prob.
    pub d_log_probs: Vec<f64>,
    /// Tokens whose gradient was removed by the lower clip.
    pub clipped_low: usize,
    /// Tokens whose gradient was removed by the upper clip; with `cispo`, whose ratio was capped.
    pub clipped_high: usize,
    /// Sum of the tokens' KL terms, nats.
    pub kl: f64,
}

/// Loss of one completion with its derivative.
pub fn sequence_loss(
    settings: &LossSettings,
    terms: SequenceTerms<'_>,
    totals: StepTotals,
) -> SequenceLoss {
    let share = token_share(settings, terms.tokens(), totals);
    let mut result = match settings.policy_loss {
        PolicyLoss::Grpo | PolicyLoss::DrGrpo | PolicyLoss::Bnpo | PolicyLoss::Dapo => {
            clipped_surrogate(settings, terms, share, |token| {
                bounded_exp(log_ratio(terms, token))
            })
        }
        PolicyLoss::Gspo => {
            let ratio = sequence_ratio(terms);
            clipped_surrogate(settings, terms, share, |_| ratio)
        }
        PolicyLoss::Cispo => capped_importance(settings, terms, share),
    };
    if let Some(reference) = terms.reference.filter(|_| settings.kl_beta > 0.0) {
        for (token, (weight, &reference)) in
            result.d_log_probs.iter_mut().zip(reference).enumerate()
        {
            let (value, slope) = kl_term(
                settings.kl_estimator,
                f64::from(reference) - f64::from(terms.log_probs[token]),
            );
            let (ratio, ratio_slope) = if settings.kl_importance {
                kl_ratio(log_ratio(terms, token))
            } else {
                (1.0, 0.0)
            };
            result.kl += value;
            result.loss += settings.kl_beta * share * ratio * value;
            *weight += settings.kl_beta * share * (ratio * slope + ratio_slope * value);
        }
    }
    result
}

/// Factor of one token's term.
pub(super) fn token_share(settings: &LossSettings, tokens: usize, totals: StepTotals) -> f64 {
    let count = |n: usize| n.max(1) as f64;
    match settings.policy_loss {
        PolicyLoss::Grpo | PolicyLoss::Gspo => 1.0 / (count(totals.sequences) * count(tokens)),
        PolicyLoss::DrGrpo => {
            1.0 / (count(totals.sequences) * count(settings.max_completion_tokens))
        }
        PolicyLoss::Bnpo | PolicyLoss::Dapo | PolicyLoss::Cispo => 1.0 / count(totals.tokens),
    }
}

/// A KL term and its derivative by the policy's log-prob, with `d = reference - policy` (Schulman,
/// "Approximating KL divergence", 2020).
pub fn kl_term(estimator: KlEstimator, d: f64) -> (f64, f64) {
    match estimator {
        KlEstimator::K1 => (-d, 1.0),
        KlEstimator::K2 => (d * d / 2.0, -d),
        KlEstimator::K3 => {
            // Beyond the limit the exponential continues as its tangent, keeping value and slope
            // finite and consistent.
            let bounded = d.min(LOG_RATIO_LIMIT);
            (
                bounded.exp() * (1.0 + d - bounded) - d - 1.0,
                1.0 - bounded.exp(),
            )
        }
    }
}

/// Factor of a KL term and its derivative by the log-prob: the token's ratio (DeepSeek-V3.2, arXiv
/// 2512.02556), constant beyond the cap.
fn kl_ratio(log_ratio: f64) -> (f64, f64) {
    match bounded_exp(log_ratio) {
        ratio if ratio > RATIO_CAP => (RATIO_CAP, 0.0),
        ratio => (ratio, ratio),
    }
}

/// `log_prob - old`, nats; exactly 0 if sampled by the current weights.
fn log_ratio(terms: SequenceTerms<'_>, token: usize) -> f64 {
    terms.old.map_or(0.0, |old| {
        f64::from(terms.log_probs[token]) - f64::from(old[token])
    })
}

/// A token's advantage: the sequence's, plus with a teacher the token's sample of the negative
/// reverse KL (Gu et al. 2024, arXiv 2306.08543; Thinking Machines, "On-Policy Distillation",
/// 2025), without gradient.
fn advantage(settings: &LossSettings, terms: SequenceTerms<'_>, token: usize) -> f64 {
    let distilled = terms.teacher.map_or(0.0, |teacher| {
        f64::from(teacher[token]) - f64::from(terms.sampled()[token])
    });
    terms.advantage + settings.distill_coef * distilled
}

fn bounded_exp(log_ratio: f64) -> f64 {
    log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
}

/// `-min(ratio A, clip(ratio) A)` per token (Schulman et al. 2017, arXiv 1707.06347; Shao et al.
/// 2024, arXiv 2402.03300).
fn clipped_surrogate(
    settings: &LossSettings,
    terms: SequenceTerms<'_>,
    share: f64,
    ratio: impl Fn(usize) -> f64,
) -> SequenceLoss {
    let mut result = SequenceLoss::default();
    for token in 0..terms.log_probs.len() {
        let ClippedRatio {
            term,
            slope,
            low,
            high,
        } = clip(ratio(token), settings, advantage(settings, terms, token));
        let share = share * terms.importance(token);
        result.loss += share * term;
        result.d_log_probs.push(share * slope);
        result.clipped_low += usize::from(low);
        result.clipped_high += usize::from(high);
    }
    result
}

/// A ratio's term, its derivative by the log-ratio, and the clip that removed the derivative (not
/// the cap, as in TRL's `clip_ratio/*`).
struct ClippedRatio {
    term: f64,
    slope: f64,
    low: bool,
    high: bool,
}

fn clip(ratio: f64, settings: &LossSettings, advantage: f64) -> ClippedRatio {
    let clip_high = if settings.policy_loss == PolicyLoss::Bnpo {
        settings.clip_low
    } else {
        settings.clip_high
    };
    let clipped = ratio.clamp(1.0 - settings.clip_low, 1.0 + clip_high);
    let is_clipped = ratio * advantage > clipped * advantage;
    let used = if is_clipped { clipped } else { ratio };
    let is_capped = ratio > RATIO_CAP && used * advantage.abs() > 0.0;
    let term = -used.min(RATIO_CAP) * advantage;
    if is_clipped || is_capped {
        return ClippedRatio {
            term,
            slope: 0.0,
            low: ratio < clipped,
            high: is_clipped && ratio > clipped,
        };
    }
    ClippedRatio {
        term,
        slope: term,
        low: false,
        high: false,
    }
}

/// GSPO: one ratio per sequence, `exp(mean of the tokens' log-ratios)`, clipped and capped as a
/// whole (Zheng et al. 2025, arXiv 2507.18071). Its logarithm has derivative 1/T by each log-prob,
/// so a token's weight is the mean slope of the sequence; with per-token advantages the token's
/// slope, as in the paper's GSPO-token.
fn sequence_ratio(terms: SequenceTerms<'_>) -> f64 {
    let tokens = terms.log_probs.len();
    let own = || {
        let log_ratios = (0..tokens).map(|token| log_ratio(terms, token));
        log_ratios.sum::<f64>() / tokens.max(1) as f64
    };
    let of_sequence = terms.sequence.map(|sequence| sequence.log_ratio);
    bounded_exp(of_sequence.map_or_else(own, |log_ratio| log_ratio.unwrap_or(0.0)))
}

/// CISPO: `-min(ratio, cap) A log_prob`, the ratio detached, so that no token loses its gradient
/// (MiniMax 2025, arXiv 2506.13585).
fn capped_importance(
    settings: &LossSettings,
    terms: SequenceTerms<'_>,
    share: f64,
) -> SequenceLoss {
    let mut result = SequenceLoss::default();
    for (token, &log_prob) in terms.log_probs.iter().enumerate() {
        let ratio = bounded_exp(log_ratio(terms, token));
        let weight = ratio.min(settings.cispo_cap);
        result.clipped_high += usize::from(ratio > settings.cispo_cap);
        let advantage = advantage(settings, terms, token);
        let share = share * terms.importance(token);
        result.loss += -share * weight * advantage * f64::from(log_prob);
        result.d_log_probs.push(-share * weight * advantage);
    }
    result
}
