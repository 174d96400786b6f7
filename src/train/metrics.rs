//! A step's numbers under the names that people know from TRL.

use std::collections::BTreeMap;

use super::rollout_groups::{ScoredGroup, StepRollout};
use crate::advantage::GroupSignal;
use crate::rollout::StopReason;
use crate::score::{FailureClass, Tier};
use crate::update::{Applied, PolicyStatistics};

/// What the update of a step did and took.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepUpdate {
    pub(super) statistics: PolicyStatistics,
    /// None: there was nothing to learn from.
    pub(super) applied: Option<Applied>,
    pub(super) learning_rate: f64,
    pub(super) update_seconds: f64,
    pub(super) step_seconds: f64,
}

/// Every metric of a step; what does not exist for it is left out.
pub(super) fn metrics(step: &StepRollout, updated: StepUpdate) -> BTreeMap<String, f64> {
    let mut found = Found::default();
    rewards(&step.groups, &mut found);
    completions(&step.groups, &mut found);
    found.add("groups/replaced", step.replaced.len() as f64);
    update(step, updated, &mut found);
    found.0
}

#[derive(Default)]
struct Found(BTreeMap<String, f64>);

impl Found {
    fn add(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0_usize), |(sum, count), x| (sum + x, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

fn rewards(groups: &[ScoredGroup], found: &mut Found) {
    let share = |wanted: &dyn Fn(&ScoredGroup) -> bool| mean(groups.iter().map(|group| f64::from(u8::from(wanted(group)))));
    found.add("reward", mean(groups.iter().flat_map(|group| group.rewards.iter().copied())));
    found.add("reward_std", mean(groups.iter().map(|group| deviation(&group.rewards))));
    found.add("frac_reward_zero_std", share(&|group| group.signal != GroupSignal::Mixed));
    found.add("groups/frac_mixed", share(&|group| group.signal == GroupSignal::Mixed));
    found.add("groups/frac_all_best", share(&|group| group.signal == GroupSignal::AllMax));
    found.add("groups/frac_all_worst", share(&|group| matches!(group.signal, GroupSignal::AllMin | GroupSignal::AllEqual)));
    let scores = || groups.iter().flat_map(|group| &group.scores);
    for tier in Tier::ALL {
        found.add(&format!("tiers/{}", tier.name()), mean(scores().map(|score| f64::from(u8::from(score.tier == tier)))));
    }
    for class in FailureClass::ALL {
        let share = mean(scores().map(|score| f64::from(u8::from(score.failure == Some(class)))));
        if share > 0.0 {
            found.add(&format!("failures/{}", class.name().replace(' ', "_")), share);
        }
    }
    let exact: Vec<f64> = scores().filter_map(|score| score.exact).map(|exact| f64::from(u8::from(exact))).collect();
    if !exact.is_empty() {
        found.add("exact", mean(exact.into_iter()));
    }
    let names: std::collections::BTreeSet<&str> = scores().flat_map(|score| score.parts.iter().map(|(name, _)| name)).collect();
    for name in names {
        found.add(&format!("rewards/{name}/mean"), mean(scores().filter_map(|score| score.parts.get(name).copied())));
    }
}

fn deviation(rewards: &[f64]) -> f64 {
    if rewards.len() < 2 {
        return 0.0;
    }
    let mean = mean(rewards.iter().copied());
    (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (rewards.len() - 1) as f64).sqrt()
}

fn completions(groups: &[ScoredGroup], found: &mut Found) {
    let all = || groups.iter().flat_map(|group| &group.completions);
    let lengths = || all().map(|completion| completion.token_ids.len() as f64);
    found.add("completions/mean_length", mean(lengths()));
    found.add("completions/min_length", lengths().fold(f64::INFINITY, f64::min));
    found.add("completions/max_length", lengths().fold(0.0, f64::max));
    found.add("completions/clipped_ratio", mean(all().map(|completion| f64::from(u8::from(completion.stop == StopReason::Length)))));
}

fn update(step: &StepRollout, updated: StepUpdate, found: &mut Found) {
    let StepUpdate { statistics, applied, learning_rate, update_seconds, step_seconds } = updated;
    found.add("learning_rate", learning_rate);
    if let Some(Applied::Moved { grad_norm, .. }) = applied {
        found.add("grad_norm", grad_norm);
    }
    if applied == Some(Applied::NotFinite) {
        found.add("grad_norm", f64::NAN);
    }
    if statistics.tokens > 0 {
        let tokens = statistics.tokens as f64;
        found.add("loss", statistics.loss);
        found.add("entropy", statistics.entropy / tokens);
        if let Some(kl) = statistics.kl {
            found.add("kl", kl / tokens);
        }
        found.add("clip_ratio/low_mean", statistics.clipped_low as f64 / tokens);
        found.add("clip_ratio/high_mean", statistics.clipped_high as f64 / tokens);
        found.add("sampling/sampling_logp_difference/mean", statistics.sampling_difference / tokens);
        found.add("sampling/sampling_logp_difference/max", statistics.sampling_difference_max);
    }
    let drawn: usize = step.groups.iter().chain(&step.replaced).flat_map(|group| &group.completions).map(|c| c.token_ids.len()).sum();
    found.add("time/rollout", step.rollout_seconds);
    found.add("time/score", step.score_seconds);
    found.add("time/update", update_seconds);
    found.add("step_time", step_seconds);
    found.add("tokens_per_second/rollout", drawn as f64 / step.rollout_seconds.max(1e-9));
    if statistics.rows > 0 {
        found.add("tokens_per_second/train", statistics.rows as f64 / update_seconds.max(1e-9));
    }
}
