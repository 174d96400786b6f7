//! Rows as conversations of one or more turns: a turn is asked once the answers before it are known and scored; the
//! records are like those of a local model.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::json;

use super::answers::{ask, not_asked};
use super::with_tools::with_tools;
use super::{Answer, Endpoint, EndpointError, Question, RequestForm, UnansweredQuestion};
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::run::{EndpointCall, EvalRecord, EvalTurn, LogProbs};
use crate::score::{Score, Scorer, Task};

/// Progress of asking an endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A turn begins, from 1.
    Turn { turn: usize, questions: usize, known: usize },
    /// A new answer. With tools, several may be those to one question.
    Answer(&'a Question, &'a Answer),
    /// One of the questions has its last answer, and it is new.
    Answered,
}

/// The answers of one sample of a row.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) row: usize,
    pub(super) sample: usize,
    /// Of each turn; where tools were called, all that the endpoint said in it as one.
    pub(super) answers: Vec<Answer>,
    /// One for each answer where there are tools: how it came about, and the seconds of calls.
    pub(super) chains: Vec<(ToolChain, Vec<f64>)>,
    /// One score for each answer.
    pub(super) scores: Vec<Score>,
    /// What ended it early.
    pub(super) failed: Option<UnansweredQuestion>,
    /// What was said in the turn that it ended.
    pub(super) unfinished: Option<Answer>,
}

/// Asks the `questions` of the first turns that `known` does not answer by their digest, then those of later turns, and
/// scores the answers. A conversation that lacks an answer is an error of the endpoint, in no rate. Records are in the
/// order of the questions.
///
/// # Errors
/// Those of [`ask`] and of `on_progress`; [`EndpointError::Scorer`] if the scorer failed too often.
pub fn records(
    (endpoint, form): (&Endpoint, &RequestForm<'_>),
    (task, scorer): (&Task, &Scorer),
    rows: &[PromptRow],
    mut questions: Vec<Question>,
    mut known: HashMap<String, Answer>,
    mut on_progress: impl FnMut(Progress<'_>) -> Result<(), EndpointError>,
) -> Result<Vec<EvalRecord>, EndpointError> {
    if task.toolset().is_some() {
        on_progress(Progress::Turn { turn: 1, questions: questions.len(), known: 0 })?;
        let place = (endpoint, form, task, scorer);
        let conversations = with_tools(place, rows, &questions, &known, |new| {
            on_progress(new.map_or(Progress::Answered, |(question, answer)| Progress::Answer(question, answer)))
        })?;
        return finished(conversations, (endpoint, scorer), rows);
    }
    let mut conversations: Vec<Conversation> = questions.iter().map(Conversation::begin).collect();
    // Each question's conversation, with its row.
    let first = questions.iter().enumerate().map(|(at, question)| (at, Cow::Borrowed(&rows[question.row])));
    let mut turns: Vec<(usize, Cow<'_, PromptRow>)> = first.collect();
    for turn in 1.. {
        if questions.is_empty() {
            break;
        }
        let count = questions.iter().filter(|question| known.contains_key(&question.digest)).count();
        on_progress(Progress::Turn { turn, questions: questions.len(), known: count })?;
        let outcomes = ask(endpoint, &questions, &known, |index, answer| {
            on_progress(Progress::Answer(&questions[index], answer))?;
            on_progress(Progress::Answered)
        })?;
        let answered = turns.iter().zip(&outcomes);
        let answered: Vec<_> = answered
            .filter_map(|((_, row), outcome)| Some((outcome.as_ref().ok()?.text.as_str(), Some(&**row))))
            .collect();
        let mut scores = scorer.score_all(&answered).into_iter();
        let (mut later, mut later_turns) = (Vec::new(), Vec::new());
        for (((at, _), outcome), question) in turns.into_iter().zip(outcomes).zip(questions) {
            let conversation = &mut conversations[at];
            // There is a score for each answer.
            match outcome.and_then(|answer| Ok((answer, scores.next().ok_or_else(not_asked)?))) {
                Ok((answer, score)) => {
                    let goes_on = score.goes_on(&task.score);
                    known.insert(question.digest, answer.clone());
                    conversation.answers.push(answer);
                    conversation.scores.push(score);
                    let row = &rows[conversation.row];
                    if goes_on && let Some(next) = row.after(&conversation.texts()) {
                        later.push(form.later((conversation.row, conversation.sample), &next, row)?);
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
    scorer.check_errors(conversations.iter().flat_map(|conversation| &conversation.scores))?;
    conversations.into_iter().map(|conversation| Ok(conversation.record(endpoint, scorer, rows)?)).collect()
}

impl Conversation {
    /// Before the first answer to its question.
    pub(super) fn begin(question: &Question) -> Self {
        Self {
            row: question.row,
            sample: question.sample,
            answers: Vec::new(),
            chains: Vec::new(),
            scores: Vec::new(),
            failed: None,
            unfinished: None,
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.answers.iter().map(|answer| answer.text.as_str()).collect()
    }

    fn record(
        mut self,
        endpoint: &Endpoint,
        scorer: &Scorer,
        rows: &[PromptRow],
    ) -> Result<EvalRecord, serde_json::Error> {
        let row = &rows[self.row];
        let said = || self.answers.iter().chain(&self.unfinished);
        // Without answers the sum is unknown.
        let sum = |of: fn(&Answer) -> Option<usize>| {
            said().map(of).sum::<Option<usize>>().filter(|_| said().next().is_some())
        };
        let (prompt_tokens, tokens) = (sum(|answer| answer.prompt_tokens), sum(|answer| answer.tokens));
        let attempts = said().map(|answer| answer.attempts).sum::<u32>()
            + self.failed.as_ref().map_or(0, |failed| failed.attempts);
        let cost = endpoint.prices.cost(prompt_tokens, tokens);
        let chain = |turn: usize| {
            let (chain, seconds) = self.chains.get(turn).cloned().unzip();
            (chain.map(Box::new), seconds.unwrap_or_default())
        };
        let turn = |(number, answer): (usize, &Answer)| {
            let (chain, call_seconds) = chain(number);
            EvalTurn {
                completion: answer.text.clone(),
                chain,
                call_seconds,
                tokens: answer.tokens,
                seconds: Some(answer.seconds),
                begun: Some(answer.begun),
                logprobs: answer.logprobs,
                ..EvalTurn::default()
            }
        };
        let (only_chain, call_seconds) = if row.turn_count() == 1 { chain(0) } else { Default::default() };
        let logprobs = LogProbs::sum(self.answers.iter().filter_map(|answer| answer.logprobs));
        let begun = self.answers.first().filter(|_| row.turn_count() == 1).map(|answer| answer.begun);
        let mut record = EvalRecord {
            prompt_id: row.id.clone(),
            sample: self.sample,
            tags: row.tags.clone(),
            completion: self.answers.first().map(|answer| answer.text.clone()).unwrap_or_default(),
            tokens,
            truncated: self.answers.iter().any(|answer| answer.truncated),
            seconds: said().map(|answer| answer.seconds).sum(),
            call: Some(Box::new(EndpointCall { prompt_tokens, cost, attempts, begun, logprobs })),
            chain: only_chain,
            call_seconds,
            turns: if row.turn_count() > 1 { self.answers.iter().enumerate().map(turn).collect() } else { Vec::new() },
            unanswered: row.turn_count() - self.answers.len(),
            ..EvalRecord::default()
        };
        scorer.join(&mut self.scores.iter_mut().collect::<Vec<_>>());
        record.judge(&self.scores)?;
        if let Some(UnansweredQuestion { reason, .. }) = self.failed {
            let place = match row.turn_count() {
                1 => String::new(),
                _ => format!("turn {}: ", self.answers.len() + 1),
            };
            record = EvalRecord {
                reward: f64::NAN,
                tier: "unparsable".to_owned(),
                tolerant: false,
                exact: None,
                score: json!({"tier": "unparsable", "failure": "endpoint_error", "errors": [{"message": place + &reason}]}),
                // One answer, which is missing, is not one that was not reached.
                unanswered: if row.turn_count() > 1 { record.unanswered } else { 0 },
                ..record
            };
        }
        Ok(record)
    }
}
