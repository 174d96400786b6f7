//! The groups of a step as data: from the run's latest events, else from its rollouts, which reach further back.

use super::Live;
use crate::advantage::{GroupSignal, group_signal};
use crate::facts::{StopReason, TierOutcome};
use crate::run::events::Group;
use crate::score::Score;
use crate::shared::Shared;

use super::SampledGroup;

/// One group; the lists are over its completions.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Row {
    pub(super) prompt_id: String,
    pub(super) rewards: Vec<f64>,
    pub(super) tiers: Vec<TierOutcome>,
    pub(super) advantages: Vec<f64>,
    /// With tools, of the calls of each completion; empty where the event is not kept.
    pub(super) call_seconds: Vec<Vec<f64>>,
    pub(super) signal: GroupSignal,
    /// Whether dynamic sampling replaced it.
    pub(super) replaced: bool,
    /// Whether an expected or constrained answer stands in for the last completion.
    pub(super) guided: bool,
}

impl Row {
    /// Why it has no gradient; `None` if it has one.
    pub(super) fn zero_variance_reason(&self) -> Option<String> {
        if self.guided {
            return None;
        }
        let alike = self
            .tiers
            .first()
            .filter(|first| self.tiers.iter().all(|tier| tier == *first));
        let why = match (self.signal, alike) {
            (GroupSignal::Mixed, _) => return None,
            (GroupSignal::AllMax, _) => "all max".to_owned(),
            (GroupSignal::AllMin | GroupSignal::AllEqual, Some(tier)) => format!("all {tier}"),
            (GroupSignal::AllMin, None) => "all min".to_owned(),
            (GroupSignal::AllEqual, None) => "all equal".to_owned(),
        };
        Some(if self.replaced {
            format!("replaced, {why}")
        } else {
            why
        })
    }
}

/// The groups of a step in the order of the rollout file; empty if not known (yet), and before step 1.
pub(super) fn rows_of_step(live: &Live, shared: &Shared, step: u64) -> Vec<Row> {
    let Some(run) = shared.current_run().filter(|_| step > 0) else {
        return Vec::new();
    };
    if let Some(groups) = run.history.groups.get(&step) {
        return groups.values().map(from_event).collect();
    }
    match live.rollouts.at_step(step) {
        Some(Ok(groups)) => groups.iter().map(from_rollout).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn from_event(group: &Group) -> Row {
    Row {
        prompt_id: group.prompt_name(),
        rewards: group.rewards.clone(),
        tiers: group
            .tiers
            .iter()
            .zip(&group.rewards)
            .map(|(tier, reward)| TierOutcome::new(*tier, !reward.is_finite()))
            .collect(),
        advantages: group.advantages.clone(),
        call_seconds: group.call_seconds.clone(),
        signal: group.signal,
        replaced: group.replaced,
        guided: group
            .stop_reasons
            .last()
            .is_some_and(|reason| *reason == StopReason::Guided),
    }
}

fn from_rollout(group: &SampledGroup) -> Row {
    let completions = || group.completions.iter();
    let tier = |score: &Option<Score>| {
        score
            .as_ref()
            .map_or(TierOutcome::NotScored, Score::outcome)
    };
    let rewards: Vec<f64> = completions()
        .map(|completion| completion.reward.unwrap_or(f64::NAN))
        .collect();
    let tiers: Vec<TierOutcome> = completions()
        .map(|completion| tier(&completion.score))
        .collect();
    // Completions that were sampled freely.
    let guided = completions()
        .next_back()
        .is_some_and(|one| one.stop_reason == StopReason::Guided);
    let sampled = || completions().take(rewards.len() - usize::from(guided));
    let every = |is: fn(&Score) -> bool| {
        sampled().all(|completion| completion.score.as_ref().is_some_and(is))
    };
    let signal = group_signal(
        &rewards[..rewards.len() - usize::from(guided)],
        every(Score::is_max),
        every(Score::is_min),
    );
    // With `per_part`, parts may differ where their sums do not.
    let has_gradient = sampled().any(|one| one.advantage != 0.0);
    let signal = if has_gradient {
        GroupSignal::Mixed
    } else {
        signal
    };
    Row {
        prompt_id: group.prompt_id.clone(),
        rewards,
        tiers,
        advantages: completions().map(|one| one.advantage).collect(),
        call_seconds: Vec::new(),
        signal,
        replaced: group.replaced,
        guided,
    }
}
