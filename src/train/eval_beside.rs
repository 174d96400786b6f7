//! An eval between two steps and the rollout of the next ones are of the same weights, so they are decoded together: a
//! pass over some rows more takes little longer.

use std::time::Instant;

use super::TrainError;
use super::early_stop::{is_due, is_out_of_time};
use super::job::{Ahead, Job, Sampled};
use super::rank_work::share_of_time;
use super::ranked;
use super::rollout_plan::{next_plan, requests};
use super::shares::split_requests;
use crate::eval::{EvalWatch, OpenRequests, Prompt, greedy_requests};
use crate::model::Adapters;
use crate::rollout::{Request, RolloutOutput, Watcher, decoded_together, token_count};

/// Whether the eval set is decoded beside the next rollout. This follows from configuration and step alone, so that a
/// resumed run computes the same passes.
pub(super) fn is_beside(job: &Job) -> bool {
    let (config, step) = (&job.config, job.state.step);
    !config.is_supervised(step + 1)
        && (1..job.total_steps).contains(&step)
        && is_due(config.eval_every, step, config.weight_sync_interval)
        && !job.prompts.eval.is_empty()
        // Later turns need the answers of those before.
        && job.prompts.eval.iter().all(|prompt| prompt.row.turn_count() == 1)
}

/// Whether the next rollout is not going to be needed, as far as that is known before the eval.
pub(super) fn is_last(job: &Job) -> bool {
    job.is_stopping || is_out_of_time(&job.state, &job.config)
}

/// The eval set's completions, as `watch` sees; keeps those of the next steps for [`sample`].
pub(super) fn sample_eval(job: &mut Job, watch: &mut EvalWatch<'_>) -> Result<Sampled, TrainError> {
    let (_, requests) = requests(job, &next_plan(job));
    let (sampled, eval) = sample_both(job, &requests, Some(watch))?;
    job.ahead = Some(Ahead { requests, sampling: job.sampling(), sampled });
    Ok(eval)
}

/// The next rollout, as it was sampled with an eval unless something was set since.
pub(super) fn sample(job: &mut Job, requests: &[Request]) -> Result<Sampled, TrainError> {
    let sampling = job.sampling();
    let serves = |ahead: &Ahead| ahead.requests == requests && ahead.sampling == sampling;
    match job.ahead.take().filter(serves) {
        Some(ahead) => Ok(ahead.sampled),
        None if is_beside(job) => Ok(sample_both(job, requests, None)?.0),
        None => sample_alone(job, Adapters::On, requests, None),
    }
}

pub(super) fn sample_alone(
    job: &Job,
    adapters: Adapters,
    requests: &[Request],
    watcher: Option<&mut dyn Watcher>,
) -> Result<Sampled, TrainError> {
    let start = Instant::now();
    let (RolloutOutput { completions, counts, gpu_fallbacks }, ranks) =
        ranked::sample(job, adapters, requests, watcher)?;
    job.gpu_fallbacks.found(gpu_fallbacks);
    Ok(Sampled { completions, counts, seconds: start.elapsed().as_secs_f64(), ranks })
}

/// The completions of an eval that has the model alone; what an interrupted worker has left is not sampled again.
/// Requests that are decoded together are, if an answer of theirs is missing: so results are those of an eval without an
/// interruption, bit for bit. `prompts`: of the first turn.
pub(super) fn sample_open(
    job: &Job,
    adapters: Adapters,
    (requests, prompts): (&[Request], &[Prompt]),
    watch: &mut EvalWatch<'_>,
) -> Result<Sampled, TrainError> {
    let open = OpenRequests::of(&decoded_together(&job.model, requests), watch.kept());
    let scores = open.kept_scores(job.rollout_context(), &job.scorer, prompts)?;
    watch.begin(split_requests(&open.requests, job.ranks.size())[0], open.kept(), &scores);
    let sampled = sample_alone(job, adapters, &open.requests, Some(watch))?;
    let Sampled { completions, counts, seconds, ranks } = sampled;
    Ok(Sampled { completions: open.joined(completions), counts, seconds, ranks })
}

/// What was requested, and the eval set.
fn sample_both(
    job: &Job,
    requests: &[Request],
    watch: Option<&mut EvalWatch<'_>>,
) -> Result<(Sampled, Sampled), TrainError> {
    let all: Vec<Request> = requests.iter().cloned().chain(greedy_requests(&job.prompts.eval)).collect();
    let watcher = watch.map(|watch| {
        watch.begin(split_requests(&all, job.ranks.size())[0], 0, &[]);
        watch as &mut dyn Watcher
    });
    let Sampled { mut completions, counts, seconds, ranks } = sample_alone(job, Adapters::On, &all, watcher)?;
    let eval = completions.split_off(requests.len());
    let [eval_tokens, tokens] = [&eval, &completions].map(|found| token_count(found) as f64);
    let share = eval_tokens / (tokens + eval_tokens);
    let eval = Sampled { completions: eval, counts, seconds: seconds * share, ranks: Vec::new() };
    let ranks = share_of_time(&ranks, 1.0 - share);
    Ok((Sampled { completions, counts, seconds: seconds * (1.0 - share), ranks }, eval))
}
