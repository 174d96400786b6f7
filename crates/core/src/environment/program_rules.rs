//! A tool's program and its limits.

use crate::sandbox::{ProgramKeys, program_files};
use crate::task::{Home, Read, Section};

#[derive(Debug, Clone)]
pub(super) struct ProgramRules {
    pub(super) command: Vec<String>,
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
    let field = block.string("field")?;
    if let (Some((_, offset)), true) = (block.get("field"), is_stateless) {
        let message = "is sent to a process of one conversation, but with `stateless = true` a process serves many: leave one of them out";
        return Err(block.error("field", offset, message));
    }
    Ok(ProgramRules {
        files: program_files(command.iter(), block, home)?,
        command,
        keys: ProgramKeys::read(block, 10.0)?,
        max_line_bytes: usize::try_from(block.whole("output_kib", 1_024, 1..=1 << 20)? << 10)
            .unwrap_or(usize::MAX),
        in_parallel: block.boolean("parallel")?.unwrap_or(false),
        is_stateless,
        field,
    })
}
