//! Many requests at once to one server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::ProveError;
use crate::api_client::{Endpoint, ProbeClient, ProbePath};

/// A server that let so many requests in a row time out is asked no more.
const MAX_HUNG: usize = 3;

/// Requests to one server.
pub struct Asker<'a> {
    client: ProbeClient,
    pub(super) requests: AtomicUsize,
    /// Requests in a row that the server left without an answer until the timeout.
    hung: AtomicUsize,
    progress: &'a (dyn Fn(&str, usize, usize) + Sync),
}

pub(super) struct Request {
    pub(super) path: ProbePath,
    pub(super) body: Value,
}

impl<'a> Asker<'a> {
    /// `progress` gets what is asked, answers and requests.
    ///
    /// # Errors
    /// [`ProveError::Api`] of the address.
    pub fn new(
        endpoint: &Endpoint,
        progress: &'a (dyn Fn(&str, usize, usize) + Sync),
    ) -> Result<Self, ProveError> {
        Ok(Self {
            client: ProbeClient::new(endpoint)?,
            requests: AtomicUsize::new(0),
            hung: AtomicUsize::new(0),
            progress,
        })
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
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(request) = requests.get(index)
            {
                let known: Option<String> = failed.lock().clone();
                let answer = match known {
                    Some(reason) => Err((reason, false)),
                    None => self.answer(index, request),
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

    /// The answer, or why there is none, and whether others would fail alike.
    fn answer(
        &self,
        index: usize,
        Request { path, body }: &Request,
    ) -> Result<Value, (String, bool)> {
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
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.client.ask(index, *path, &body.to_string(), pause);
        match answer.is_err() && is_late() {
            true => _ = self.hung.fetch_add(1, Ordering::Relaxed),
            false => self.hung.store(0, Ordering::Relaxed),
        }
        answer.map_err(|failed| (failed.reason, failed.of_all))
    }
}

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoint = self.client.endpoint();
        formatter.debug_tuple("Asker").field(endpoint).finish()
    }
}
