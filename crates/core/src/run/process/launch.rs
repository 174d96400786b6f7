//! Starts a worker that outlives its launcher: this binary in a new session, which inherits only a
//! pipe for reporting `ready`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::pulled::Pulled;
use crate::score::given_threads;

/// Environment variable with the pipe's descriptor.
const READY: &str = "GRPO_TUI_READY_FD";

const MAX_REPORT_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The first free GPU, or as many as the run has ranks; otherwise the CPU.
    #[default]
    Any,
    Cpu,
    /// GPUs for all ranks, as indices among the devices that CUDA exposes to this process.
    Gpus(Vec<usize>),
}

impl DeviceChoice {
    pub fn from_flags(gpus: impl IntoIterator<Item = usize>, cpu: bool) -> Self {
        let gpus: Vec<usize> = gpus.into_iter().collect();
        match gpus.is_empty() {
            false => Self::Gpus(gpus),
            true if cpu => Self::Cpu,
            true => Self::Any,
        }
    }

    /// The equivalent flags; with several GPUs those of a worker.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Any => Vec::new(),
            Self::Cpu => vec!["--cpu".to_owned()],
            Self::Gpus(gpus) => {
                vec![
                    "--gpu".to_owned(),
                    gpus.iter()
                        .map(usize::to_string)
                        .collect::<Vec<_>>()
                        .join(","),
                ]
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct Launch {
    pub compute: DeviceChoice,
    pub resume: bool,
    /// Number of processes; `None`: as configured.
    pub ranks: Option<u16>,
    /// `None`: this program.
    pub program: Option<PathBuf>,
    pub patience: Duration,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            compute: DeviceChoice::Any,
            resume: false,
            ranks: None,
            program: None,
            patience: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchedWorker {
    pub pid: u32,
    /// Whether the worker reported `ready` in time.
    pub ready: bool,
    pub log: PathBuf,
}

/// Starts a worker on a run and waits for its report.
///
/// # Errors
/// [`RunError::Launch`] with the worker's reason, or the end of its log if it gave none;
/// [`RunError::Foreign`] and [`RunError::Loose`] if others could tamper with the run.
pub fn launch(run: &RunDirectory, how: &Launch) -> Result<LaunchedWorker, RunError> {
    if let Some(copy) = Pulled::for_run(run.path()) {
        return Err(RunError::NoWorker {
            path: run.path().to_owned(),
            standing: copy.standing(),
        });
    }
    run.check_private()?;
    let mut arguments: Vec<OsString> = vec!["worker".into(), "--run".into(), run.path().into()];
    arguments.extend(how.compute.arguments().into_iter().map(OsString::from));
    arguments.extend(how.resume.then(|| "--resume".into()));
    arguments.extend(how.ranks.map(|ranks| format!("--ranks={ranks}").into()));
    launch_in(run.path(), "worker.log", &arguments, how)
}

/// Starts this program in `folder`, which must be private to this user, and appends its output to
/// the file `log` there.
pub(super) fn launch_in(
    folder: &Path,
    log: &str,
    arguments: &[OsString],
    how: &Launch,
) -> Result<LaunchedWorker, RunError> {
    let failed = |message: String| RunError::Launch {
        path: folder.to_owned(),
        message,
    };
    let log_path = folder.join(log);
    let log = open_log(&log_path)?;
    let log_start = log
        .metadata()
        .map_err(RunError::io("read", &log_path))?
        .len();
    let (receiver, sender) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(format!("no pipe: {error}")))?;
    let log_again = log.try_clone().map_err(RunError::io("open", &log_path))?;
    let mut command = command(
        folder,
        arguments,
        how.program.as_deref(),
        sender.as_raw_fd(),
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(log_again));
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("the program could not be started: {error}")))?;
    drop((sender, command));
    let word = first_word(receiver, how.patience);
    let pid = child.id();
    let outcome = match word.as_deref() {
        None => Ok(LaunchedWorker {
            pid,
            ready: false,
            log: log_path,
        }),
        Some("ready") => Ok(LaunchedWorker {
            pid,
            ready: true,
            log: log_path,
        }),
        Some(word) => match word.strip_prefix("error: ") {
            Some(reason) => Err(failed(reason.to_owned())),
            None => {
                // The pipe is closed, so the worker has died or will soon.
                let status = child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(failed(format!(
                    "it exited before it was ready ({status}){}",
                    end_of_log(&log_path, log_start)
                )))
            }
        },
    };
    // Reaps the worker, which would otherwise become a zombie while the launcher runs.
    let _ = std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || child.wait());
    outcome
}

fn open_log(path: &Path) -> Result<File, RunError> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(RunError::io("open", path))
}

fn command(
    folder: &Path,
    arguments: &[OsString],
    program: Option<&Path>,
    sender: RawFd,
) -> Command {
    // The running program, even if its file was replaced.
    let mut command = Command::new(program.unwrap_or(Path::new("/proc/self/exe")));
    command.arg0("grpo-tui").args(arguments);
    command
        .current_dir(folder)
        .envs(given_threads())
        .env(READY, sender.to_string());
    // SAFETY: between fork and exec only system calls are made, without allocation and without
    // locks that another thread may hold. `sender` is open in the child, which has a copy of every
    // descriptor of this process.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            rustix::process::umask(Mode::from_raw_mode(0o077));
            crate::files::close_on_exec_from(3);
            rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(sender), FdFlags::empty())?;
            Ok(())
        });
    }
    command
}

/// The first line on the pipe, empty if it was closed without one; `None` after the timeout.
fn first_word(receiver: OwnedFd, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut receiver = File::from(receiver);
    let (mut bytes, mut chunk) = (Vec::new(), [0u8; 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        if !matches!(
            poll(&mut [PollFd::new(&receiver, PollFlags::IN)], Some(&timeout)),
            Ok(1..)
        ) {
            continue;
        }
        let length = receiver.read(&mut chunk).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..length]);
        if length == 0 || bytes.contains(&b'\n') || bytes.len() > MAX_REPORT_BYTES {
            return Some(
                String::from_utf8_lossy(&bytes)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
}

fn end_of_log(path: &Path, start: u64) -> String {
    match last_line_where(path, start, |_| true) {
        Some(last) => format!("; last line of {}: {last}", path.display()),
        None => format!("; {} is empty", path.display()),
    }
}

/// The last matching line among the last 4 kB written since `start`.
pub(in crate::run) fn last_line_where(
    path: &Path,
    start: u64,
    counts: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut text = Vec::new();
    let read = crate::files::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(4096))))?;
        file.read_to_end(&mut text)
    });
    let text = String::from_utf8_lossy(&text);
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty() && counts(line));
    last.filter(|_| read.is_ok()).map(str::to_owned)
}

/// The worker's end of the pipe. Dropped without a report, it tells the launcher that the worker
/// has died.
#[derive(Debug)]
pub struct ReadyPipe {
    pipe: Option<File>,
}

impl ReadyPipe {
    /// The launcher's pipe, if any. Call it once, before any other file is opened.
    pub fn from_environment() -> Self {
        let number = std::env::var(READY)
            .ok()
            .and_then(|text| text.parse::<RawFd>().ok())
            .filter(|number| *number > 2);
        Self {
            pipe: number.and_then(adopt),
        }
    }

    pub fn ready(self) {
        self.say("ready");
    }

    pub fn failed(self, reason: &str) {
        self.say(&format!(
            "error: {}",
            reason.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }

    fn say(mut self, word: &str) {
        if let Some(pipe) = &mut self.pipe {
            // The launcher may have exited.
            let _ = pipe.write_all(format!("{word}\n").as_bytes());
        }
    }
}

/// The descriptor `number` if it is a pipe; a variable left by another process may name anything.
fn adopt(number: RawFd) -> Option<File> {
    let kind = std::fs::metadata(format!("/proc/self/fd/{number}"))
        .ok()?
        .file_type();
    if !kind.is_fifo() {
        return None;
    }
    // SAFETY: the kernel just listed the descriptor, so it is open, and nothing else in this
    // process owns it: the launcher passed it for this use only.
    let pipe = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&pipe, FdFlags::CLOEXEC).ok()?;
    Some(File::from(pipe))
}
