//! A tool's process in one conversation, started on first use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program_rules::{ProgramRules, Variable};
use crate::sandbox::{Level, LineProgram, Lost, ProgramFiles, START_TIMEOUT};

/// Programs that download a server and start it.
const DOWNLOADERS: [&str; 5] = ["npx", "pnpx", "bunx", "uvx", "pipx"];

/// A trusted program that answers in lines, not yet started.
#[derive(Debug, Clone)]
pub(super) struct TrustedProgram {
    pub(super) rules: ProgramRules,
    pub(super) files: Arc<ProgramFiles>,
}

/// Its process in one conversation, started on first use.
#[derive(Debug)]
pub(super) struct LineServer {
    program: TrustedProgram,
    process: Process,
    has_answered: bool,
}

#[derive(Debug)]
enum Process {
    Waiting,
    Running(Box<LineProgram>),
    /// Why no further call is answered.
    Ended(String),
}

impl LineServer {
    pub(super) fn new(program: &TrustedProgram) -> Self {
        Self {
            program: program.clone(),
            process: Process::Waiting,
            has_answered: false,
        }
    }

    pub(super) fn in_parallel(&self) -> bool {
        self.program.rules.in_parallel
    }

    pub(super) fn start(&mut self) -> Result<&mut LineProgram, String> {
        if matches!(self.process, Process::Waiting) {
            self.process = match self.started() {
                Ok(program) => Process::Running(Box::new(program)),
                Err(why) => Process::Ended(why),
            };
        }
        match &mut self.process {
            Process::Running(program) => Ok(program),
            Process::Ended(why) => Err(why.clone()),
            Process::Waiting => Err("does not start".to_owned()),
        }
    }

    fn started(&self) -> Result<LineProgram, String> {
        let ProgramRules {
            command, variables, ..
        } = &self.program.rules;
        let values = variables.iter().map(Variable::value);
        let values: Vec<String> = values.collect::<Result<_, _>>()?;
        let named = variables.iter().map(|variable| variable.name.as_str());
        let variables: Vec<_> = named.zip(values.iter().map(String::as_str)).collect();
        LineProgram::start(&self.program.files, command, &variables)
    }

    /// The text with names in place of the values of secret variables.
    fn redacted(&self, text: String) -> String {
        let mut text = text;
        for variable in &self.program.rules.variables {
            if let Some(secret) = variable.secret() {
                let in_json = Value::String(secret.clone()).to_string();
                for secret in [in_json.trim_matches('"'), &secret] {
                    text = text.replace(secret, &variable.text);
                }
            }
        }
        text
    }

    pub(super) fn send(&mut self, line: &Value) -> Result<(), String> {
        self.start()?.send(format!("{line}\n").as_bytes());
        Ok(())
    }

    /// Bytes of input that it has not read.
    pub(super) fn unsent(&self) -> usize {
        match &self.process {
            Process::Running(program) => program.unsent(),
            Process::Waiting | Process::Ended(_) => 0,
        }
    }

    /// Deadline for an answer requested now.
    pub(super) fn deadline(&self) -> Instant {
        let start = if self.has_answered {
            Duration::ZERO
        } else {
            START_TIMEOUT
        };
        Instant::now() + start + Duration::from_secs_f64(self.program.rules.keys.seconds)
    }

    /// The next line.
    ///
    /// # Errors
    /// A sentence without a subject; the process has then ended.
    pub(super) fn line(&mut self, until: Instant) -> Result<Vec<u8>, String> {
        let program = match &mut self.process {
            Process::Running(program) => program,
            Process::Ended(why) => return Err(why.clone()),
            Process::Waiting => return Err("was not asked".to_owned()),
        };
        let max_line_bytes = &self.program.rules.max_line_bytes;
        let why = match program.line(until, *max_line_bytes, &|| true) {
            Ok(line) => {
                self.has_answered = true;
                if self.program.rules.variables.is_empty() {
                    return Ok(line);
                }
                let text = String::from_utf8_lossy(&line).into_owned();
                return Ok(self.redacted(text).into_bytes());
            }
            Err(Lost::Ended(why)) => why,
            Err(Lost::Late) => return Err(self.end_late()),
            Err(Lost::TooLong) => format!("wrote a line of more than {} KiB", max_line_bytes >> 10),
        };
        Err(self.end(why))
    }

    pub(super) fn end_late(&mut self) -> String {
        let seconds = self.program.rules.keys.seconds;
        self.end(format!("gave no answer within {seconds} s"))
    }

    /// Whether it runs and has no unread output since its last answer.
    pub(super) fn is_idle(&mut self) -> bool {
        let until = Instant::now() + Duration::from_millis(1);
        match &mut self.process {
            Process::Running(program) => {
                matches!(program.line(until, 1, &|| true), Err(Lost::Late))
            }
            Process::Waiting | Process::Ended(_) => false,
        }
    }

    pub(super) fn end(&mut self, why: String) -> String {
        let program = self.program.rules.command.first();
        let name = program.and_then(|program| program.rsplit('/').next());
        let has_network = self.program.files.sandbox.level == Level::None;
        let remedy = match name.filter(|name| DOWNLOADERS.contains(name)) {
            Some(name) if !self.has_answered && !has_network => format!(
                "; {name} downloads what it starts, and a tool has no network: install the server and start it by its file"
            ),
            _ => String::new(),
        };
        let why = self.redacted(why) + &remedy;
        self.process = Process::Ended(format!("{why}, at an earlier call"));
        why
    }
}
