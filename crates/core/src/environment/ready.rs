//! A task's tools, ready for conversations: files read, programs verified, databases created.

use std::sync::Arc;

use serde_json::Value;

use super::arguments::Functions;
use super::definition::{ToolKind, ToolRules};
use super::error::EnvironmentError;
use super::files_tool::FilesTool;
use super::live_tool::LiveTool;
use super::mcp::{McpOffer, McpTools, read_offer};
use super::program::RunTool;
use super::program_process::TrustedProgram;
use super::program_rules::ProgramRules;
use super::python_tool;
use super::python_tool::PythonTool;
use super::recorded::{RecordedReplies, ReplayedTool, read_recorded};
use super::reply_text::reply_text;
use super::sqlite_tool::SqliteTool;
use super::tool_program::trusted;
use super::warm_tool::IdleTools;
use crate::dataset::PromptRow;
use crate::task::Home;

#[derive(Debug)]
pub(super) struct ReadyTools {
    pub(super) tools: Vec<(String, ReadyTool)>,
    pub(super) functions: Functions,
    /// OpenAI's list.
    pub(super) definitions: Value,
    /// Usage instructions of MCP servers, each with a heading; possibly empty.
    pub(super) instructions: String,
}

#[derive(Debug)]
pub(super) enum ReadyTool {
    Run(TrustedProgram),
    Mcp(TrustedProgram, McpOffer),
    Python(TrustedProgram),
    Sqlite(SqliteTool),
    Files(FilesTool),
    /// A program whose processes serve several conversations in turn.
    Warm(Box<ReadyTool>, Arc<IdleTools>),
    Replayed(Arc<RecordedReplies>, Arc<ToolKind>),
}

impl ReadyTools {
    /// `recorded`: the file with the replies of programs, which are then not started. `most_bytes`:
    /// limit of a server's instructions.
    pub(super) fn new(
        task: &str,
        rules: &[ToolRules],
        home: &Home,
        recorded: Option<&str>,
        most_bytes: usize,
    ) -> Result<Self, EnvironmentError> {
        let mut ready = Self {
            tools: Vec::new(),
            functions: Functions::default(),
            definitions: Value::Null,
            instructions: String::new(),
        };
        let mut all = Vec::new();
        for (index, tool) in rules.iter().enumerate() {
            let trusted = |program: &ProgramRules| trusted(task, tool.owner(), program, home);
            let (made, definitions) = match &tool.kind {
                kind if let Some(definitions) =
                    kind.definitions().filter(|_| recorded.is_some()) =>
                {
                    (
                        ReadyTool::Replayed(Arc::default(), Arc::new(kind.clone())),
                        definitions.clone(),
                    )
                }
                ToolKind::Run {
                    program,
                    definitions,
                    ..
                } => (ReadyTool::Run(trusted(program)?), definitions.clone()),
                ToolKind::Mcp {
                    program,
                    definitions,
                    ..
                } => {
                    let program = trusted(program)?;
                    let failed = |why| EnvironmentError::Tool {
                        tool: tool.name.clone(),
                        why,
                    };
                    let offer = match definitions {
                        Some((_, definitions)) => McpOffer {
                            definitions: definitions.clone(),
                            instructions: None,
                        },
                        None => read_offer(&program).map_err(failed)?,
                    };
                    if let Some(text) = offer.instructions.as_ref().filter(|text| !text.is_empty())
                    {
                        let gap = if ready.instructions.is_empty() {
                            ""
                        } else {
                            "\n\n"
                        };
                        ready.instructions += &format!(
                            "{gap}# Instructions of the MCP server `{}`\n\n{}",
                            tool.name,
                            reply_text(text, most_bytes)
                        );
                    }
                    let listed = offer.definitions.clone();
                    (ReadyTool::Mcp(program, offer), listed)
                }
                ToolKind::Python {
                    program,
                    definitions,
                } => {
                    let mut program = trusted(program)?;
                    program.rules.command =
                        python_tool::command(&program.rules.command, program.rules.max_line_bytes);
                    (ReadyTool::Python(program), definitions.clone())
                }
                ToolKind::Files(rules) => (
                    ReadyTool::Files(rules.prepare(&tool.name, home)?),
                    rules.definitions(),
                ),
                ToolKind::Sqlite(rules) => (
                    ReadyTool::Sqlite(rules.prepare(home)?),
                    rules.definitions.clone(),
                ),
            };
            let is_stateless = tool
                .kind
                .program()
                .is_some_and(|program| program.is_stateless);
            let made = match made {
                ReadyTool::Run(_) | ReadyTool::Mcp(..) if is_stateless => {
                    ReadyTool::Warm(Box::new(made), Arc::default())
                }
                made => made,
            };
            let names: Vec<&str> = rules.iter().map(|tool| tool.name.as_str()).collect();
            let added = ready.functions.add(&names[..=index], &definitions);
            added.map_err(|why| EnvironmentError::Tool {
                tool: tool.name.clone(),
                why: format!("has definitions with a fault: {why}"),
            })?;
            all.extend(definitions.as_array().into_iter().flatten().cloned());
            ready.tools.push((tool.name.clone(), made));
        }
        ready.definitions = Value::Array(all);
        if let Some(file) = recorded {
            let replayed = rules
                .iter()
                .enumerate()
                .filter_map(|(index, tool)| Some((index, tool.kind.program()?)));
            let replayed = replayed
                .map(|(index, program)| (index, program.is_stateless))
                .collect();
            for (tool, found) in read_recorded(home, file, &ready.functions, replayed)? {
                if let ReadyTool::Replayed(replies, _) = &mut ready.tools[tool].1 {
                    *replies = Arc::new(found);
                }
            }
        }
        Ok(ready)
    }
}

impl ReadyTool {
    /// Its state for a conversation about a row.
    pub(super) fn open(&self, row: &PromptRow) -> Result<Box<dyn LiveTool>, String> {
        match self {
            Self::Run(program) => RunTool::open(program, row),
            Self::Mcp(program, offer) => Ok(McpTools::open(program, offer)),
            Self::Python(program) => Ok(PythonTool::open(program)),
            Self::Sqlite(tool) => tool.open(row),
            Self::Files(tool) => tool.open(row),
            Self::Warm(tool, idle) => idle.open(|| tool.open(row)),
            Self::Replayed(replies, kind) => ReplayedTool::open(replies, kind, row),
        }
    }
}
