//! Asks many questions, or conversations of several, in parallel; answers arrive in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Answer, Endpoint, EndpointError, Question, UnansweredQuestion};
use crate::api_client::Client;
use crate::format::counted;

/// An eval ends after this many failures without any answer; more with higher concurrency.
const MAX_CONSECUTIVE_FAILURES: usize = 8;
/// Delay until a pause notices cancellation.
const TICK: Duration = Duration::from_millis(50);

/// Asks one question of a conversation; a known one is not sent.
pub(super) type Ask<'a> = &'a mut dyn FnMut(&Question) -> Result<Answer, UnansweredQuestion>;

enum Event<T> {
    /// A new answer with its conversation's index; not sent for repeated questions.
    Answer(usize, Question, Answer),
    End(usize, Result<Result<T, UnansweredQuestion>, EndpointError>),
}

/// Asks questions whose digest is not in `known`; an answer there shows that the endpoint works.
/// `on_answer` gets each new answer on arrival, with its question's index.
///
/// # Errors
/// [`EndpointError::Other`] if a refusal concerns all and nothing was answered yet, or if no
/// question is answered, and errors of `on_answer`.
pub fn ask(
    endpoint: &Endpoint,
    questions: &[Question],
    known: &HashMap<String, Answer>,
    mut on_answer: impl FnMut(usize, &Answer) -> Result<(), EndpointError>,
) -> Result<Vec<Result<Answer, UnansweredQuestion>>, EndpointError> {
    let hold = |index: usize, ask: Ask<'_>| Ok(ask(&questions[index]));
    converse(
        endpoint,
        questions.len(),
        known,
        &hold,
        |index, new| match new {
            Some((_, answer)) => on_answer(index, answer),
            None => Ok(()),
        },
    )
}

/// As [`ask`] for `count` conversations, each driven to its end by `hold`, which fails if the
/// endpoint does not answer. Conversations do not wait for each other. `on_new` gets each new
/// answer, and nothing at the end of a conversation that has one.
///
/// # Errors
/// As [`ask`], and those of `hold`.
pub(super) fn converse<T: Send>(
    endpoint: &Endpoint,
    count: usize,
    known: &HashMap<String, Answer>,
    hold: &(impl Fn(usize, Ask<'_>) -> Result<Result<T, UnansweredQuestion>, EndpointError> + Sync),
    mut on_new: impl FnMut(usize, Option<(&Question, &Answer)>) -> Result<(), EndpointError>,
) -> Result<Vec<Result<T, UnansweredQuestion>>, EndpointError> {
    let client = Client::new(endpoint)?;
    let mut found: Vec<Option<Result<T, UnansweredQuestion>>> =
        std::iter::repeat_with(|| None).take(count).collect();
    let mut answered = !known.is_empty();
    let (next, unwanted) = (AtomicUsize::new(0), AtomicBool::new(false));
    let pause = |wait: Duration| {
        let end = Instant::now() + wait;
        while !unwanted.load(Ordering::Relaxed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(TICK));
        }
        false
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..endpoint.concurrency.min(count) {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || unwanted.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut ask = |question: &Question| {
                        if let Some(answer) = known.get(&question.digest) {
                            return Ok(answer.clone());
                        }
                        let answer = client.ask(index, &question.body, pause)?;
                        // The receiver is gone once an error ends the eval.
                        let _ = sender.send(Event::Answer(index, question.clone(), answer.clone()));
                        Ok(answer)
                    };
                    let _ = sender.send(Event::End(index, hold(index, &mut ask)));
                }
            });
        }
        drop(sender);
        let mut fruitless = 0;
        let mut collect = || {
            for event in &receiver {
                let (index, outcome) = match event {
                    Event::Answer(index, question, answer) => {
                        answered = true;
                        on_new(index, Some((&question, &answer)))?;
                        continue;
                    }
                    Event::End(index, outcome) => (index, outcome?),
                };
                match &outcome {
                    Err(failed) if failed.of_all && !answered => {
                        return Err(EndpointError::Other(format!(
                            "endpoint `{}`: {}",
                            endpoint.name, failed.reason
                        )));
                    }
                    Err(failed) => {
                        fruitless += 1;
                        if !answered
                            && (fruitless == count
                                || fruitless >= endpoint.concurrency.max(MAX_CONSECUTIVE_FAILURES))
                        {
                            let UnansweredQuestion {
                                reason, attempts, ..
                            } = failed.clone();
                            return Err(EndpointError::Other(format!(
                                "endpoint `{}` gave no answer to {}, after {} at the first: {reason}",
                                endpoint.name,
                                counted(fruitless, "prompt"),
                                counted(attempts as usize, "attempt")
                            )));
                        }
                    }
                    Ok(_) => on_new(index, None)?,
                }
                found[index] = Some(outcome);
            }
            Ok(())
        };
        let collected = collect();
        unwanted.store(true, Ordering::Relaxed);
        collected
    })?;
    Ok(found
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Err(not_asked())))
        .collect())
}

pub(super) fn not_asked() -> UnansweredQuestion {
    UnansweredQuestion {
        reason: "not asked".to_owned(),
        attempts: 0,
        of_all: false,
    }
}
