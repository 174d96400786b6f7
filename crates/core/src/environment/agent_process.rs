//! The program of an agent in one conversation: started with the server's address, fed with its row, read to its end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent_service::RunningService;
use super::program_process::TrustedProgram;
use crate::sandbox::{PORT, PrivateFolder, Process, START_TIMEOUT, WaitOutcome};

/// How often it is looked at whether a program still has time.
const LOOK: Duration = Duration::from_millis(100);

/// What a program is told of the server that answers it.
#[derive(Debug, Clone, Copy)]
pub struct AgentServer<'a> {
    /// Of a program that shares this machine's network.
    pub address: SocketAddr,
    /// Names the conversation.
    pub key: &'a str,
    pub model: &'a str,
}

/// Dropping it ends all that the program has started.
#[derive(Debug)]
pub struct AgentProcess {
    process: Process,
    most_line_bytes: usize,
    service: Option<Arc<RunningService>>,
    /// Where it runs.
    _copies: PrivateFolder,
}

/// How the program of a conversation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentExit {
    pub why: ExitReason,
    /// `None`: by a signal.
    pub code: Option<i32>,
    /// The last line of its output.
    pub output: Option<String>,
    /// A sentence without a subject.
    pub words: String,
}

/// What the server knows of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPhase {
    /// It has not asked yet: an interpreter loads its modules.
    Starting,
    /// It waits for a completion.
    Waiting,
    /// It does work of its own.
    Working,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// By itself, or by a limit of the sandbox.
    Ended,
    /// It was ended: its time was up.
    TimeLimit,
    /// It was ended: it wrote a line that is too long.
    Output,
    /// It was ended: its service has.
    Service,
    /// It was ended: nobody wants it any more.
    Cancelled,
}

impl AgentProcess {
    pub(super) fn start(
        program: &TrustedProgram,
        server: AgentServer<'_>,
        service: Option<Arc<RunningService>>,
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
            most_line_bytes: program.rules.max_line_bytes,
            service,
            _copies: copies,
        })
    }

    /// The socket at which the program asks, where it has a network of its own.
    pub fn take_listener(&mut self) -> Option<TcpListener> {
        self.process.take_listener()
    }

    /// Gives it a line and reads what it writes to its end. `seconds`: that it may work; it may start for a minute more.
    pub fn run(
        &mut self,
        line: &str,
        seconds: f64,
        phase: &dyn Fn() -> AgentPhase,
        keep_going: &dyn Fn() -> bool,
    ) -> AgentExit {
        self.process.send(line.as_bytes());
        self.process.send(b"\n");
        self.process.close_input();
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
            _ = self.process.lines(|line| {
                is_too_long |= line.len() > self.most_line_bytes;
                if !line.trim_ascii().is_empty() {
                    output = Some(String::from_utf8_lossy(line).into_owned());
                }
                Ok::<_, ()>(())
            });
            is_too_long |= self.process.unread().len() > self.most_line_bytes;
            match moved {
                _ if !keep_going() => break ExitReason::Cancelled,
                _ if is_too_long => break ExitReason::Output,
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

    /// How its service ended, if it did.
    fn service_end(&self) -> Option<&str> {
        self.service.as_ref()?.ended()
    }
}
