//! Trust of programs, by content of command and files, and of judges, by server and task.

use std::path::{Path, PathBuf};

use super::command_rules::CommandRules;
use crate::environment::{ToolProgram, TrustSubject};
use crate::files::{self, Access};
use crate::format::counted;
use crate::sandbox::{FoundProgram, installation_problem, is_trusted as is_noted, trust_folder};
use crate::score::error::ScoreError;
use crate::task::{TaskError, TaskFiles};

/// Trust files searched, and size of one.
const MAX_NOTES: usize = 4_096;
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// A program, tool or judge of a task, and whether it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Empty for a judge.
    pub commands: Vec<Vec<String>>,
    /// Model, address and key variable of a judge, which receives prompts and answers.
    pub server: Option<String>,
    pub tool: Option<ToolProgram>,
    pub files: Vec<String>,
    /// Executed files outside the task, each with its link targets and interpreter.
    pub programs: Vec<String>,
    /// SHA-256 in hex over the command, its programs, names and contents of the files; for a judge
    /// over server and task.
    pub digest: String,
    pub is_trusted: bool,
    pub missing: Option<String>,
    /// Not trusted, but an earlier version in this task's folder was.
    pub has_changed: bool,
    folder: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("no folder for what is trusted: set HOME or XDG_STATE_HOME")]
    NoFolder,
    #[error("{path}: {source}; nothing is trusted", path = path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Trust {
    pub(crate) fn for_judge(task: &TaskFiles, digest: String, server: String) -> Self {
        Self {
            commands: Vec::new(),
            server: Some(server),
            tool: None,
            files: Vec::new(),
            programs: Vec::new(),
            is_trusted: is_noted(&digest),
            digest,
            missing: None,
            has_changed: false,
            folder: task.folder().map(real),
        }
    }

    /// Of a Python module that is imported for its classes, by the digest of its file.
    pub fn for_import(
        digest: String,
        command: Vec<String>,
        file: Option<&Path>,
        folder: &Path,
    ) -> Self {
        Self {
            commands: vec![command],
            server: None,
            tool: None,
            files: file
                .map(|file| file.display().to_string())
                .into_iter()
                .collect(),
            programs: Vec::new(),
            is_trusted: is_noted(&digest),
            digest,
            missing: None,
            has_changed: false,
            folder: Some(real(folder)),
        }
    }

    pub(crate) fn for_tool(task: &TaskFiles, tool: ToolProgram) -> Self {
        Self {
            commands: vec![tool.command.clone()],
            server: None,
            files: tool.files.clone(),
            programs: tool.programs.clone(),
            digest: tool.digest.clone(),
            is_trusted: tool.is_trusted,
            missing: tool.missing.clone(),
            has_changed: false,
            folder: task.folder().map(real),
            tool: Some(tool),
        }
    }

    pub(crate) fn for_scorer(
        task: &TaskFiles,
        rules: &CommandRules,
        files: &[(String, Vec<u8>)],
    ) -> (Self, Vec<FoundProgram>) {
        let place = task.folder().unwrap_or(Path::new(""));
        let programs = rules.programs(place, files);
        let digest = rules.program_digest(files, &programs);
        let is_trusted = is_noted(&digest);
        let commands: Vec<Vec<String>> = rules.commands().map(<[_]>::to_vec).collect();
        let missing = commands.iter().filter_map(|command| command.first());
        let missing = missing.filter_map(|program| installation_problem(program, place));
        let mut shown: Vec<String> = programs.iter().flat_map(FoundProgram::lines).collect();
        shown.dedup();
        let trust = Self {
            missing: missing.reduce(|all, next| format!("{all}; {next}")),
            commands,
            server: None,
            tool: None,
            files: rules.files.clone(),
            programs: shown,
            digest,
            is_trusted,
            has_changed: false,
            folder: task.folder().map(real),
        };
        (trust, programs)
    }

    pub fn subject(&self) -> TrustSubject {
        match (&self.server, &self.tool) {
            (Some(_), _) => TrustSubject::Judge,
            (None, Some(program)) => program.subject,
            (None, None) => TrustSubject::Command,
        }
    }

    pub(crate) fn is_agent(&self) -> bool {
        self.subject() == TrustSubject::Agent
    }

    /// Counts, with files: `1 command, 2 tools, 3 files`.
    pub fn counts(all: &[Self]) -> String {
        let mut subjects: Vec<(&str, usize)> = Vec::new();
        for subject in all.iter().map(|trust| trust.subject().name()) {
            match subjects.iter_mut().find(|(known, _)| *known == subject) {
                Some((_, count)) => *count += 1,
                None => subjects.push((subject, 1)),
            }
        }
        let mut files: Vec<&String> = all.iter().flat_map(|trust| &trust.files).collect();
        files.sort_unstable();
        files.dedup();
        let files = (!files.is_empty()).then_some(("file", files.len()));
        let counts = subjects.into_iter().chain(files);
        counts
            .map(|(what, count)| counted(count, what))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Commands as typed in a shell.
    pub fn command_lines(&self) -> impl Iterator<Item = String> {
        self.commands.iter().map(|command| command.join(" "))
    }

    pub fn set(&self, is_trusted: bool) -> Result<(), TrustError> {
        let folder = trust_folder().ok_or(TrustError::NoFolder)?;
        let path = folder.join(&self.digest);
        let failed = |source| TrustError::Write {
            path: path.clone(),
            source,
        };
        if is_trusted {
            files::ensure_folder(&folder, Access::Private).map_err(failed)?;
            let of = self.folder.as_deref().map(record).unwrap_or_default();
            let what = self
                .server
                .clone()
                .unwrap_or_else(|| format!("{:?}", self.commands));
            let text = format!("{what}\n{}\n{of}\n", self.files.join("\n"));
            return files::replace_file(&path, text.as_bytes(), Access::Private).map_err(failed);
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn record(folder: &Path) -> String {
    format!("in {:?}", folder.display().to_string())
}

pub(crate) fn trusted_of(of: &Path) -> Vec<String> {
    let last = record(&real(of));
    let notes = trust_folder().and_then(|folder| std::fs::read_dir(folder).ok());
    let is_of = |path: &Path| {
        let text = files::read_at_most(path, MAX_NOTE_BYTES).ok();
        text.is_some_and(|text| {
            String::from_utf8_lossy(&text).lines().last() == Some(last.as_str())
        })
    };
    let notes = notes
        .into_iter()
        .flatten()
        .flatten()
        .take(MAX_NOTES)
        .filter(|note| is_of(&note.path()));
    notes
        .map(|note| note.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A scorer's files with contents, and the programs its commands start.
type TrustedFiles = (Vec<(String, Vec<u8>)>, Vec<FoundProgram>);

/// A scoring program's files and programs, as verified.
///
/// # Errors
/// A program that is untrusted or missing.
pub(crate) fn check(task: &TaskFiles, rules: &CommandRules) -> Result<TrustedFiles, ScoreError> {
    let files = task.read_files(&rules.files)?;
    let (trust, programs) = Trust::for_scorer(task, rules, &files);
    match trust {
        trust if !trust.is_trusted => Err(ScoreError::Untrusted {
            task: task.name.clone(),
            commands: trust
                .command_lines()
                .map(|line| format!("`{line}`"))
                .collect::<Vec<_>>()
                .join(" and "),
            place: task
                .folder()
                .map_or_else(|| task.name.clone(), |folder| folder.display().to_string()),
            missing: trust
                .missing
                .map_or_else(String::new, |missing| format!("; {missing}")),
        }),
        Trust {
            missing: Some(missing),
            ..
        } => Err(ScoreError::NotInstalled {
            task: task.name.clone(),
            missing,
        }),
        _ => Ok((files, programs)),
    }
}

/// Rejects an untrusted judge; `digest` and `server`: of its rules.
pub(crate) fn check_judge_trust(
    task: &TaskFiles,
    digest: &str,
    server: String,
) -> Result<(), ScoreError> {
    if is_noted(digest) {
        return Ok(());
    }
    let place = task
        .folder()
        .map_or_else(|| task.name.clone(), |folder| folder.display().to_string());
    Err(ScoreError::UntrustedJudge {
        task: task.name.clone(),
        server,
        place,
    })
}
