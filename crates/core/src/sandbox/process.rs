//! A sandboxed program: started with limits, non-blocking pipes, ended with its children.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Resource, getrlimit, getuid};

use super::found_program::FoundFile;
use super::installed::{hidden_path, search_path};
use super::level::Level;
use super::messages::{Ended, Launch, Limit};
use super::program::SandboxedProgram;
use super::root::{HOME, RESERVED_PROCESSES};
use super::scratch::PrivateFolder;
use crate::format::shortened;

/// Bytes per read.
const PIECE: usize = 1 << 16;
/// Tail of standard error that is kept.
const MAX_STDERR_BYTES: usize = 4_096;
/// Limit per line shown.
const MAX_LINE_CHARS: usize = 500;
/// Path of the socket at which a Python process offers a function as reward (`python/grpo_tui/_relay.py`).
const REWARD_SOCKET: &str = "GRPO_TUI_REWARD_SOCKET";
/// Default limit of processes and threads.
const MAX_PROCESSES: u64 = 256;
const LOOK: Duration = Duration::from_millis(100);
/// Time to exit after closing its output.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Process {
    program: SandboxedProgram,
    stdin: Option<PipeWriter>,
    stdout: PipeReader,
    stderr: Option<PipeReader>,
    unsent: Vec<u8>,
    sent: usize,
    unread: Vec<u8>,
    /// Leading bytes of `unread` without a line end.
    searched: usize,
    complaint: Vec<u8>,
    closes_input: bool,
    sandbox: Sandbox,
    /// Home folder, unless the namespace has one.
    _home: Option<PrivateFolder>,
}

#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) program: ProgramPath,
    pub(crate) arguments: Vec<String>,
    pub(crate) folder: &'a Path,
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) joins_output: bool,
}

#[derive(Debug)]
pub(crate) struct ProgramPath {
    pub(super) path: PathBuf,
    /// `argv[0]`, if not the path.
    pub(super) name: Option<String>,
    pub(super) files: Vec<FoundFile>,
}

impl From<PathBuf> for ProgramPath {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            name: None,
            files: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) level: Level,
    /// Readable besides system programs and its own files.
    pub(crate) visible: Vec<PathBuf>,
    /// A folder among its own files that it may change.
    pub(crate) writable: Option<PathBuf>,
    /// Limit for each process, and for all together; 0: none.
    pub(crate) memory_mib: u64,
    /// Processes and threads in total; `None`: [`MAX_PROCESSES`].
    pub(crate) max_processes: Option<u64>,
    /// Whether it gets port [`super::PORT`] in its own network; requires [`Level::Strong`].
    pub(crate) has_port: bool,
    /// The `task.toml` block to name in remedies.
    pub(crate) block: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitOutcome {
    /// Bytes were read or written.
    Some,
    Ended,
    /// Timeout or cancellation.
    Late,
}

impl Sandbox {
    /// # Errors
    /// The task asks for more processes than the kernel gives a program.
    fn max_processes(&self) -> Result<u64, String> {
        let Some(asked) = self.max_processes else {
            return Ok(MAX_PROCESSES);
        };
        let numbers = crate::files::read_text("/proc/sys/kernel/pid_max".as_ref());
        let numbers = numbers
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        let given = numbers.map_or(u64::MAX, |most| most.saturating_sub(RESERVED_PROCESSES));
        if asked > given {
            return Err(format!(
                "max_processes = {asked} is more than this machine gives a program ({given}): lower it in {}, or raise kernel.pid_max with `sudo sysctl kernel.pid_max=4194304`",
                self.block
            ));
        }
        let own = getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX);
        if asked > own && !getuid().is_root() {
            return Err(format!(
                "max_processes = {asked} is more than this user may start ({own}): lower it in {}, or raise `ulimit -u`",
                self.block
            ));
        }
        Ok(asked)
    }
}

impl Process {
    pub(crate) fn start(sandbox: &Sandbox, program: &Program<'_>) -> Result<Self, String> {
        let home = if sandbox.level == Level::Strong {
            None
        } else {
            Some(PrivateFolder::new()?)
        };
        let home_path = home.as_ref().map_or(Path::new(HOME), PrivateFolder::path);
        let mut environment: BTreeMap<String, OsString> = program
            .variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect();
        environment.insert("PATH".to_owned(), search_path());
        environment.insert("LANG".to_owned(), "C.UTF-8".into());
        environment.extend(["HOME", "TMPDIR"].map(|name| (name.to_owned(), home_path.into())));
        // Only a program with the user's permissions could reach it.
        let socket = std::env::var_os(REWARD_SOCKET).filter(|_| sandbox.level == Level::None);
        environment.extend(socket.map(|socket| (REWARD_SOCKET.to_owned(), socket)));
        let launch = Launch {
            level: sandbox.level,
            program: program.program.path.clone(),
            name: program.program.name.clone(),
            files: program.program.files.clone(),
            arguments: program.arguments.clone(),
            folder: program.folder.to_owned(),
            environment,
            visible: sandbox.visible.clone(),
            writable: sandbox.writable.clone(),
            memory_mib: sandbox.memory_mib,
            max_processes: sandbox.max_processes()?,
            has_port: sandbox.has_port && sandbox.level == Level::Strong,
        };
        let no_pipe = |error: std::io::Error| format!("cannot set up pipes: {error}");
        let (input, stdin) = pipe().map_err(no_pipe)?;
        let (stdout, output) = pipe().map_err(no_pipe)?;
        let (stderr, error) = match program.joins_output {
            true => (None, output.try_clone().map_err(no_pipe)?),
            false => pipe()
                .map(|(stderr, error)| (Some(stderr), error))
                .map_err(no_pipe)?,
        };
        // Close our pipe ends, so that output ends with the program.
        let started =
            SandboxedProgram::start(&launch, &[input.into(), output.into(), error.into()])
                .map_err(|why| {
                    format!("cannot start {:?}: {why}", program.program.path.display())
                })?;
        let process = Self {
            program: started,
            stdin: Some(stdin),
            stdout,
            stderr,
            unsent: Vec::new(),
            sent: 0,
            unread: Vec::new(),
            searched: 0,
            complaint: Vec::new(),
            closes_input: false,
            sandbox: sandbox.clone(),
            _home: home,
        };
        process.unblock().map_err(|error| no_pipe(error.into()))?;
        Ok(process)
    }

    fn unblock(&self) -> rustix::io::Result<()> {
        if let Some(stdin) = &self.stdin {
            fcntl_setfl(stdin, OFlags::NONBLOCK)?;
        }
        if let Some(stderr) = &self.stderr {
            fcntl_setfl(stderr, OFlags::NONBLOCK)?;
        }
        fcntl_setfl(&self.stdout, OFlags::NONBLOCK)
    }

    /// Listener at its network's port; `None` without one.
    pub(crate) fn listener(&self) -> Option<&TcpListener> {
        self.program.listener.as_ref()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len() - self.sent
    }

    pub(crate) fn close_input(&mut self) {
        self.closes_input = true;
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Passes complete output lines, without their ends, to `take` until one is rejected.
    pub(crate) fn lines<E>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = 0;
        let mut result = Ok(());
        while let Some(length) = self.unread[self.searched.max(start)..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let end = self.searched.max(start) + length;
            result = take(&self.unread[start..end]);
            start = end + 1;
            if result.is_err() {
                break;
            }
        }
        self.unread.drain(..start);
        // A rejected line may be followed by others.
        self.searched = if result.is_ok() { self.unread.len() } else { 0 };
        result
    }

    /// Writes and reads what is possible, waiting until `until` at most and while `keep_going`.
    pub(crate) fn transfer(
        &mut self,
        until: Instant,
        keep_going: &dyn Fn() -> bool,
    ) -> std::io::Result<WaitOutcome> {
        if self.closes_input && self.unsent() == 0 {
            self.stdin = None;
        }
        let left = until.saturating_duration_since(Instant::now());
        let (left, is_last) = if left > LOOK {
            (LOOK, !keep_going())
        } else {
            (left, true)
        };
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let (writes, output, error) = {
            let mut fds = vec![PollFd::new(&self.stdout, PollFlags::IN)];
            fds.extend(
                self.stderr
                    .as_ref()
                    .map(|pipe| PollFd::new(pipe, PollFlags::IN)),
            );
            let writes = self
                .stdin
                .as_ref()
                .filter(|_| self.sent < self.unsent.len());
            fds.extend(writes.map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    return Ok(if is_last {
                        WaitOutcome::Late
                    } else {
                        WaitOutcome::Some
                    });
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Ok(WaitOutcome::Some),
                Err(error) => return Err(error.into()),
            }
            let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            let has_error = self.stderr.is_some();
            (
                writes.is_some() && is_ready(fds.last()),
                is_ready(fds.first()),
                has_error && is_ready(fds.get(1)),
            )
        };
        if error {
            self.read_complaint();
        }
        if writes {
            self.write()?;
        }
        if output {
            self.read()
        } else {
            Ok(WaitOutcome::Some)
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        match stdin.write(&self.unsent[self.sent..]) {
            Ok(count) => self.sent += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The end of output decides whether it ended.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.sent = self.unsent.len();
                self.stdin = None;
            }
            Err(error) => return Err(error),
        }
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
        }
        Ok(())
    }

    fn read(&mut self) -> std::io::Result<WaitOutcome> {
        let mut piece = [0; PIECE];
        match self.stdout.read(&mut piece) {
            Ok(0) => Ok(WaitOutcome::Ended),
            Ok(count) => {
                self.unread.extend_from_slice(&piece[..count]);
                Ok(WaitOutcome::Some)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(WaitOutcome::Some)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn complaint(&mut self) -> String {
        self.read_complaint();
        String::from_utf8_lossy(&self.complaint).into_owned()
    }

    fn read_complaint(&mut self) {
        let mut piece = [0; MAX_STDERR_BYTES];
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        match stderr.read(&mut piece) {
            Ok(count) if count > 0 => {
                self.complaint.extend_from_slice(&piece[..count]);
                let surplus = self.complaint.len().saturating_sub(MAX_STDERR_BYTES);
                self.complaint.drain(..surplus);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => self.stderr = None,
        }
    }

    /// Exit code once output has ended; `None`: killed by a signal.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.ended().code
    }

    fn ended(&mut self) -> Ended {
        if self.program.ended(LAST_WORDS).is_none() {
            self.program.kill();
        }
        self.program.ended(LAST_WORDS).unwrap_or_default()
    }

    /// How a process ended once output has ended, with the last line of standard error.
    pub(crate) fn last_words(&mut self) -> String {
        let Ended {
            code,
            signal,
            exceeded,
        } = self.ended();
        self.read_complaint();
        let ended = match (exceeded, code, signal) {
            (Some(Limit::Memory), ..) => {
                format!("used more than {} MiB of memory", self.sandbox.memory_mib)
            }
            (Some(Limit::Processes), ..) => format!(
                "started more than {} processes and threads (max_processes in {})",
                self.sandbox.max_processes.unwrap_or(MAX_PROCESSES),
                self.sandbox.block
            ),
            (None, Some(code), _) => format!("ended with exit code {code}"),
            (None, None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None, None) => "ended".to_owned(),
        };
        let text = String::from_utf8_lossy(&self.complaint);
        let last = final_complaint(&text).map_or_else(String::new, |line| {
            format!(": {}", shortened(line.trim(), MAX_LINE_CHARS))
        });
        format!("{ended}{last}")
    }

    /// [`Self::last_words`] with the remedy for a missing file.
    pub(crate) fn last_words_with_remedy(&mut self) -> String {
        let ended = self.last_words();
        let complaint = self.complaint();
        match final_complaint(&complaint).and_then(|line| self.hidden_file(line)) {
            Some(remedy) => format!("{ended}; {remedy}"),
            None => ended,
        }
    }

    /// Remedy for a file that is reported missing but only hidden by the sandbox.
    pub(crate) fn hidden_file(&self, line: &str) -> Option<String> {
        let Sandbox {
            level,
            visible,
            block,
            ..
        } = &self.sandbox;
        let path = if *level == Level::None {
            None
        } else {
            hidden_path(line, visible)
        }?;
        let path = path.display();
        Some(format!(
            "the sandbox hides {path}: add read = [\"{path}\"] to {block}, or isolation = \"none\""
        ))
    }
}

/// The error that ended it, else the last line: Node.js writes its version after the error and its
/// stack; after Python's there may be more of its text, and what libraries say at the end.
fn final_complaint(text: &str) -> Option<&str> {
    let mut lines = text.lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines.next()?;
    let is_error = |line: &&str| {
        let head = line.split([':', ' ']).next().unwrap_or_default();
        head.ends_with("Error") && line.contains(": ")
    };
    let found = match text.rfind("Traceback (most recent call last):\n") {
        Some(start) => text[start..].lines().skip(1).find(|line| {
            // Frames are indented.
            line.starts_with(|letter: char| !letter.is_whitespace())
        }),
        None if last.starts_with("Node.js v") => lines.find(is_error),
        None => lines.find(|line| line.starts_with("FATAL ERROR: ")),
    };
    found.or(Some(last))
}

#[cfg(test)]
mod tests {
    use super::final_complaint;

    #[test]
    fn the_error_of_node_is_shown_rather_than_its_version() {
        let node = |error: &str| {
            let code = "file:///a.js:1\nthrow new Error('x')\n^\n\n";
            format!("{code}{error}\n    at a.js:1:7\n    at main: Error\n\nNode.js v20.20.2\n")
        };
        for error in [
            "Error: ENOENT: no such file",
            "RangeError: WebAssembly.Memory(): could not allocate memory",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'x'",
        ] {
            assert_eq!(final_complaint(&node(error)), Some(error));
        }
        let fatal = "FATAL ERROR: Allocation failed - JavaScript heap out of memory";
        let stack = "----- Native stack trace -----\n\n 1: 0xb78db3 [node]\n";
        assert_eq!(
            final_complaint(&format!("<--- JS stacktrace --->\n\n{fatal}\n{stack}")),
            Some(fatal)
        );
        assert_eq!(final_complaint("Error: a\nb\n\n"), Some("b"));
        assert_eq!(
            final_complaint("a\nNode.js v20.20.2"),
            Some("Node.js v20.20.2")
        );
        assert_eq!(final_complaint(" \n"), None);
    }

    #[test]
    fn the_error_of_python_is_shown_rather_than_what_follows_it() {
        let frames = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\n    ^^^\n";
        let error = "a.ValidationError: 1 error for Invoice";
        let chain = format!("{frames}KeyError: 1\n\nDuring it:\n\n{frames}{error}");
        for end in [
            "",
            "\n",
            "\n  Field required\n",
            "\nvendor\n[non-fatal] Tracing: gave up\n",
        ] {
            assert_eq!(final_complaint(&format!("{chain}{end}")), Some(error));
        }
        let cut_off = "Traceback (most recent call last):\n  File";
        assert_eq!(final_complaint(cut_off), Some("  File"));
    }
}
