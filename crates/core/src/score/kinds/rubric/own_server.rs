//! Server of a local judge model: `grpo-tui serve` on a Unix socket in a private folder. Owned by
//! the process that starts it, with which it ends in any case.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::files::{self, Access};
use crate::score::needs::LocalModel;
use crate::score::needs::rubric_rules::digest;
use crate::score::threads::given_threads;
use crate::secrets::visible;

/// File names in the folder.
const SOCKET: &str = "socket";
const LOG: &str = "server.log";
const OWNER: &str = "owner.lock";
const READY: &str = "ready.json";
const MAX_LOG_BYTES: u64 = 1 << 20;
const LOOK: Duration = Duration::from_millis(50);

static REPORT: OnceLock<fn(&str)> = OnceLock::new();

/// Sets a callback for the message that a judge is being loaded, with the path of its log.
pub fn report_loading(report: fn(&str)) {
    // The first reporter wins.
    _ = REPORT.set(report);
}

/// A server's model once loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyModel {
    pub digest: String,
}

/// A running server, of this or another process of the run.
#[derive(Debug)]
pub(super) struct OwnServer {
    folder: PathBuf,
    pub(super) digest: String,
    /// `None` if owned by another process.
    own: Option<Mutex<OwnProcess>>,
}

/// The process, and the owner's lock: released once the process has ended, so that another can be
/// started.
#[derive(Debug)]
struct OwnProcess {
    child: Child,
    lock: Option<File>,
}

impl OwnServer {
    /// A model's server, loaded if necessary; waits until it is ready.
    ///
    /// # Errors
    /// Why it could not be loaded, and the path of its log.
    pub(super) fn of(model: &LocalModel) -> Result<Arc<Self>, String> {
        type Known = Mutex<HashMap<LocalModel, Arc<Mutex<Weak<OwnServer>>>>>;
        static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);
        let known = Arc::clone(KNOWN.lock().entry(model.clone()).or_default());
        // Parallel requests load it once.
        let mut server = known.lock();
        if let Some(running) = server.upgrade().filter(|running| !running.has_ended()) {
            return Ok(running);
        }
        let started = Arc::new(Self::find_or_start(model)?);
        *server = Arc::downgrade(&started);
        Ok(started)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    pub(super) fn has_ended(&self) -> bool {
        match &self.own {
            Some(own) => {
                let mut own = own.lock();
                let has_ended = !matches!(own.child.try_wait(), Ok(None));
                if has_ended && own.lock.take().is_some() {
                    _ = std::fs::remove_file(self.folder.join(READY));
                }
                has_ended
            }
            None => owner_lock(&self.folder).is_ok_and(|lock| lock.is_some()),
        }
    }

    /// Its last message, and the path of the log.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.folder)
    }

    fn find_or_start(model: &LocalModel) -> Result<Self, String> {
        let cache = directories::ProjectDirs::from("", "", "grpo-tui")
            .map(|folders| folders.cache_dir().to_owned());
        let servers = cache
            .ok_or("no folder for the judge's server: set HOME or XDG_CACHE_HOME")?
            .join("judge-servers");
        let process = std::process::id();
        remove_left(&servers);
        let host = files::read_text(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
        let of = model
            .run
            .as_ref()
            .map_or_else(|| process.to_string(), |run| run.display().to_string());
        let key = format!(
            "{model:?}\n{of}\n{}\n{}",
            host.trim(),
            env!("CARGO_PKG_VERSION")
        );
        let owner = if model.run.is_some() {
            "run".to_owned()
        } else {
            process.to_string()
        };
        let folder = servers.join(format!("{owner}-{}", &digest(&key)[..12]));
        let failed = |error: std::io::Error| {
            format!(
                "{}: {error}: the judge {} is not loaded",
                folder.display(),
                model.name
            )
        };
        files::ensure_folder(&folder, Access::Private).map_err(failed)?;
        loop {
            if let Some(lock) = owner_lock(&folder).map_err(failed)? {
                return Self::start(model, &folder, lock);
            }
            // Another process of the run has it, or is loading it.
            let ready = files::read_at_most(&folder.join(READY), MAX_LOG_BYTES).ok();
            if let Some(ReadyModel { digest }) =
                ready.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            {
                return Ok(Self {
                    folder,
                    digest,
                    own: None,
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn start(model: &LocalModel, folder: &Path, lock: File) -> Result<Self, String> {
        let failed = |error: std::io::Error| {
            format!("the judge {} could not be loaded: {error}", model.name)
        };
        let ready = folder.join(READY);
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let log_path = folder.join(LOG);
        let log = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&log_path);
        let log = log.map_err(failed)?;
        if let Some(report) = REPORT.get() {
            report(&format!(
                "loading the judge {} on {} (log: {})",
                model.name,
                model.device,
                log_path.display()
            ));
        }
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("grpo-tui")
            .args(["serve", &model.name, "--owned", "--socket"])
            .arg(folder);
        command
            .args(model.device.arguments())
            .envs(given_threads())
            .current_dir(&model.folder);
        if let Some(runs) = model.run.as_deref().and_then(Path::parent) {
            command.arg("--runs").arg(runs);
        }
        // Its standard input is open while this process lives. Shielded from the terminal's
        // interrupt: pending answers are still scored.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let mut line = String::new();
        let said = child
            .stdout
            .take()
            .map(|output| BufReader::new(output).read_line(&mut line));
        match serde_json::from_str(&line) {
            Ok(ready_model @ ReadyModel { .. }) => {
                let bytes = serde_json::to_vec(&ready_model).unwrap_or_default();
                let own = Some(Mutex::new(OwnProcess {
                    child,
                    lock: Some(lock),
                }));
                let server = Self {
                    folder: folder.to_owned(),
                    digest: ready_model.digest,
                    own,
                };
                files::replace_file(&ready, &bytes, Access::Private).map_err(failed)?;
                Ok(server)
            }
            Err(_) => {
                _ = child.kill();
                let status = child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                let why = match said {
                    Some(Err(error)) => error.to_string(),
                    _ => status,
                };
                Err(format!(
                    "the judge {} could not be loaded on {} ({why}){}",
                    model.name,
                    model.device,
                    last_words(folder)
                ))
            }
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        let mut own = own.lock();
        // Do not wait for its pending work.
        _ = own.child.kill();
        _ = own.child.wait();
        if own.lock.take().is_some() {
            _ = std::fs::remove_file(self.folder.join(READY));
        }
    }
}

/// Lock of the owner of a folder's server; `None` if another process holds it. Released when the
/// owner ends.
fn owner_lock(folder: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(OWNER))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn remove_left(servers: &Path) {
    for entry in std::fs::read_dir(servers).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .split_once('-')
            .and_then(|(process, _)| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn last_words(folder: &Path) -> String {
    let path = folder.join(LOG);
    let text = files::read_at_most(&path, MAX_LOG_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines.clone().next();
    // The first line of an error names the problem.
    let error = lines.find_map(|line| line.strip_prefix("error: "));
    let said = error
        .or(last)
        .map_or_else(String::new, |said| format!(": {}", visible(said)));
    format!("{said}; its log is {}", path.display())
}
