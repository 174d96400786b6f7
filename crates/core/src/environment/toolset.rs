//! The tools of a task, started nowhere yet.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::calls::{ConversationLimits, ToolCall};
use super::conversation::Environment;
use super::definition::{ToolRules, read_limits, read_replay, read_tools};
use super::error::EnvironmentError;
use super::ready::ReadyTools;
use super::tool_program::ToolProgram;
use crate::dataset::PromptRow;
use crate::task::{Home, Read, Section, TaskError, functions};

/// `[[tool]]` and `[tools]` of a task. Clones share what the first conversation has made ready.
#[derive(Debug, Clone)]
pub struct Toolset(Arc<Tools>);

#[derive(Debug)]
struct Tools {
    task: String,
    home: Home,
    rules: Vec<ToolRules>,
    limits: ConversationLimits,
    /// The file of recorded results, where programs are replayed.
    recorded: Option<String>,
    ready: OnceLock<Arc<ReadyTools>>,
}

impl Toolset {
    /// `None` for a task without `[[tool]]`.
    pub(crate) fn read(top: &Section<'_>, task: &str, home: &Home) -> Read<Option<Self>> {
        let rules = read_tools(top, home)?;
        let limits = read_limits(top, !rules.is_empty())?;
        let recorded = read_replay(top, &rules, home)?;
        let (task, home) = (task.to_owned(), home.clone());
        let tools = Tools {
            task,
            home,
            rules,
            limits,
            recorded,
            ready: OnceLock::new(),
        };
        Ok((!tools.rules.is_empty()).then(|| Self(Arc::new(tools))))
    }

    /// OpenAI's list of the functions, for the chat template. The first time it may start servers that list theirs.
    ///
    /// # Errors
    /// As [`Self::open`], but for the row.
    pub fn definitions(&self) -> Result<&Value, EnvironmentError> {
        Ok(&self.ready()?.definitions)
    }

    /// What the MCP servers among them say about their use, for the system text; empty where none does. Bounded as results
    /// are, and like theirs it may have the text of a special token.
    ///
    /// # Errors
    /// As [`Self::definitions`].
    pub fn instructions(&self) -> Result<&str, EnvironmentError> {
        Ok(&self.ready()?.instructions)
    }

    /// Those that the prompt of a row lists: all, or those that its `tools` name. The others answer as well if called.
    ///
    /// # Errors
    /// As [`Self::definitions`], and a name that no function has.
    pub fn definitions_of(&self, row: &PromptRow) -> Result<Cow<'_, Value>, EnvironmentError> {
        let all = self.definitions()?;
        let own = row
            .tools()
            .and_then(Value::as_array)
            .filter(|own| own.iter().all(Value::is_string));
        let Some(names) = own else {
            return Ok(Cow::Borrowed(all));
        };
        let listed = functions(all).unwrap_or_default();
        let find = |name: &Value| match listed.iter().position(|function| name == function.name) {
            Some(index) => Ok(all[index].clone()),
            None => {
                let why = format!("its `tools` name {name}, a function that no [[tool]] has");
                Err(EnvironmentError::Row {
                    row: row.id.clone(),
                    why,
                })
            }
        };
        Ok(Cow::Owned(
            names.iter().map(find).collect::<Result<_, _>>()?,
        ))
    }

    /// All of them without starting or trusting anything; `None` where a server lists its functions itself.
    pub fn known_definitions(&self) -> Option<Value> {
        let lists: Option<Vec<Value>> = self
            .0
            .rules
            .iter()
            .map(|tool| tool.kind.known_definitions())
            .collect();
        Some(
            lists?
                .iter()
                .filter_map(Value::as_array)
                .flatten()
                .cloned()
                .collect(),
        )
    }

    pub fn limits(&self) -> &ConversationLimits {
        &self.0.limits
    }

    /// The tools with the state that a conversation about a row begins with.
    ///
    /// # Errors
    /// A program that is not trusted, not installed, or asks for more isolation than the machine gives; statements of
    /// a database that do not run; functions that two tools have; a file of recorded results that cannot be read.
    pub fn open(&self, row: &PromptRow) -> Result<Environment, EnvironmentError> {
        Environment::new(self.ready()?, self.0.limits.max_result_bytes, row)
    }

    /// Whether its programs are not started: calls have recorded replies.
    pub fn is_replayed(&self) -> bool {
        self.0.recorded.is_some()
    }

    /// The programs that its tools run.
    pub fn programs(&self) -> Result<Vec<ToolProgram>, TaskError> {
        let run = self.0.rules.iter().filter(|_| !self.is_replayed());
        let programs = run.filter_map(|tool| Some((tool, tool.kind.program()?)));
        programs
            .map(|(tool, rules)| Ok(ToolProgram::read(tool.owner(), rules, &self.0.home)?.0))
            .collect()
    }

    /// Whether the user must have allowed its programs.
    pub fn needs_trust(&self) -> bool {
        !self.is_replayed()
            && self
                .0
                .rules
                .iter()
                .any(|tool| tool.kind.program().is_some())
    }

    /// The files of the task that belong to tools.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.0
            .rules
            .iter()
            .flat_map(|tool| tool.kind.files())
            .chain(self.0.recorded.as_deref())
    }

    /// Whether a call names a function, and its arguments fit.
    pub(super) fn takes(&self, call: &ToolCall) -> bool {
        self.ready()
            .is_ok_and(|ready| ready.functions.tool_of(call).is_ok())
    }

    fn ready(&self) -> Result<&Arc<ReadyTools>, EnvironmentError> {
        if let Some(ready) = self.0.ready.get() {
            return Ok(ready);
        }
        let Tools {
            task,
            home,
            rules,
            recorded,
            limits,
            ..
        } = &*self.0;
        let most_bytes = limits.max_result_bytes;
        let ready = ReadyTools::new(task, rules, home, recorded.as_deref(), most_bytes)?;
        Ok(self.0.ready.get_or_init(|| Arc::new(ready)))
    }
}
