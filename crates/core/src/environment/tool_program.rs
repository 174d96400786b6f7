//! The program of a tool or agent, and whether the user trusts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::EnvironmentError;
use super::program_process::TrustedProgram;
use super::program_rules::ProgramRules;
use crate::config::choices;
use crate::sandbox::{
    FoundProgram, Level, ProgramDigest, ProgramFiles, Sandbox, bytecode_note, installation_problem,
    is_trusted, isolation_text, machine, path_of, visible_paths,
};
use crate::task::{Home, Read};

choices! {
    /// What a user trusts.
    TrustSubject {
        Command = "command",
        Tool = "tool",
        Agent = "agent",
        Judge = "judge",
    }
}

/// What a program belongs to, for messages and digests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgramOwner<'a> {
    pub(super) name: &'a str,
    pub(super) key: &'a str,
    pub(super) subject: TrustSubject,
    /// Block of `task.toml`.
    pub(super) block: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolProgram {
    pub name: String,
    /// A tool or an agent.
    pub subject: TrustSubject,
    block: &'static str,
    pub command: Vec<String>,
    pub files: Vec<String>,
    /// Executed files outside the task, each with its link targets and interpreter; then its
    /// variables as written.
    pub programs: Vec<String>,
    /// SHA-256 in hex over the command, its programs, and names and contents of the files.
    pub digest: String,
    pub is_trusted: bool,
    pub missing: Option<String>,
    /// Minimum isolation required by the task.
    asked: Option<Level>,
    read: Vec<PathBuf>,
    folder: PathBuf,
}

pub(super) type FileBytes = Vec<(String, Vec<u8>)>;

impl ToolProgram {
    pub(super) fn read(
        owner: ProgramOwner<'_>,
        rules: &ProgramRules,
        home: &Home,
    ) -> Read<(Self, FileBytes, FoundProgram)> {
        let folder = home.folder().unwrap_or(Path::new(""));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let files = home.read_files(&rules.files)?;
        let mut digest = ProgramDigest::default();
        digest.add(&[owner.subject.name().as_bytes(), owner.key.as_bytes()]);
        digest.add(
            &rules
                .command
                .iter()
                .map(String::as_bytes)
                .collect::<Vec<_>>(),
        );
        digest.add(&[rules.keys.isolation.map_or("", Level::name).as_bytes()]);
        digest.add(
            &rules
                .keys
                .read
                .iter()
                .map(|path| path.as_os_str().as_encoded_bytes())
                .collect::<Vec<_>>(),
        );
        files
            .iter()
            .for_each(|(name, bytes)| digest.add(&[name.as_bytes(), bytes]));
        for variable in &rules.variables {
            digest.add(&[b"env", variable.name.as_bytes(), variable.text.as_bytes()]);
        }
        let name = rules.command.first().map_or("", String::as_str);
        let found = FoundProgram::find(name, &folder, &files);
        found.add_to(&mut digest);
        let digest = digest.hex();
        let program = Self {
            name: owner.name.to_owned(),
            subject: owner.subject,
            block: owner.block,
            command: rules.command.clone(),
            files: rules.files.clone(),
            programs: found
                .lines()
                .chain(rules.variables.iter().map(|variable| {
                    format!("with {}={}", variable.name, variable.text) //
                }))
                .collect(),
            is_trusted: is_trusted(&digest),
            digest,
            missing: installation_problem(name, &folder),
            asked: rules.keys.isolation,
            read: rules.keys.read.clone(),
            folder,
        };
        Ok((program, files, found))
    }

    pub fn isolation_text(&self) -> String {
        match self.level() {
            None if self.needs_network()
                && machine().level.for_asked(self.asked) == Some(Level::Limited) =>
            {
                let reason = machine().reason.as_deref().unwrap_or_default();
                format!(
                    "limited has no network, by which an agent asks, and this machine gives no more: {reason}; or accept less with `isolation = \"none\"` in {}",
                    self.block
                )
            }
            _ if self.needs_network() => isolation_text(self.asked, self.block)
                .replace("no network", "no network but the server that it asks"),
            _ => isolation_text(self.asked, self.block),
        }
    }

    /// Its level on this machine; `None`: cannot run.
    fn level(&self) -> Option<Level> {
        let level = machine().level.for_asked(self.asked);
        level.filter(|level| *level != Level::Limited || !self.needs_network())
    }

    fn needs_network(&self) -> bool {
        self.block == "[agent]"
    }

    /// Whether it has less isolation than recommended for programs controlled by a model, without
    /// its task accepting that.
    pub fn lacks_isolation(&self) -> bool {
        self.asked.is_none() && machine().level < Level::Strong
    }

    /// Whether Python compiles most of its packages at each start, and the remedy.
    pub fn bytecode_note(&self) -> Option<String> {
        let name = self
            .command
            .first()
            .filter(|_| self.level() != Some(Level::None))?;
        let note = bytecode_note(name, &self.folder)?;
        Some(format!(
            "the {}: {note}",
            described(self.subject, &self.name)
        ))
    }

    pub fn visible_paths(&self) -> Vec<PathBuf> {
        let name = self.command.first().map_or("", String::as_str);
        visible_paths(
            [path_of(name, &self.folder).as_path()],
            &self.read,
            &self.folder,
        )
    }
}

/// A program in messages: `tool "shop"`, or `agent`.
fn described(subject: TrustSubject, name: &str) -> String {
    let word = subject.name();
    if word == name {
        word.to_owned()
    } else {
        format!("{word} {name:?}")
    }
}

pub(super) fn trusted(
    task: &str,
    owner: ProgramOwner<'_>,
    rules: &ProgramRules,
    home: &Home,
) -> Result<TrustedProgram, EnvironmentError> {
    let (program, files, found) = ToolProgram::read(owner, rules, home)?;
    let missing = program.missing.clone();
    if !program.is_trusted {
        return Err(EnvironmentError::Untrusted {
            task: task.to_owned(),
            role: if owner.subject == TrustSubject::Agent {
                "an agent"
            } else {
                "a tool"
            },
            command: format!("`{}`", program.command.join(" ")),
            place: home
                .folder()
                .map_or_else(|| task.to_owned(), |folder| folder.display().to_string()),
            missing: missing.map_or_else(String::new, |missing| format!("; {missing}")),
        });
    }
    if let Some(missing) = missing {
        return Err(EnvironmentError::NotInstalled {
            task: task.to_owned(),
            missing,
        });
    }
    let level = program
        .level()
        .ok_or_else(|| EnvironmentError::NotIsolated {
            task: task.to_owned(),
            program: described(owner.subject, owner.name),
            text: program.isolation_text(),
        })?;
    let visible = if level == Level::None {
        Vec::new()
    } else {
        program.visible_paths()
    };
    let sandbox = Sandbox {
        level,
        visible,
        writable: rules.folder.as_ref().map(PathBuf::from),
        memory_mib: rules.keys.memory_mib,
        max_processes: rules.keys.max_processes,
        has_port: program.needs_network() && level == Level::Strong,
        block: owner.block,
    };
    let folder = home.folder().unwrap_or(Path::new(""));
    let files = ProgramFiles::new(folder, files, vec![found], sandbox);
    Ok(TrustedProgram {
        rules: rules.clone(),
        files: Arc::new(files),
    })
}
