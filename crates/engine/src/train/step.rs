//! GRPO, top to bottom: answers, rewards, advantages, loss, gradient, optimizer step. Every rank
//! processes its own groups; totals and gradients are summed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::checkpointing::collect;
use super::error::TrainError;
use super::gradient_shape::{memory_point, shrunk};
use super::groups::{Group, StepRollout};
use super::guided::guide;
use super::metrics::StepUpdate;
use super::recorder::Record;
use super::rollout_order::{PlannedPrompt, StepPlan};
use super::trainer::Trainer;
use crate::config::{Advantage, PolicyLoss};
use crate::facts::PhaseKind;
use crate::files::panic_point;
use crate::model::{Adapters, Gradients};
use crate::policy::{ConverseSettings, Conversed, PolicyVersion, Question};
use crate::rollout::Sampling;
use crate::update::{
    PolicyGroup, PolicySettings, PolicyStatistics, StepTotals, completion_log_probs,
    policy_gradient, set_log_ratios,
};

/// Rounds of `dynamic_sampling`, after which a step continues with fewer groups.
const REFILL_ROUNDS: usize = 3;

/// Takes the next steps, all sampled with the current weights. Ratios of the first are exactly 1;
/// for the others, old log-probs are computed by a training forward before any update.
pub(super) fn grpo_steps(trainer: &mut Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    let first = trainer.state.step + 1;
    record.phase(first, PhaseKind::Rollout)?;
    let mut rollouts = sample_groups(trainer, record)?;
    let shape = trainer.shape.get();
    record.on_rank_0(|recorder| recorder.check_scores(trainer, &rollouts))?;
    for rollout in rollouts.iter_mut().skip(1) {
        let start = Instant::now();
        rollout.old_log_probs = Some(old_log_probs(trainer, rollout)?);
        rollout.forward_seconds = start.elapsed().as_secs_f64();
    }
    record.alerts(shrunk(first, shape, trainer.shape.get()))?;
    rollouts
        .into_iter()
        .try_for_each(|rollout| grpo_step(trainer, record, rollout))
}

/// Samples the next steps' groups with rewards and advantages. On rank 0 includes those of other
/// ranks.
fn sample_groups(
    trainer: &mut Trainer,
    record: &mut Record<'_>,
) -> Result<Vec<StepRollout>, TrainError> {
    let first = trainer.state.step + 1;
    let group_count = trainer.config.prompt_groups_per_step as u64;
    let steps = first..first + trainer.next_steps();
    let plans = steps
        .map(|step| trainer.plan(step, group_count))
        .collect::<Vec<_>>();
    let mut sampled = rollout(trainer, &plans)?;
    if trainer.config.dynamic_sampling && trainer.config.learns_from_rewards() {
        for (step, rollout) in (first..).zip(&mut sampled) {
            refill(trainer, step, rollout)?;
        }
    }
    trainer.observe(&sampled)?;
    if trainer.config.advantage == Advantage::PerPart {
        sampled
            .iter_mut()
            .try_for_each(|rollout| normalise(trainer, rollout))?;
    }
    let others = trainer.ranks.gather_others(&sampled)?;
    let of_ranks = std::iter::once(&sampled).chain(&others).flatten();
    let gpu_fallbacks = of_ranks.flat_map(|rollout| rollout.gpu_fallbacks.clone());
    record.on_rank_0(|recorder| recorder.fallbacks(first, gpu_fallbacks))?;
    for other in others {
        let steps = sampled.iter_mut().zip(other);
        steps.for_each(|(own, other)| own.others.push(other));
    }
    Ok(sampled)
}

/// Second stage of `per_part`, by task, since scales of parts differ.
fn normalise(trainer: &Trainer, rollout: &mut StepRollout) -> Result<(), TrainError> {
    for task in 0..trainer.tasks.len() {
        rollout.normalise(&trainer.ranks, |group| {
            trainer.prompts.train[group.prompt].task == task
        })?;
    }
    Ok(())
}

/// Samples this rank's share of each step's prompts.
fn rollout(trainer: &Trainer, plans: &[StepPlan]) -> Result<Vec<StepRollout>, TrainError> {
    let own: Vec<StepPlan> = plans
        .iter()
        .map(|plan| plan.share(&trainer.ranks))
        .collect();
    let planned: Vec<PlannedPrompt> = own.iter().flat_map(StepPlan::planned).collect();
    let questions: Vec<Question<'_>> = planned
        .iter()
        .map(|planned| planned.question(trainer))
        .collect();
    let sampling = Sampling {
        records_experts: trainer.config.router_replay,
        ..trainer.sampling()?
    };
    let tasks = trainer.scored_tasks();
    let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
    let Conversed {
        conversations,
        counts,
        mut gpu_fallbacks,
        rollout_seconds,
        score_seconds,
        ..
    } = trainer.policy.converse(&questions, &settings, None)?;
    // Answers come with rewards, which become advantages within a group.
    let group = |(planned, conversations): (PlannedPrompt, _)| {
        let rule = trainer.advantage_rule(planned.prompt);
        Group::new(planned.position, planned.prompt, conversations, &rule)
    };
    let mut groups: Vec<Group> = planned.into_iter().zip(conversations).map(group).collect();
    guide(trainer, &mut groups, &questions)?;
    let (mut groups, steps) = (groups.into_iter(), plans.len() as f64);
    let rollout = |plan: &StepPlan| StepRollout {
        groups: groups.by_ref().take(plan.prompts.len()).collect(),
        skipped_prompts: plan.skipped,
        rollout_seconds: rollout_seconds / steps,
        score_seconds: score_seconds / steps,
        counts,
        gpu_fallbacks: std::mem::take(&mut gpu_fallbacks),
        ..StepRollout::default()
    };
    Ok(own.iter().map(rollout).collect())
}

/// Replaces a step's zero-variance groups by those of the next prompts.
fn refill(trainer: &mut Trainer, step: u64, rollout: &mut StepRollout) -> Result<(), TrainError> {
    for _ in 0..REFILL_ROUNDS {
        rollout.set_aside();
        let missing = trainer.config.prompt_groups_per_step as u64
            - trainer.ranks.sum(rollout.groups.len() as f64)? as u64;
        if missing == 0 {
            return Ok(());
        }
        let plan = trainer.plan(step, missing);
        let more = self::rollout(trainer, &[plan])?;
        more.into_iter().for_each(|more| rollout.add(more));
    }
    rollout.set_aside();
    Ok(())
}

/// Trains on a step's groups.
fn grpo_step(
    trainer: &mut Trainer,
    record: &mut Record<'_>,
    rollout: StepRollout,
) -> Result<(), TrainError> {
    let step = trainer.state.step + 1;
    panic_point("step.update", &step.to_string());
    record.phase(step, PhaseKind::Update)?;
    let mut update = StepUpdate::begin(trainer);
    let batch = trainer.policy_batch(&rollout, trainer.entropy_coef());
    if trainer.ranks.any(!batch.groups.is_empty())? {
        let totals = StepTotals {
            sequences: trainer.ranks.sum(batch.totals.sequences as f64)? as usize,
            tokens: trainer.ranks.sum(batch.totals.tokens as f64)? as usize,
        };
        let (gradient, statistics) = loss_gradient(trainer, batch.groups, totals)?;
        update.statistics = statistics;
        // A non-finite loss has such a gradient, which the optimizer skips.
        update.applied = Some(trainer.apply(&gradient)?);
    }
    // Log a checkpoint saved during the step before it.
    record.on_rank_0(|recorder| collect(recorder, false))?;
    record.step(trainer, rollout, update)
}

/// This rank's part of the loss gradient, with statistics of the forward passes; includes log-probs
/// of a reference for KL, and of a teacher.
fn loss_gradient(
    trainer: &Trainer,
    mut groups: Vec<PolicyGroup<'_>>,
    totals: StepTotals,
) -> Result<(Gradients, PolicyStatistics), TrainError> {
    let policy = &trainer.policy;
    trainer.shrink_together(trainer.extent(), || {
        memory_point(trainer.ranks.rank())?;
        let settings = trainer.policy_settings();
        let (model, threads) = (&policy.model, &policy.threads);
        if settings.loss.kl_beta > 0.0 {
            let (reference, adapters) = policy.model_of(PolicyVersion::Base);
            let log_probs =
                completion_log_probs(reference, adapters, &groups, &settings, &policy.threads)?;
            for (group, log_probs) in groups.iter_mut().zip(log_probs) {
                group.set_reference(log_probs);
            }
        }
        if trainer.config.is_distilled() {
            add_teacher(trainer, &mut groups, &settings)?;
        }
        let is_old = |group: &PolicyGroup<'_>| {
            let mut samples = group.samples.iter();
            samples.any(|sample| sample.old_log_probs.is_some())
        };
        if settings.loss.policy_loss == PolicyLoss::Gspo && groups.iter().any(is_old) {
            let current = completion_log_probs(model, Adapters::On, &groups, &settings, threads)?;
            set_log_ratios(&mut groups, &current);
        }
        policy_gradient(model, &groups, totals, &settings, threads)
    })
}

/// Sets the teacher's log-probs of distilled completions.
fn add_teacher(
    trainer: &Trainer,
    groups: &mut [PolicyGroup<'_>],
    settings: &PolicySettings,
) -> candle_core::Result<()> {
    let base = || trainer.policy.model_of(PolicyVersion::Base);
    let (model, adapters) = trainer
        .teacher
        .as_ref()
        .map_or_else(base, |teacher| (teacher, Adapters::On));
    let read: Vec<PolicyGroup<'_>> = groups.iter().map(PolicyGroup::for_teacher).collect();
    let log_probs =
        completion_log_probs(model, adapters, &read, settings, &trainer.policy.threads)?;
    groups
        .iter_mut()
        .zip(log_probs)
        .for_each(|(group, log_probs)| group.set_teacher(log_probs));
    Ok(())
}

/// Log-probs of a step's completions under the current weights, in the gradient's micro-batches; of
/// all completions if an entropy bonus is possible, since its weight changes between steps.
fn old_log_probs(
    trainer: &Trainer,
    rollout: &StepRollout,
) -> Result<BTreeMap<usize, Vec<f32>>, TrainError> {
    let batch = trainer.policy_batch(rollout, trainer.config.entropy_coef);
    let (model, threads) = (&trainer.policy.model, &trainer.policy.threads);
    let log_probs = trainer.shrink_together(trainer.extent(), || {
        completion_log_probs(
            model,
            Adapters::On,
            &batch.groups,
            &trainer.policy_settings(),
            threads,
        )
    })?;
    Ok(batch
        .completions
        .into_iter()
        .zip(log_probs.into_iter().flatten())
        .collect())
}
