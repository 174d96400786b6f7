//! A task's tools, not yet started.

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

/// `[[tool]]` and `[tools]`. Clones share what the first conversation prepared.
#[derive(Debug, Clone)]
pub struct Toolset(Arc<Tools>);

#[derive(Debug)]
struct Tools {
    task: String,
    home: Home,
    rules: Vec<ToolRules>,
    limits: ConversationLimits,
    recorded: Option<String>,
    ready: OnceLock<Arc<ReadyTools>>,
}

impl Toolset {
    /// `None` without `[[tool]]`.
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

    /// OpenAI's list of functions, for the chat template. The first call may start servers to list
    /// theirs.
    pub fn definitions(&self) -> Result<&Value, EnvironmentError> {
        Ok(&self.ready()?.definitions)
    }

    /// Instructions of MCP servers for the system text, possibly empty. Bounded as results are, and
    /// may likewise contain text of special tokens.
    pub fn instructions(&self) -> Result<&str, EnvironmentError> {
        Ok(&self.ready()?.instructions)
    }

    /// The functions listed in a row's prompt: all, or those its `tools` name. The others can still
    /// be called.
    ///
    /// # Errors
    /// As [`Self::definitions`], and an unknown name.
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

    /// All functions, without starting or trusting programs; `None` if only a server knows them.
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

    /// The tools in the initial state of a conversation about a row.
    ///
    /// # Errors
    /// A program that is not trusted, not installed, or needs more isolation than the machine
    /// provides; failing statements of a database; a function in two tools; an unreadable file of
    /// recorded results.
    pub fn open(&self, row: &PromptRow) -> Result<Environment, EnvironmentError> {
        Environment::new(self.ready()?, self.0.limits.max_result_bytes, row)
    }

    /// Whether calls are answered from records, without starting programs.
    pub fn is_replayed(&self) -> bool {
        self.0.recorded.is_some()
    }

    pub fn programs(&self) -> Result<Vec<ToolProgram>, TaskError> {
        let run = self.0.rules.iter().filter(|_| !self.is_replayed());
        let programs = run.filter_map(|tool| Some((tool, tool.kind.program()?)));
        programs
            .map(|(tool, rules)| Ok(ToolProgram::read(tool.owner(), rules, &self.0.home)?.0))
            .collect()
    }

    /// Whether its programs need the user's trust.
    pub fn needs_trust(&self) -> bool {
        !self.is_replayed()
            && self
                .0
                .rules
                .iter()
                .any(|tool| tool.kind.program().is_some())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.0
            .rules
            .iter()
            .flat_map(|tool| tool.kind.files())
            .chain(self.0.recorded.as_deref())
    }

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
