//! Asks a judge within its limits: concurrency, requests per minute, cost, retries; cached grades
//! are not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cache::Cache;
use super::own_server::OwnServer;
use super::question::{Grade, Question};
use crate::api_client::{Answer, ApiError, Client, Endpoint};
use crate::score::needs::rubric_rules::digest;
use crate::score::needs::{LocalModel, RubricRules};
use crate::secrets::scan;

/// Ends a batch; more with higher concurrency.
const MAX_CONSECUTIVE_FAILURES: usize = 8;
/// Delay until a pause notices cancellation.
const TICK: Duration = Duration::from_millis(20);

/// Grades of one question's answers, or why there are none.
pub(super) type Graded = Result<Vec<Vec<Grade>>, String>;

/// A trusted judge. Thread-safe.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) rules: RubricRules,
    system: Option<String>,
    /// A local model's is `None` before the first question.
    connection: Mutex<Option<Connection>>,
    cache: Cache,
    /// Cost of the answers so far, in the currency of the prices.
    cost: Mutex<f64>,
    /// Earliest start of the next request.
    next: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Connection {
    client: Arc<Client>,
    /// Server address, or a local model's digest: part of the cache key.
    identity: String,
    server: Option<Arc<OwnServer>>,
}

impl Asker {
    pub(super) fn new(rules: RubricRules, system: Option<String>) -> Result<Self, ApiError> {
        let remote = |endpoint: &Endpoint| {
            let client = Arc::new(Client::new(endpoint)?);
            Ok::<_, ApiError>(Connection {
                client,
                identity: endpoint.base_url.clone(),
                server: None,
            })
        };
        let connection = rules
            .local
            .is_none()
            .then(|| remote(&rules.endpoint))
            .transpose()?;
        let cache = Cache::new(&rules.rubric_digest());
        let (cost, next) = (Mutex::default(), Mutex::default());
        Ok(Self {
            rules,
            system,
            connection: Mutex::new(connection),
            cache,
            cost,
            next,
        })
    }

    pub(super) fn local_digest(&self) -> Result<Option<String>, String> {
        let server = self.connection()?.server;
        Ok(server.map(|server| server.digest.clone()))
    }

    /// The server; a local model's is started if necessary.
    fn connection(&self) -> Result<Connection, String> {
        let mut connection = self.connection.lock();
        let has_ended = |server: &Arc<OwnServer>| server.has_ended();
        if let Some(open) = connection
            .as_ref()
            .filter(|open| !open.server.as_ref().is_some_and(has_ended))
        {
            return Ok(open.clone());
        }
        let Some(model) = &self.rules.local else {
            return Err("the judge has no server".to_owned());
        };
        let earlier = connection.take().map(|ended| ended.identity);
        let opened = self.open(model)?;
        if earlier.is_some_and(|earlier| earlier != opened.identity) {
            return Err(format!(
                "the judge {} is another model than before: start again",
                model.name
            ));
        }
        Ok(connection.insert(opened).clone())
    }

    fn open(&self, model: &LocalModel) -> Result<Connection, String> {
        let server = OwnServer::of(model)?;
        let Endpoint {
            model: name,
            concurrency,
            timeout,
            ..
        } = &self.rules.endpoint;
        let endpoint = Endpoint::at_socket(&server.socket(), name, *concurrency, *timeout);
        let client = Arc::new(Client::new(&endpoint).map_err(|error| error.to_string())?);
        Ok(Connection {
            client,
            identity: format!("model {}", server.digest),
            server: Some(server),
        })
    }

    /// Grades in the order of questions; `None` once `keep_going` returns false. Equal questions
    /// are asked once, those whose grades are cached not at all.
    pub(super) fn grade_all(
        &self,
        questions: &[Question<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Graded>> {
        let bodies: Vec<String> = questions
            .iter()
            .map(|question| question.body(&self.rules, self.system.as_deref()))
            .collect();
        let identity = match self.connection() {
            Ok(connection) => connection.identity,
            Err(problem) => return Some(vec![Err(problem); questions.len()]),
        };
        let keys: Vec<String> = bodies
            .iter()
            .map(|body| digest(&format!("{identity}\n{body}")))
            .collect();
        if let Err(problem) = self.cache.refresh() {
            return Some(vec![Err(problem); questions.len()]);
        }
        let mut found: Vec<Option<Graded>> = vec![None; questions.len()];
        let mut open: Vec<usize> = Vec::new();
        let mut first_of = std::collections::HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            match self.cache.find(key) {
                Ok(Some(grades)) => found[place] = Some(Ok(grades)),
                Ok(None) if first_of.contains_key(key) => {}
                Ok(None) => {
                    first_of.insert(key, place);
                    open.push(place);
                }
                Err(problem) => found[place] = Some(Err(problem)),
            }
        }
        let ask = |place: usize| {
            self.ask(place, &questions[place], &bodies[place], keep_going)
                .map(|outcome| {
                    let grades = outcome?;
                    self.cache.insert(&keys[place], &grades)?;
                    Ok(grades)
                })
        };
        for (place, graded) in self.ask_many(&open, ask, keep_going)? {
            found[place] = Some(graded);
        }
        let of_twin = |place: usize| found[*first_of.get(&keys[place])?].clone();
        let graded = |place: usize| found[place].clone().or_else(|| of_twin(place));
        Some(
            (0..found.len())
                .map(|place| {
                    graded(place).unwrap_or_else(|| Err("the judge was not asked".to_owned()))
                })
                .collect(),
        )
    }

    /// Asks as many in parallel as the endpoint allows. Stops once it refuses all, or fails too
    /// often.
    fn ask_many(
        &self,
        open: &[usize],
        ask: impl Fn(usize) -> Result<Graded, Refusal> + Sync,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<(usize, Graded)>> {
        let concurrency = self.rules.endpoint.concurrency;
        let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let given_up: Mutex<Option<String>> = Mutex::new(None);
        let outcomes = Mutex::new(Vec::with_capacity(open.len()));
        std::thread::scope(|scope| {
            for _ in 0..concurrency.min(open.len()) {
                scope.spawn(|| {
                    while let Some(place) = open.get(next.fetch_add(1, Ordering::Relaxed))
                        && keep_going()
                    {
                        let end = given_up.lock().clone();
                        let graded = match end.map_or_else(|| ask(*place), |why| Ok(Err(why))) {
                            Ok(graded) => {
                                failures.store(0, Ordering::Relaxed);
                                graded
                            }
                            Err(Refusal { reason, of_all }) => {
                                let failed = failures.fetch_add(1, Ordering::Relaxed) + 1;
                                if of_all || failed >= concurrency.max(MAX_CONSECUTIVE_FAILURES) {
                                    *given_up.lock() = Some(reason.clone());
                                }
                                Err(reason)
                            }
                        };
                        outcomes.lock().push((*place, graded));
                    }
                });
            }
        });
        keep_going().then(|| outcomes.into_inner())
    }

    /// One request. The outer error is the server's, the inner one about its answer.
    fn ask(
        &self,
        place: usize,
        question: &Question<'_>,
        body: &str,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Result<Graded, Refusal> {
        if !self.rules.allow_secrets
            && let Some(secret) = scan(&question.content(&self.rules, self.system.as_deref()))
                .into_iter()
                .next()
        {
            return Ok(Err(format!(
                "prompt or answer holds what looks like a secret ({}, {}); nothing was sent: remove it, or set allow_secrets = true",
                secret.rule, secret.masked
            )));
        }
        if let Some(most) = self
            .rules
            .max_cost
            .filter(|most| *self.cost.lock() >= *most)
        {
            let reason = format!(
                "the judge has cost {:.4}, max_cost = {most} is reached: raise it",
                *self.cost.lock()
            );
            return Err(Refusal {
                reason,
                of_all: true,
            });
        }
        if !self.wait_for_slot(keep_going) {
            return Ok(Err("the judge was not asked".to_owned()));
        }
        let pause =
            |wait| wait_until(Instant::now() + wait, keep_going) && self.wait_for_slot(keep_going);
        let answer = self.answer(place, body, pause)?;
        if self.count(&answer).is_none() && self.rules.max_cost.is_some() {
            return Ok(Err(
                "the judge's server counts no tokens (`usage`): max_cost cannot be kept, remove it"
                    .to_owned(),
            ));
        }
        if answer.truncated {
            return Ok(Err(
                "the judge's answer ends at its token limit: raise `max_tokens` in the endpoint's extra_body"
                    .to_owned(),
            ));
        }
        Ok(question.read(&self.rules, &answer.text))
    }

    /// The server's answer. Restarts an ended server of a local model, once per question.
    fn answer(
        &self,
        place: usize,
        body: &str,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Answer, Refusal> {
        let model = &self.rules.endpoint.model;
        let refused = |reason: &str, of_all| Refusal {
            reason: format!("the judge `{model}` {reason}"),
            of_all,
        };
        for is_last in [false, true] {
            let Connection { client, server, .. } =
                self.connection().map_err(|reason| Refusal {
                    reason,
                    of_all: true,
                })?;
            let failed = match client.ask(place, body, &pause) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let ended = server.filter(|server| server.has_ended());
            match ended {
                None => {
                    return Err(refused(
                        &format!("gave no answer: {}", failed.reason),
                        failed.of_all,
                    ));
                }
                Some(server) if is_last => {
                    return Err(refused(&format!("has ended{}", server.last_words()), true));
                }
                Some(_) => {}
            }
        }
        Err(refused("gave no answer", false))
    }

    fn count(&self, answer: &Answer) -> Option<f64> {
        let cost = self
            .rules
            .endpoint
            .prices
            .cost(answer.prompt_tokens, answer.tokens);
        *self.cost.lock() += cost.unwrap_or(0.0);
        cost
    }

    /// Waits until `requests_per_minute` allows another request.
    fn wait_for_slot(&self, keep_going: &(dyn Fn() -> bool + Sync)) -> bool {
        let Some(rate) = self.rules.requests_per_minute else {
            return keep_going();
        };
        let begin = {
            let mut next = self.next.lock();
            let begin = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(begin + Duration::from_secs_f64(60.0 / rate));
            begin
        };
        wait_until(begin, keep_going)
    }
}

/// Why a server gave no answer.
struct Refusal {
    reason: String,
    /// Whether every other question would fail alike.
    of_all: bool,
}

/// Returns false if cancelled.
fn wait_until(end: Instant, keep_going: &(dyn Fn() -> bool + Sync)) -> bool {
    while keep_going() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(TICK));
    }
    false
}
