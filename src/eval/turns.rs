//! Rows of several turns: each later prompt is rendered from the answers before it, then sampled and scored.

use super::prompts::{Prompt, render};
use crate::rollout::{Completion, Request, RolloutContext, ScoredCompletion};
use crate::score::Scorer;
use crate::task::Task;
use crate::text::TextError;

/// An answer of a later turn, to a prompt of its own.
#[derive(Clone, Debug)]
pub struct LaterAnswer {
    /// Of the row's samples, from 0.
    pub sample: usize,
    pub prompt: Prompt,
    pub scored: ScoredCompletion,
}

/// A conversation that goes on.
struct Open {
    row: usize,
    sample: usize,
    answers: Vec<String>,
}

/// Numbers of samples in the random numbers of a turn.
const SAMPLES_OF_TURN: u32 = 1 << 16;

/// The answers of the second and later turns, by row and turn; of a turn that no conversation reached, nothing.
/// `first`: what was asked and answered in the first turn; `most_tokens`: of a prompt.
///
/// # Errors
/// Those of `sample`, and of texts that the template or the tokenizer does not take.
pub fn later_turns<E: From<TextError> + From<candle_core::Error>>(
    (context, task, scorer): (RolloutContext<'_>, &Task, &Scorer),
    first: &[(&Prompt, &Request, &[ScoredCompletion])],
    most_tokens: usize,
    mut sample: impl FnMut(&[Request]) -> Result<Vec<Vec<Completion>>, E>,
) -> Result<Vec<Vec<Vec<LaterAnswer>>>, E> {
    let mut found: Vec<Vec<Vec<LaterAnswer>>> = vec![Vec::new(); first.len()];
    let mut open = Vec::new();
    for (row, (_, _, answers)) in first.iter().enumerate().filter(|(_, (prompt, ..))| prompt.row.turn_count() > 1) {
        let going_on = answers.iter().enumerate().filter(|(_, answer)| answer.score.goes_on(&task.score));
        open.extend(going_on.map(|(sample, answer)| Open { row, sample, answers: vec![answer.text.clone()] }));
    }
    for turn in 1.. {
        let (mut asked, mut prompts) = (Vec::new(), Vec::new());
        for conversation in open.drain(..) {
            let Some(row) = first[conversation.row].0.row.after(&conversation.answers) else { continue };
            let prompt = render(task, row, context.tokenizer)?;
            // Planned for, unless the template writes more around an answer than around none.
            if prompt.token_ids.len() <= most_tokens {
                asked.push(conversation);
                prompts.push(prompt);
            }
        }
        if asked.is_empty() {
            break;
        }
        let request = |(conversation, prompt): (&Open, &Prompt)| Request {
            prompt: prompt.token_ids.clone(),
            samples: 1,
            first_sample: turn * SAMPLES_OF_TURN + conversation.sample as u32,
            ..first[conversation.row].1.clone()
        };
        let completions = sample(&asked.iter().zip(&prompts).map(request).collect::<Vec<_>>())?;
        let scored = context.score(scorer, completions, prompts.iter().map(|prompt| &prompt.row))?;
        for ((mut conversation, prompt), scored) in asked.into_iter().zip(prompts).zip(scored.into_iter().flatten()) {
            let turns = &mut found[conversation.row];
            turns.resize_with(turn as usize, Vec::new);
            let answers = scored.score.goes_on(&task.score).then(|| scored.text.clone());
            turns[turn as usize - 1].push(LaterAnswer { sample: conversation.sample, prompt, scored });
            if let Some(answer) = answers {
                conversation.answers.push(answer);
                open.push(conversation);
            }
        }
    }
    Ok(found)
}
