//! This program again, as a subprocess: runs what needs the engine, in the background, and can be cancelled.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::options::Options;
use super::shared::Shared;
use crate::score::given_threads;

/// How often a running program looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// More lines of what it says are not kept.
const MOST_TOLD: usize = 200;
/// A longer line is cut here.
const LONGEST_LINE_BYTES: u64 = 64 << 20;

/// Tells a running program that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// End it.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One call of this program.
#[derive(Debug, Clone)]
pub struct Call {
    pub program: PathBuf,
    /// The folder in which it runs.
    pub here: PathBuf,
    pub arguments: Vec<String>,
}

/// A line that a running program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputLine {
    /// On stdout: a result, or a part of one.
    Result(String),
    /// On stderr: how it goes, or why it went wrong.
    Progress(String),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Whether its exit code was 0.
    pub success: bool,
    /// What it wrote on stderr, line by line, and not as progress that it wrote over.
    pub told: Vec<String>,
}

impl Exit {
    /// Why it failed, in its own last words.
    pub fn reason(&self) -> String {
        let from =
            self.told.iter().rposition(|line| line.starts_with("error")).unwrap_or(self.told.len().saturating_sub(1));
        let words = self.told[from..].join(" ");
        let words = words.trim_start_matches("error:").trim();
        if words.is_empty() { "exited without output".to_owned() } else { words.to_owned() }
    }
}

/// How the open task is named to the program; `None` where none is open.
pub fn task_argument(shared: &Shared) -> Option<String> {
    let task = &shared.task.as_ref()?.task;
    Some(
        task.folder()
            .map_or_else(|| task.name.clone(), |folder| shared.options.here.join(folder).display().to_string()),
    )
}

impl Call {
    /// A call from where the view was started.
    pub fn of<A: Into<String>>(options: &Options, arguments: impl IntoIterator<Item = A>) -> Self {
        let Options { program, here, .. } = options;
        Self {
            program: program.clone(),
            here: here.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// Run it to its end and read the JSON document that it prints. Blocks, so it belongs into work.
    ///
    /// # Errors
    /// Its own last words, or why it could not be started.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        let mut document = String::new();
        let heard = &mut |said| {
            if let OutputLine::Result(line) = said {
                document.push_str(&line);
                document.push('\n');
            }
        };
        match self.run_through(heard)? {
            ended if !ended.success => Err(ended.reason()),
            _ => serde_json::from_str(&document)
                .map_err(|error| format!("{} printed invalid JSON: {error}", self.program.display())),
        }
    }

    /// Run it to its end; `heard` is given every line as it comes. Blocks, so it belongs into work. `None` where it was
    /// given up. It ends with the view, and so does whatever it has started.
    ///
    /// # Errors
    /// A sentence where the program could not be started.
    pub fn run(&self, cancel: &CancelToken, heard: &mut dyn FnMut(OutputLine)) -> Result<Option<Exit>, String> {
        let mut command = self.command();
        // SAFETY: between fork and exec only one system call is made. However the view dies, the kernel ends the child.
        unsafe { command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)) };
        let child = {
            let mut children = children();
            let Some(list) = children.as_mut() else { return Ok(None) };
            let child = self.spawn(command)?;
            list.extend(group(&child));
            child
        };
        self.hear(child, cancel, heard)
    }

    /// The same for what must come to its end whatever becomes of the view, such as a launch.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_through(&self, heard: &mut dyn FnMut(OutputLine)) -> Result<Exit, String> {
        let ended = self.hear(self.spawn(self.command())?, &CancelToken::default(), heard)?;
        ended.ok_or_else(|| format!("{} was cancelled", self.program.display()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("grpo-tui").args(&self.arguments).envs(given_threads()).current_dir(&self.here);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    fn spawn(&self, mut command: Command) -> Result<Child, String> {
        command.spawn().map_err(|error| {
            format!("{} in {}: {error}; check that the folder exists", self.program.display(), self.here.display())
        })
    }

    fn hear(
        &self,
        mut child: Child,
        cancel: &CancelToken,
        heard: &mut dyn FnMut(OutputLine),
    ) -> Result<Option<Exit>, String> {
        let (tell, told) = channel();
        if let Some(output) = child.stdout.take() {
            read_lines(output, tell.clone(), OutputLine::Result);
        }
        if let Some(errors) = child.stderr.take() {
            read_lines(errors, tell, OutputLine::Progress);
        }
        let mut words = Vec::new();
        let timed_out = loop {
            if cancel.is_asked() {
                break true;
            }
            match told.recv_timeout(LOOK) {
                Ok(said) => {
                    if let OutputLine::Progress(line) = &said
                        && words.len() < MOST_TOLD
                    {
                        words.push(line.clone());
                    }
                    heard(said);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        if timed_out {
            // One that has ended already needs no end.
            let _ = group(&child).map(|group| kill_process_group(group, Signal::KILL));
        }
        // Before it is waited for: after that its number may be another's.
        if let (Some(list), Some(group)) = (children().as_mut(), group(&child)) {
            list.retain(|other| *other != group);
        }
        let status = child.wait().map_err(|error| format!("{}: {error}", self.program.display()))?;
        Ok((!timed_out).then_some(Exit { success: status.success(), told: words }))
    }
}

/// The process groups of the children that end with the view; `None` once it has ended.
static CHILDREN: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

fn children() -> MutexGuard<'static, Option<Vec<Pid>>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// The view ends, and with it what it has started and does not outlive it.
pub(super) fn end_children() {
    signal_children(Signal::KILL);
    *children() = None;
}

/// Sends a signal to the children that end with the view.
pub(super) fn signal_children(signal: Signal) {
    for group in children().iter().flatten() {
        let _ = kill_process_group(*group, signal);
    }
}

/// Lines are handed on until the other end is closed.
fn read_lines(from: impl Read + Send + 'static, tell: Sender<OutputLine>, kind: fn(String) -> OutputLine) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                _ => return,
            }
            let text = String::from_utf8_lossy(&line);
            // Of what was written over itself only the last is of interest.
            let text = text.trim_end_matches(['\n', '\r']).rsplit('\r').next().unwrap_or_default();
            let text: String = text.chars().filter(|letter| !letter.is_control() || *letter == '\t').collect();
            if !text.trim().is_empty() && tell.send(kind(text)).is_err() {
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
        Call { program: PathBuf::from("/bin/sh"), here: PathBuf::from("/"), arguments }
    }

    #[test]
    fn lines_come_as_they_are_and_the_reason_is_the_last_word() {
        let check = |script: &str, success, results: &[&str], reason: &str| {
            let mut heard = Vec::new();
            let ended = shell(script).run(&CancelToken::default(), &mut |said| heard.push(said)).unwrap().unwrap();
            let lines: Vec<&str> = heard
                .iter()
                .filter_map(|said| if let OutputLine::Result(line) = said { Some(line.as_str()) } else { None })
                .collect();
            assert_eq!((ended.success, lines.as_slice()), (success, results), "{script}");
            assert_eq!(ended.reason(), reason, "{script}");
        };
        check("echo one; echo two", true, &["one", "two"], "exited without output");
        check("echo loading >&2; echo 'error: no model' >&2; exit 2", false, &[], "no model");
        check("printf '10 %%\\r20 %%\\n' >&2; exit 1", false, &[], "20 %");
        check("printf '\\033[2Jx\\n'", true, &["[2Jx"], "exited without output");
        check("exit 1", false, &[], "exited without output");
    }

    #[test]
    fn the_answer_is_one_document_or_a_complaint() {
        let check = |script: &str, expected: Result<serde_json::Value, &str>| match (shell(script).json(), expected) {
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{script}: {found}"),
            (found, expected) => assert_eq!(found.as_ref().ok(), expected.as_ref().ok(), "{script}: {found:?}"),
        };
        check("printf '{\n\"run\":\n\"a\"}'", Ok(serde_json::json!({"run": "a"})));
        check("echo progress >&2; echo 'error: no such run' >&2; exit 1", Err("no such run"));
        check("echo nothing", Err("printed invalid JSON"));
    }

    #[test]
    fn a_call_that_is_given_up_ends() {
        let cancel = CancelToken::default();
        let stop = cancel.clone();
        // With all that it has started: a child that holds its output open would be waited for.
        let mut child = None;
        let outcome = shell("sleep 60 & echo $!; wait").run(&cancel, &mut |said| {
            if let OutputLine::Result(line) = said {
                child = line.parse::<i32>().ok();
                stop.now();
            }
        });
        assert_eq!(outcome, Ok(None));
        let child = std::path::PathBuf::from(format!("/proc/{}/stat", child.unwrap()));
        let is_gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        assert!((0..500).any(|_| is_gone() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
        let absent = Call { program: PathBuf::from("/no/such/program"), ..shell("") };
        assert!(absent.run(&CancelToken::default(), &mut |_| ()).unwrap_err().contains("/no/such/program"));
    }
}
