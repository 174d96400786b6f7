//! Load test of an OpenAI-compatible server, ours or another: parallel clients with sequential
//! requests of equal completion length.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use ureq::Agent;

use super::{Measurement, random_tokens};
use grpo_tui_core::http::{Origin, agent_config, problem_of};

/// The load of a test.
#[derive(Clone, Debug)]
pub(super) struct ServerLoad {
    /// URL before `/completions`, such as `http://127.0.0.1:8000/v1`.
    pub url: String,
    pub model: String,
    /// Parallel requests.
    pub clients: usize,
    /// Total, besides one warm-up request per client.
    pub requests: usize,
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Prompts are random token ids below it.
    pub vocabulary: usize,
    pub temperature: f64,
    /// 1: all tokens.
    pub top_p: f64,
    /// 0: all tokens.
    pub top_k: u32,
    pub stream: bool,
    pub key: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{url}{problem}")]
pub(super) struct LoadError {
    url: String,
    /// Continues the URL.
    problem: String,
}

/// One answer.
struct Timed {
    first_token: Duration,
    whole: Duration,
    tokens: usize,
}

/// Limit per answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Runs the load and measures total tokens per second, time to first token, and latency.
///
/// # Errors
/// The first wrong answer.
pub(super) fn measure_server(load: &ServerLoad) -> Result<Vec<Measurement>, LoadError> {
    let address = || LoadError {
        url: load.url.clone(),
        problem: ": write http://HOST:PORT/v1".to_owned(),
    };
    let origin = Origin::from_url(&load.url).ok_or_else(address)?;
    let config = agent_config(&origin, None).map_err(|_| address())?;
    let config = config
        .timeout_global(Some(ANSWER_TIMEOUT))
        // One connection per client.
        .max_idle_connections(load.clients)
        .max_idle_connections_per_host(load.clients);
    let agent: Agent = config.build().into();
    each_client(load, &agent, load.clients, 0)?;
    let start = Instant::now();
    let timed = each_client(load, &agent, load.requests, load.clients)?;
    let seconds = start.elapsed().as_secs_f64();
    let shape = format!("{} + {} tokens", load.prompt_tokens, load.new_tokens);
    let figure = |name: &str, value, unit: &str| {
        Measurement::new(name, &shape, load.clients, value, unit, None)
    };
    let tokens: usize = timed.iter().map(|timed| timed.tokens).sum();
    let mut found = vec![figure("server: speed", tokens as f64 / seconds, "tokens/s")];
    let mut quantiles = |name: &str, of: fn(&Timed) -> Duration| {
        let mut times: Vec<f64> = timed.iter().map(|timed| of(timed).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        for (quantile, label) in [(0.5, "median"), (0.95, "p95"), (0.99, "p99")] {
            let index =
                ((times.len() as f64 * quantile) as usize).min(times.len().saturating_sub(1));
            let value = times.get(index).copied().unwrap_or(f64::NAN);
            found.push(figure(&format!("server: {name}, {label}"), value, "s"));
        }
    };
    if load.stream {
        quantiles("time to first token", |timed| timed.first_token);
    }
    quantiles("latency", |timed| timed.whole);
    Ok(found)
}

/// Sends `requests` over all clients; `first`: index of the first, which determines its prompt.
fn each_client(
    load: &ServerLoad,
    agent: &Agent,
    requests: usize,
    first: usize,
) -> Result<Vec<Timed>, LoadError> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Ok(Vec::with_capacity(requests)));
    let store = |outcome: Result<Timed, LoadError>| -> bool {
        let mut all = all.lock();
        match (outcome, &mut *all) {
            (Ok(timed), Ok(known)) => known.push(timed),
            (Err(error), known @ Ok(_)) => *known = Err(error),
            (_, Err(_)) => {}
        }
        all.is_ok()
    };
    std::thread::scope(|scope| {
        for _ in 0..load.clients {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests || !store(one_request(load, agent, first + number)) {
                        break;
                    }
                }
            });
        }
    });
    all.into_inner()
}

fn one_request(load: &ServerLoad, agent: &Agent, number: usize) -> Result<Timed, LoadError> {
    let url = || format!("{}/completions", load.url);
    let refused = |problem: String| LoadError {
        url: url(),
        problem,
    };
    let mut body = json!({
        "model": load.model, "prompt": random_tokens(number, load.prompt_tokens, load.vocabulary), "max_tokens": load.new_tokens,
        "temperature": load.temperature, "ignore_eos": true,
    });
    if load.top_p < 1.0 {
        body["top_p"] = load.top_p.into();
    }
    if load.top_k > 0 {
        body["top_k"] = load.top_k.into();
    }
    if load.stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    let mut request = agent.post(url()).header("content-type", "application/json");
    if let Some(key) = &load.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let start = Instant::now();
    let failed = |error: ureq::Error| refused(format!(": {}", problem_of(&error)));
    let mut response = request.send(body.to_string()).map_err(failed)?;
    let status = response.status();
    if status != 200 {
        let body = response.body_mut().read_to_string().map_err(failed)?;
        let body: String = body.chars().take(500).collect();
        let status = status.as_u16();
        return Err(refused(format!(" answered with status {status}: {body}")));
    }
    let mut answer = Answer {
        start,
        first_token: None,
        tokens: None,
    };
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.map_err(|error| refused(format!(": {error}")))?;
        answer.read(&line);
    }
    match answer.tokens {
        Some(tokens) if tokens == load.new_tokens => Ok(Timed {
            first_token: answer.first_token.unwrap_or_default(),
            whole: start.elapsed(),
            tokens,
        }),
        Some(tokens) => {
            let expected = load.new_tokens;
            Err(refused(format!(" sampled {tokens} tokens, not {expected}")))
        }
        None => Err(refused(
            " did not say how many tokens it sampled".to_owned(),
        )),
    }
}

/// An answer while it arrives: a document, or an event stream.
struct Answer {
    start: Instant,
    first_token: Option<Duration>,
    tokens: Option<usize>,
}

impl Answer {
    fn read(&mut self, line: &str) {
        let event = line.strip_prefix("data: ");
        let has_token =
            |data: &str| data.contains("\"choices\":[{") || data.contains("\"choices\": [{");
        if self.first_token.is_none() && event.is_some_and(has_token) {
            self.first_token = Some(self.start.elapsed());
        }
        let document = event.unwrap_or(line);
        // Most events have no usage, and there are many.
        if document.contains("completion_tokens")
            && let Ok(document) = serde_json::from_str::<Json>(document)
        {
            let tokens = document
                .pointer("/usage/completion_tokens")
                .and_then(Json::as_u64);
            self.tokens = tokens.map(|tokens| tokens as usize).or(self.tokens);
        }
    }
}
