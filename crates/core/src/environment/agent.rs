//! `[agent]` of `task.toml`: a program of the user's that holds the conversation about a row, by requests of OpenAI's API.

use std::sync::{Arc, OnceLock};

use super::EnvironmentError;
use super::agent_process::{AgentProcess, AgentServer};
use super::program_process::TrustedProgram;
use super::program_rules::{ProgramRules, read_command, read_program};
use super::tool_program::{ProgramOwner, ToolProgram, trusted};
use crate::task::{Home, Read, Section, TaskError};

/// The block of `task.toml` that this file reads.
pub(crate) const AGENT_KEY: &str = "agent";

const KEYS: [&str; 10] = [
    "run",
    "files",
    "memory_mib",
    "output_kib",
    "isolation",
    "read",
    "max_requests",
    "max_context_tokens",
    "time_limit_seconds",
    "processes",
];
const OWNER: ProgramOwner<'static> = ProgramOwner { name: "agent", key: "run", word: "agent", block: "[agent]" };

/// Where a conversation with an agent ends.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentLimits {
    /// Requests that are answered.
    pub max_requests: usize,
    /// Of one prompt; `None`: as many as the run allows.
    pub max_context_tokens: Option<usize>,
    /// Of the program itself: the time in which it waits for completions does not count.
    pub time_limit_seconds: f64,
    /// Programs that run at the same time.
    pub processes: usize,
}

/// `[agent]` of a task. Clones share the program that was found to be trusted.
#[derive(Debug, Clone)]
pub struct Agent(Arc<AgentRules>);

#[derive(Debug)]
struct AgentRules {
    task: String,
    home: Home,
    program: ProgramRules,
    limits: AgentLimits,
    ready: OnceLock<TrustedProgram>,
}

impl Agent {
    /// `None` for a task without `[agent]`.
    pub(crate) fn read(top: &Section<'_>, task: &str, home: &Home) -> Read<Option<Self>> {
        let Some(block) = top.section(AGENT_KEY, &KEYS)? else { return Ok(None) };
        if block.get("run").is_none() {
            return Err(home.missing("agent.run", "run = [\"python3\", \"agent.py\"]"));
        }
        let whole = |key: &str, default: u64, range: std::ops::RangeInclusive<u64>| -> Read<usize> {
            block.whole(key, default, range).map(|number| number as usize)
        };
        let has_context = block.get("max_context_tokens").is_some();
        let limits = AgentLimits {
            max_requests: whole("max_requests", 16, 1..=10_000)?,
            max_context_tokens: if has_context { Some(whole("max_context_tokens", 1, 1..=1 << 24)?) } else { None },
            time_limit_seconds: block.seconds("time_limit_seconds", 60.0)?,
            processes: whole("processes", 64, 1..=4_096)?,
        };
        let program = read_program(&block, read_command(&block, "run")?, home)?;
        let (task, home, ready) = (task.to_owned(), home.clone(), OnceLock::new());
        Ok(Some(Self(Arc::new(AgentRules { task, home, program, limits, ready }))))
    }

    pub fn limits(&self) -> &AgentLimits {
        &self.0.limits
    }

    /// The program that it runs.
    pub fn program(&self) -> Result<ToolProgram, TaskError> {
        Ok(ToolProgram::read(OWNER, &self.0.program, &self.0.home)?.0)
    }

    /// The files of the task that belong to it.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.0.program.files.iter().map(String::as_str)
    }

    /// Refuses a program that may not run.
    ///
    /// # Errors
    /// One that is not trusted, not installed, or asks for more isolation than the machine gives.
    pub fn check(&self) -> Result<(), EnvironmentError> {
        self.trusted().map(|_| ())
    }

    /// Starts the program for one conversation.
    ///
    /// # Errors
    /// As [`Self::check`], and a program that does not start.
    pub fn start(&self, server: AgentServer<'_>) -> Result<AgentProcess, EnvironmentError> {
        let failed = |why| EnvironmentError::Tool { tool: "agent".to_owned(), why };
        AgentProcess::start(self.trusted()?, server).map_err(failed)
    }

    fn trusted(&self) -> Result<&TrustedProgram, EnvironmentError> {
        let AgentRules { task, home, program, ready, .. } = &*self.0;
        if let Some(ready) = ready.get() {
            return Ok(ready);
        }
        let trusted = trusted(task, OWNER, program, home)?;
        Ok(ready.get_or_init(|| trusted))
    }
}
