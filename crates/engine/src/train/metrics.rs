//! A step's metrics, with TRL's names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::groups::{GroupTurn, StepRollout};
use super::trainer::Trainer;
use crate::advantage::{GroupSignal, mean_and_deviation};
use crate::config::TrainConfig;
use crate::dataset::adaptive_order::AdaptiveOrder;
use crate::environment::{AgentRecord, CallOutcome, ChainEnd};
use crate::model::RouterUse;
use crate::plan::StepShape;
use crate::policy::{ToolTurn, Turn};
use crate::ranks::Ranks;
use crate::rollout::{Completion, DecodeCounts};
use crate::run::events::RankStep;
use crate::score::{FailureClass, OrderedMap, Score, Tier, mean_reward};
use crate::task::task_metric;
use crate::update::{PolicyStatistics, StepOutcome};

/// A step's update, before recording.
#[derive(Clone, Debug)]
pub(super) struct StepUpdate {
    /// Sums over this rank's groups; on rank 0 over all, once recorded.
    pub(super) statistics: PolicyStatistics,
    /// `None` without informative groups.
    pub(super) applied: Option<StepOutcome>,
    pub(super) learning_rate: f64,
    pub(super) corrects_sampling: bool,
    pub(super) start: Instant,
    pub(super) shape: StepShape,
    /// Sampling and scoring.
    pub(super) sampling_seconds: f64,
    /// Old log-probs.
    pub(super) forward_seconds: f64,
    /// Update and old log-probs, without recording.
    pub(super) update_seconds: f64,
    /// This rank's work before the update.
    pub(super) rank: RankStep,
}

impl StepUpdate {
    pub(super) fn begin(trainer: &Trainer) -> Self {
        Self {
            statistics: PolicyStatistics::default(),
            applied: None,
            learning_rate: trainer.optimizer.learning_rate(trainer.state.step),
            corrects_sampling: trainer.corrects_sampling(),
            start: Instant::now(),
            shape: trainer.shape.get(),
            sampling_seconds: 0.0,
            forward_seconds: 0.0,
            update_seconds: 0.0,
            rank: RankStep {
                waited_seconds: trainer.ranks.take_waited_seconds(),
                ..RankStep::default()
            },
        }
    }

    /// Ends the update's timing, which excludes recording by rank 0.
    pub(super) fn end(&mut self, ranks: &Ranks) {
        let waited_seconds = ranks.take_waited_seconds();
        self.update_seconds = self.forward_seconds + self.start.elapsed().as_secs_f64();
        self.rank.update_seconds = (self.update_seconds - waited_seconds).max(0.0);
        self.rank.waited_seconds += waited_seconds;
    }

    /// The whole step so far.
    pub(super) fn seconds(&self) -> f64 {
        self.sampling_seconds + self.forward_seconds + self.start.elapsed().as_secs_f64()
    }
}

/// Metrics of a rollout, including replaced groups, which show the policy's ability; omits
/// undefined ones.
pub(super) fn rollout_metrics(
    rollout: &StepRollout,
    config: &TrainConfig,
) -> BTreeMap<String, f64> {
    let (mut metrics, groups) = (MetricMap::default(), rollout.sampled_turns());
    rewards(&groups, &mut metrics);
    completions(&groups, config.max_thinking_tokens > 0, &mut metrics);
    tools(&groups, &mut metrics);
    metrics.add("groups/replaced", rollout.replaced_turns().len() as f64);
    let answers = groups.iter().flat_map(|turn| turn.answers());
    let sampled: usize = answers.map(Turn::sampled_tokens).sum();
    let slowest = |seconds: fn(&StepRollout) -> f64| rollout.all().map(seconds).fold(0.0, f64::max);
    let rollout_seconds = slowest(|rank| rank.rollout_seconds);
    metrics.add("time/rollout", rollout_seconds);
    metrics.add("time/score", slowest(|rank| rank.score_seconds));
    let mut counts = DecodeCounts::default();
    rollout.all().for_each(|rank| counts += rank.counts);
    if counts.steps > 0 {
        // A completion's first token comes from its prompt's prefill.
        metrics.add(
            "decode/tokens_per_row",
            (counts.rows + counts.accepted) as f64 / counts.rows as f64,
        );
        metrics.add("decode/mean_rows", counts.rows as f64 / counts.steps as f64);
    }
    if counts.drafted > 0 {
        metrics.add(
            "decode/draft_acceptance",
            counts.accepted as f64 / counts.drafted as f64,
        );
    }
    metrics.add(
        "tokens_per_second/rollout",
        sampled as f64 / rollout_seconds.max(1e-9),
    );
    metrics.0
}

/// Metrics of adaptive sampling: skipped prompts, and solve rate so far.
pub(super) fn prompt_metrics(
    adaptive: &AdaptiveOrder,
    rollout: &StepRollout,
) -> BTreeMap<String, f64> {
    let taken = rollout.all().flat_map(StepRollout::sampled_groups).count();
    let skipped = rollout.skipped_prompts as f64;
    let mut metrics = MetricMap::default();
    metrics.add("prompts/frac_skipped", skipped / (skipped + taken as f64));
    if let Some(rate) = adaptive.solve_rate() {
        metrics.add("prompts/solve_rate", rate);
    }
    metrics.0
}

/// [`rollout_metrics`] by task, for several tasks, without metrics of the step alone:
/// `task/NAME/reward`.
pub(super) fn task_metrics(trainer: &Trainer, rollout: &StepRollout) -> BTreeMap<String, f64> {
    let (mut all, groups) = (BTreeMap::new(), rollout.sampled_turns());
    let is_mix = trainer.tasks.len() > 1;
    for (index, task) in trainer.tasks.iter().enumerate().filter(|_| is_mix) {
        let is_its = |turn: &GroupTurn<'_>| trainer.prompts.train[turn.group.prompt].task == index;
        let own: Vec<GroupTurn<'_>> = groups.iter().copied().filter(is_its).collect();
        // A step of few groups may have none of a task.
        if !own.is_empty() {
            let mut metrics = MetricMap::default();
            rewards(&own, &mut metrics);
            completions(&own, trainer.config.max_thinking_tokens > 0, &mut metrics);
            tools(&own, &mut metrics);
            let named = metrics.0.into_iter();
            all.extend(named.map(|(name, value)| (task_metric(&task.part.name, &name), value)));
        }
    }
    all
}

pub(super) fn update_metrics(update: &StepUpdate) -> BTreeMap<String, f64> {
    let mut metrics = MetricMap::default();
    let StepUpdate {
        ref statistics,
        applied,
        learning_rate,
        ..
    } = *update;
    let update_seconds = update.update_seconds;
    metrics.add("learning_rate", learning_rate);
    match applied {
        Some(StepOutcome::Updated { grad_norm, .. }) => metrics.add("grad_norm", grad_norm),
        Some(StepOutcome::NotFinite) => metrics.add("grad_norm", f64::NAN),
        None => {}
    }
    if statistics.tokens > 0 {
        let tokens = statistics.tokens as f64;
        metrics.add("loss", statistics.loss);
        metrics.add("entropy", statistics.entropy / tokens);
        if let Some(kl) = statistics.kl {
            metrics.add("kl", kl / tokens);
        }
        if statistics.distilled_tokens > 0 {
            metrics.add(
                "distill/reverse_kl",
                statistics.reverse_kl / statistics.distilled_tokens as f64,
            );
        }
        metrics.add(
            "clip_ratio/low_mean",
            statistics.clipped_low as f64 / tokens,
        );
        metrics.add(
            "clip_ratio/high_mean",
            statistics.clipped_high as f64 / tokens,
        );
        metrics.add(
            "sampling/sampling_logp_difference/mean",
            statistics.mean_sampling_difference(),
        );
        metrics.add(
            "sampling/sampling_logp_difference/max",
            statistics.sampling_difference_max,
        );
        if update.corrects_sampling {
            metrics.add(
                "sampling/importance_sampling_ratio/mean",
                statistics.importance / statistics.sampled_tokens.max(1) as f64,
            );
        }
    }
    if !statistics.routers.is_empty() {
        let rows: usize = statistics.routers.iter().map(|layer| layer.rows).sum();
        let entropy: f64 = statistics.routers.iter().map(|layer| layer.entropy).sum();
        metrics.add("router/entropy", entropy / rows.max(1) as f64);
        let loads = statistics.routers.iter().map(RouterUse::load);
        metrics.add("router/load", loads.fold(0.0, f64::max));
    }
    metrics.add("time/update", update_seconds);
    metrics.add("step_time", update.seconds());
    if statistics.rows > 0 {
        metrics.add(
            "tokens_per_second/train",
            statistics.rows as f64 / update_seconds.max(1e-9),
        );
    }
    metrics.0
}

#[derive(Default)]
struct MetricMap(BTreeMap<String, f64>);

impl MetricMap {
    fn add(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), x| (sum + x, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Share of true conditions.
fn share(conditions: impl Iterator<Item = bool>) -> f64 {
    mean(conditions.map(|condition| f64::from(u8::from(condition))))
}

fn sampled<'g>(groups: &[GroupTurn<'g>]) -> impl Iterator<Item = &'g Turn> {
    groups.iter().copied().flat_map(GroupTurn::sampled)
}

fn rewards(groups: &[GroupTurn<'_>], metrics: &mut MetricMap) {
    let rewards = groups.iter().map(|group| {
        let sampled = group.sampled();
        sampled.map(|answer| answer.score.reward).collect()
    });
    let rewards: Vec<Vec<f64>> = rewards.collect();
    metrics.add("reward", mean_reward(rewards.iter().flatten().copied()));
    metrics.add(
        "reward_std",
        mean(rewards.iter().map(|rewards| mean_and_deviation(rewards).1)),
    );
    let signals: Vec<GroupSignal> = groups.iter().copied().map(GroupTurn::signal).collect();
    metrics.add(
        "groups/frac_guided",
        share(groups.iter().copied().map(GroupTurn::is_guided)),
    );
    metrics.add(
        "groups/frac_distinct",
        mean(groups.iter().map(distinct_share)),
    );
    use GroupSignal::{AllEqual, AllMax, AllMin, Mixed};
    for (name, counted) in [
        ("groups/frac_mixed", &[Mixed][..]),
        ("groups/frac_all_best", &[AllMax]),
        ("groups/frac_all_worst", &[AllMin, AllEqual]),
    ] {
        metrics.add(
            name,
            share(signals.iter().map(|signal| counted.contains(signal))),
        );
    }
    // The guided answer of a group gives it a gradient.
    let is_zero =
        |(group, signal): (&GroupTurn<'_>, &GroupSignal)| !group.is_guided() && *signal != Mixed;
    metrics.add(
        "frac_reward_zero_std",
        share(groups.iter().zip(&signals).map(is_zero)),
    );
    let scores: Vec<&Score> = sampled(groups).map(|answer| &answer.score).collect();
    let known: Vec<&Score> = scores
        .iter()
        .copied()
        .filter(|score| !score.is_error())
        .collect();
    for tier in Tier::ALL {
        metrics.add(
            &format!("tiers/{}", tier.name()),
            share(known.iter().map(|score| score.tier == tier)),
        );
    }
    let classes: BTreeSet<FailureClass> = scores.iter().filter_map(|score| score.failure).collect();
    for class in classes {
        metrics.add(
            &class.metric(),
            share(scores.iter().map(|score| score.failure == Some(class))),
        );
    }
    if known.iter().any(|score| score.exact.is_some()) {
        metrics.add("exact", share(known.iter().filter_map(|score| score.exact)));
    }
    means("rewards", scores.iter().map(|score| &score.parts), metrics);
    means("scorer", scores.iter().map(|score| &score.metrics), metrics);
}

/// The most frequent sampled text.
pub(super) fn frequent_answer(groups: &[GroupTurn<'_>]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in sampled(groups) {
        *counts.entry(&answer.text).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(text, _)| text.to_owned())
}

/// Distinct texts per completion.
fn distinct_share(group: &GroupTurn<'_>) -> f64 {
    let texts: BTreeSet<&str> = group.sampled().map(|answer| answer.text.as_str()).collect();
    texts.len() as f64 / group.sampled().count().max(1) as f64
}

/// Mean of each named value over the scores that have it.
fn means<'s>(
    part: &str,
    named: impl Iterator<Item = &'s OrderedMap<f64>>,
    metrics: &mut MetricMap,
) {
    let mut by_name: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in named.flat_map(OrderedMap::iter) {
        by_name.entry(name).or_default().push(*value);
    }
    for (name, values) in by_name {
        metrics.add(&format!("{part}/{name}/mean"), mean(values.into_iter()));
    }
}

/// Calls, replies and ends of turns with tools.
fn tools(groups: &[GroupTurn<'_>], metrics: &mut MetricMap) {
    let turns: Vec<&ToolTurn> = sampled(groups)
        .filter_map(|answer| answer.tools.as_ref())
        .collect();
    if turns.is_empty() {
        return;
    }
    let calls = || turns.iter().flat_map(|turn| turn.calls());
    let per_turn = |count: usize| count as f64 / turns.len() as f64;
    metrics.add("tools/calls", per_turn(calls().count()));
    let steps = turns.iter().flat_map(|turn| &turn.steps);
    let reply_tokens = steps.map(|step| step.reply_tokens).sum();
    metrics.add("tools/tokens", per_turn(reply_tokens));
    let outcome = |outcome: CallOutcome| share(calls().map(|call| call.outcome == outcome));
    if calls().next().is_some() {
        metrics.add("tools/frac_refused", outcome(CallOutcome::Refused));
        metrics.add("tools/frac_failed", outcome(CallOutcome::Failed));
    }
    metrics.add("time/tools", mean(turns.iter().map(|turn| turn.seconds)));
    let records: Vec<&AgentRecord> = turns
        .iter()
        .filter_map(|turn| turn.agent.as_deref())
        .collect();
    let mut ends: BTreeSet<ChainEnd> = BTreeSet::new();
    if records.len() < turns.len() {
        ends.extend(ChainEnd::OF_TOOLS);
    }
    if !records.is_empty() {
        ends.extend(ChainEnd::OF_AGENTS);
    }
    for end in ends {
        metrics.add(
            &format!("ends/{}", end.name()),
            share(turns.iter().map(|turn| turn.end == end)),
        );
    }
    if !records.is_empty() {
        let mean_of = |count: fn(&AgentRecord) -> usize| {
            mean(records.iter().map(|record| count(record) as f64))
        };
        metrics.add("agent/requests", mean_of(|record| record.requests.len()));
        metrics.add("agent/branches", mean_of(AgentRecord::branches));
        metrics.add(
            "agent/refused",
            mean_of(|record| record.refused.values().sum()),
        );
        metrics.add(
            "agent/frac_ignored",
            share(records.iter().map(|record| record.ignores_sampling())),
        );
        metrics.add(
            "agent/frac_unconstrained",
            share(records.iter().map(|record| record.ignores_constraints())),
        );
    }
}

fn completions(groups: &[GroupTurn<'_>], has_thinking_limit: bool, metrics: &mut MetricMap) {
    let all: Vec<&Completion> = sampled(groups).flat_map(Turn::completions).collect();
    // The mean of -log p over sampled tokens estimates the entropy without bias, and needs no
    // forward.
    let log_probs = all
        .iter()
        .flat_map(|completion| completion.sampled_log_probs());
    metrics.add(
        "completions/entropy",
        mean(log_probs.map(|log_prob| -f64::from(log_prob))),
    );
    let lengths = all
        .iter()
        .map(|completion| completion.token_ids.len() as f64);
    metrics.add("completions/mean_length", mean(lengths.clone()));
    metrics.add(
        "completions/min_length",
        lengths.clone().fold(f64::INFINITY, f64::min),
    );
    metrics.add("completions/max_length", lengths.fold(0.0, f64::max));
    metrics.add(
        "completions/clipped_ratio",
        share(all.iter().map(|completion| completion.stop.is_truncated())),
    );
    if has_thinking_limit {
        let limited = all
            .iter()
            .map(|completion| completion.has_thought_to_the_limit());
        metrics.add("completions/frac_thinking_limited", share(limited));
    }
}
