//! Many requests at once, each answer logged: an interrupted comparison goes on with what it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ProveError;
use crate::api_client::{Endpoint, ProbeClient, ProbePath};
use crate::run::{AnswerLog, sha256};

/// A server that let so many requests in a row time out is asked no more.
const MAX_HUNG: usize = 3;

/// Requests to one server.
pub struct Asker<'a> {
    client: ProbeClient,
    log: Option<AnswerLog>,
    known: HashMap<String, Value>,
    max_cost: Option<f64>,
    spent: Mutex<Spent>,
    /// Requests in a row that the server left without an answer until the timeout.
    hung: AtomicUsize,
    progress: &'a (dyn Fn(&str, usize, usize) + Sync),
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) requests: usize,
    /// `None` once an answer without a count or a price is met.
    pub(super) cost: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    question: String,
    answer: Value,
}

/// A request, and the words that tell it from others with the same body.
pub(super) struct Request {
    pub(super) path: ProbePath,
    pub(super) body: Value,
}

impl<'a> Asker<'a> {
    /// `progress` gets what is asked, answers and requests. `max_cost`: in the currency of the endpoint's prices.
    ///
    /// # Errors
    /// [`ProveError::Api`] of the address.
    pub fn new(
        endpoint: &Endpoint,
        log: Option<(AnswerLog, Vec<String>)>,
        max_cost: Option<f64>,
        progress: &'a (dyn Fn(&str, usize, usize) + Sync),
    ) -> Result<Self, ProveError> {
        let (log, lines) = log.unzip();
        // A line of another program's is not an answer: it is asked again.
        let known = lines.unwrap_or_default();
        let known = known
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .map(|Line { question, answer }| (question, answer))
            .collect();
        Ok(Self {
            client: ProbeClient::new(endpoint)?,
            log,
            known,
            max_cost,
            spent: Mutex::new(Spent {
                cost: Some(0.0),
                ..Spent::default()
            }),
            hung: AtomicUsize::new(0),
            progress,
        })
    }

    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Forgets what was answered, once the result is kept.
    pub fn finish(&self) {
        // What stays is asked for again at worst.
        self.log.as_ref().map(AnswerLog::remove);
    }

    pub(super) fn spent(&self) -> Spent {
        *self.spent.lock()
    }

    pub(super) fn one(&self, what: &str, path: ProbePath, body: Value) -> Result<Value, String> {
        let mut answers = self.all(what, 1, vec![Request { path, body }]);
        answers.pop().unwrap_or_else(|| Err("not asked".to_owned()))
    }

    /// Answers in order; the reason of each that has none.
    pub(super) fn all(
        &self,
        what: &str,
        at_once: usize,
        requests: Vec<Request>,
    ) -> Vec<Result<Value, String>> {
        let count = requests.len();
        (self.progress)(what, 0, count);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Why every other request of this kind would fail alike.
        let failed = Mutex::new(None);
        let found: Vec<Mutex<Result<Value, String>>> = (0..count)
            .map(|_| Mutex::new(Err("not asked".to_owned())))
            .collect();
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else {
                    return;
                };
                let known: Option<String> = failed.lock().clone();
                let answer = match known {
                    Some(reason) => Err((reason, false)),
                    None => self.answer(what, index, request),
                };
                if let Err((reason, true)) = &answer {
                    *failed.lock() = Some(reason.clone());
                }
                *found[index].lock() = answer.map_err(|(reason, _)| reason);
                (self.progress)(what, done.fetch_add(1, Ordering::Relaxed) + 1, count);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once.min(count) {
                scope.spawn(work);
            }
        });
        found.into_iter().map(Mutex::into_inner).collect()
    }

    fn answer(
        &self,
        what: &str,
        index: usize,
        Request { path, body }: &Request,
    ) -> Result<Value, (String, bool)> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let digest = sha256(format!("{what}\n{path:?}\n{index}\n{text}").as_bytes());
        if let Some(answer) = self.known.get(&digest) {
            self.add_cost(*path, answer);
            return Ok(answer.clone());
        }
        let cost = self.spent.lock().cost;
        match (self.max_cost, cost) {
            (Some(most), Some(cost)) if cost >= most => {
                return Err((format!("the cost limit {most} is reached"), true));
            }
            (Some(_), None) => {
                let reason = "the server tells no token counts, so the cost limit cannot be kept";
                return Err((reason.to_owned(), true));
            }
            _ => {}
        }
        if self.hung.load(Ordering::Relaxed) >= MAX_HUNG {
            return Err(("the server has stopped answering".to_owned(), true));
        }
        let begun = Instant::now();
        let is_late = || begun.elapsed() >= self.client.endpoint().timeout;
        let pause = |wait: Duration| {
            // What took the whole timeout takes it again.
            if !is_late() {
                std::thread::sleep(wait);
            }
            !is_late()
        };
        self.spent.lock().requests += 1;
        let answer = self.client.ask(index, *path, &text, pause);
        match answer.is_err() && is_late() {
            true => _ = self.hung.fetch_add(1, Ordering::Relaxed),
            false => self.hung.store(0, Ordering::Relaxed),
        }
        let answer = answer.map_err(|failed| (failed.reason, failed.of_all))?;
        self.add_cost(*path, &answer);
        if let Some(log) = &self.log {
            let line = Line {
                question: digest,
                answer: answer.clone(),
            };
            let line = serde_json::to_string(&line).map_err(|error| (error.to_string(), true))?;
            log.append(&line)
                .map_err(|error| (error.to_string(), true))?;
        }
        Ok(answer)
    }

    fn add_cost(&self, path: ProbePath, answer: &Value) {
        if !matches!(path, ProbePath::Chat | ProbePath::Completions) {
            return;
        }
        let count = |name: &str| answer["usage"][name].as_u64().map(|count| count as usize);
        let prices = self.client.endpoint().prices;
        let cost = prices.cost(count("prompt_tokens"), count("completion_tokens"));
        let spent = &mut self.spent.lock().cost;
        *spent = spent.zip(cost).map(|(before, more)| before + more);
    }
}

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoint = self.client.endpoint();
        formatter.debug_tuple("Asker").field(endpoint).finish()
    }
}
