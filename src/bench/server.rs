//! Load on a server of OpenAI's API, ours or another: many clients, each with one request after the other, all
//! completions equally long.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{Measurement, random_tokens};

/// What clients ask for.
#[derive(Clone, Debug)]
pub struct ServerLoad {
    /// `HOST:PORT`.
    pub host: String,
    /// Before `/completions`, such as `/v1`.
    pub path: String,
    pub model: String,
    /// Requests at once.
    pub clients: usize,
    /// In all, besides one of each client that is not counted.
    pub requests: usize,
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Prompts are random token ids below it.
    pub vocabulary: usize,
    pub temperature: f64,
    pub stream: bool,
    pub key: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("http://{host}: {source}")]
    Network { host: String, source: io::Error },
    #[error("http://{host} answered with status {status}: {body}")]
    Status { host: String, status: String, body: String },
    #[error("http://{host} {problem}")]
    Answer { host: String, problem: String },
}

/// One answer.
struct Timed {
    first_token: Duration,
    whole: Duration,
    tokens: usize,
}

/// A client that sends nothing for so long has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Sends the load, and measures tokens a second over all clients, time to the first token, and latency.
///
/// # Errors
/// The first request that is not answered as it should be.
pub fn measure_server(load: &ServerLoad) -> Result<Vec<Measurement>, LoadError> {
    each_client(load, load.clients, 0)?;
    let start = Instant::now();
    let timed = each_client(load, load.requests, load.clients)?;
    let seconds = start.elapsed().as_secs_f64();
    let shape = format!("{} + {} tokens", load.prompt_tokens, load.new_tokens);
    let figure = |name: &str, value, unit: &str| Measurement::new(name, &shape, load.clients, value, unit, None);
    let tokens: usize = timed.iter().map(|timed| timed.tokens).sum();
    let mut found = vec![figure("server: speed", tokens as f64 / seconds, "tokens/s")];
    let mut quantiles = |name: &str, of: fn(&Timed) -> Duration| {
        let mut times: Vec<f64> = timed.iter().map(|timed| of(timed).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        for (quantile, label) in [(0.5, "median"), (0.95, "p95")] {
            let index = ((times.len() as f64 * quantile) as usize).min(times.len().saturating_sub(1));
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

/// So many requests, of all clients together; `first`: the number of the first, which makes its prompt.
fn each_client(load: &ServerLoad, requests: usize, first: usize) -> Result<Vec<Timed>, LoadError> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Ok(Vec::with_capacity(requests))));
    let store = |outcome: Result<Timed, LoadError>| -> bool {
        let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
                let mut connection = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests || !store(one_request(load, first + number, &mut connection)) {
                        break;
                    }
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one_request(
    load: &ServerLoad,
    number: usize,
    connection: &mut Option<BufReader<TcpStream>>,
) -> Result<Timed, LoadError> {
    let host = || load.host.clone();
    let failed = |source| LoadError::Network { host: host(), source };
    let mut body = json!({
        "model": load.model, "prompt": random_tokens(number, load.prompt_tokens, load.vocabulary), "max_tokens": load.new_tokens,
        "temperature": load.temperature, "ignore_eos": true,
    });
    if load.stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    let body = body.to_string();
    let key = load.key.as_ref().map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
    let request = format!(
        "POST {}/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{key}Content-Length: {}\r\n\r\n{body}",
        load.path,
        load.host,
        body.len()
    );
    let start = Instant::now();
    let mut socket = match connection.take() {
        Some(socket) => socket,
        None => {
            let socket = TcpStream::connect(&load.host).map_err(failed)?;
            socket.set_nodelay(true).map_err(failed)?;
            socket.set_read_timeout(Some(READ_TIMEOUT)).map_err(failed)?;
            BufReader::new(socket)
        }
    };
    socket.get_mut().write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Answer { start, first_token: None, events: String::new(), tokens: None };
    let head = read_answer(&mut socket, |piece| answer.read(piece)).map_err(failed)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let body = answer.events.chars().take(500).collect();
        return Err(LoadError::Status { host: host(), status: status.to_owned(), body });
    }
    *connection = Some(socket);
    let tokens = answer.tokens.or_else(|| tokens_in(&answer.events));
    let wrong = |problem: String| LoadError::Answer { host: host(), problem };
    match tokens {
        Some(tokens) if tokens == load.new_tokens => {
            Ok(Timed { first_token: answer.first_token.unwrap_or_default(), whole: start.elapsed(), tokens })
        }
        Some(tokens) => Err(wrong(format!("sampled {tokens} tokens, not {}", load.new_tokens))),
        None => Err(wrong("did not say how many tokens it sampled".to_owned())),
    }
}

/// What is known of an answer while it comes.
struct Answer {
    start: Instant,
    first_token: Option<Duration>,
    /// What is not yet a whole event; of an answer in one piece all of it.
    events: String,
    tokens: Option<usize>,
}

impl Answer {
    fn read(&mut self, piece: &[u8]) {
        self.events.push_str(&String::from_utf8_lossy(piece));
        while let Some((event, rest)) = self.events.split_once("\n\n") {
            if let Some(data) = event.trim_start().strip_prefix("data: ") {
                let has_token = data.contains("\"choices\":[{") || data.contains("\"choices\": [{");
                if has_token && self.first_token.is_none() {
                    self.first_token = Some(self.start.elapsed());
                }
                self.tokens = tokens_in(data).or(self.tokens);
            }
            self.events = rest.to_owned();
        }
    }
}

fn tokens_in(document: &str) -> Option<usize> {
    // Most chunks have none, and there are many.
    let document = Some(document).filter(|document| document.contains("completion_tokens"))?;
    let document: Json = serde_json::from_str(document).ok()?;
    document.pointer("/usage/completion_tokens")?.as_u64().map(|tokens| tokens as usize)
}

/// Reads an answer, gives its body as it comes, and returns its first line.
fn read_answer(socket: &mut impl BufRead, mut body: impl FnMut(&[u8])) -> io::Result<String> {
    let mut first = String::new();
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut piece = |socket: &mut dyn BufRead, length: u64| -> io::Result<()> {
        let mut bytes = Vec::new();
        let count = socket.take(length).read_to_end(&mut bytes)? as u64;
        body(&bytes);
        if count < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    };
    if !is_chunked {
        piece(socket, length)?;
        return Ok(first);
    }
    loop {
        let mut line = String::new();
        socket.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        piece(socket, length)?;
        socket.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(first);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_pieces() {
        let check = |answer: &str, expected: &str| {
            let mut found = Vec::new();
            let first = read_answer(&mut answer.as_bytes(), |piece| found.extend_from_slice(piece)).unwrap();
            assert_eq!((first.as_str(), String::from_utf8(found).unwrap().as_str()), ("HTTP/1.1 200 OK", expected));
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc");
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n",
            "abc0123456789",
        );
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        ] {
            assert!(read_answer(&mut broken.as_bytes(), |_| ()).is_err(), "{broken}");
        }
        let mut answer = Answer { start: Instant::now(), first_token: None, events: String::new(), tokens: None };
        answer.read(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"comple");
        assert!(answer.first_token.is_some() && answer.tokens.is_none());
        answer.read(b"tion_tokens\":7}}\n\ndata: [DONE]\n\n");
        assert_eq!(answer.tokens, Some(7));
    }
}
