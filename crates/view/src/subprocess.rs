//! Runs this program as a cancellable background subprocess, for work that needs the engine.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, Signal, kill_process_group};

use super::command_log::CommandLine;
use super::options::Options;
use super::shared::Shared;
use crate::run::Status;
use crate::score::given_threads;

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Further lines of stderr are dropped.
const MAX_STDERR_LINES: usize = 200;
/// Lines of output that are shown of an own command: the last ones.
const MAX_OUTPUT_LINES: usize = 2_000;
/// Longer lines are split.
const MAX_LINE_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone)]
pub struct Call {
    pub program: PathBuf,
    pub here: PathBuf,
    pub arguments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputLine {
    /// A line of standard output: a result, or part of one.
    Result(String),
    /// A line of standard error: progress, or an error.
    Progress(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub success: bool,
    /// Lines of stderr, without overwritten progress.
    pub stderr: Vec<String>,
}

impl Exit {
    /// The error: the lines from the last `error` on, else the last line.
    pub fn reason(&self) -> String {
        let from = self
            .stderr
            .iter()
            .rposition(|line| line.starts_with("error"))
            .unwrap_or(self.stderr.len().saturating_sub(1));
        let words = self.stderr[from..].join(" ");
        let words = words.trim_start_matches("error:").trim();
        if words.is_empty() {
            "exited without output".to_owned()
        } else {
            words.to_owned()
        }
    }
}

pub fn task_argument(shared: &Shared) -> Option<String> {
    let task = &shared.task.as_ref()?.task;
    Some(task.folder().map_or_else(
        || task.name.clone(),
        |folder| shared.options.here.join(folder).display().to_string(),
    ))
}

/// The task of the open run as a command-line argument, and its name; without a run, those of the
/// open task.
pub fn run_task_argument(shared: &Shared) -> Option<(String, String)> {
    match shared.current_run().and_then(|run| run.directory.as_ref()) {
        Some(run) => Some((
            run.first_task_path().display().to_string(),
            run.file().task.clone(),
        )),
        None => Some((
            task_argument(shared)?,
            shared.task.as_ref()?.task.name.clone(),
        )),
    }
}

/// Which weights of the open run are used, and their command-line argument; or why there are none
/// yet.
pub fn trained_argument(shared: &Shared) -> Result<(&'static str, String), String> {
    let run = shared.current_run().ok_or_else(|| shared.no_open_run())?;
    let is_active = !run.status().is_ended() && run.status() != Status::Created;
    if run.history.checkpoints.is_empty() && !is_active {
        return Err(format!("{} has no checkpoint yet", run.id()));
    }
    let (at, what) = match run.best {
        // The worker answers between two steps.
        _ if is_active => ("last", "current weights"),
        // The best checkpoint is the base itself.
        Some(0) => ("last", "last checkpoint"),
        _ => ("best", "best checkpoint"),
    };
    Ok((what, format!("{}@{at}", run.path().display())))
}

impl Call {
    /// A call from the folder where the view was started.
    pub fn with_arguments<A: Into<String>>(
        options: &Options,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let Options { program, here, .. } = options;
        Self {
            program: program.clone(),
            here: here.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    pub fn command_line(&self) -> CommandLine {
        self.arguments.iter().collect()
    }

    /// Runs to completion and parses the printed JSON document. Blocks.
    ///
    /// # Errors Returns the program's error, or why it could not be started.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        let mut document = String::new();
        let on_line = &mut |line| {
            if let OutputLine::Result(line) = line {
                document.push_str(&line);
                document.push('\n');
            }
        };
        match self.run_through(on_line)? {
            ended if !ended.success => Err(ended.reason()),
            _ => serde_json::from_str(&document).map_err(|error| {
                format!("{} printed invalid JSON: {error}", self.program.display())
            }),
        }
    }

    /// Runs to completion; whether it succeeded, and the last lines that it printed. Blocks.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn output(&self) -> Result<(bool, Vec<String>), String> {
        let mut lines = VecDeque::new();
        let mut keep = |line| {
            let (OutputLine::Result(line) | OutputLine::Progress(line)) = line;
            if lines.len() == MAX_OUTPUT_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        };
        let ended = self.run(&CancelToken::default(), &mut keep)?;
        Ok((ended.is_some_and(|ended| ended.success), lines.into()))
    }

    /// Runs to completion, passing every line to `on_line`. Blocks. Returns `None` if cancelled.
    /// The program and its children end with the view.
    pub fn run(
        &self,
        cancel: &CancelToken,
        on_line: &mut dyn FnMut(OutputLine),
    ) -> Result<Option<Exit>, String> {
        let mut command = self.command();
        // SAFETY: between fork and exec only one system call is made. The kernel kills the child if the view dies.
        unsafe {
            command.pre_exec(|| {
                Ok(rustix::process::set_parent_process_death_signal(Some(
                    Signal::KILL,
                ))?)
            })
        };
        let child = {
            let mut children = children();
            let Some(list) = children.as_mut() else {
                return Ok(None);
            };
            let child = self.spawn(command)?;
            list.extend(group(&child));
            child
        };
        self.wait(child, cancel, on_line)
    }

    /// Like [`Self::run`] for a program that must finish even if the view exits, such as a launch.
    pub fn run_through(&self, on_line: &mut dyn FnMut(OutputLine)) -> Result<Exit, String> {
        let ended = self.wait(
            self.spawn(self.command())?,
            &CancelToken::default(),
            on_line,
        )?;
        ended.ok_or_else(|| format!("{} was cancelled", self.program.display()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // This program is run by the path of its file, wherever it was moved to.
        if self.program == Path::new("/proc/self/exe") {
            command.arg0("grpo-tui");
        }
        command
            .args(&self.arguments)
            .envs(given_threads())
            .current_dir(&self.here);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn spawn(&self, mut command: Command) -> Result<Child, String> {
        command.spawn().map_err(|error| {
            format!(
                "{} in {}: {error}; check that the folder exists",
                self.program.display(),
                self.here.display()
            )
        })
    }

    fn wait(
        &self,
        mut child: Child,
        cancel: &CancelToken,
        on_line: &mut dyn FnMut(OutputLine),
    ) -> Result<Option<Exit>, String> {
        let (sender, receiver) = channel();
        if let Some(output) = child.stdout.take() {
            read_lines(output, sender.clone(), OutputLine::Result);
        }
        if let Some(errors) = child.stderr.take() {
            read_lines(errors, sender, OutputLine::Progress);
        }
        let mut stderr = Vec::new();
        let is_cancelled = loop {
            if cancel.is_cancelled() {
                break true;
            }
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(line) => {
                    if let OutputLine::Progress(text) = &line
                        && stderr.len() < MAX_STDERR_LINES
                    {
                        stderr.push(text.clone());
                    }
                    on_line(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        if is_cancelled {
            // Fails harmlessly if it has already exited.
            let _ = group(&child).map(|group| kill_process_group(group, Signal::KILL));
        }
        // Before the child is reaped: its pid may be reused afterwards.
        if let (Some(list), Some(group)) = (children().as_mut(), group(&child)) {
            list.retain(|other| *other != group);
        }
        let status = child
            .wait()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        Ok((!is_cancelled).then_some(Exit {
            success: status.success(),
            stderr,
        }))
    }
}

/// Process groups of the children that end with the view; `None` once it has ended.
static CHILDREN: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

fn children() -> MutexGuard<'static, Option<Vec<Pid>>> {
    CHILDREN.lock()
}

fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Kills the children that end with the view, and prevents further starts.
pub(super) fn end_children() {
    signal_children(Signal::KILL);
    *children() = None;
}

pub(super) fn signal_children(signal: Signal) {
    for group in children().iter().flatten() {
        let _ = kill_process_group(*group, signal);
    }
}

/// Sends lines until the receiver is dropped.
fn read_lines(
    from: impl Read + Send + 'static,
    sender: Sender<OutputLine>,
    kind: fn(String) -> OutputLine,
) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)
            {
                Ok(1..) => {}
                _ => return,
            }
            let text = String::from_utf8_lossy(&line);
            // Keeps the last version of a line overwritten by carriage returns.
            let text = text
                .trim_end_matches(['\n', '\r'])
                .rsplit('\r')
                .next()
                .unwrap_or_default();
            let text: String = text
                .chars()
                .filter(|letter| !letter.is_control() || *letter == '\t')
                .collect();
            if !text.trim().is_empty() && sender.send(kind(text)).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Call {
            program: PathBuf::from("/bin/sh"),
            here: PathBuf::from("/"),
            arguments,
        }
    }

    #[test]
    fn lines_come_as_they_are_and_the_reason_is_the_last_word() {
        let check = |script: &str, success, results: &[&str], reason: &str| {
            let mut output = Vec::new();
            let ended = shell(script)
                .run(&CancelToken::default(), &mut |line| output.push(line))
                .unwrap()
                .unwrap();
            let lines: Vec<&str> = output
                .iter()
                .filter_map(|line| {
                    if let OutputLine::Result(line) = line {
                        Some(line.as_str())
                    } else {
                        None
                    }
                })
                .collect();
            assert_eq!(
                (ended.success, lines.as_slice()),
                (success, results),
                "{script}"
            );
            assert_eq!(ended.reason(), reason, "{script}");
        };
        check(
            "echo one; echo two",
            true,
            &["one", "two"],
            "exited without output",
        );
        check(
            "echo loading >&2; echo 'error: no model' >&2; exit 2",
            false,
            &[],
            "no model",
        );
        check("printf '10 %%\\r20 %%\\n' >&2; exit 1", false, &[], "20 %");
        check(
            "printf '\\033[2Jx\\n'",
            true,
            &["[2Jx"],
            "exited without output",
        );
        check("exit 1", false, &[], "exited without output");
    }

    #[test]
    fn the_answer_is_one_document_or_a_complaint() {
        let check = |script: &str, expected: Result<serde_json::Value, &str>| match (
            shell(script).json(),
            expected,
        ) {
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{script}: {found}"),
            (found, expected) => assert_eq!(
                found.as_ref().ok(),
                expected.as_ref().ok(),
                "{script}: {found:?}"
            ),
        };
        check(
            "printf '{\n\"run\":\n\"a\"}'",
            Ok(serde_json::json!({"run": "a"})),
        );
        check(
            "echo progress >&2; echo 'error: no such run' >&2; exit 1",
            Err("no such run"),
        );
        check("echo nothing", Err("printed invalid JSON"));
    }

    #[test]
    fn a_call_that_is_given_up_ends() {
        let cancel = CancelToken::default();
        let stop = cancel.clone();
        // Grandchildren are killed too: one that keeps the output open would block the wait.
        let mut child = None;
        let outcome = shell("sleep 60 & echo $!; wait").run(&cancel, &mut |line| {
            if let OutputLine::Result(line) = line {
                child = line.parse::<i32>().ok();
                stop.cancel();
            }
        });
        assert_eq!(outcome, Ok(None));
        let child = std::path::PathBuf::from(format!("/proc/{}/stat", child.unwrap()));
        let is_gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        assert!((0..500).any(|_| is_gone() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
        let absent = Call {
            program: PathBuf::from("/no/such/program"),
            ..shell("")
        };
        assert!(
            absent
                .run(&CancelToken::default(), &mut |_| ())
                .unwrap_err()
                .contains("/no/such/program")
        );
    }
}
