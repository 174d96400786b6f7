//! A step's groups: prompts in order, completions with scores and advantages, and the batch of the gradient.

use std::borrow::Cow;
use std::time::Instant;

use super::TrainError;
use super::eval_beside::{sample, sample_alone};
use super::job::{Job, Sampled};
use super::rank_work::{add, share_of_time};
use super::ranked::Command;
use super::rollout_plan::{Plan, next_plan, requests, take};
use crate::advantage::{GroupSignal, group_advantages};
use crate::config::TrainConfig;
use crate::eval::Prompt;
use crate::model::Adapters;
use crate::rollout::{DecodeCounts, ScoredCompletion, StopReason, signal_of};
use crate::run::events::RankStep;
use crate::update::{PolicyGroup, PolicySample, StepTotals};

/// The completions of one prompt.
#[derive(Debug)]
pub(super) struct ScoredGroup {
    /// Index of the training prompt.
    pub(super) prompt: usize,
    pub(super) completions: Vec<ScoredCompletion>,
    /// By completion.
    pub(super) advantages: Vec<f64>,
    pub(super) signal: GroupSignal,
}

#[derive(Debug, Default)]
pub(super) struct StepRollout {
    /// Groups that count.
    pub(super) groups: Vec<ScoredGroup>,
    /// Zero-variance groups that were replaced (`dynamic_sampling`).
    pub(super) replaced: Vec<ScoredGroup>,
    pub(super) rollout_seconds: f64,
    /// Of all that was decoded together.
    pub(super) counts: DecodeCounts,
    pub(super) score_seconds: f64,
    /// By completion of the policy batch, if older weights sampled it than those that the step updates.
    pub(super) old_log_probs: Option<Vec<Vec<f32>>>,
    /// Of the old log-probs.
    pub(super) forward_seconds: f64,
    /// Of rollout and old log-probs, by rank; empty for one rank.
    pub(super) ranks: Vec<RankStep>,
}

/// The groups of a gradient, and the step's denominators.
#[derive(Debug)]
pub(super) struct PolicyBatch<'a> {
    pub(super) groups: Vec<PolicyGroup<'a>>,
    pub(super) totals: StepTotals,
}

/// After this many rounds a step continues with fewer groups.
const REFILL_ROUNDS: usize = 3;

/// Samples the groups of the next steps with the current weights, and advances the data cursor.
pub(super) fn sample_steps(job: &mut Job) -> Result<Vec<StepRollout>, TrainError> {
    let (first_step, group_count) = (job.state.step + 1, job.config.prompt_groups_per_step);
    let plan = next_plan(job);
    let (prompts, requests) = requests(job, &plan);
    let sampled = sample(job, &requests)?;
    take(job, group_count * plan.len());
    let mut rollouts = score(job, &plan, prompts, sampled)?;
    if job.config.dynamic_sampling {
        for (step, rollout) in (first_step..).zip(&mut rollouts) {
            refill(job, step, rollout, group_count)?;
        }
    }
    Ok(rollouts)
}

fn refill(job: &mut Job, step: u64, rollout: &mut StepRollout, group_count: usize) -> Result<(), TrainError> {
    for _ in 0..REFILL_ROUNDS {
        let (mixed, zero_variance): (Vec<_>, Vec<_>) =
            rollout.groups.drain(..).partition(|group| group.signal == GroupSignal::Mixed);
        rollout.groups = mixed;
        if zero_variance.is_empty() {
            return Ok(());
        }
        rollout.replaced.extend(zero_variance);
        let missing = group_count - rollout.groups.len();
        let plan = vec![(step, take(job, missing))];
        let (prompts, requests) = requests(job, &plan);
        let sampled = sample_alone(job, Adapters::On, &requests)?;
        for more in score(job, &plan, prompts, sampled)? {
            rollout.groups.extend(more.groups);
            rollout.rollout_seconds += more.rollout_seconds;
            rollout.score_seconds += more.score_seconds;
            rollout.counts += more.counts;
            add(&mut rollout.ranks, &more.ranks);
        }
    }
    Ok(())
}

/// Adds a step's completions to those that are drafted from, in the order in which they are recorded.
pub(super) fn remember(job: &mut Job, step: u64, rollout: &StepRollout) -> Result<(), TrainError> {
    if job.config.draft_tokens > 0 {
        let completions = || {
            let groups = rollout.groups.iter().chain(&rollout.replaced).flat_map(|group| &group.completions);
            groups.map(|scored| scored.completion.token_ids.as_slice())
        };
        job.ranks.send(|_| Command::Remember { step, completions: completions().map(Cow::from).collect() })?;
        job.rollouts.history.add(step, completions(), job.config.keep_rollouts);
    }
    Ok(())
}

/// The groups of each step, all sampled together.
fn score(job: &Job, plan: &Plan, prompts: Vec<usize>, sampled: Sampled) -> Result<Vec<StepRollout>, TrainError> {
    let Sampled { completions, counts, seconds, ranks } = sampled;
    let rollout_seconds = seconds / plan.len() as f64;
    let start = Instant::now();
    let rows = prompts.iter().map(|prompt| &job.prompts.train[*prompt].row);
    let scored = job.rollout_context().score(&job.scorer, completions, rows)?;
    job.scorer.check_errors(scored.iter().flatten().map(|scored| &scored.score))?;
    let mut groups =
        prompts.into_iter().zip(scored).map(|(prompt, completions)| ScoredGroup::new(&job.config, prompt, completions));
    let mut rollouts = Vec::with_capacity(plan.len());
    for (_, places) in plan {
        rollouts.push(StepRollout {
            groups: groups.by_ref().take((places.end - places.start) as usize).collect(),
            rollout_seconds,
            counts,
            ranks: share_of_time(&ranks, 1.0 / plan.len() as f64),
            ..StepRollout::default()
        });
    }
    let score_seconds = start.elapsed().as_secs_f64() / plan.len() as f64;
    rollouts.iter_mut().for_each(|rollout| rollout.score_seconds = score_seconds);
    Ok(rollouts)
}

impl ScoredGroup {
    fn new(config: &TrainConfig, prompt: usize, completions: Vec<ScoredCompletion>) -> Self {
        let rewards: Vec<f64> = completions.iter().map(|scored| scored.score.reward).collect();
        let advantages = group_advantages(&rewards, config.advantage);
        Self { prompt, signal: signal_of(&completions), advantages, completions }
    }
}

/// Zero-variance groups are omitted (their gradient is 0) unless a KL is used, but they count; masked completions and
/// replaced groups do not.
pub(super) fn policy_batch<'a>(
    config: &TrainConfig,
    prompts: &'a [Prompt],
    rollout: &'a StepRollout,
) -> PolicyBatch<'a> {
    let mut old_log_probs = rollout.old_log_probs.iter().flatten();
    let (mut groups, mut totals) = (Vec::new(), StepTotals { sequences: 0, tokens: 0 });
    for group in &rollout.groups {
        let mut samples = Vec::with_capacity(group.completions.len());
        for (scored, &advantage) in group.completions.iter().zip(&group.advantages) {
            let completion = &scored.completion;
            if config.overlong_masking && completion.stop == StopReason::Length {
                continue;
            }
            totals.sequences += 1;
            totals.tokens += completion.token_ids.len();
            if group.signal == GroupSignal::Mixed || config.kl_beta > 0.0 {
                let old_log_probs = old_log_probs.next().map(Cow::from);
                samples.push(PolicySample { old_log_probs, ..PolicySample::on_policy(completion, advantage) });
            }
        }
        if !samples.is_empty() {
            groups.push(PolicyGroup { prompt: Cow::from(&prompts[group.prompt].token_ids), samples });
        }
    }
    PolicyBatch { groups, totals }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::dataset::PromptRow;
    use crate::rollout::Completion;
    use crate::score::Score;

    fn config(set: &[&str]) -> TrainConfig {
        Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() }
            .resolve()
            .unwrap()
            .config
    }

    /// Completions are (tokens, truncated, reward).
    fn group(completions: &[(usize, bool, f64)]) -> ScoredGroup {
        let completion = |&(tokens, cut, reward): &(usize, bool, f64)| ScoredCompletion {
            completion: Completion {
                token_ids: vec![1; tokens],
                log_probs: vec![-1.0; tokens],
                stop: if cut { StopReason::Length } else { StopReason::Stop },
            },
            text: String::new(),
            score: score(reward),
        };
        ScoredGroup::new(&config(&["advantage=standardized"]), 0, completions.iter().map(completion).collect())
    }

    fn score(reward: f64) -> Score {
        serde_json::from_value(serde_json::json!({
            "reward": reward, "tier": if reward == 1.0 { "valid" } else { "invalid" }, "tolerant": true, "warnings": [], "errors": [],
            "fields": null, "exact": null, "failure": null, "parts": {},
        }))
        .unwrap()
    }

    fn prompts() -> [Prompt; 1] {
        let (id, messages, tags, fields) = ("p".to_owned(), Vec::new(), Vec::new(), serde_json::Map::new());
        let row = PromptRow { id, messages, expected: None, tags, fields, line: 1 };
        [Prompt { row, text: String::new(), token_ids: vec![9] }]
    }

    proptest::proptest! {
        #[test]
        fn every_counted_completion_is_learnt_from_once_or_belongs_to_a_zero_variance_group(
            shapes in proptest::collection::vec(proptest::collection::vec((1usize..9, proptest::bool::ANY, 0u8..3), 2..5), 1..6),
            masking in proptest::bool::ANY, kl in proptest::bool::ANY,
        ) {
            let groups: Vec<ScoredGroup> = shapes
                .iter()
                .map(|shape| group(&shape.iter().map(|&(tokens, cut, reward)| (tokens, cut, f64::from(reward) / 2.0)).collect::<Vec<_>>()))
                .collect();
            let set = [format!("overlong_masking={masking}"), format!("kl_beta={}", if kl { 0.1 } else { 0.0 })];
            let (prompts, rollout) = (prompts(), StepRollout { groups, ..StepRollout::default() });
            let PolicyBatch { groups: policy, totals } = policy_batch(&config(&[&set[0], &set[1]]), &prompts, &rollout);
            let counted = |shape: &Vec<(usize, bool, u8)>| shape.iter().filter(|(_, cut, _)| !masking || !cut).map(|(tokens, ..)| *tokens).collect::<Vec<_>>();
            let all: Vec<usize> = shapes.iter().flat_map(counted).collect();
            proptest::prop_assert_eq!(totals, StepTotals { sequences: all.len(), tokens: all.iter().sum() });
            let is_wanted = |shape: &&Vec<(usize, bool, u8)>| kl || shape.iter().any(|(.., reward)| *reward != shape[0].2);
            let expected: Vec<Vec<usize>> = shapes.iter().filter(is_wanted).map(counted).filter(|tokens| !tokens.is_empty()).collect();
            let lengths = |group: &PolicyGroup<'_>| group.samples.iter().map(|sample| sample.token_ids.len()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(policy.iter().map(lengths).collect::<Vec<_>>(), expected);
            // Masking does not change advantages.
            for (group, shape) in policy.iter().zip(shapes.iter().filter(is_wanted).filter(|shape| !counted(shape).is_empty())) {
                let rewards: Vec<f64> = shape.iter().map(|(.., reward)| f64::from(*reward) / 2.0).collect();
                let advantages = group_advantages(&rewards, crate::advantage::Advantage::Standardized);
                let expected = advantages.into_iter().zip(shape).filter(|(_, (_, cut, _))| !masking || !cut).map(|(advantage, _)| advantage);
                proptest::prop_assert!(group.samples.iter().map(|sample| sample.advantage).eq(expected));
            }
        }
    }

    #[test]
    fn zero_variance_groups_count_and_masked_completions_do_not() {
        let mixed = || group(&[(3, false, 1.0), (5, true, 0.0)]);
        let equal = || group(&[(2, false, 1.0), (4, false, 1.0)]);
        let all_cut = || group(&[(7, true, 0.0), (7, true, 0.5)]);
        // (settings, groups) -> (completions of each forwarded group, N, M).
        let check = |set: &[&str], groups: Vec<ScoredGroup>, forwarded: &[usize], sequences, tokens| {
            let (prompts, rollout) = (prompts(), StepRollout { groups, ..StepRollout::default() });
            let PolicyBatch { groups: policy, totals } = policy_batch(&config(set), &prompts, &rollout);
            let found: Vec<usize> = policy.iter().map(|group| group.samples.len()).collect();
            assert_eq!((found.as_slice(), totals), (forwarded, StepTotals { sequences, tokens }), "{set:?}");
        };
        check(&[], vec![mixed(), equal()], &[2], 4, 14);
        check(&["kl_beta=0.1"], vec![mixed(), equal()], &[2, 2], 4, 14);
        check(&["overlong_masking=true"], vec![mixed(), equal()], &[1], 3, 9);
        check(&["overlong_masking=true"], vec![all_cut(), equal()], &[], 2, 6);
        check(&["overlong_masking=true", "kl_beta=0.1"], vec![all_cut(), equal()], &[2], 2, 6);
        check(&[], vec![equal(), equal()], &[], 4, 12);
        // A replaced group is in neither.
        check(&[], vec![mixed()], &[2], 2, 8);
    }
}
