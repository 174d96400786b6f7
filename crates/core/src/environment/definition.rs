//! Parses `[[tool]]` and `[tools]` of `task.toml`.

use serde_json::Value;
use toml::de::DeValue;

use super::calls::ConversationLimits;
use super::files_tool::FilesRules;
use super::mcp_file::{ListedServer, read_servers};
use super::program_rules::{ProgramRules, read_command, read_program};
use super::python_tool;
use super::sqlite_tool::SqliteRules;
use super::tool_program::{ProgramOwner, TrustSubject};
use crate::sandbox::Level;
use crate::task::{Home, Read, Section, functions};

pub(crate) const TOOL_KEYS: [&str; 2] = ["tool", "tools"];

const PROGRAM_KEYS: [&str; 7] = [
    "files",
    "seconds",
    "memory_mib",
    "max_processes",
    "output_kib",
    "isolation",
    "read",
];
const EXAMPLE: &str = "write for example `run = [\"python3\", \"tools.py\"]` with `definitions = \"tools.json\"`, or `builtin = \"sqlite\"`";

/// `[[tool]]`.
#[derive(Debug, Clone)]
pub(super) struct ToolRules {
    /// Unique.
    pub(super) name: String,
    pub(super) kind: ToolKind,
}

#[derive(Debug, Clone)]
pub(super) enum ToolKind {
    /// A program that answers JSON lines.
    Run {
        program: ProgramRules,
        definitions: Value,
        file: String,
    },
    /// An MCP server, with its functions if the task has a copy.
    Mcp {
        program: ProgramRules,
        definitions: Option<(String, Value)>,
        listed: Option<String>,
    },
    Python {
        program: ProgramRules,
        definitions: Value,
    },
    Sqlite(SqliteRules),
    Files(FilesRules),
}

impl ToolRules {
    pub(super) fn owner(&self) -> ProgramOwner<'_> {
        ProgramOwner {
            name: &self.name,
            key: self.kind.key(),
            subject: TrustSubject::Tool,
            block: "[[tool]]",
        }
    }
}

impl ToolKind {
    /// The program's protocol, for digests.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Mcp { .. } => "mcp",
            Self::Python { .. } => "python",
            Self::Sqlite(_) => "sqlite",
            Self::Files(_) => "files",
        }
    }

    pub(super) fn program(&self) -> Option<&ProgramRules> {
        match self {
            Self::Run { program, .. }
            | Self::Mcp { program, .. }
            | Self::Python { program, .. } => Some(program),
            Self::Sqlite(_) | Self::Files(_) => None,
        }
    }

    pub(super) fn definitions(&self) -> Option<&Value> {
        match self {
            Self::Run { definitions, .. } | Self::Python { definitions, .. } => Some(definitions),
            Self::Mcp { definitions, .. } => {
                definitions.as_ref().map(|(_, definitions)| definitions)
            }
            Self::Sqlite(_) | Self::Files(_) => None,
        }
    }

    /// OpenAI's list of its functions, if the task has it.
    pub(super) fn known_definitions(&self) -> Option<Value> {
        match self {
            Self::Sqlite(rules) => Some(rules.definitions.clone()),
            Self::Files(rules) => Some(rules.definitions()),
            _ => self.definitions().cloned(),
        }
    }

    pub(super) fn files(&self) -> Vec<&str> {
        let own: Vec<&String> = match self {
            Self::Run { file, .. } => vec![file],
            Self::Mcp {
                definitions,
                listed,
                ..
            } => {
                let definitions = definitions.as_ref().map(|(file, _)| file);
                definitions.into_iter().chain(listed).collect()
            }
            Self::Sqlite(rules) => rules.files.iter().collect(),
            Self::Files(rules) => rules.files.iter().collect(),
            Self::Python { .. } => Vec::new(),
        };
        self.program()
            .iter()
            .flat_map(|program| &program.files)
            .chain(own)
            .map(String::as_str)
            .collect()
    }
}

/// Tool kinds: the identifying key, its value, further keys.
const KINDS: [(&str, &str, &[&str]); 5] = [
    (
        "run",
        "",
        &[
            "env",
            "definitions",
            "parallel",
            "stateless",
            "field",
            "folder",
        ],
    ),
    (
        "mcp",
        "",
        &[
            "env",
            "definitions",
            "parallel",
            "stateless",
            "server",
            "folder",
        ],
    ),
    (
        "builtin",
        "sqlite",
        &["database", "field", "read_only", "definitions"],
    ),
    ("builtin", "python", &["python"]),
    ("builtin", "files", &["files", "field", "max_kib"]),
];

pub(super) fn read_tools(top: &Section<'_>, home: &Home) -> Read<Vec<ToolRules>> {
    let mut known = vec!["name", "run", "mcp", "builtin"];
    known.extend(PROGRAM_KEYS);
    known.extend(KINDS.iter().flat_map(|(_, _, keys)| keys.iter()));
    let mut tools: Vec<ToolRules> = Vec::new();
    for (block, offset) in top.sections("tool", &known)? {
        for tool in read_tool(&block, offset, home)? {
            if tools.iter().any(|other| other.name == tool.name) {
                let at = block.get("name").map_or(offset, |(_, offset)| offset);
                let message = format!(
                    "{:?} occurs twice: give each [[tool]] its own, such as `name = \"shop\"`",
                    tool.name
                );
                return Err(block.error("name", at, message));
            }
            tools.push(tool);
        }
    }
    Ok(tools)
}

fn read_tool(block: &Section<'_>, offset: usize, home: &Home) -> Read<Vec<ToolRules>> {
    let builtin = block.string("builtin")?;
    let of_kind = |(key, value, _): &&(&str, &str, &[&str])| match *key {
        "builtin" => builtin.as_deref() == Some(*value),
        key => block.get(key).is_some(),
    };
    let (key, value, own) = match (
        KINDS.iter().filter(of_kind).collect::<Vec<_>>().as_slice(),
        &builtin,
    ) {
        ([kind], None) => **kind,
        ([kind], Some(_)) if kind.0 == "builtin" => **kind,
        ([], None) => {
            return Err(block.error_at(offset, format!("`[[tool]]` names no tool; {EXAMPLE}")));
        }
        ([], Some(name)) => {
            let at = block.get("builtin").map_or(offset, |(_, offset)| offset);
            let names: Vec<&str> = KINDS
                .iter()
                .map(|(_, value, _)| *value)
                .filter(|value| !value.is_empty())
                .collect();
            return Err(block.error(
                "builtin",
                at,
                format!("takes {}, not {name:?}", names.join(", ")),
            ));
        }
        _ => {
            return Err(
                block.error_at(offset, "`[[tool]]` names two tools: write a block for each")
            );
        }
    };
    let is_program = value.is_empty() || value == "python";
    let takes = |name: &str| {
        name == "name"
            || name == key
            || own.contains(&name)
            || (is_program && PROGRAM_KEYS.contains(&name))
    };
    if let Some((wrong, at)) = block.keys().find(|(name, _)| !takes(name)) {
        let mut all = vec!["name"];
        all.extend(own);
        all.extend(if is_program { &PROGRAM_KEYS[..] } else { &[] });
        let what = if value.is_empty() {
            format!("`{key}`")
        } else {
            format!("`{key} = {value:?}`")
        };
        return Err(block.error(
            wrong,
            at,
            format!(
                "is not a key of a tool with {what}, which takes {}",
                all.join(", ")
            ),
        ));
    }
    let named = read_name(block)?;
    if key == "mcp" && matches!(block.get(key), Some((DeValue::String(_), _))) {
        return read_listed(block, named, home);
    }
    let prefix = named
        .as_ref()
        .map_or_else(String::new, |name| format!("{name}_"));
    let name = named.unwrap_or_else(|| {
        if value.is_empty() {
            key.to_owned()
        } else {
            value.to_owned()
        }
    });
    let kind = match (key, value) {
        ("run", _) => {
            let example = "definitions = \"tools.json\"";
            let program = read_program(block, read_command(block, key)?, home)?;
            let found = read_definitions(block, home)?
                .ok_or_else(|| home.missing("tool.definitions", example))?;
            ToolKind::Run {
                program,
                file: found.0,
                definitions: found.1,
            }
        }
        ("mcp", _) => {
            if let Some((_, at)) = block.get("server") {
                let why = "names a server of a file, such as `mcp = \"mcp.json\"`";
                return Err(block.error("server", at, why));
            }
            ToolKind::Mcp {
                program: read_program(block, read_command(block, key)?, home)?,
                definitions: read_definitions(block, home)?,
                listed: None,
            }
        }
        (_, "python") => {
            let interpreter = block
                .string("python")?
                .unwrap_or_else(|| "python3".to_owned());
            let mut program = read_program(block, vec![interpreter], home)?;
            // It runs code of a model.
            program.keys.isolation.get_or_insert(Level::Strong);
            ToolKind::Python {
                program,
                definitions: python_tool::definitions(&prefix),
            }
        }
        (_, "files") => ToolKind::Files(FilesRules::read(block, &prefix, home)?),
        _ => ToolKind::Sqlite(SqliteRules::read(
            block,
            &prefix,
            home,
            read_definitions(block, home)?,
        )?),
    };
    Ok(vec![ToolRules { name, kind }])
}

fn read_listed(block: &Section<'_>, name: Option<String>, home: &Home) -> Read<Vec<ToolRules>> {
    let (file, servers) = read_servers(block, home)?;
    let definitions = read_definitions(block, home)?;
    let tool = |server: ListedServer| ToolRules {
        name: name.clone().unwrap_or(server.name),
        kind: ToolKind::Mcp {
            program: server.program,
            definitions: definitions.clone(),
            listed: Some(file.clone()),
        },
    };
    Ok(servers.into_iter().map(tool).collect())
}

fn read_name(block: &Section<'_>) -> Read<Option<String>> {
    const MAX_NAME_LEN: usize = 32;
    let Some((name, (_, offset))) = block.string("name")?.zip(block.get("name")) else {
        return Ok(None);
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        let message = format!("takes 1 to {MAX_NAME_LEN} letters, digits and `_`, not {name:?}");
        return Err(block.error("name", offset, message));
    }
    Ok(Some(name))
}

/// A tool's file of functions, and its content.
fn read_definitions(block: &Section<'_>, home: &Home) -> Read<Option<(String, Value)>> {
    let Some((file, text)) = home.file_of(block, "definitions")? else {
        return Ok(None);
    };
    let list = home.parse_json(&file, &text)?;
    let fault = |message: String| {
        let offset = block.get("definitions").map_or(0, |(_, offset)| offset);
        block.error(
            "definitions",
            offset,
            format!("{}: {message}", home.label(&file)),
        )
    };
    match functions(&list)
        .map_err(|error| fault(error.to_string()))?
        .len()
    {
        0 => Err(fault("no function; list at least one".to_owned())),
        _ => Ok(Some((file, list))),
    }
}

const LIMIT_KEYS: [&str; 7] = [
    "max_calls",
    "max_turns",
    "max_context_tokens",
    "time_limit_seconds",
    "max_result_bytes",
    "replay",
    "recorded",
];

/// The file of recorded results, if `[tools] replay = true`.
pub(super) fn read_replay(
    top: &Section<'_>,
    rules: &[ToolRules],
    home: &Home,
) -> Read<Option<String>> {
    let Some(block) = top.section("tools", &LIMIT_KEYS)? else {
        return Ok(None);
    };
    let fault = |key: &str, message: &str| {
        let offset = block.get(key).map_or(0, |(_, offset)| offset);
        Err(block.error(key, offset, message))
    };
    let file = block.string("recorded")?;
    if !block.boolean("replay")?.unwrap_or(false) {
        return match file {
            Some(_) => fault("recorded", "is read with `replay = true` alone"),
            None => Ok(None),
        };
    }
    let mut programs = rules
        .iter()
        .filter(|tool| tool.kind.program().is_some())
        .peekable();
    if programs.peek().is_none() {
        return fault(
            "replay",
            "has no program to replay: `sqlite` and `files` are no programs",
        );
    }
    if let Some(tool) = programs.find(|tool| tool.kind.definitions().is_none()) {
        let why = "starts no server that would list its functions: give it `definitions = \"tools.json\"`";
        return fault("replay", &format!("of the tool {:?} {why}", tool.name));
    }
    home.name(file.unwrap_or_else(|| "recorded.jsonl".to_owned()))
        .map(Some)
}

/// `[tools]`.
pub(super) fn read_limits(top: &Section<'_>, has_tools: bool) -> Read<ConversationLimits> {
    let block = top.section("tools", &LIMIT_KEYS)?;
    if let (Some((_, offset)), false) = (top.get("tools"), has_tools) {
        return Err(top.error(
            "tools",
            offset,
            format!(
                "has limits of conversations with tools, but there is no `[[tool]]`; {EXAMPLE}"
            ),
        ));
    }
    let whole = |key: &str, default: u64, range: std::ops::RangeInclusive<u64>| -> Read<usize> {
        block
            .as_ref()
            .map_or(Ok(default), |block| block.whole(key, default, range))
            .map(|number| number as usize)
    };
    let has_context = block
        .as_ref()
        .is_some_and(|block| block.get("max_context_tokens").is_some());
    Ok(ConversationLimits {
        max_calls: whole("max_calls", 16, 1..=10_000)?,
        max_turns: whole("max_turns", 12, 1..=10_000)?,
        max_context_tokens: if has_context {
            Some(whole("max_context_tokens", 1, 1..=1 << 24)?)
        } else {
            None
        },
        time_limit_seconds: block
            .as_ref()
            .map_or(Ok(60.0), |block| block.seconds("time_limit_seconds", 60.0))?,
        // Truncation is noted in the result.
        max_result_bytes: whole("max_result_bytes", 4_096, 64..=1 << 20)?,
    })
}
