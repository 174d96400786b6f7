//! A trusted program's files as verified, and its sandbox: runs a copy, unaffected by later changes
//! of the task's folder.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::found_program::{FoundProgram, names_copy};
use super::installed::path_of;
use super::process::{Program, ProgramPath, Sandbox};
use super::scratch::PrivateFolder;
use crate::files::{self, Access};

/// Read, write and execute for this user.
const OWNER_MODE: u32 = 0o700;

#[derive(Debug)]
pub(crate) struct ProgramFiles {
    /// The task's.
    folder: PathBuf,
    files: Vec<(String, Vec<u8>, u32)>,
    programs: Vec<FoundProgram>,
    pub(crate) sandbox: Sandbox,
}

impl ProgramFiles {
    /// `folder`: the task's.
    pub(crate) fn new(
        folder: &Path,
        files: Vec<(String, Vec<u8>)>,
        programs: Vec<FoundProgram>,
        sandbox: Sandbox,
    ) -> Self {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let mode = |name: &str| {
            let found = std::fs::metadata(folder.join(name));
            found.map_or(OWNER_MODE, |found| found.permissions().mode() & OWNER_MODE)
        };
        let files = files
            .into_iter()
            .map(|(name, bytes)| (mode(&name), name, bytes));
        let files = files
            .map(|(mode, name, bytes)| (name, bytes, mode))
            .collect();
        Self {
            folder,
            files,
            programs,
            sandbox,
        }
    }

    pub(crate) fn copies(&self) -> Result<PrivateFolder, String> {
        let folder = PrivateFolder::new()?;
        for (name, bytes, mode) in &self.files {
            let path = folder.path().join(name);
            let written =
                files::ensure_folder(path.parent().unwrap_or(folder.path()), Access::Private)
                    .and_then(|()| std::fs::write(&path, bytes))
                    .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(*mode)));
            written.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(folder)
    }

    /// A name with a slash is in the task's folder; in `copies` if it is copied.
    pub(crate) fn path_of(&self, program: &str, copies: &Path) -> ProgramPath {
        let found = self.programs.iter().find(|found| found.name == program);
        let files = found.map_or_else(Vec::new, |found| found.files.clone());
        let started = found.and_then(FoundProgram::started);
        let is_copied = self
            .files
            .iter()
            .any(|(name, ..)| names_copy(program, name));
        let path = match started {
            Some(file) => file.path.clone(),
            None if is_copied => copies.join(program),
            None => path_of(program, &self.folder),
        };
        ProgramPath {
            // Multi-call programs such as busybox depend on `argv[0]`.
            name: started
                .filter(|_| !program.contains('/'))
                .map(|_| program.to_owned()),
            path,
            files,
        }
    }

    /// Whether a file has the word.
    pub(crate) fn mention(&self, word: &str) -> bool {
        let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(word);
        self.files.iter().any(|(_, bytes, _)| has(bytes))
    }

    /// Prepares a command to run among copies of its files.
    pub(crate) fn program<'a>(
        &self,
        command: &[String],
        copies: &'a PrivateFolder,
        variables: &'a [(&'a str, &'a str)],
    ) -> Program<'a> {
        let (program, arguments) = command
            .split_first()
            .map_or(("", &[][..]), |(first, rest)| (first, rest));
        Program {
            program: self.path_of(program, copies.path()),
            arguments: arguments.to_vec(),
            folder: copies.path(),
            variables,
            joins_output: false,
        }
    }
}
