//! What all ranks compute together. Rank 0 divides the work, commands, computes its own share as the others do theirs,
//! and puts the replies together in the order of the ranks.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::job::Job;
use super::memory_probe::own_probe;
use super::oom_retry::{memory_point, shrunk};
use super::rank_work::{LatestReading, TimedCollectives, of_rollout, timed};
use super::shares::{rows, split, split_groups, split_requests};
use crate::files::failpoint;
use crate::kernels::adamw::norm;
use crate::kernels::cuda_errors::{GpuFailure, is_out_of_memory};
use crate::model::{Adapters, Decoder, Gradients, Parameters};
use crate::ranks::{Collectives, RankError};
use crate::rollout::{Request, RolloutContext, RolloutOutput, Sampling, ThreadPool, Watcher, token_count};
use crate::run::events::{Alert, Device, RankStep};
use crate::update::{
    Example, Optimizer, PolicyGroup, PolicySettings, PolicyStatistics, StepOutcome, StepTotals, completion_log_probs,
    policy_gradient, supervised_gradient,
};

/// What rank 0 commands. Replies in brackets; those of computations come with the seconds that they took.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command<'a> {
    /// [`RolloutOutput`]
    Sample { adapters: Adapters, requests: Cow<'a, [Request]>, sampling: Cow<'a, Sampling> },
    /// [`Share`] of [`PolicyStatistics`]; the gradient is kept for `Update`.
    Gradient { groups: Vec<PolicyGroup<'a>>, totals: StepTotals, settings: PolicySettings },
    /// [`Share`] of the mean loss; likewise.
    Supervised { examples: Cow<'a, [Example]>, settings: SupervisedSettings },
    /// [`Share`] of log-probs by completion.
    LogProbs { groups: Vec<PolicyGroup<'a>>, settings: PolicySettings },
    /// [`Share`] of nothing: whether the longest gradient fits.
    Probe { settings: PolicySettings },
    /// What [`own_update`] does with all ranks, then [`Updated`].
    Update { learning_rate: f64, total_steps: u64 },
    /// The bytes of some that it has.
    Numbers { which: ShardedTensor, range: std::ops::Range<usize> },
    /// Completions to draft from; none.
    Remember { step: u64, completions: Vec<Cow<'a, [u32]>> },
    /// Parameters of a checkpoint; none.
    Load { folder: PathBuf },
}

/// What ranks may divide.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum ShardedTensor {
    Parameters,
    Moments,
}

/// What a rank says of an update.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Updated {
    /// The bits of a norm of its weights.
    weights: u64,
    /// Without those in which it waited for the others.
    seconds: f64,
    /// A [`Device`] as in the log, whose JSON leaves out what is not known.
    condition: String,
}

/// What a rank found, unless its memory ran out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Share<T> {
    Done(T),
    OutOfMemory,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SupervisedSettings {
    /// Completion tokens of all examples.
    pub(super) tokens: usize,
    pub(super) tokens_per_micro_batch: usize,
    pub(super) recompute: bool,
}

/// Samples requests with the current weights, or with those of the start; also what each of several ranks did. The
/// watcher learns of what this rank samples.
pub(super) fn sample(
    job: &Job,
    adapters: Adapters,
    requests: &[Request],
    watcher: Option<&mut dyn Watcher>,
) -> Result<(RolloutOutput, Vec<RankStep>), TrainError> {
    let start = Instant::now();
    let parts = split_requests(requests, job.ranks.size());
    let sampling = job.sampling();
    let sampling = &sampling;
    job.ranks.send(|rank| Command::Sample {
        adapters,
        requests: Cow::from(parts[rank]),
        sampling: Cow::Borrowed(sampling),
    })?;
    let context = RolloutContext { adapters, ..job.rollout_context() };
    let (own, seconds) =
        timed(|| context.rollout_while_scoring(parts[0], sampling, &job.scorer, job.prompts.rows_by_tokens(), watcher));
    let mut generated = own?;
    let mut sampled = vec![(token_count(&generated.completions), seconds)];
    for (seconds, more) in job.ranks.gather::<(f64, RolloutOutput)>()? {
        sampled.push((token_count(&more.completions), seconds));
        generated = generated.followed_by(more);
    }
    let is_alone = sampled.len() == 1;
    let work = if is_alone { Vec::new() } else { of_rollout(&sampled, start.elapsed().as_secs_f64()) };
    Ok((generated, work))
}

pub(super) fn own_sample(
    job: &Job,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
) -> candle_core::Result<RolloutOutput> {
    RolloutContext { adapters, ..job.rollout_context() }.rollout(requests, sampling)
}

/// This rank's part of the gradient of a batch, and the statistics of all; in smaller shapes when memory runs out on any
/// rank. Nothing has changed until [`update`].
pub(super) fn gradient(
    job: &Job,
    groups: Vec<PolicyGroup<'_>>,
    totals: StepTotals,
) -> Result<(Gradients, PolicyStatistics), TrainError> {
    let mut parts = split_groups(groups, job.ranks.size());
    let found = job.retry_smaller(job.extent(), || {
        let (start, settings) = (Instant::now(), job.policy_settings());
        send(job, |rank| Command::Gradient { groups: parts[rank].clone(), totals, settings })?;
        let own = timed(|| {
            memory_point(0)?;
            own_gradient(job, &mut parts[0], totals, &settings)
        });
        let ((gradients, mut statistics), others) = together(job, start, own)?;
        others.into_iter().for_each(|other| statistics.add(other));
        Ok((gradients, statistics))
    })?;
    job.rank_work.trained(parts.iter().map(|part| part.iter().map(rows).sum()));
    Ok(found)
}

/// Computes the longest gradient on all ranks, in smaller shapes when memory runs out on any; an alert if it has.
///
/// # Errors
/// [`TrainError::OutOfMemory`] if not even one sequence fits.
pub(super) fn probe_memory(job: &Job) -> Result<Option<Alert>, TrainError> {
    let before = job.shape.get();
    job.retry_smaller(job.extent(), || {
        let (start, settings) = (Instant::now(), job.policy_settings());
        send(job, |_| Command::Probe { settings })?;
        together(job, start, timed(|| own_probe(job, settings))).map(|((), _): (_, Vec<()>)| ())
    })?;
    // It is no step's work.
    job.rank_work.take(&[]);
    job.engine.trim_memory()?;
    Ok(shrunk(job.state.step + 1, before, job.shape.get()))
}

/// The gradient of some groups, with the reference's log-probs where there is a KL.
pub(super) fn own_gradient(
    job: &Job,
    groups: &mut [PolicyGroup<'_>],
    totals: StepTotals,
    settings: &PolicySettings,
) -> candle_core::Result<(Gradients, PolicyStatistics)> {
    if settings.loss.kl_beta > 0.0 {
        let (reference, adapters) = job.reference();
        let log_probs = completion_log_probs(reference, adapters, groups, settings, &job.threads)?;
        let samples = groups.iter_mut().flat_map(|group| &mut group.samples);
        samples
            .zip(log_probs.into_iter().flatten())
            .for_each(|(sample, log_probs)| sample.reference_log_probs = Some(log_probs));
    }
    policy_gradient(&job.model, groups, totals, settings, &job.threads)
}

/// The log-probs of each completion under the current weights, in order.
pub(super) fn log_probs(job: &Job, groups: Vec<PolicyGroup<'_>>) -> Result<Vec<Vec<f32>>, TrainError> {
    let parts = split_groups(groups, job.ranks.size());
    job.retry_smaller(job.extent(), || {
        let (start, settings) = (Instant::now(), job.policy_settings());
        send(job, |rank| Command::LogProbs { groups: parts[rank].clone(), settings })?;
        let own = timed(|| own_log_probs(job, &parts[0], &settings));
        let (mut found, others): (_, Vec<Vec<Vec<f32>>>) = together(job, start, own)?;
        found.extend(others.into_iter().flatten());
        Ok(found)
    })
}

pub(super) fn own_log_probs(
    job: &Job,
    groups: &[PolicyGroup<'_>],
    settings: &PolicySettings,
) -> candle_core::Result<Vec<Vec<f32>>> {
    Ok(completion_log_probs(&job.model, Adapters::On, groups, settings, &job.threads)?.concat())
}

/// This rank's part of the gradient on examples, and the mean loss over all.
pub(super) fn supervised(
    job: &Job,
    examples: &[Example],
    settings: impl Fn() -> SupervisedSettings,
    extent: super::oom_retry::Extent,
) -> Result<(Gradients, f64), TrainError> {
    let weight = |example: &Example| example.prompt.len() + example.completion.len();
    let parts = split(examples, weight, job.ranks.size());
    let found = job.retry_smaller(extent, || {
        let (start, settings) = (Instant::now(), settings());
        send(job, |rank| Command::Supervised { examples: Cow::from(&parts[rank]), settings })?;
        let own = timed(|| own_supervised(job, &parts[0], settings));
        let ((gradients, loss), others) = together(job, start, own)?;
        Ok((gradients, others.into_iter().fold(loss, |sum, loss: f64| sum + loss)))
    })?;
    job.rank_work.trained(parts.iter().map(|part| part.iter().map(weight).sum()));
    Ok(found)
}

pub(super) fn own_supervised(
    job: &Job,
    examples: &[Example],
    settings: SupervisedSettings,
) -> candle_core::Result<(Gradients, f64)> {
    let SupervisedSettings { tokens, tokens_per_micro_batch, recompute } = settings;
    supervised_gradient(&job.model, examples, tokens, tokens_per_micro_batch, recompute, &job.threads)
}

/// Sums the gradient over all ranks and takes the optimizer's step on each.
pub(super) fn update(job: &mut Job, gradients: Gradients) -> Result<StepOutcome, TrainError> {
    let (start, learning_rate, total_steps) = (Instant::now(), job.config.learning_rate, job.total_steps);
    job.ranks.send(|_| Command::Update { learning_rate, total_steps })?;
    let reading = &job.reading;
    let (applied, own) = timed_update(&job.model, &mut job.optimizer, &job.ranks, &gradients, reading)?;
    let all: Vec<Updated> = std::iter::once(own).chain(job.ranks.gather()?).collect();
    if let Some(rank) = all.iter().position(|other| other.weights != all[0].weights) {
        return Err(TrainError::RanksDiffer { rank, step: job.state.step + 1 });
    }
    let seconds: Vec<f64> = all.iter().map(|rank| rank.seconds).collect();
    job.rank_work.updated(&seconds, start.elapsed().as_secs_f64());
    let conditions = all.iter().map(|rank| serde_json::from_str::<Device>(&rank.condition));
    job.rank_work.observed(&conditions.collect::<Result<Vec<_>, _>>()?);
    Ok(applied)
}

/// The optimizer's step of this rank, and what it says of it.
pub(super) fn timed_update(
    model: &Decoder,
    optimizer: &mut Optimizer,
    ranks: &impl Collectives,
    gradients: &Gradients,
    reading: &LatestReading,
) -> Result<(StepOutcome, Updated), TrainError> {
    let collectives = TimedCollectives::of(ranks);
    let (updated, seconds) = timed(|| own_update(model, optimizer, &collectives, gradients));
    let (applied, weights) = updated?;
    let condition = serde_json::to_string(&reading.get())?;
    Ok((applied, Updated { weights, seconds: seconds - collectives.seconds(), condition }))
}

/// The optimizer's step of this rank with the sum of all gradients, and the bits of a norm by which ranks are compared.
/// Where the ranks divide what is trained, each sums and moves its part, and all have all weights afterwards.
fn own_update(
    model: &Decoder,
    optimizer: &mut Optimizer,
    ranks: &impl Collectives,
    gradients: &Gradients,
) -> Result<(StepOutcome, u64), RankError> {
    let (parameters, (rank, size)) = (model.parameters(), ranks.place());
    if parameters.shard().is_whole() {
        let sum = Gradients::from_flat(ranks.all_reduce(gradients.flat())?);
        let applied = optimizer.apply(parameters, &sum)?;
        return Ok((applied, if size > 1 { weights_norm(parameters)? } else { 0 }));
    }
    let own = ranks.reduce_scatter(gradients.flat())?;
    let grad_norm = ranks.add(norm(&own)?.powi(2))?.sqrt();
    failpoint("update.scattered", &rank.to_string());
    let applied = optimizer.apply_shard(parameters, &own, grad_norm)?;
    ranks.all_gather(parameters.read())?;
    Ok((applied, weights_norm(parameters)?))
}

/// The bits of the norm of all weights that this rank has.
pub(super) fn weights_norm(parameters: &Parameters) -> candle_core::Result<u64> {
    let all = if parameters.shard().is_whole() { parameters.flat() } else { parameters.read() };
    Ok(norm(all)?.to_bits())
}

fn send<'q>(job: &Job, command: impl FnMut(usize) -> Command<'q>) -> candle_core::Result<()> {
    job.ranks.send(command).map_err(tensor_error)
}

/// For attempts that may be repeated in a smaller shape.
pub(super) fn tensor_error(error: RankError) -> candle_core::Error {
    match error {
        RankError::Cancelled => ThreadPool::cancelled(),
        error => candle_core::Error::wrap(error),
    }
}

/// What this rank found, with its seconds, and the others once they have; an error if memory ran out on any. `start`: of
/// the command.
fn together<T, A: serde::de::DeserializeOwned>(
    job: &Job,
    start: Instant,
    (own, seconds): (candle_core::Result<T>, f64),
) -> candle_core::Result<(T, Vec<A>)> {
    if own.as_ref().is_err_and(|error| !is_out_of_memory(error)) {
        return own.map(|own| (own, Vec::new()));
    }
    // Replies are taken in any case: the next command has others.
    let mut found = Vec::with_capacity(job.ranks.size() - 1);
    let (mut seconds, mut failed) = (vec![seconds], Ok(()));
    let replies = job.ranks.gather::<(f64, Share<A>)>().map_err(tensor_error)?;
    for (index, (its_seconds, share)) in replies.into_iter().enumerate() {
        seconds.push(its_seconds);
        match share {
            Share::Done(answer) => found.push(answer),
            Share::OutOfMemory => {
                failed = Err(candle_core::Error::Cuda(Box::new(GpuFailure {
                    operation: format!("the share of rank {}", index + 1),
                    cause: "its memory ran out".to_owned(),
                    is_out_of_memory: true,
                })))
            }
        }
    }
    job.rank_work.updated(&seconds, start.elapsed().as_secs_f64());
    let own = own?;
    failed.map(|()| (own, found))
}
