//! The program of a tool, and whether the user has allowed it to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EnvironmentError;
use super::definition::ToolRules;
use super::program_process::TrustedProgram;
use super::program_rules::ProgramRules;
use crate::sandbox::{
    Level, ProgramDigest, ProgramFiles, Sandbox, installation_problem, is_trusted, isolation_text, machine, path_of,
    visible_paths,
};
use crate::task::{Home, Read};

const BLOCK: &str = "[[tool]]";

/// A program that a tool runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolProgram {
    /// `name` of its `[[tool]]`.
    pub tool: String,
    pub command: Vec<String>,
    /// Files of the task's folder that belong to it.
    pub files: Vec<String>,
    /// SHA-256 in hex over the command, the names and the bytes of the files.
    pub digest: String,
    pub is_trusted: bool,
    /// What this machine lacks, and how to install it.
    pub missing: Option<String>,
    /// The least isolation that the task asks for.
    asked: Option<Level>,
    /// Files and folders outside the task that it may read.
    read: Vec<PathBuf>,
    folder: PathBuf,
}

/// Names and bytes of files.
pub(super) type FileBytes = Vec<(String, Vec<u8>)>;

impl ToolProgram {
    /// The program, and the bytes of its files.
    pub(super) fn read(tool: &ToolRules, rules: &ProgramRules, home: &Home) -> Read<(Self, FileBytes)> {
        let folder = home.folder().unwrap_or(Path::new(""));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let files = home.read_files(&rules.files)?;
        let mut digest = ProgramDigest::default();
        digest.add(&[b"tool", tool.kind.key().as_bytes()]);
        digest.add(&rules.command.iter().map(String::as_bytes).collect::<Vec<_>>());
        digest.add(&[rules.keys.isolation.map_or("", Level::name).as_bytes()]);
        digest.add(&rules.keys.read.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect::<Vec<_>>());
        files.iter().for_each(|(name, bytes)| digest.add(&[name.as_bytes(), bytes]));
        let digest = digest.hex();
        let name = rules.command.first().map_or("", String::as_str);
        let program = Self {
            tool: tool.name.clone(),
            command: rules.command.clone(),
            files: rules.files.clone(),
            is_trusted: is_trusted(&digest),
            digest,
            missing: installation_problem(name, &folder),
            asked: rules.keys.isolation,
            read: rules.keys.read.clone(),
            folder,
        };
        Ok((program, files))
    }

    /// The isolation that it runs in on this machine, or why it does not.
    pub fn isolation_text(&self) -> String {
        isolation_text(self.asked, BLOCK)
    }

    /// Whether it runs with less isolation than is wanted of programs that do what a model says, and its task does not
    /// say that this is enough.
    pub fn lacks_isolation(&self) -> bool {
        self.asked.is_none() && machine().level < Level::Strong
    }

    /// What it may read besides the system's programs and its own files.
    pub fn visible_paths(&self) -> Vec<PathBuf> {
        let name = self.command.first().map_or("", String::as_str);
        visible_paths([path_of(name, &self.folder).as_path()], &self.read)
    }
}

/// The program of a tool with its files, as they are when they are found to be trusted.
pub(super) fn trusted(
    task: &str,
    tool: &ToolRules,
    rules: &ProgramRules,
    home: &Home,
) -> Result<TrustedProgram, EnvironmentError> {
    let (program, files) = ToolProgram::read(tool, rules, home)?;
    let missing = program.missing.clone();
    if !program.is_trusted {
        return Err(EnvironmentError::Untrusted {
            task: task.to_owned(),
            command: format!("`{}`", program.command.join(" ")),
            place: home.folder().map_or_else(|| task.to_owned(), |folder| folder.display().to_string()),
            missing: missing.map_or_else(String::new, |missing| format!("; {missing}")),
        });
    }
    if let Some(missing) = missing {
        return Err(EnvironmentError::NotInstalled { task: task.to_owned(), missing });
    }
    let level = machine().level.for_asked(rules.keys.isolation).ok_or_else(|| EnvironmentError::NotIsolated {
        task: task.to_owned(),
        tool: tool.name.clone(),
        text: program.isolation_text(),
    })?;
    let visible = if level == Level::None { Vec::new() } else { program.visible_paths() };
    let sandbox = Sandbox { level, visible, memory_mib: rules.keys.memory_mib, block: BLOCK };
    let files = ProgramFiles::new(home.folder().unwrap_or(Path::new("")), files, sandbox);
    Ok(TrustedProgram { rules: rules.clone(), files: Arc::new(files) })
}
