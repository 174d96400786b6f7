//! Rows as conversations of one or more turns: a turn is asked once earlier answers are scored.

use std::borrow::Cow;
use std::collections::HashMap;

use super::answers::{ask, not_asked};
use super::conversation::Conversation;
use super::with_tools::with_tools;
use super::{Answer, Endpoint, EndpointError, Question, RequestForm};
use crate::dataset::PromptRow;
use crate::run::EvalRecord;
use crate::score::{Scorer, Task};

#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// 1-based.
    Turn {
        turn: usize,
        questions: usize,
        known: usize,
    },
    /// A question may have several with tools.
    Answer(&'a Question, &'a Answer),
    /// A question received its last answer, which is new.
    Answered,
}

/// Asks first-turn `questions` whose digest is not in `known`, then later turns, and scores the
/// answers. A conversation without an answer is an endpoint error and counts in no rate. Records
/// are in the order of the questions.
///
/// # Errors
/// As [`ask`] and `on_progress`; [`EndpointError::Scorer`] if the scorer failed too often.
pub fn records(
    (endpoint, form): (&Endpoint, &RequestForm<'_>),
    (task, scorer): (&Task, &Scorer),
    rows: &[PromptRow],
    mut questions: Vec<Question>,
    mut known: HashMap<String, Answer>,
    mut on_progress: impl FnMut(Progress<'_>) -> Result<(), EndpointError>,
) -> Result<Vec<EvalRecord>, EndpointError> {
    if task.toolset().is_some() {
        on_progress(Progress::Turn {
            turn: 1,
            questions: questions.len(),
            known: 0,
        })?;
        let place = (endpoint, form, task, scorer);
        let conversations = with_tools(place, rows, &questions, &known, |new| {
            on_progress(new.map_or(Progress::Answered, |(question, answer)| {
                Progress::Answer(question, answer)
            }))
        })?;
        return finished(conversations, (endpoint, scorer), rows);
    }
    let mut conversations: Vec<Conversation> = questions.iter().map(Conversation::begin).collect();
    let first = questions
        .iter()
        .enumerate()
        .map(|(at, question)| (at, Cow::Borrowed(&rows[question.row])));
    let mut turns: Vec<(usize, Cow<'_, PromptRow>)> = first.collect();
    for turn in 1.. {
        if questions.is_empty() {
            break;
        }
        let count = questions
            .iter()
            .filter(|question| known.contains_key(&question.digest))
            .count();
        on_progress(Progress::Turn {
            turn,
            questions: questions.len(),
            known: count,
        })?;
        let outcomes = ask(endpoint, &questions, &known, |index, answer| {
            on_progress(Progress::Answer(&questions[index], answer))?;
            on_progress(Progress::Answered)
        })?;
        let answered = turns.iter().zip(&outcomes);
        let answered: Vec<_> = answered
            .filter_map(|((_, row), outcome)| {
                Some((outcome.as_ref().ok()?.text.as_str(), Some(&**row)))
            })
            .collect();
        let mut scores = scorer.score_all(&answered).into_iter();
        let (mut later, mut later_turns) = (Vec::new(), Vec::new());
        for (((at, _), outcome), question) in turns.into_iter().zip(outcomes).zip(questions) {
            let conversation = &mut conversations[at];
            // Each answer has a score.
            match outcome.and_then(|answer| Ok((answer, scores.next().ok_or_else(not_asked)?))) {
                Ok((answer, score)) => {
                    let goes_on = score.goes_on(&task.score);
                    known.insert(question.digest, answer.clone());
                    conversation.answers.push(answer);
                    conversation.scores.push(score);
                    let row = &rows[conversation.row];
                    if goes_on && let Some(next) = row.after(&conversation.texts()) {
                        later.push(form.later(
                            (conversation.row, conversation.sample),
                            &next,
                            row,
                        )?);
                        later_turns.push((at, Cow::Owned(next)));
                    }
                }
                Err(unanswered) => conversation.failed = Some(unanswered),
            }
        }
        (questions, turns) = (later, later_turns);
    }
    finished(conversations, (endpoint, scorer), rows)
}

fn finished(
    conversations: Vec<Conversation>,
    (endpoint, scorer): (&Endpoint, &Scorer),
    rows: &[PromptRow],
) -> Result<Vec<EvalRecord>, EndpointError> {
    scorer.check_errors(
        conversations
            .iter()
            .flat_map(|conversation| &conversation.scores),
    )?;
    conversations
        .into_iter()
        .map(|conversation| Ok(conversation.record(endpoint, scorer, rows)?))
        .collect()
}
