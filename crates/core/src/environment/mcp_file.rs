//! `mcp = "mcp.json"`: MCP servers as Claude, Cursor and VS Code list them.

use serde_json::{Map, Value};

use super::program_rules::{ProgramRules, Variable, is_name, read_program};
use crate::format::did_you_mean;
use crate::secrets::scan;
use crate::task::{Home, Read, Section};

/// Names of the list: of Claude and Cursor, of VS Code.
const LISTS: [&str; 2] = ["mcpServers", "servers"];
/// Keys of a server that is reached by network.
const ADDRESSES: [&str; 3] = ["url", "serverUrl", "httpUrl"];
const OWN_FOLDER: &str = "the server runs in a copy of the task's `files`";

#[derive(Debug)]
pub(super) struct ListedServer {
    pub(super) name: String,
    pub(super) program: ProgramRules,
}

/// Reads the file of `mcp`, and of its servers the one that `server` names, or all that are not
/// disabled. The block's other keys are of each.
pub(super) fn read_servers(block: &Section<'_>, home: &Home) -> Read<(String, Vec<ListedServer>)> {
    let offset = |key: &str| block.get(key).map_or(0, |(_, offset)| offset);
    let Some((file, text)) = home.file_of(block, "mcp")? else {
        return Err(home.missing("tool.mcp", "mcp = \"mcp.json\""));
    };
    let label = home.label(&file);
    let fault = |why: &str| block.error("mcp", offset("mcp"), format!("{label} {why}"));
    let document = home.parse_json(&file, &text)?;
    let Some(servers) = LISTS
        .iter()
        .find_map(|list| document.get(list)?.as_object())
    else {
        return Err(fault(
            "has no object `mcpServers` (Claude, Cursor) or `servers` (VS Code)",
        ));
    };
    let asked = block.string("server")?;
    let is_asked = |(name, server): &(&String, &Value)| match &asked {
        Some(asked) => *name == asked,
        None => server.get("disabled") != Some(&Value::Bool(true)),
    };
    let chosen: Vec<_> = servers.iter().filter(is_asked).collect();
    if let (Some(asked), true) = (&asked, chosen.is_empty()) {
        let near = did_you_mean(asked, servers.keys().map(String::as_str));
        let why = format!("names {asked:?}, which {label} does not list{near}");
        return Err(block.error("server", offset("server"), why));
    }
    for key in ["name", "definitions"] {
        if chosen.len() > 1 && block.get(key).is_some() {
            let why = format!(
                "is of one server, and {label} lists {}: choose one with `server`",
                chosen.len()
            );
            return Err(block.error(key, offset(key), why));
        }
    }
    let read = |(name, server): (&String, &Value)| {
        let wrong = |why: String| fault(&format!("has the server {name:?}, {why}"));
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(wrong("whose name cannot be shown: rename it".to_owned()));
        }
        let fields = server
            .as_object()
            .ok_or_else(|| wrong("which is not an object".to_owned()))?;
        let command = command(fields).map_err(wrong)?;
        let listed = variables(fields).map_err(wrong)?;
        let mut program = read_program(block, command, home)?;
        let own = std::mem::take(&mut program.variables);
        let is_own = |variable: &Variable| own.iter().any(|own| own.name == variable.name);
        let listed = listed.into_iter().filter(|variable| !is_own(variable));
        program.variables = listed.chain(own.iter().cloned()).collect();
        Ok(ListedServer {
            name: name.clone(),
            program,
        })
    };
    let found = chosen.into_iter().map(read).collect::<Read<Vec<_>>>()?;
    if found.is_empty() {
        return Err(fault("lists no server that is not disabled"));
    }
    Ok((file, found))
}

fn command(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    if let Some(address) = ADDRESSES.iter().find(|key| fields.contains_key(**key)) {
        return Err(format!(
            "which is reached by `{address}`, and a tool has no network: use one with a `command`, or choose another with `server`"
        ));
    }
    match fields.get("type").map(Value::as_str) {
        None | Some(Some("stdio")) => {}
        Some(kind) => {
            return Err(format!(
                "whose `type` is {:?}: only \"stdio\" is run",
                kind.unwrap_or("not a text")
            ));
        }
    }
    for key in ["cwd", "envFile"] {
        if fields.contains_key(key) {
            return Err(format!("which has `{key}`: {OWN_FOLDER}, leave it out"));
        }
    }
    let program = fields.get("command").and_then(Value::as_str);
    let Some(program) = program.filter(|program| !program.is_empty()) else {
        return Err("which has no `command`, a text".to_owned());
    };
    let no_list = || "whose `args` are not a list of texts".to_owned();
    let arguments = match fields.get("args") {
        None => &[],
        Some(list) => list.as_array().ok_or_else(no_list)?.as_slice(),
    };
    let arguments = arguments
        .iter()
        .map(|text| text.as_str().ok_or_else(no_list));
    let command: Vec<&str> = std::iter::once(Ok(program))
        .chain(arguments)
        .collect::<Result<_, _>>()?;
    match command.iter().find(|text| text.contains("${")) {
        Some(text) => Err(format!(
            "whose command has {text:?}: only `env` takes \"${{NAME}}\", write the value"
        )),
        None => Ok(command.into_iter().map(str::to_owned).collect()),
    }
}

fn variables(fields: &Map<String, Value>) -> Result<Vec<Variable>, String> {
    let Some(listed) = fields.get("env") else {
        return Ok(Vec::new());
    };
    let listed = listed.as_object().ok_or("whose `env` is not an object")?;
    let variable = |(name, value): (&String, &Value)| {
        let text = value.as_str().unwrap_or_default();
        // VS Code and Cursor write `${env:NAME}`.
        let text = text.replacen("${env:", "${", 1);
        let found = Variable::new(name, value.as_str().map(|_| text.as_str()));
        let found =
            found.and_then(
                |variable| match variable.source().filter(|name| is_name(name)) {
                    None if text.contains("${") => {
                        Err("has another `${..}` than \"${NAME}\" as the whole value")
                    }
                    None if !scan(&format!("{name}={text}")).is_empty() => {
                        Err("is a secret: write \"${NAME}\" for a variable of your environment")
                    }
                    _ => Ok(variable),
                },
            );
        found.map_err(|why| format!("whose `env.{name}` {why}"))
    };
    listed.iter().map(variable).collect()
}
