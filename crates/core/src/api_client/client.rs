//! One request to an endpoint: what counts as an answer, what is retried, and when.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::Agent;
use ureq::http::HeaderMap;

use super::log_probs::{log_probs_of, tokens_of};
use super::{Api, ApiError, Endpoint, LogProbs, WrittenToken, message_text};
use crate::format::shortened;
use crate::http::{Origin, agent_config, problem_of, unix_agent};
use crate::secrets::{redact, visible};

const MAX_BODY_BYTES: u64 = 16 << 20;
/// Upper bound of a server's `Retry-After`.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Upper bound of our own backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A shorter key, such as `EMPTY`, is not a secret and may occur in an answer.
const MIN_SECRET_KEY_LEN: usize = 12;
const MAX_REASON_CHARS: usize = 300;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text that the scorer reads; tool calls in OpenAI's message form.
    pub text: String,
    pub prompt_tokens: Option<usize>,
    /// Including reasoning, as reported by the server.
    pub tokens: Option<usize>,
    /// Whether the token limit ended it.
    pub truncated: bool,
    pub seconds: f64,
    pub attempts: u32,
    /// Start of the successful attempt, Unix time in seconds.
    pub begun: f64,
    /// `None` if not requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
    /// Its tokens; empty unless [kept](Endpoint::keeps_tokens) and given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<WrittenToken>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnansweredQuestion {
    /// Error of the last attempt.
    pub reason: String,
    pub attempts: u32,
    /// Whether every other question would fail alike: a wrong key, model or address.
    pub of_all: bool,
}

struct FailedAttempt {
    reason: String,
    next: RetryPolicy,
}

enum RetryPolicy {
    /// Retry, after the server's delay if it gives one.
    Again(Option<Duration>),
    Never,
    NeverForAny,
}

impl FailedAttempt {
    fn again(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            next: RetryPolicy::Again(None),
        }
    }
}

#[derive(Debug)]
/// The HTTP client of one endpoint, shared by threads.
pub struct Client {
    endpoint: Endpoint,
    agent: Agent,
    url: String,
    /// One instant on both clocks, so that clock adjustments do not distort intervals.
    epoch: (Instant, f64),
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, ApiError> {
        let origin = Origin::from_url(endpoint.request_url());
        let origin = origin.ok_or_else(|| {
            ApiError::Other(format!(
                "endpoint `{}`: base_url is not a URL",
                endpoint.name
            ))
        })?;
        let certificates = endpoint.certificates.as_deref();
        let config =
            agent_config(&origin, certificates).map_err(|error| {
                let path = certificates.unwrap_or(Path::new("")).display();
                ApiError::Other(format!(
                    "SSL_CERT_FILE: {path}: {error}; name a PEM file of certificate authorities, or unset it"
                ))
            })?;
        let config = config
            .timeout_global(Some(endpoint.timeout))
            .timeout_connect(Some(endpoint.timeout.min(Duration::from_secs(15))))
            // One connection per thread.
            .max_idle_connections(endpoint.concurrency)
            .max_idle_connections_per_host(endpoint.concurrency);
        let path = match endpoint.api {
            Api::Chat => "chat/completions",
            Api::Completions => "completions",
        };
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let epoch = (Instant::now(), since_1970.as_secs_f64());
        Ok(Self {
            endpoint: endpoint.clone(),
            agent: match endpoint.socket() {
                Some(socket) => unix_agent(config, socket),
                None => config.build().into(),
            },
            url: format!("{}/{path}", endpoint.request_url()),
            epoch,
        })
    }

    /// Retries until there is an answer or no attempt is left. `index` spreads the pauses of
    /// questions that failed together; `pause` sleeps, and returns false to cancel.
    pub(crate) fn ask(
        &self,
        index: usize,
        body: &str,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Answer, UnansweredQuestion> {
        let start = Cell::new(Instant::now());
        let read = |text: &str| answer_of(&self.endpoint, text);
        let attempt = || {
            start.set(Instant::now());
            self.attempt(&self.url, body, &read)
        };
        let (answer, attempts) = self.ask_until(index, attempt, pause)?;
        let start = start.get();
        let begun = self.epoch.1 + start.duration_since(self.epoch.0).as_secs_f64();
        Ok(Answer {
            seconds: start.elapsed().as_secs_f64(),
            attempts,
            begun,
            ..answer
        })
    }

    /// As [`Self::ask`] for another path of the server, parsed by `read`; with an empty body a GET.
    pub(super) fn ask_at<T>(
        &self,
        index: usize,
        url: &str,
        body: &str,
        read: impl Fn(&str) -> Result<T, String>,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<T, UnansweredQuestion> {
        self.ask_until(index, || self.attempt(url, body, &read), pause)
            .map(|(answer, _)| answer)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn ask_until<T>(
        &self,
        index: usize,
        attempt: impl Fn() -> Result<T, FailedAttempt>,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<(T, u32), UnansweredQuestion> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let FailedAttempt { reason, next } = match attempt() {
                Ok(answer) => return Ok((answer, attempts)),
                Err(failed) => failed,
            };
            let wait = match next {
                RetryPolicy::Again(asked) if attempts <= self.endpoint.retries => {
                    let doubled = self
                        .endpoint
                        .pause
                        .saturating_mul(1 << (attempts - 1).min(16))
                        .min(MAX_BACKOFF);
                    let spread = 0.75
                        + 0.5 * ((index * 7919 + attempts as usize * 104_729) % 1000) as f64
                            / 1000.0;
                    asked
                        .unwrap_or(Duration::ZERO)
                        .min(MAX_PAUSE)
                        .max(doubled.mul_f64(spread))
                }
                _ => {
                    return Err(UnansweredQuestion {
                        reason,
                        attempts,
                        of_all: matches!(next, RetryPolicy::NeverForAny),
                    });
                }
            };
            if !pause(wait) {
                return Err(UnansweredQuestion {
                    reason,
                    attempts,
                    of_all: false,
                });
            }
        }
    }

    fn attempt<T>(
        &self,
        url: &str,
        body: &str,
        read_answer: &impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, FailedAttempt> {
        let mut request = ureq::http::Request::builder().uri(url);
        if let Some(key) = &self.endpoint.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let broken = |error: ureq::http::Error| self.broken(&error.into());
        let response = match body {
            "" => self.agent.run(request.body(()).map_err(broken)?),
            body => {
                let request = request
                    .method("POST")
                    .header("content-type", "application/json");
                self.agent.run(request.body(body).map_err(broken)?)
            }
        };
        let response = response.map_err(|error| self.broken(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let read = response
            .into_body()
            .into_with_config()
            .limit(MAX_BODY_BYTES)
            .read_to_vec();
        let bytes = match read {
            Ok(bytes) => bytes,
            // The status is more informative than a missing body.
            Err(_) if !(200..300).contains(&status) => Vec::new(),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let reason = format!("the answer is longer than {} MiB", MAX_BODY_BYTES >> 20);
                return Err(FailedAttempt {
                    reason,
                    next: RetryPolicy::Never,
                });
            }
            Err(error) => return Err(self.broken(&error)),
        };
        let text = self.without_key(&String::from_utf8_lossy(&bytes));
        if (200..300).contains(&status) {
            return read_answer(&text).map_err(|reason| FailedAttempt::again(self.shown(&reason)));
        }
        let said = said_by(&text).map_or_else(String::new, |said| format!(": {said}"));
        let (next, remedy) = match status {
            300..=399 => {
                let place = headers
                    .get("location")
                    .and_then(|place| Origin::from_url(place.to_str().ok()?));
                let place = place.map_or_else(String::new, |place| format!(" to {}", place.host));
                return Err(FailedAttempt {
                    reason: self.shown(&format!(
                        "the server redirects{place} ({status}), and redirects are not followed: fix base_url"
                    )),
                    next: RetryPolicy::NeverForAny,
                });
            }
            401 | 403 => (
                RetryPolicy::NeverForAny,
                "; check api_key_env and what its key may do",
            ),
            404 => (RetryPolicy::NeverForAny, "; check base_url, kind and model"),
            408 | 425 | 429 | 500.. => (RetryPolicy::Again(retry_after(&headers)), ""),
            _ => (RetryPolicy::Never, ""),
        };
        Err(FailedAttempt {
            reason: self.shown(&format!("the server answered {status}{said}")) + remedy,
            next,
        })
    }

    fn broken(&self, error: &ureq::Error) -> FailedAttempt {
        let reason = self.shown(&problem_of(error));
        // A bad certificate stays bad.
        let is_tls = match error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        };
        if is_tls {
            return FailedAttempt {
                reason: format!("{reason}; check base_url and SSL_CERT_FILE"),
                next: RetryPolicy::NeverForAny,
            };
        }
        FailedAttempt::again(reason)
    }

    fn without_key(&self, text: &str) -> String {
        match self
            .endpoint
            .key
            .as_deref()
            .filter(|key| key.len() >= MIN_SECRET_KEY_LEN)
        {
            Some(key) => text.replace(key, "***"),
            None => text.to_owned(),
        }
    }

    /// Prepares server text for messages and files.
    fn shown(&self, text: &str) -> String {
        let text = self.without_key(text);
        shortened(
            &visible(&redact(&text).0).replace('\n', " "),
            MAX_REASON_CHARS,
        )
    }
}

/// Extracts the completion, or says why there is none.
fn answer_of(endpoint: &Endpoint, text: &str) -> Result<Answer, String> {
    let body: Value =
        serde_json::from_str(text).map_err(|error| format!("the answer is not JSON ({error})"))?;
    let Some(choice) = body["choices"].get(0) else {
        let said = said_by(text).map_or_else(String::new, |said| format!(": {said}"));
        return Err(format!("the answer has no choices{said}"));
    };
    let completion = match endpoint.api {
        Api::Completions => choice["text"].as_str().map(str::to_owned),
        Api::Chat => message_text(&choice["message"]),
    };
    // Ignores a count beyond any model's.
    let count = |name: &str| {
        body["usage"][name]
            .as_u64()
            .filter(|count| *count < 1 << 32)
            .map(|count| count as usize)
    };
    Ok(Answer {
        text: completion.ok_or("the first choice has no text")?,
        prompt_tokens: count("prompt_tokens"),
        tokens: count("completion_tokens"),
        truncated: choice["finish_reason"] == "length",
        seconds: 0.0,
        attempts: 0,
        begun: 0.0,
        logprobs: endpoint.logprobs.then(|| log_probs_of(choice)),
        written: match endpoint.keeps_tokens {
            true => tokens_of(choice),
            false => Vec::new(),
        },
    })
}

fn said_by(text: &str) -> Option<String> {
    let body: Value = serde_json::from_str(text).ok()?;
    [
        &body["error"]["message"],
        &body["error"],
        &body["message"],
        &body["detail"],
    ]
    .into_iter()
    .find_map(Value::as_str)
    .map(str::to_owned)
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_zoned(text)
        .ok()?;
    Duration::try_from(date.timestamp().duration_since(jiff::Timestamp::now())).ok()
}
