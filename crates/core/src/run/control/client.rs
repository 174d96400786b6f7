//! Sends requests to a worker as files and waits for answers.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::accepted_files::note_without_worker;
use super::protocol::{
    Answer, AnswerLine, FOLDER, PROTOCOL_VERSION, Request, Stage, answers_file, request_file,
};
use super::verb::Verb;
use crate::facts::Status;
use crate::run::error::{RunError, is_full_disk};
use crate::run::process::liveness::{Liveness, signal_worker};
use crate::run::process::worker_state::State;
use crate::run::slurm::cancel_job;
use crate::run::storage::folder::{FolderWatch, private_folder};
use crate::run::storage::pulled::Pulled;

const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Polling interval for answers on file systems without notifications.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq)]
pub struct RequestOutcome {
    pub text: String,
    /// Whether the work is done; otherwise it was only accepted.
    pub done: bool,
    pub result: Value,
}

/// Sends a request to a run's worker. Without a worker, a note is recorded directly. Checkpoint,
/// eval and sample wait up to `timeout` after acceptance; other verbs return once accepted.
/// `on_part` gets each part of a result as it arrives.
///
/// # Errors
/// [`RunError::NoWorker`], [`RunError::Refused`] with the worker's message, [`RunError::NoAnswer`],
/// and [`RunError::Unsafe`] or [`RunError::Io`] if the request cannot be written.
pub fn ask(
    run: &Path,
    verb: &Verb,
    timeout: Duration,
    on_part: &mut dyn FnMut(Value),
) -> Result<RequestOutcome, RunError> {
    if let Liveness::Gone(standing) = Liveness::for_run(run) {
        if matches!(verb, Verb::Annotate { .. }) && Pulled::for_run(run).is_none() {
            note_without_worker(run, verb)?;
            return Ok(RequestOutcome {
                text: "noted".to_owned(),
                done: true,
                result: Value::Null,
            });
        }
        return Err(no_worker(run, verb, standing));
    }
    let mut posted = PostedRequest::post(run, verb)?;
    let begun = Instant::now();
    let mut accepted: Option<(String, Instant)> = None;
    loop {
        // Checked before reading answers, since a worker answers before it exits.
        let liveness = Liveness::for_run(run);
        for Answer {
            stage,
            text,
            result,
        } in posted.new_answers()
        {
            match stage {
                Stage::Refused => {
                    return Err(RunError::Refused {
                        path: run.to_owned(),
                        message: text,
                    });
                }
                Stage::Done => {
                    return Ok(RequestOutcome {
                        text,
                        done: true,
                        result,
                    });
                }
                Stage::Part => on_part(result),
                Stage::Accepted if verb.is_work() && !timeout.is_zero() => {
                    accepted = Some((text, Instant::now()))
                }
                Stage::Accepted => {
                    return Ok(RequestOutcome {
                        text,
                        done: false,
                        result,
                    });
                }
            }
        }
        let is_over = accepted
            .as_ref()
            .map_or(begun.elapsed() >= ACCEPT_TIMEOUT, |(_, since)| {
                since.elapsed() >= timeout || posted.is_orphaned()
            });
        match (liveness, accepted) {
            (Liveness::Gone(_), Some((text, _))) => {
                return Ok(RequestOutcome {
                    text,
                    done: false,
                    result: Value::Null,
                });
            }
            (_, Some((text, _))) if is_over => {
                return Ok(RequestOutcome {
                    text,
                    done: false,
                    result: Value::Null,
                });
            }
            (Liveness::Gone(standing), None) => return Err(no_worker(run, verb, standing)),
            (_, None) if is_over => {
                return Err(RunError::NoAnswer {
                    path: run.to_owned(),
                    seconds: begun.elapsed().as_secs(),
                });
            }
            (_, waited) => accepted = waited,
        }
        posted.watch.wait(LOOK);
    }
}

fn no_worker(run: &Path, verb: &Verb, standing: String) -> RunError {
    let is_finished = State::observe(run).is_some_and(|state| state.status == Status::Finished);
    let standing = if is_finished {
        format!("is finished: {}", verb.why_not_after_the_end())
    } else {
        standing
    };
    RunError::NoWorker {
        path: run.to_owned(),
        standing,
    }
}

/// Requests a stop. If the worker does not answer or its disk is full, cancels its Slurm job, or
/// else signals it; without a worker, cancels the job that the run waits for.
pub fn stop_worker(run: &Path, now: bool) -> Result<RequestOutcome, RunError> {
    let why = match ask(run, &Verb::Stop { now }, Duration::ZERO, &mut |_| {}) {
        Err(RunError::NoAnswer { seconds, .. }) => format!("no answer for {seconds} s"),
        Err(RunError::Io { source, .. }) if is_full_disk(&source) => {
            "no disk space for a request".to_owned()
        }
        Err(RunError::NoWorker { path, standing }) => {
            let cancelled = cancel_job(run)?.ok_or(RunError::NoWorker { path, standing })?;
            return Ok(RequestOutcome {
                text: cancelled,
                done: true,
                result: Value::Null,
            });
        }
        outcome => return outcome,
    };
    if let Some(cancelled) = cancel_job(run)? {
        return Ok(RequestOutcome {
            text: format!("{why}: {cancelled}"),
            done: false,
            result: Value::Null,
        });
    }
    let (signal, name) = if now {
        (Signal::KILL, "SIGKILL")
    } else {
        (Signal::TERM, "SIGTERM")
    };
    signal_worker(run, signal)?;
    Ok(RequestOutcome {
        text: format!("{why}: sent {name}"),
        done: false,
        result: Value::Null,
    })
}

/// A request whose files are removed on drop.
struct PostedRequest {
    request: PathBuf,
    answers: PathBuf,
    watch: FolderWatch,
    /// Offset, always at the end of a line.
    read_bytes: u64,
}

impl PostedRequest {
    fn post(run: &Path, verb: &Verb) -> Result<Self, RunError> {
        let folder = run.join(FOLDER);
        private_folder(&folder)?;
        let id = request_id();
        let (request, answers) = (request_file(run, &id), answers_file(run, &id));
        let of_this = answers.clone();
        let watch = FolderWatch::new(&folder, move |path| path == of_this);
        let posted = Self {
            request,
            answers,
            watch,
            read_bytes: 0,
        };
        let arguments = verb.arguments().into_iter().collect();
        let body = Request {
            v: PROTOCOL_VERSION,
            id,
            verb: verb.name().to_string(),
            arguments,
        };
        // Not synced: a request need not survive a crash before it is accepted.
        let temporary = posted.request.with_extension("tmp");
        let create = |path: &Path| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        };
        // The answers file comes first: a network file system may cache its absence.
        let written = create(&posted.answers)
            .and_then(|_| create(&temporary)?.write_all(&serde_json::to_vec(&body)?))
            .and_then(|()| std::fs::rename(&temporary, &posted.request));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
            .map_err(RunError::io("write", &posted.request))
            .map(|()| posted)
    }

    /// Whether a new worker has removed the answers file, so that no answer can arrive.
    fn is_orphaned(&self) -> bool {
        matches!(self.answers.try_exists(), Ok(false))
    }

    /// Returns complete lines since the last call, without those of a newer worker that cannot be
    /// parsed.
    fn new_answers(&mut self) -> Vec<Answer> {
        let mut bytes = Vec::new();
        let open = crate::files::open(&self.answers);
        // Bytes read before an error count; the next call reads the rest.
        let _ = open.and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read_bytes))
                .and_then(|_| file.read_to_end(&mut bytes))
        });
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        self.read_bytes += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| serde_json::from_slice::<AnswerLine>(line).ok())
            .map(|line| line.answer)
            .collect()
    }
}

impl Drop for PostedRequest {
    fn drop(&mut self) {
        for path in [&self.request, &self.answers] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Unique across clients and requests of this process.
fn request_id() -> String {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{}-{:x}-{}",
        std::process::id(),
        since.as_micros(),
        ASKED.fetch_add(1, Ordering::Relaxed)
    )
}
