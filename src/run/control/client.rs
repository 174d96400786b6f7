//! Asking a worker: by its socket where it can be reached, else by a file, and in words why neither when nobody is there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::accepted_files::note_without_worker;
use super::answer::{Answer, AnswerLine, Stage};
use super::file_queue::{answers_file, request_file};
use super::socket_path::{socket_folders, socket_name};
use super::verb::Verb;
use super::{PROTOCOL_VERSION, socket};
use crate::run::directory::host_name;
use crate::run::durable::replace_file;
use crate::run::error::RunError;
use crate::run::liveness::Liveness;
use crate::run::worker_state::State;

/// How long a living worker may take to say that it has heard.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a file is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long one look at the socket lasts.
const LISTEN: Duration = Duration::from_millis(250);

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestOutcome {
    /// In words.
    pub text: String,
    /// Whether the work is done; else it was accepted and will be.
    pub done: bool,
    /// What the work brought, or null.
    pub result: Value,
}

/// Ask the worker of a run. A note needs none: where no worker lives it goes into the log at once. Verbs that are work (checkpoint, eval, sample) are waited for up to `timeout` once they are accepted, the others are not.
/// `heard` is given each part of a result as it comes.
///
/// # Errors
/// [`RunError::NoWorker`] where none lives, [`RunError::Refused`] with the worker's own words, [`RunError::NoAnswer`] where it does not answer.
pub fn ask(run: &Path, verb: &Verb, timeout: Duration, heard: &mut dyn FnMut(Value)) -> Result<RequestOutcome, RunError> {
    if let Liveness::Gone(standing) = Liveness::of(run) {
        // A run that no worker has begun with may get one at any moment, which must not find its lock held.
        if matches!(verb, Verb::Annotate { .. }) && State::read(run).is_some() {
            note_without_worker(run, verb)?;
            return Ok(RequestOutcome { text: "noted".to_owned(), done: true, result: Value::Null });
        }
        return Err(RunError::NoWorker { path: run.to_owned(), standing });
    }
    let id = request_id();
    let request = json!({"v": PROTOCOL_VERSION, "id": id, "verb": verb.name(), "arguments": verb.arguments()});
    let mut asked = Asked { run, verb, timeout, heard, accepted: None };
    match sockets(run).iter().find_map(|path| socket::connect(path).ok()) {
        Some(stream) => asked.by_socket(stream, &id, &request),
        None => asked.by_file(&id, &request),
    }
}

/// Where the socket may be: where the worker said, else where it would be by its name. On another host, nowhere.
fn sockets(run: &Path) -> Vec<PathBuf> {
    let state = State::read(run);
    if state.as_ref().is_some_and(|state| state.host != host_name()) {
        return Vec::new();
    }
    let name = socket_name(run);
    state.and_then(|state| state.socket).into_iter().chain(socket_folders().into_iter().map(|folder| folder.join(&name))).collect()
}

/// Told from the ids of other clients, and of this one's other requests.
fn request_id() -> String {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}-{}", std::process::id(), since.as_micros(), ASKED.fetch_add(1, Ordering::Relaxed))
}

struct Asked<'a> {
    run: &'a Path,
    verb: &'a Verb,
    timeout: Duration,
    heard: &'a mut dyn FnMut(Value),
    /// What was promised, and when.
    accepted: Option<(String, Instant)>,
}

impl Asked<'_> {
    fn by_socket(&mut self, mut stream: UnixStream, id: &str, request: &Value) -> Result<RequestOutcome, RunError> {
        let failed = RunError::io("talk to the worker of", self.run);
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        let begun = Instant::now();
        if let Err(error) = stream
            .set_read_timeout(Some(LISTEN))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| stream.write_all(&line))
        {
            return Err(failed(error));
        }
        let (mut buffer, mut chunk) = (Vec::new(), vec![0u8; 64 * 1024]);
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return self.timed_out(begun),
                Ok(length) => buffer.extend_from_slice(&chunk[..length]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                Err(_) => return self.timed_out(begun),
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Some(answered) = self.hear(&line, id)? {
                    return Ok(answered);
                }
            }
            if self.is_over(begun) {
                return self.timed_out(begun);
            }
        }
    }

    fn by_file(&mut self, id: &str, request: &Value) -> Result<RequestOutcome, RunError> {
        let (request_path, answers_path) = (request_file(self.run, id), answers_file(self.run, id));
        replace_file(&request_path, request.to_string().as_bytes())?;
        let begun = Instant::now();
        let mut seen = 0;
        let answered = loop {
            let answers = crate::files::read(&answers_path).unwrap_or_default();
            let lines: Vec<&[u8]> = answers.split_inclusive(|byte| *byte == b'\n').collect();
            let new = lines.get(seen..).unwrap_or_default();
            seen = lines.len().max(seen);
            let outcome = new.iter().find_map(|line| self.hear(line, id).transpose());
            if let Some(outcome) = outcome {
                break outcome;
            }
            if self.is_over(begun) || (self.accepted.is_some() && !Liveness::of(self.run).may_live()) {
                break self.timed_out(begun);
            }
            std::thread::sleep(LOOK);
        };
        for path in [request_path, answers_path] {
            let _ = std::fs::remove_file(path);
        }
        answered
    }

    /// One line of an answer. `Some` when there is nothing more to wait for.
    fn hear(&mut self, line: &[u8], id: &str) -> Result<Option<RequestOutcome>, RunError> {
        // What is no answer to this request is another one's, or a newer worker's.
        let Ok(AnswerLine { id: to, answer, .. }) = serde_json::from_slice(line) else { return Ok(None) };
        if to != id && !to.is_empty() {
            return Ok(None);
        }
        let Answer { stage, text, result } = answer;
        match stage {
            Stage::Refused => Err(RunError::Refused { path: self.run.to_owned(), message: text }),
            Stage::Done => Ok(Some(RequestOutcome { text, done: true, result })),
            Stage::Part => {
                (self.heard)(result);
                Ok(None)
            }
            Stage::Accepted if self.verb.is_work() && !self.timeout.is_zero() => {
                self.accepted = Some((text, Instant::now()));
                Ok(None)
            }
            Stage::Accepted => Ok(Some(RequestOutcome { text, done: false, result })),
        }
    }

    fn is_over(&self, begun: Instant) -> bool {
        match &self.accepted {
            Some((_, since)) => since.elapsed() >= self.timeout,
            None => begun.elapsed() >= PATIENCE,
        }
    }

    /// What is known when no more is waited for: at least that it was accepted, or else that nobody answered.
    fn timed_out(&mut self, begun: Instant) -> Result<RequestOutcome, RunError> {
        match self.accepted.take() {
            Some((text, _)) => Ok(RequestOutcome { text, done: false, result: Value::Null }),
            None => Err(RunError::NoAnswer { path: self.run.to_owned(), seconds: begun.elapsed().as_secs() }),
        }
    }
}
