//! A step's groups: prompts in order, completions with scores and advantages, and the batch of the gradient.

use std::borrow::Cow;
use std::time::Instant;

use super::TrainError;
use super::eval_beside::{sample, sample_alone};
use super::guided::{FailedGroup, guiding_answers};
use super::job::{Job, Sampled};
use super::rank_work::{add, share_of_time};
use super::ranked::Command;
use super::rollout_plan::{Plan, next_plan, requests, take};
use super::setup::lengths;
use crate::advantage::{GroupSignal, group_advantages};
use crate::config::TrainConfig;
use crate::eval::{LaterAnswer, Prompt, later_turns};
use crate::model::Adapters;
use crate::rollout::{DecodeCounts, Request, ScoredCompletion, StopReason, signal_of};
use crate::run::events::RankStep;
use crate::update::{PolicyGroup, PolicySample, StepTotals};

/// The completions of one turn of a row.
#[derive(Debug)]
pub(super) struct ScoredGroup {
    /// Index of the training prompt.
    pub(super) prompt: usize,
    /// By completion, in a later turn; empty in the first, whose completions share a prompt.
    pub(super) own_prompts: Vec<Prompt>,
    pub(super) completions: Vec<ScoredCompletion>,
    /// By completion.
    pub(super) advantages: Vec<f64>,
    /// Of the sampled completions.
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
    let mut rollouts = score(job, &plan, prompts, &requests, sampled)?;
    if job.config.dynamic_sampling {
        for (step, rollout) in (first_step..).zip(&mut rollouts) {
            refill(job, step, rollout, group_count)?;
        }
    }
    Ok(rollouts)
}

fn refill(job: &mut Job, step: u64, rollout: &mut StepRollout, group_count: usize) -> Result<(), TrainError> {
    for _ in 0..REFILL_ROUNDS {
        let mut rows = 0;
        // The turns of a row stay together.
        for row in by_row(std::mem::take(&mut rollout.groups)) {
            let is_mixed = row.iter().any(|group| group.signal == GroupSignal::Mixed || group.is_guided());
            rows += usize::from(is_mixed);
            if is_mixed { &mut rollout.groups } else { &mut rollout.replaced }.extend(row);
        }
        let missing = group_count - rows;
        if missing == 0 {
            return Ok(());
        }
        let plan = vec![(step, take(job, missing))];
        let (prompts, requests) = requests(job, &plan);
        let sampled = sample_alone(job, Adapters::On, &requests, None)?;
        for more in score(job, &plan, prompts, &requests, sampled)? {
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

/// The groups of rows, each in one vector.
fn by_row(groups: Vec<ScoredGroup>) -> Vec<Vec<ScoredGroup>> {
    let mut rows: Vec<Vec<ScoredGroup>> = Vec::new();
    for group in groups {
        match rows.last_mut().filter(|_| !group.own_prompts.is_empty()) {
            Some(row) => row.push(group),
            None => rows.push(vec![group]),
        }
    }
    rows
}

/// The groups of each step, all sampled together, with those of later turns, which are sampled here.
fn score(
    job: &Job,
    plan: &Plan,
    prompts: Vec<usize>,
    requests: &[Request],
    sampled: Sampled,
) -> Result<Vec<StepRollout>, TrainError> {
    let Sampled { completions, mut counts, mut seconds, mut ranks } = sampled;
    let start = Instant::now();
    let rows = || prompts.iter().map(|prompt| &job.prompts.train[*prompt]);
    let scored = job.rollout_context().score(&job.scorer, completions, rows().map(|prompt| &prompt.row))?;
    let first: Vec<_> =
        rows().zip(requests).zip(&scored).map(|((row, request), scored)| (row, request, &**scored)).collect();
    let (most_tokens, before) = (lengths(&job.config, job.model.config()).prompt_limit(), seconds);
    let later = later_turns((job.rollout_context(), &job.task, &job.scorer), &first, most_tokens, |requests| {
        let more = sample_alone(job, Adapters::On, requests, None)?;
        counts += more.counts;
        seconds += more.seconds;
        add(&mut ranks, &more.ranks);
        Ok::<_, TrainError>(more.completions)
    })?;
    let of_rows = prompts.iter().zip(scored).zip(later);
    let mut rows: Vec<_> = of_rows.map(|((prompt, first), later)| row_groups(job, *prompt, first, later)).collect();
    guide(job, &mut rows, requests)?;
    let all = rows.iter().flatten().flat_map(|group| &group.completions);
    job.scorer.check_errors(all.map(|scored| &scored.score))?;
    let score_seconds = (start.elapsed().as_secs_f64() - (seconds - before)) / plan.len() as f64;
    let (mut rows, rollout_seconds) = (rows.into_iter(), seconds / plan.len() as f64);
    let mut rollouts = Vec::with_capacity(plan.len());
    for (_, places) in plan {
        rollouts.push(StepRollout {
            groups: rows.by_ref().take((places.end - places.start) as usize).flatten().collect(),
            rollout_seconds,
            score_seconds,
            counts,
            ranks: share_of_time(&ranks, 1.0 / plan.len() as f64),
            ..StepRollout::default()
        });
    }
    Ok(rollouts)
}

/// Gives groups of rows of one turn without the full reward an answer to learn from (`guided`). `requests`: what was
/// sampled for each row.
fn guide(job: &Job, rows: &mut [Vec<ScoredGroup>], requests: &[Request]) -> Result<(), TrainError> {
    let mut failed = Vec::new();
    for (row, (groups, request)) in rows.iter().zip(requests).enumerate() {
        let [group] = groups.as_slice() else { continue };
        let prompt = &job.prompts.train[group.prompt];
        if prompt.row.turn_count() == 1 && !group.completions.iter().any(|scored| scored.score.is_max()) {
            failed.push(FailedGroup { row, prompt, request });
        }
    }
    for (row, answer) in guiding_answers(job, &job.rollout_context(), &failed)? {
        rows[row][0].guide(answer, job.config.advantage);
    }
    Ok(())
}

/// The groups of a row, by turn: completions of one turn are compared with each other.
fn row_groups(
    job: &Job,
    prompt: usize,
    first: Vec<ScoredCompletion>,
    later: Vec<Vec<LaterAnswer>>,
) -> Vec<ScoredGroup> {
    let first = first.into_iter().enumerate().map(|(sample, scored)| (sample, None, scored)).collect();
    let later = later.into_iter().map(|turn| {
        turn.into_iter().map(|LaterAnswer { sample, prompt, scored }| (sample, Some(prompt), scored)).collect()
    });
    let mut turns: Vec<Vec<(usize, Option<Prompt>, ScoredCompletion)>> = std::iter::once(first).chain(later).collect();
    for conversation in 0..turns[0].len() {
        let answers = turns.iter_mut().flatten().filter(|(sample, ..)| *sample == conversation);
        job.scorer.join(&mut answers.map(|(.., scored)| &mut scored.score).collect::<Vec<_>>());
    }
    let group = |turn: Vec<(usize, Option<Prompt>, ScoredCompletion)>| {
        let (prompts, completions): (Vec<_>, Vec<_>) =
            turn.into_iter().map(|(_, prompt, scored)| (prompt, scored)).unzip();
        let own_prompts = prompts.into_iter().flatten().collect();
        ScoredGroup { own_prompts, ..ScoredGroup::new(&job.config, prompt, completions) }
    };
    turns.into_iter().map(group).collect()
}

impl ScoredGroup {
    fn new(config: &TrainConfig, prompt: usize, completions: Vec<ScoredCompletion>) -> Self {
        let rewards: Vec<f64> = completions.iter().map(|scored| scored.score.reward).collect();
        let advantages = group_advantages(&rewards, config.advantage);
        let signal = signal_of(&completions);
        Self { prompt, own_prompts: Vec::new(), signal, advantages, completions }
    }

    /// Gives the last completion's place to an answer that earns more than all others.
    pub(super) fn guide(&mut self, answer: ScoredCompletion, advantage: crate::config::Advantage) {
        let rewards = |completions: &[ScoredCompletion]| -> Vec<f64> {
            completions.iter().map(|scored| scored.score.reward).collect()
        };
        let is_better = |reward: &f64| !reward.is_finite() || *reward < answer.score.reward;
        if answer.score.is_error() || self.completions.len() < 2 || !rewards(&self.completions).iter().all(is_better) {
            return;
        }
        self.completions.pop();
        self.completions.push(answer);
        self.advantages = group_advantages(&rewards(&self.completions), advantage);
    }

    /// Whether the last completion was not sampled freely.
    pub(super) fn is_guided(&self) -> bool {
        self.completions.last().is_some_and(|scored| scored.completion.stop == StopReason::Guided)
    }

    /// The completions that the policy sampled freely.
    pub(super) fn sampled(&self) -> &[ScoredCompletion] {
        &self.completions[..self.completions.len() - usize::from(self.is_guided())]
    }
}

/// Zero-variance groups are omitted (their gradient is 0) unless a KL or an entropy bonus is used, but they count; masked
/// completions and replaced groups do not.
pub(super) fn policy_batch<'a>(
    config: &TrainConfig,
    entropy_coef: f64,
    prompts: &'a [Prompt],
    rollout: &'a StepRollout,
) -> PolicyBatch<'a> {
    let is_all_forwarded = config.kl_beta > 0.0 || entropy_coef > 0.0;
    let mut old_log_probs = rollout.old_log_probs.iter().flatten();
    let (mut groups, mut totals) = (Vec::new(), StepTotals { sequences: 0, tokens: 0 });
    for group in &rollout.groups {
        let mut samples = Vec::with_capacity(group.completions.len());
        for (index, (scored, &advantage)) in group.completions.iter().zip(&group.advantages).enumerate() {
            let completion = &scored.completion;
            if config.overlong_masking && completion.stop == StopReason::Length {
                continue;
            }
            totals.sequences += 1;
            totals.tokens += completion.token_ids.len();
            if group.signal == GroupSignal::Mixed || group.is_guided() || is_all_forwarded {
                let old_log_probs = old_log_probs.next().map(Cow::from);
                let sample = PolicySample { old_log_probs, ..PolicySample::on_policy(completion, advantage) };
                match group.own_prompts.get(index) {
                    Some(own) => groups.push(PolicyGroup { prompt: Cow::from(&own.token_ids), samples: vec![sample] }),
                    None => samples.push(sample),
                }
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
        [Prompt { row, text: String::new(), token_ids: vec![9], most_tokens: 1 }]
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
            let PolicyBatch { groups: policy, totals } = policy_batch(&config(&[&set[0], &set[1]]), 0.0, &prompts, &rollout);
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
            let PolicyBatch { groups: policy, totals } = policy_batch(&config(set), 0.0, &prompts, &rollout);
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
