//! Guided groups: where no completion of a group earns the full reward, the last one gives its place to an answer that
//! earns more than the others, so that a policy without success has a gradient. The answer is the row's `expected`, or
//! is sampled under the task's grammar.
//!
//! Its log-probs are those of the free policy and its ratio is 1, so its tokens weigh as sampled ones do: LUFFY (arXiv
//! 2504.14945) divides by the probability that the other policy gave them instead, which is 1 for an expected answer
//! and starves tokens that the policy does not yet write.

use super::TrainError;
use super::job::Job;
use crate::eval::Prompt;
use crate::rollout::{Completion, Request, RolloutContext, ScoredCompletion, StopReason};
use crate::score::reference_answer;

/// A group in which no completion earns the full reward.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedGroup<'a> {
    /// Its place among the rows.
    pub(super) row: usize,
    pub(super) prompt: &'a Prompt,
    /// What was sampled.
    pub(super) request: &'a Request,
}

/// Scored answers for groups of rows of one turn, by row; none for a group for which there is none. `context`: what
/// samples where a row has no expected answer.
///
/// # Errors
/// Those of sampling and scoring.
pub(super) fn guiding_answers(
    job: &Job,
    context: &RolloutContext<'_>,
    groups: &[FailedGroup<'_>],
) -> Result<Vec<(usize, ScoredCompletion)>, TrainError> {
    let Some(guide) = &job.guide else { return Ok(Vec::new()) };
    let (mut given, mut constrained) = (Vec::new(), Vec::new());
    for group in groups {
        match expected_completion(job, group.prompt)? {
            Some(completion) => given.push((group, completion)),
            None => constrained.extend(guide.request(group.prompt, group.request).map(|request| (group, request))),
        }
    }
    let (sampled, requests): (Vec<_>, Vec<Request>) = constrained.into_iter().unzip();
    if !requests.is_empty() {
        let completions = context.rollout(&requests, &job.sampling())?.completions;
        let ended = sampled.into_iter().zip(completions.into_iter().flatten());
        let ended = ended.filter(|(_, completion)| completion.stop == StopReason::Stop);
        given.extend(ended.map(|(group, completion)| (group, guiding(completion.token_ids))));
    }
    let (groups, completions): (Vec<&FailedGroup<'_>>, Vec<Vec<Completion>>) =
        given.into_iter().map(|(group, completion)| (group, vec![completion])).unzip();
    let rows = groups.iter().map(|group| &group.prompt.row);
    let scored = context.score(&job.scorer, completions, rows)?;
    Ok(groups.iter().map(|group| group.row).zip(scored.into_iter().flatten()).collect())
}

/// The row's expected answer with the token that ends a turn; `None` where it has none, or it is too long.
fn expected_completion(job: &Job, prompt: &Prompt) -> Result<Option<Completion>, TrainError> {
    let Some(answer) = reference_answer(&job.task, &job.scorer, &prompt.row)? else { return Ok(None) };
    let mut token_ids = job.tokenizer.encode(&answer)?;
    token_ids.extend(job.tokenizer.turn_end_id());
    let fits = token_ids.len() <= job.config.max_completion_tokens.min(prompt.most_tokens);
    Ok(fits.then(|| guiding(token_ids)))
}

fn guiding(token_ids: Vec<u32>) -> Completion {
    Completion { token_ids, log_probs: Vec::new(), stop: StopReason::Guided }
}
