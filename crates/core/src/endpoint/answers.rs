//! Many questions: so many at once, answers as they come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Answer, Endpoint, EndpointError, Question, UnansweredQuestion};
use crate::api_client::Client;

/// So many questions without an answer, and not one answered, end an eval; more where more are asked at once.
const MAX_CONSECUTIVE_FAILURES: usize = 8;
/// How soon a pause ends that is no longer wanted.
const TICK: Duration = Duration::from_millis(50);

/// Asks what `known` does not answer by a question's digest; any answer there shows that the endpoint can answer. `on_answer` gets each new answer as it arrives, with the
/// index of its question.
///
/// # Errors
/// [`EndpointError::Refused`] where a refusal concerns all and nothing was answered yet, [`EndpointError::NoAnswer`], and
/// those of `on_answer`.
pub fn ask(
    endpoint: &Endpoint,
    questions: &[Question],
    known: &HashMap<String, Answer>,
    mut on_answer: impl FnMut(usize, &Answer) -> Result<(), EndpointError>,
) -> Result<Vec<Result<Answer, UnansweredQuestion>>, EndpointError> {
    let client = Client::new(endpoint)?;
    let mut found: Vec<Option<Result<Answer, UnansweredQuestion>>> =
        questions.iter().map(|question| known.get(&question.digest).cloned().map(Ok)).collect();
    let open: Vec<usize> = (0..questions.len()).filter(|index| found[*index].is_none()).collect();
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
        for _ in 0..endpoint.concurrency.min(open.len()) {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                while let Some(index) = open.get(next.fetch_add(1, Ordering::Relaxed))
                    && !unwanted.load(Ordering::Relaxed)
                {
                    let outcome = client.ask(*index, &questions[*index].body, pause);
                    // Nobody listens once an error ends the eval.
                    let _ = sender.send((*index, outcome));
                }
            });
        }
        drop(sender);
        let mut fruitless = 0;
        let mut collect = || {
            for (index, outcome) in &receiver {
                match &outcome {
                    Ok(answer) => {
                        answered = true;
                        on_answer(index, answer)?;
                    }
                    Err(failed) if failed.of_all && !answered => {
                        let (name, reason) = (endpoint.name.clone(), failed.reason.clone());
                        return Err(EndpointError::Refused { name, reason });
                    }
                    Err(failed) => {
                        fruitless += 1;
                        if !answered
                            && (fruitless == open.len()
                                || fruitless >= endpoint.concurrency.max(MAX_CONSECUTIVE_FAILURES))
                        {
                            let UnansweredQuestion { reason, attempts, .. } = failed.clone();
                            return Err(EndpointError::NoAnswer {
                                name: endpoint.name.clone(),
                                questions: fruitless,
                                attempts,
                                reason,
                            });
                        }
                    }
                }
                found[index] = Some(outcome);
            }
            Ok(())
        };
        let collected = collect();
        unwanted.store(true, Ordering::Relaxed);
        collected
    })?;
    Ok(found.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(not_asked()))).collect())
}

pub(super) fn not_asked() -> UnansweredQuestion {
    UnansweredQuestion { reason: "not asked".to_owned(), attempts: 0, of_all: false }
}
