//! A tool's program and its limits.

use toml::Spanned;
use toml::de::DeValue;

use crate::sandbox::{ProgramKeys, program_files};
use crate::task::{Home, Read, Section};

/// Set by the sandbox.
const OWN_VARIABLES: [&str; 4] = ["HOME", "LANG", "PATH", "TMPDIR"];

/// `NAME = "text"` or `NAME = "${OTHER}"` of `env`; the latter's value is never stored.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) text: String,
}

impl Variable {
    /// `None`: not a text.
    pub(super) fn new(name: &str, text: Option<&str>) -> Result<Self, &'static str> {
        match text {
            _ if OWN_VARIABLES.contains(&name) => Err("is set by the sandbox: leave it out"),
            _ if !is_name(name) => Err("is no name of a variable: use letters, digits and `_`"),
            None => {
                Err("takes a text in quotes, or \"${NAME}\" for a variable of your environment")
            }
            Some(text) if text.contains('\0') => Err("has a NUL character"),
            Some(text) => Ok(Self {
                name: name.to_owned(),
                text: text.to_owned(),
            }),
        }
    }

    /// The variable of this process that has the value.
    pub(super) fn source(&self) -> Option<&str> {
        self.text.strip_prefix("${")?.strip_suffix('}')
    }

    pub(super) fn value(&self) -> Result<String, String> {
        let Some(source) = self.source() else {
            return Ok(self.text.clone());
        };
        std::env::var(source).map_err(|_| {
            format!("needs the environment variable {source} (`env` in its [[tool]]): set it")
        })
    }

    pub(super) fn secret(&self) -> Option<String> {
        self.source()?;
        self.value().ok().filter(|value| !value.is_empty())
    }
}

#[derive(Debug, Clone)]
pub(super) struct ProgramRules {
    pub(super) command: Vec<String>,
    pub(super) variables: Vec<Variable>,
    /// Task files that belong to it.
    pub(super) files: Vec<String>,
    pub(super) keys: ProgramKeys,
    /// Length of one answer.
    pub(super) max_line_bytes: usize,
    /// Whether it gets all calls of an answer at once.
    pub(super) in_parallel: bool,
    /// Whether a process may serve several conversations in turn.
    pub(super) is_stateless: bool,
    /// Row field sent to a `run` program at the start.
    pub(super) field: Option<String>,
    /// A folder of the task whose copy each process may change; its files are among `files`.
    pub(super) folder: Option<String>,
}

pub(super) fn read_command(block: &Section<'_>, key: &'static str) -> Read<Vec<String>> {
    let command = block.quoted_strings(key)?;
    match command.first().is_none_or(String::is_empty) {
        true => {
            let offset = block.get(key).map_or(0, |(_, offset)| offset);
            Err(block.error(
                key,
                offset,
                format!("is empty; write for example `{key} = [\"python3\", \"tools.py\"]`"),
            ))
        }
        false => Ok(command),
    }
}

pub(super) fn read_program(
    block: &Section<'_>,
    command: Vec<String>,
    home: &Home,
) -> Read<ProgramRules> {
    let is_stateless = block.boolean("stateless")?.unwrap_or(false);
    for key in ["field", "folder"] {
        if let (Some((_, offset)), true) = (block.get(key), is_stateless) {
            let message = "is of a process of one conversation, but with `stateless = true` a process serves many: leave one of them out";
            return Err(block.error(key, offset, message));
        }
    }
    let mut files = program_files(command.iter(), block, home)?;
    let folder = read_folder(block, home)?;
    if let Some((_, inside)) = &folder {
        files.retain(|file| !inside.contains(file));
        files.extend(inside.iter().cloned());
    }
    Ok(ProgramRules {
        files,
        command,
        variables: read_variables(block)?,
        keys: ProgramKeys::read(block, 10.0)?,
        max_line_bytes: usize::try_from(block.whole("output_kib", 1_024, 1..=1 << 20)? << 10)
            .unwrap_or(usize::MAX),
        in_parallel: block.boolean("parallel")?.unwrap_or(false),
        is_stateless,
        field: block.string("field")?,
        folder: folder.map(|(name, _)| name),
    })
}

fn read_folder(block: &Section<'_>, home: &Home) -> Read<Option<(String, Vec<String>)>> {
    let Some((name, (_, offset))) = block.string("folder")?.zip(block.get("folder")) else {
        return Ok(None);
    };
    let name = home.name(name)?;
    let files = home.files_below(&name)?;
    if files.is_empty() {
        let why = format!("names {}, which has no files", home.label(&name));
        return Err(block.error("folder", offset, why));
    }
    Ok(Some((name, files)))
}

fn read_variables(block: &Section<'_>) -> Read<Vec<Variable>> {
    let Some(table) = block.table("env")? else {
        return Ok(Vec::new());
    };
    let variable = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let name = name.get_ref();
        let fault = |why| block.error(&format!("env.{name}"), value.span().start, why);
        Variable::new(name, value.get_ref().as_str()).map_err(fault)
    };
    table.iter().map(variable).collect()
}

pub(super) fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.bytes().all(is_part)
}
