//! `service` of `[agent]`: a program shared by a run's conversations. Starts with the first of
//! them; ends with the task, or with this process, however that ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::program_process::TrustedProgram;
use crate::sandbox::{PrivateFolder, Process, WaitOutcome};

/// Holds the path of the Unix socket at which the service answers its agents.
const VARIABLE: &str = "AGENT_SERVICE";
/// Interval of checks whether the service is still needed.
const LOOK: Duration = Duration::from_millis(100);
/// Kernel limit of a Unix socket's path.
const MAX_PATH_BYTES: usize = 107;

/// Runs at most one process at a time.
#[derive(Debug)]
pub(super) struct AgentService {
    program: TrustedProgram,
    running: Mutex<Option<Arc<RunningService>>>,
}

/// Dropping it ends all that the service started.
#[derive(Debug)]
pub(super) struct RunningService {
    socket: PathBuf,
    /// How it ended: a sentence without a subject.
    ended: Arc<OnceLock<String>>,
    is_unwanted: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    /// Working folder.
    _copies: PrivateFolder,
}

impl AgentService {
    pub(super) fn new(program: TrustedProgram) -> Self {
        Self {
            program,
            running: Mutex::default(),
        }
    }

    pub(super) fn running(&self) -> Result<Arc<RunningService>, String> {
        let mut running = self.running.lock();
        match &*running {
            Some(service) if service.ended().is_none() => Ok(Arc::clone(service)),
            _ => {
                let started = RunningService::start(&self.program)
                    .map_err(|why| format!("its service: {why}"))?;
                Ok(Arc::clone(running.insert(Arc::new(started))))
            }
        }
    }
}

impl RunningService {
    fn start(program: &TrustedProgram) -> Result<Self, String> {
        let copies = program.files.copies()?;
        let socket = copies.path().join("service");
        let text = path_text(&socket)?;
        let variables = [(VARIABLE, text)];
        let process = Process::start(
            &program.files.sandbox,
            &program
                .files
                .program(&program.rules.command, &copies, &variables),
        )?;
        let (ended, is_unwanted): (Arc<OnceLock<String>>, Arc<AtomicBool>) = Default::default();
        let reader = std::thread::spawn({
            let (ended, is_unwanted) = (Arc::clone(&ended), Arc::clone(&is_unwanted));
            move || read(process, &ended, &is_unwanted)
        });
        Ok(Self {
            socket,
            ended,
            is_unwanted,
            reader: Some(reader),
            _copies: copies,
        })
    }

    pub(super) fn variable(&self) -> Result<(&'static str, &str), String> {
        Ok((VARIABLE, path_text(&self.socket)?))
    }

    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }
}

impl Drop for RunningService {
    fn drop(&mut self) {
        self.is_unwanted.store(true, Ordering::Relaxed);
        _ = self.reader.take().map(JoinHandle::join);
    }
}

fn path_text(socket: &Path) -> Result<&str, String> {
    let text = socket.to_str().filter(|text| text.len() <= MAX_PATH_BYTES);
    text.ok_or_else(|| {
        format!(
            "the path {} is too long for a socket: set XDG_CACHE_HOME to a shorter one",
            socket.display()
        )
    })
}

/// Drains the service's output, so that it never blocks, until it ends or should end.
fn read(mut process: Process, ended: &OnceLock<String>, is_unwanted: &AtomicBool) {
    while !is_unwanted.load(Ordering::Relaxed) {
        let moved = process.transfer(Instant::now() + LOOK, &|| true);
        _ = process.lines(|_| Ok::<_, ()>(()));
        if matches!(moved, Ok(WaitOutcome::Ended) | Err(_)) {
            _ = ended.set(process.last_words());
            return;
        }
    }
}
