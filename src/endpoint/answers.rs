//! All questions of an eval: so many at once, answers as they come, and records like those of a local model.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::{Answer, Endpoint, EndpointError, Question, Unanswered};
use crate::dataset::PromptRow;
use crate::run::{EndpointCall, EvalRecord};
use crate::score::Scorer;

/// So many questions without an answer, and not one answered, end an eval; more where more are asked at once.
const MOST_FRUITLESS: usize = 8;
/// How soon a pause ends that is no longer wanted.
const TICK: Duration = Duration::from_millis(50);

/// Asks what `known` does not answer by a question's digest. `on_answer` gets each new answer as it arrives, with the
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
) -> Result<Vec<Result<Answer, Unanswered>>, EndpointError> {
    let client = Client::new(endpoint)?;
    let mut found: Vec<Option<Result<Answer, Unanswered>>> =
        questions.iter().map(|question| known.get(&question.digest).cloned().map(Ok)).collect();
    let open: Vec<usize> = (0..questions.len()).filter(|index| found[*index].is_none()).collect();
    let mut answered = open.len() < questions.len();
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
                            && (fruitless == open.len() || fruitless >= endpoint.concurrency.max(MOST_FRUITLESS))
                        {
                            let Unanswered { reason, attempts, .. } = failed.clone();
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

fn not_asked() -> Unanswered {
    Unanswered { reason: "not asked".to_owned(), attempts: 0, of_all: false }
}

/// Scores the answers; a question without one is an error of the endpoint, in no rate. Records are in the order of the
/// questions.
///
/// # Errors
/// [`EndpointError::Scorer`] if the scorer failed too often.
pub fn records(
    endpoint: &Endpoint,
    scorer: &Scorer,
    rows: &[PromptRow],
    questions: &[Question],
    outcomes: Vec<Result<Answer, Unanswered>>,
) -> Result<Vec<EvalRecord>, EndpointError> {
    let answered = questions.iter().zip(&outcomes);
    let answers: Vec<_> = answered
        .filter_map(|(question, outcome)| Some((outcome.as_ref().ok()?.text.as_str(), Some(&rows[question.row]))))
        .collect();
    let scores = scorer.score_all(&answers);
    scorer.check_errors(scores.iter())?;
    let mut scores = scores.into_iter();
    let record = |(question, outcome): (&Question, Result<Answer, Unanswered>)| {
        let row = &rows[question.row];
        let record = EvalRecord {
            prompt_id: row.id.clone(),
            sample: question.sample,
            tags: row.tags.clone(),
            ..EvalRecord::default()
        };
        // There is a score for each answer.
        let scored = outcome.and_then(|answer| Ok((answer, scores.next().ok_or_else(not_asked)?)));
        Ok(match scored {
            Ok((Answer { text: completion, prompt_tokens, tokens, truncated, seconds, attempts }, score)) => {
                let cost = endpoint.prices.cost(prompt_tokens, tokens);
                let call = Some(Box::new(EndpointCall { prompt_tokens, cost, attempts }));
                let mut record = EvalRecord { completion, tokens, truncated, seconds, call, ..record };
                record.judge(&[score])?;
                record
            }
            Err(Unanswered { reason, attempts, .. }) => EvalRecord {
                reward: f64::NAN,
                tier: "unparsable".to_owned(),
                score: json!({"tier": "unparsable", "failure": "endpoint_error", "errors": [{"message": reason}]}),
                call: Some(Box::new(EndpointCall { prompt_tokens: None, cost: None, attempts })),
                ..record
            },
        })
    };
    questions.iter().zip(outcomes).map(record).collect()
}
