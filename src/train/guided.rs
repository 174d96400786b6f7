//! Guided groups: where no completion of a group earns the full reward, the last one gives its place to an answer that
//! earns more than the others, so that a policy without success has a gradient. The answer is the row's `expected`, or
//! is sampled under the task's grammar.
//!
//! Its log-probs are those of the free policy and its ratio is 1, so its tokens weigh as sampled ones do: LUFFY (arXiv
//! 2504.14945) divides by the probability that the other policy gave them instead, which is 1 for an expected answer
//! and starves tokens that the policy does not yet write.

use super::TrainError;
use super::job::Job;
use super::rollout_groups::ScoredGroup;
use crate::constraint::{ConstraintError, TaskConstraints};
use crate::eval::Prompt;
use crate::rollout::{Completion, Request, StopReason};
use crate::score::reference_answer;
use crate::task::Task;
use crate::text::Tokenizer;

/// What answers are sampled from where a row has none.
#[derive(Debug)]
pub(super) struct Guide {
    grammar: Result<TaskConstraints, ConstraintError>,
}

impl Guide {
    pub(super) fn new(task: &Task, tokenizer: &Tokenizer) -> Self {
        Self { grammar: TaskConstraints::new(task, tokenizer) }
    }

    /// Why rows without an expected answer cannot be guided.
    pub(super) fn refusal(&self) -> Option<String> {
        self.grammar.as_ref().err().map(ToString::to_string)
    }

    /// `None` where no grammar constrains the row.
    fn request(&self, prompt: &Prompt, asked: &Request) -> Option<Request> {
        let constraint = self.grammar.as_ref().ok()?.of_row(&prompt.row, &prompt.text).ok()?;
        // The place that the answer takes.
        let first_sample = asked.first_sample + asked.samples as u32 - 1;
        Some(Request { samples: 1, first_sample, constraint: Some(constraint), ..asked.clone() })
    }
}

/// Guides groups of rows of one turn. `requests`: what was sampled for each row.
///
/// # Errors
/// Those of sampling and scoring.
pub(super) fn guide(job: &Job, rows: &mut [Vec<ScoredGroup>], requests: &[Request]) -> Result<(), TrainError> {
    let Some(guide) = &job.guide else { return Ok(()) };
    let (mut given, mut sampled, mut to_sample) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (groups, asked)) in rows.iter().zip(requests).enumerate() {
        let [group] = groups.as_slice() else { continue };
        let prompt = &job.prompts.train[group.prompt];
        if prompt.row.turn_count() > 1 || group.completions.iter().any(|scored| scored.score.is_max()) {
            continue;
        }
        match expected_completion(job, prompt)? {
            Some(completion) => given.push((at, completion)),
            None => {
                if let Some(request) = guide.request(prompt, asked) {
                    sampled.push(at);
                    to_sample.push(request);
                }
            }
        }
    }
    if !to_sample.is_empty() {
        let completions = job.rollout_context().rollout(&to_sample, &job.sampling())?.completions;
        let ended = sampled.into_iter().zip(completions.into_iter().flatten());
        given.extend(
            ended
                .filter(|(_, completion)| completion.stop == StopReason::Stop)
                .map(|(at, completion)| (at, guiding(completion.token_ids))),
        );
    }
    let (places, completions): (Vec<usize>, Vec<Vec<Completion>>) =
        given.into_iter().map(|(at, completion)| (at, vec![completion])).unzip();
    let asked = places.iter().map(|&at| &job.prompts.train[rows[at][0].prompt].row);
    let scored = job.rollout_context().score(&job.scorer, completions, asked)?;
    for (at, answer) in places.into_iter().zip(scored.into_iter().flatten()) {
        rows[at][0].guide(answer, job.config.advantage);
    }
    Ok(())
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
