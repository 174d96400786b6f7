//! One step's groups: prompts in their order, completions, scores, advantages.

use crate::advantage::{GroupSignal, group_advantages, group_signal};
use crate::config::TrainConfig;
use crate::dataset::order::epoch_order;
use crate::model::Adapters;
use crate::rollout::{Completion, Request, StopReason, generate};
use crate::score::Score;
use crate::update::{PolicyGroup, PolicySample, StepTotals};

use super::TrainError;
use super::job::Job;
use super::oom_retry::retry_once;

/// The completions of one prompt, scored.
#[derive(Debug)]
pub(super) struct ScoredGroup {
    /// Index of the training prompt.
    pub(super) prompt: usize,
    pub(super) completions: Vec<Completion>,
    pub(super) texts: Vec<String>,
    pub(super) scores: Vec<Score>,
    pub(super) rewards: Vec<f64>,
    pub(super) advantages: Vec<f64>,
    pub(super) signal: GroupSignal,
}

/// What a step learns from.
#[derive(Debug, Default)]
pub(super) struct StepRollout {
    /// The groups that count.
    pub(super) groups: Vec<ScoredGroup>,
    /// Zero-variance groups that others took the place of (`dynamic_sampling`).
    pub(super) replaced: Vec<ScoredGroup>,
    /// Seconds of drawing and of scoring.
    pub(super) rollout_seconds: f64,
    pub(super) score_seconds: f64,
}

/// How often zero-variance groups are replaced before a step goes on with fewer.
const REFILL_ROUNDS: usize = 3;

/// The groups of steps `first_step ..= first_step + steps - 1`, all drawn with the weights as they are. Moves the data cursor.
pub(super) fn draw_steps(job: &mut Job, first_step: u64, steps: u64) -> Result<Vec<StepRollout>, TrainError> {
    let wanted = job.config.prompt_groups_per_step;
    let plan: Vec<(u64, Vec<u64>)> = (first_step..first_step + steps).map(|step| (step, take(job, wanted))).collect();
    let mut drawn = draw(job, &plan)?;
    if job.config.dynamic_sampling {
        for (step, groups) in (first_step..).zip(&mut drawn) {
            refill(job, step, groups, wanted)?;
        }
    }
    Ok(drawn)
}

/// The next `count` places of the endless order of prompts.
fn take(job: &mut Job, count: usize) -> Vec<u64> {
    let start = job.state.prompts_taken;
    job.state.prompts_taken += count as u64;
    (start..job.state.prompts_taken).collect()
}

/// The next `count` training prompts.
pub(super) fn next_prompts(job: &mut Job, count: usize) -> Vec<usize> {
    let places = take(job, count);
    let mut order = Order::new(job);
    places.into_iter().map(|place| order.prompt(place)).collect()
}

fn refill(job: &mut Job, step: u64, groups: &mut StepRollout, wanted: usize) -> Result<(), TrainError> {
    for _ in 0..REFILL_ROUNDS {
        let (mixed, zero_variance): (Vec<_>, Vec<_>) = groups.groups.drain(..).partition(|group| group.signal == GroupSignal::Mixed);
        groups.groups = mixed;
        if zero_variance.is_empty() {
            return Ok(());
        }
        groups.replaced.extend(zero_variance);
        let missing = wanted - groups.groups.len();
        let places = take(job, missing);
        for more in draw(job, &[(step, places)])? {
            groups.groups.extend(more.groups);
            groups.rollout_seconds += more.rollout_seconds;
            groups.score_seconds += more.score_seconds;
        }
    }
    Ok(())
}

fn draw(job: &Job, plan: &[(u64, Vec<u64>)]) -> Result<Vec<StepRollout>, TrainError> {
    let start = std::time::Instant::now();
    let mut order = Order::new(job);
    let mut requests = Vec::new();
    let mut prompts = Vec::new();
    for (step, places) in plan {
        for &place in places {
            let prompt = order.prompt(place);
            prompts.push(prompt);
            requests.push(Request {
                prompt: job.prompts.train[prompt].token_ids.clone(),
                // A place names a prompt of a pass over the data, so a prompt that comes twice in a step is drawn afresh.
                prompt_number: place as u32,
                step: *step as u32,
                samples: job.config.completions_per_prompt,
            });
        }
    }
    // Drawing changes nothing and always gives the same, so it may be done again.
    let drawn =
        retry_once(|| _ = job.engine.trim_memory(), || generate(&job.model, Adapters::On, &requests, &job.sampling(), &job.threads))?;
    let rollout_seconds = start.elapsed().as_secs_f64() / plan.len() as f64;
    let start = std::time::Instant::now();
    let mut scored = score(job, prompts, drawn)?.into_iter();
    let score_seconds = start.elapsed().as_secs_f64() / plan.len() as f64;
    let groups = |(_, places): &(u64, Vec<u64>)| StepRollout {
        groups: scored.by_ref().take(places.len()).collect(),
        replaced: Vec::new(),
        rollout_seconds,
        score_seconds,
    };
    Ok(plan.iter().map(groups).collect())
}

/// The order of the prompts, an epoch at a time.
struct Order {
    rows: usize,
    seed: u64,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    fn new(job: &Job) -> Self {
        Self { rows: job.prompts.train.len(), seed: job.config.seed, epoch: None }
    }

    fn prompt(&mut self, place: u64) -> usize {
        let epoch = place / self.rows as u64;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, epoch_order(self.rows, epoch, self.seed)));
        }
        self.epoch.as_ref().map_or(0, |(_, order)| order[(place % self.rows as u64) as usize])
    }
}

/// The groups of `prompts`, all of them scored together, on every core.
fn score(job: &Job, prompts: Vec<usize>, drawn: Vec<Vec<Completion>>) -> Result<Vec<ScoredGroup>, TrainError> {
    let decode = |completion: &Completion| job.tokenizer.decode(&completion.token_ids, true);
    let texts = drawn.iter().map(|completions| completions.iter().map(decode).collect()).collect::<Result<Vec<Vec<String>>, _>>()?;
    let rows = prompts.iter().map(|prompt| Some(&job.prompts.train[*prompt].row));
    let all: Vec<_> = texts.iter().zip(rows).flat_map(|(texts, row)| texts.iter().map(move |text| (text.as_str(), row))).collect();
    let mut scores = job.scorer.score_all(&all).into_iter();
    let group = |((prompt, completions), texts): ((usize, Vec<Completion>), Vec<String>)| {
        let scores: Vec<Score> = scores.by_ref().take(texts.len()).collect();
        let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
        let advantages = group_advantages(&rewards, job.config.advantage);
        let signal = group_signal(&rewards, scores.iter().all(Score::is_max), scores.iter().all(Score::is_min));
        ScoredGroup { prompt, signal, completions, texts, scores, rewards, advantages }
    };
    Ok(prompts.into_iter().zip(drawn).zip(texts).map(group).collect())
}

/// The groups that a gradient is computed from, and the step's denominators.
pub(super) fn policy_batch(job: &Job, groups: &[ScoredGroup]) -> (Vec<PolicyGroup>, StepTotals) {
    select(&job.config, groups, |prompt| job.prompts.train[prompt].token_ids.clone())
}

/// Zero-variance groups are left out (their gradient is 0) unless a KL is wanted, but they count; masked completions and replaced groups do not.
fn select(config: &TrainConfig, groups: &[ScoredGroup], prompt_tokens: impl Fn(usize) -> Vec<u32>) -> (Vec<PolicyGroup>, StepTotals) {
    let counts = |completion: &Completion| !is_masked(config, completion);
    let completions = || groups.iter().flat_map(|group| &group.completions).filter(|completion| counts(completion));
    let totals = StepTotals { sequences: completions().count(), tokens: completions().map(|completion| completion.token_ids.len()).sum() };
    let wanted = groups.iter().filter(|group| group.signal == GroupSignal::Mixed || config.kl_beta > 0.0);
    let policy = wanted.map(|group| PolicyGroup {
        prompt: prompt_tokens(group.prompt),
        samples: group.completions.iter().zip(&group.advantages).filter(|(completion, _)| counts(completion)).map(sample).collect(),
    });
    (policy.filter(|group| !group.samples.is_empty()).collect(), totals)
}

fn is_masked(config: &TrainConfig, completion: &Completion) -> bool {
    config.overlong_masking && completion.stop == StopReason::Length
}

fn sample((completion, &advantage): (&Completion, &f64)) -> PolicySample {
    PolicySample {
        token_ids: completion.token_ids.clone(),
        sampled_log_probs: completion.log_probs.clone(),
        old_log_probs: None,
        reference_log_probs: None,
        advantage,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(set: &[&str]) -> TrainConfig {
        Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() }.resolve().unwrap().config
    }

    /// A group by its completions: (tokens, cut at the limit, reward).
    fn group(completions: &[(usize, bool, f64)]) -> ScoredGroup {
        let completion = |&(tokens, cut, _): &(usize, bool, f64)| Completion {
            token_ids: vec![1; tokens],
            log_probs: vec![-1.0; tokens],
            stop: if cut { StopReason::Length } else { StopReason::Stop },
        };
        let rewards: Vec<f64> = completions.iter().map(|completion| completion.2).collect();
        ScoredGroup {
            prompt: 0,
            completions: completions.iter().map(completion).collect(),
            texts: Vec::new(),
            scores: Vec::new(),
            advantages: group_advantages(&rewards, crate::advantage::Advantage::Standardized),
            signal: group_signal(&rewards, rewards.iter().all(|reward| *reward == 1.0), false),
            rewards,
        }
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
            let (policy, totals) = select(&config(&[&set[0], &set[1]]), &groups, |_| vec![9]);
            let counted = |shape: &Vec<(usize, bool, u8)>| shape.iter().filter(|(_, cut, _)| !masking || !cut).map(|(tokens, ..)| *tokens).collect::<Vec<_>>();
            let all: Vec<usize> = shapes.iter().flat_map(counted).collect();
            proptest::prop_assert_eq!(totals, StepTotals { sequences: all.len(), tokens: all.iter().sum() });
            let is_wanted = |shape: &&Vec<(usize, bool, u8)>| kl || shape.iter().any(|(.., reward)| *reward != shape[0].2);
            let expected: Vec<Vec<usize>> = shapes.iter().filter(is_wanted).map(counted).filter(|tokens| !tokens.is_empty()).collect();
            let lengths = |group: &PolicyGroup| group.samples.iter().map(|sample| sample.token_ids.len()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(policy.iter().map(lengths).collect::<Vec<_>>(), expected);
            // Advantages are those of the whole group: masking leaves them as they are.
            for (group, shape) in policy.iter().zip(shapes.iter().filter(is_wanted).filter(|shape| !counted(shape).is_empty())) {
                let rewards: Vec<f64> = shape.iter().map(|(.., reward)| f64::from(*reward) / 2.0).collect();
                let advantages = group_advantages(&rewards, crate::advantage::Advantage::Standardized);
                let kept = advantages.into_iter().zip(shape).filter(|(_, (_, cut, _))| !masking || !cut).map(|(advantage, _)| advantage);
                proptest::prop_assert!(group.samples.iter().map(|sample| sample.advantage).eq(kept));
            }
        }
    }

    #[test]
    fn zero_variance_groups_count_and_masked_completions_do_not() {
        let mixed = || group(&[(3, false, 1.0), (5, true, 0.0)]);
        let equal = || group(&[(2, false, 1.0), (4, false, 1.0)]);
        let all_cut = || group(&[(7, true, 0.0), (7, true, 0.5)]);
        // (settings, groups) -> (completions of each forwarded group, N, M).
        let check = |set: &[&str], groups: &[ScoredGroup], forwarded: &[usize], sequences, tokens| {
            let (policy, totals) = select(&config(set), groups, |_| vec![9]);
            let found: Vec<usize> = policy.iter().map(|group| group.samples.len()).collect();
            assert_eq!((found.as_slice(), totals), (forwarded, StepTotals { sequences, tokens }), "{set:?}");
        };
        check(&[], &[mixed(), equal()], &[2], 4, 14);
        check(&["kl_beta=0.1"], &[mixed(), equal()], &[2, 2], 4, 14);
        check(&["overlong_masking=true"], &[mixed(), equal()], &[1], 3, 9);
        check(&["overlong_masking=true"], &[all_cut(), equal()], &[], 2, 6);
        check(&["overlong_masking=true", "kl_beta=0.1"], &[all_cut(), equal()], &[2], 2, 6);
        check(&[], &[equal(), equal()], &[], 4, 12);
        // A replaced group is no longer among a step's groups, so it is in neither.
        check(&[], &[mixed()], &[2], 2, 8);
    }
}
