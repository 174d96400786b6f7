//! `[agent]` of `task.toml`: a user's program that drives the conversation about a row through
//! OpenAI's API.

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use super::agent_process::{AgentProcess, AgentRows, AgentServer};
use super::agent_service::AgentService;
use super::error::EnvironmentError;
use super::program_process::TrustedProgram;
use super::program_rules::{ProgramRules, read_command, read_program};
use super::tool_program::{ProgramOwner, ToolProgram, TrustSubject, trusted};
use crate::sandbox::{Level, program_files};
use crate::task::{Home, Read, Section, TaskError};

pub(crate) const AGENT_KEY: &str = "agent";

const KEYS: [&str; 15] = [
    "run",
    "rows",
    "service",
    "files",
    "memory_mib",
    "max_processes",
    "output_kib",
    "isolation",
    "read",
    "max_requests",
    "max_context_tokens",
    "time_limit_seconds",
    "processes",
    "constraints",
    "on_failure",
];
const OWNER: ProgramOwner<'static> = ProgramOwner {
    name: "agent",
    key: "run",
    subject: TrustSubject::Agent,
    block: "[agent]",
};
const SERVICE: ProgramOwner<'static> = ProgramOwner {
    key: "service",
    ..OWNER
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgentLimits {
    pub rows: AgentRows,
    pub max_requests: usize,
    /// Limit per prompt; `None`: the run's limit.
    pub max_context_tokens: Option<usize>,
    /// Time of the program itself, excluding waits for completions.
    pub time_limit_seconds: f64,
    pub processes: usize,
    pub constraints: RequestedConstraints,
    pub on_failure: OnFailure,
}

/// Effect of a request's constraints (`response_format`, strict tools, `tool_choice`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestedConstraints {
    /// Sampled without them, and recorded.
    #[default]
    Ignore,
    Refuse,
}

/// Reward of a conversation whose program fails after a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    #[default]
    LowestTier,
    NoReward,
}

/// `[agent]` of a task. Clones share the verified program.
#[derive(Debug, Clone)]
pub struct Agent(Arc<AgentRules>);

#[derive(Debug)]
struct AgentRules {
    task: String,
    home: Home,
    program: ProgramRules,
    /// Shared by its conversations.
    service: Option<ProgramRules>,
    limits: AgentLimits,
    ready: OnceLock<ReadyAgent>,
}

/// Programs verified as trusted.
#[derive(Debug)]
struct ReadyAgent {
    program: TrustedProgram,
    service: Option<AgentService>,
    idle: Mutex<Vec<AgentProcess>>,
}

impl ReadyAgent {
    fn idle(&self) -> MutexGuard<'_, Vec<AgentProcess>> {
        self.idle.lock()
    }
}

impl Agent {
    /// `None` without `[agent]`.
    pub(crate) fn read(top: &Section<'_>, task: &str, home: &Home) -> Read<Option<Self>> {
        let Some(block) = top.section(AGENT_KEY, &KEYS)? else {
            return Ok(None);
        };
        if block.get("run").is_none() {
            return Err(home.missing("agent.run", "run = [\"python3\", \"agent.py\"]"));
        }
        let whole =
            |key: &str, default: u64, range: std::ops::RangeInclusive<u64>| -> Read<usize> {
                block
                    .whole(key, default, range)
                    .map(|number| number as usize)
            };
        let has_context = block.get("max_context_tokens").is_some();
        let rows = [("one", AgentRows::One), ("many", AgentRows::Many)];
        let constraints = [
            ("ignore", RequestedConstraints::Ignore),
            ("refuse", RequestedConstraints::Refuse),
        ];
        let on_failure = [
            ("lowest_tier", OnFailure::LowestTier),
            ("no_reward", OnFailure::NoReward),
        ];
        let limits = AgentLimits {
            rows: block.choice("rows", rows)?.unwrap_or_default(),
            max_requests: whole("max_requests", 16, 1..=10_000)?,
            max_context_tokens: if has_context {
                Some(whole("max_context_tokens", 1, 1..=1 << 24)?)
            } else {
                None
            },
            time_limit_seconds: block.seconds("time_limit_seconds", 60.0)?,
            processes: whole("processes", 64, 1..=4_096)?,
            constraints: block
                .choice("constraints", constraints)?
                .unwrap_or_default(),
            on_failure: block.choice("on_failure", on_failure)?.unwrap_or_default(),
        };
        let program = read_program(&block, read_command(&block, "run")?, home)?;
        let service = read_service(&block, &program, home)?;
        let (task, home, ready) = (task.to_owned(), home.clone(), OnceLock::new());
        Ok(Some(Self(Arc::new(AgentRules {
            task,
            home,
            program,
            service,
            limits,
            ready,
        }))))
    }

    pub fn limits(&self) -> &AgentLimits {
        &self.0.limits
    }

    /// Programs to run, the conversation's first.
    pub fn programs(&self) -> Result<Vec<ToolProgram>, TaskError> {
        let programs = [
            Some((OWNER, &self.0.program)),
            self.0.service.as_ref().map(|service| (SERVICE, service)),
        ];
        programs
            .into_iter()
            .flatten()
            .map(|(owner, rules)| Ok(ToolProgram::read(owner, rules, &self.0.home)?.0))
            .collect()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let service = self.0.service.iter().flat_map(|service| &service.files);
        self.0
            .program
            .files
            .iter()
            .chain(service)
            .map(String::as_str)
    }

    /// Checks that the programs may run.
    ///
    /// # Errors
    /// One that is not trusted, not installed, or needs more isolation than the machine provides.
    pub fn check(&self) -> Result<(), EnvironmentError> {
        self.trusted().map(|_| ())
    }

    pub fn idle_process(&self) -> Option<AgentProcess> {
        let ready = self.0.ready.get()?;
        // One that wrote more, or has ended, is dropped.
        std::iter::from_fn(|| ready.idle().pop()).find_map(AgentProcess::if_waiting)
    }

    pub fn keep(&self, process: AgentProcess) {
        if let Some(ready) = self.0.ready.get() {
            ready.idle().push(process);
        }
    }

    /// Starts the program for a conversation.
    ///
    /// # Errors
    /// As [`Self::check`], and a program that does not start.
    pub fn start(&self, server: AgentServer<'_>) -> Result<AgentProcess, EnvironmentError> {
        let failed = |why| EnvironmentError::Tool {
            tool: "agent".to_owned(),
            why,
        };
        let ready = self.trusted()?;
        let service = ready
            .service
            .as_ref()
            .map(AgentService::running)
            .transpose()
            .map_err(failed)?;
        let rows = self.limits().rows;
        AgentProcess::start(&ready.program, server, service, rows).map_err(failed)
    }

    fn trusted(&self) -> Result<&ReadyAgent, EnvironmentError> {
        let AgentRules {
            task,
            home,
            program,
            service,
            ready,
            ..
        } = &*self.0;
        if let Some(ready) = ready.get() {
            return Ok(ready);
        }
        let program = trusted(task, OWNER, program, home)?;
        let service = service
            .as_ref()
            .map(|service| trusted(task, SERVICE, service, home))
            .transpose()?;
        Ok(ready.get_or_init(|| ReadyAgent {
            program,
            service: service.map(AgentService::new),
            idle: Mutex::default(),
        }))
    }
}

/// A `service` shares limits and `files` of the conversation's program.
fn read_service(
    block: &Section<'_>,
    program: &ProgramRules,
    home: &Home,
) -> Read<Option<ProgramRules>> {
    let Some((_, offset)) = block.get("service") else {
        return Ok(None);
    };
    let command = read_command(block, "service")?;
    if program.keys.isolation != Some(Level::None) {
        let message = "is out of reach of an isolated program: write isolation = \"none\" too, or leave it out";
        return Err(block.error("service", offset, message));
    }
    Ok(Some(ProgramRules {
        files: program_files(command.iter(), block, home)?,
        command,
        ..program.clone()
    }))
}
