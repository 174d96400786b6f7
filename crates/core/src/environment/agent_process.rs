//! An agent's program: started with the server's address, given a row, read to the conversation's
//! end, which is its own or the line that answers the row.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent_service::RunningService;
use super::program_process::TrustedProgram;
use crate::sandbox::{PORT, PrivateFolder, Process, START_TIMEOUT, WaitOutcome};

/// Interval of checks of the time limit.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AgentRows {
    /// One; its end is the conversation's.
    #[default]
    One,
    /// One after another; a line with a JSON object ends each conversation.
    Many,
}

#[derive(Debug, Clone, Copy)]
pub struct AgentServer<'a> {
    /// Address for a program that shares the machine's network.
    pub address: SocketAddr,
    /// Identifies the process's conversation.
    pub key: &'a str,
    pub model: &'a str,
}

/// Dropping it ends all that the program started.
#[derive(Debug)]
pub struct AgentProcess {
    process: Process,
    key: String,
    rows: AgentRows,
    /// Whether it has answered its row and may get another.
    is_waiting: bool,
    most_line_bytes: usize,
    service: Option<Arc<RunningService>>,
    _copies: PrivateFolder,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AgentExit {
    pub why: ExitReason,
    /// `None`: killed by a signal. 0 if it answered its row and runs on.
    pub code: Option<i32>,
    /// The last line of its output.
    pub output: Option<String>,
    /// A sentence without a subject.
    pub words: String,
}

/// The program's state as seen by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPhase {
    /// No request yet: an interpreter loads modules.
    Starting,
    Waiting,
    Working,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Ended by itself, or by a limit of the sandbox.
    Ended,
    /// Ended by itself without answering its row, although it gets many.
    Unanswered,
    /// Killed: its time was up.
    TimeLimit,
    /// Killed: it wrote a line that is too long.
    Output,
    /// Killed: its service ended.
    Service,
    /// Killed: the conversation was cancelled.
    Cancelled,
}

impl AgentProcess {
    pub(super) fn start(
        program: &TrustedProgram,
        server: AgentServer<'_>,
        service: Option<Arc<RunningService>>,
        rows: AgentRows,
    ) -> Result<Self, String> {
        let copies = program.files.copies()?;
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let address = if program.files.sandbox.has_port {
            own
        } else {
            server.address
        };
        let address = format!("http://{address}/v1");
        let mut variables = vec![
            ("OPENAI_BASE_URL", address.as_str()),
            ("OPENAI_API_KEY", server.key),
            ("OPENAI_MODEL", server.model),
            // OpenAI's Agents SDK sends traces, LiteLLM and DSPy fetch prices: both try for seconds
            // where they cannot.
            ("OPENAI_AGENTS_DISABLE_TRACING", "1"),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ];
        variables.extend(
            service
                .as_ref()
                .map(|service| service.variable())
                .transpose()?,
        );
        let process = Process::start(
            &program.files.sandbox,
            &program
                .files
                .program(&program.rules.command, &copies, &variables),
        )?;
        Ok(Self {
            process,
            key: server.key.to_owned(),
            rows,
            is_waiting: false,
            most_line_bytes: program.rules.max_line_bytes,
            service,
            _copies: copies,
        })
    }

    /// [`AgentServer::key`].
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The socket for the program's requests, if it has its own network.
    ///
    /// # Errors
    /// Too many open files.
    pub fn listener(&self) -> Option<std::io::Result<TcpListener>> {
        self.process.listener().map(TcpListener::try_clone)
    }

    /// Itself if it runs, waits for a row, and has written no further answer.
    pub fn if_waiting(mut self) -> Option<Self> {
        if !self.is_waiting || self.service_end().is_some() {
            return None;
        }
        let moved = self.process.transfer(Instant::now(), &|| true);
        let has_ended = matches!(moved, Ok(WaitOutcome::Ended) | Err(_));
        let has_answer = self.process.lines(is_no_answer).is_err();
        (!has_ended && !has_answer).then_some(self)
    }

    /// Sends the program a line and reads its output to the conversation's end. `seconds`: working
    /// time; startup may take a minute more.
    pub fn run(
        &mut self,
        line: &str,
        seconds: f64,
        phase: &dyn Fn() -> AgentPhase,
        keep_going: &dyn Fn() -> bool,
    ) -> AgentExit {
        self.process.send(line.as_bytes());
        self.process.send(b"\n");
        let rows = self.rows;
        if rows == AgentRows::One {
            self.process.close_input();
        }
        self.is_waiting = false;
        let (mut used, mut last, mut output, mut is_too_long) =
            (Duration::ZERO, Instant::now(), None, false);
        let (mut started, limit) = (Duration::ZERO, Duration::from_secs_f64(seconds));
        let why = loop {
            let moved = self.process.transfer(Instant::now() + LOOK, keep_going);
            let passed = last.elapsed();
            last += passed;
            match phase() {
                AgentPhase::Starting => started += passed,
                AgentPhase::Working => used += passed,
                AgentPhase::Waiting => {}
            }
            let lines = self.process.lines(|line| {
                is_too_long |= line.len() > self.most_line_bytes;
                if !line.trim_ascii().is_empty() {
                    output = Some(String::from_utf8_lossy(line).into_owned());
                }
                match rows {
                    AgentRows::One => Ok(()),
                    AgentRows::Many => is_no_answer(line),
                }
            });
            is_too_long |= self.process.unread().len() > self.most_line_bytes;
            match moved {
                _ if !keep_going() => break ExitReason::Cancelled,
                _ if is_too_long => break ExitReason::Output,
                _ if lines.is_err() => {
                    self.is_waiting = true;
                    let words = "answered its row".to_owned();
                    return AgentExit {
                        why: ExitReason::Ended,
                        code: Some(0),
                        output,
                        words,
                    };
                }
                Ok(WaitOutcome::Ended) | Err(_) if rows == AgentRows::Many => {
                    break ExitReason::Unanswered;
                }
                Ok(WaitOutcome::Ended) | Err(_) => break ExitReason::Ended,
                _ if self.service_end().is_some() => break ExitReason::Service,
                _ if used + started.saturating_sub(START_TIMEOUT) > limit => {
                    break ExitReason::TimeLimit;
                }
                Ok(WaitOutcome::Some | WaitOutcome::Late) => {}
            }
        };
        let (code, words) = match why {
            ExitReason::Ended => (
                self.process.exit_code(),
                self.process.last_words_with_remedy(),
            ),
            ExitReason::Unanswered => match self.process.exit_code() {
                Some(0) => {
                    let words = "ended before it answered its row with a JSON object";
                    (Some(0), words.to_owned())
                }
                code => (code, self.process.last_words_with_remedy()),
            },
            ExitReason::TimeLimit => (
                None,
                format!("did not end within {seconds} s of its own time"),
            ),
            ExitReason::Output => (
                None,
                format!(
                    "wrote a line of more than {} KiB",
                    self.most_line_bytes >> 10
                ),
            ),
            ExitReason::Service => (
                None,
                format!(
                    "lost its service, which {}",
                    self.service_end().unwrap_or_default()
                ),
            ),
            ExitReason::Cancelled => (None, "was ended".to_owned()),
        };
        let rest = String::from_utf8_lossy(self.process.unread())
            .trim()
            .to_owned();
        let output = if rest.is_empty() { output } else { Some(rest) };
        let output = output.filter(|_| why != ExitReason::Output);
        AgentExit {
            why,
            code,
            output,
            words,
        }
    }

    fn service_end(&self) -> Option<&str> {
        self.service.as_ref()?.ended()
    }
}

/// An error for a line that answers a row: a JSON object.
fn is_no_answer(line: &[u8]) -> Result<(), ()> {
    match line.trim_ascii_start().starts_with(b"{") {
        true => Err(()),
        false => Ok(()),
    }
}
