//! The scoring or checking program, and its limits.

use std::path::{Path, PathBuf};

use crate::sandbox::{
    FoundProgram, Level, ProgramDigest, Sandbox, isolation_text, machine, path_of, visible_paths,
};

/// Placeholder in `command` and `parse` for the name of the answer's file.
pub const FILE_ARGUMENT: &str = "{file}";

/// Default limit of processes.
const MAX_PROCESSES: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub struct CommandRules {
    /// Program and arguments; it runs among copies of `files`.
    pub command: Vec<String>,
    pub files: Vec<String>,
    pub mode: CommandMode,
    /// 0: one per core, at most eight.
    pub processes: usize,
    /// Limit per answer.
    pub seconds: f64,
    /// Limit for each process, and for all together; 0: none.
    pub memory_mib: u64,
    /// Processes and threads in total; `None`: the default.
    pub max_processes: Option<u64>,
    /// Output per answer.
    pub output_kib: u64,
    /// Minimum isolation; `None`: the machine's maximum.
    pub isolation: Option<Level>,
    /// Readable files and folders outside the task.
    pub read: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CommandMode {
    /// A JSON line per completion.
    Lines,
    /// A process per completion; exit code is the tier.
    ExitCode,
    /// A linter or compiler checks the answer as a file; findings are the reasons.
    Code(CodeRules),
    /// The answer is a program; the row's tests decide.
    Tests(TestRules),
    /// A Python function; `command` is the interpreter and `FILE:NAME`.
    Python(PythonRules),
}

/// How numbers of a reward function count.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonRules {
    /// The numbers that count as 0 and 1; `None`: these.
    pub range: Option<[f64; 2]>,
    /// `text` or `messages`; `None`: by the function's form.
    pub completions: Option<&'static str>,
    /// Tier of an answer that earns nothing.
    pub zero: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRules {
    /// Whether the code may be in a Markdown fence.
    pub takes_fence: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRules {
    /// Name of the answer's file; its extension selects the language.
    pub file: String,
    /// Command that rejects unparsable code; may be empty.
    pub parse: Vec<String>,
    /// Whether the code may be in a Markdown fence.
    pub takes_fence: bool,
}

impl CommandRules {
    /// Set if a linter or compiler checks code.
    pub fn code(&self) -> Option<&CodeRules> {
        if let CommandMode::Code(code) = &self.mode {
            Some(code)
        } else {
            None
        }
    }

    /// Set if tests judge programs.
    pub fn tests(&self) -> Option<&TestRules> {
        if let CommandMode::Tests(tests) = &self.mode {
            Some(tests)
        } else {
            None
        }
    }

    pub fn takes_code(&self) -> bool {
        matches!(self.mode, CommandMode::Code(_) | CommandMode::Tests(_))
    }

    pub fn width(&self) -> usize {
        let cores = || {
            std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(MAX_PROCESSES)
        };
        if self.processes == 0 {
            cores()
        } else {
            self.processes
        }
    }

    /// Strong for code of a model; a scoring program itself knows whether it runs its input.
    pub fn default_isolation(&self) -> Option<Level> {
        self.takes_code().then_some(Level::Strong)
    }

    pub fn commands(&self) -> impl Iterator<Item = &[String]> {
        let parse = if let CommandMode::Code(code) = &self.mode {
            code.parse.as_slice()
        } else {
            &[]
        };
        [parse, &self.command]
            .into_iter()
            .filter(|command| !command.is_empty())
    }

    /// Its level on this machine; `None`: the task requires more.
    pub fn level(&self, given: Level) -> Option<Level> {
        given.for_asked(self.isolation)
    }

    pub fn isolation_text(&self) -> String {
        isolation_text(self.isolation, "[score]")
    }

    /// Restrictions at a level. `folder`: the task's.
    pub(crate) fn sandbox(&self, folder: &Path, level: Level) -> Sandbox {
        let visible = if level == Level::None {
            Vec::new()
        } else {
            self.visible_paths(folder)
        };
        Sandbox {
            level,
            visible,
            writable: None,
            memory_mib: self.memory_mib,
            max_processes: self.max_processes,
            has_port: false,
            block: "[score]",
        }
    }

    /// Whether it has less isolation than recommended for programs that may run model output,
    /// without its task accepting that.
    pub fn lacks_isolation(&self) -> bool {
        self.isolation.is_none() && machine().level < Level::Strong
    }

    /// Readable besides system programs and its own files. `folder`: the task's.
    pub fn visible_paths(&self, folder: &Path) -> Vec<PathBuf> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let programs: Vec<PathBuf> = self
            .commands()
            .filter_map(<[_]>::first)
            .map(|name| path_of(name, &folder))
            .collect();
        visible_paths(programs.iter().map(PathBuf::as_path), &self.read, &folder)
    }

    pub fn output_bytes(&self) -> usize {
        usize::try_from(self.output_kib << 10).unwrap_or(usize::MAX)
    }

    /// Programs of its commands. `folder`: the task's.
    pub(crate) fn programs(&self, folder: &Path, files: &[(String, Vec<u8>)]) -> Vec<FoundProgram> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        self.commands()
            .filter_map(<[_]>::first)
            .map(|name| FoundProgram::find(name, &folder, files))
            .collect()
    }

    /// SHA-256 in hex of what runs: command, protocol, names and contents of files, programs.
    pub(crate) fn program_digest(
        &self,
        files: &[(String, Vec<u8>)],
        programs: &[FoundProgram],
    ) -> String {
        let mut digest = ProgramDigest::default();
        programs
            .iter()
            .for_each(|program| program.add_to(&mut digest));
        let mut list = |texts: Vec<&[u8]>| digest.add(&texts);
        list(self.command.iter().map(String::as_bytes).collect());
        match &self.mode {
            CommandMode::Lines => list(vec![b"lines"]),
            CommandMode::ExitCode => list(vec![b"exit_code"]),
            CommandMode::Python(_) => list(vec![b"python"]),
            CommandMode::Code(CodeRules {
                file,
                parse,
                takes_fence,
            }) => {
                list(vec![b"code", &[u8::from(*takes_fence)], file.as_bytes()]);
                list(parse.iter().map(String::as_bytes).collect());
            }
            CommandMode::Tests(TestRules { takes_fence }) => {
                list(vec![
                    b"tests",
                    &[u8::from(*takes_fence)],
                    b"python",
                    b"answer.py",
                ]);
            }
        }
        for (name, bytes) in files {
            list(vec![name.as_bytes(), bytes]);
        }
        if self.isolation != self.default_isolation() || !self.read.is_empty() {
            list(vec![
                b"isolation",
                self.isolation.map_or("", Level::name).as_bytes(),
            ]);
            list(
                self.read
                    .iter()
                    .map(|path| path.as_os_str().as_encoded_bytes())
                    .collect(),
            );
        }
        digest.hex()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_never_have_one_digest() {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let rules = |command: &[&str], mode: CommandMode| CommandRules {
            command: texts(command),
            files: Vec::new(),
            mode,
            processes: 1,
            seconds: 1.0,
            memory_mib: 1,
            max_processes: None,
            output_kib: 1,
            isolation: None,
            read: Vec::new(),
        };
        let code = |parse: &[&str]| {
            CommandMode::Code(CodeRules {
                file: "a".to_owned(),
                parse: texts(parse),
                takes_fence: false,
            })
        };
        let files = |files: &[(&str, &str)]| {
            files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
                .collect::<Vec<_>>()
        };
        let digests = [
            rules(&["sh"], code(&["python3"])).program_digest(&files(&[("-c", "exit()")]), &[]),
            rules(&["sh"], code(&["python3", "-c", "exit()"])).program_digest(&[], &[]),
            rules(&["sh"], code(&[])).program_digest(&files(&[("python3", "-c")]), &[]),
            rules(&["sh"], CommandMode::Lines).program_digest(&files(&[("python3", "-c")]), &[]),
            rules(&["sh"], CommandMode::ExitCode).program_digest(&files(&[("python3", "-c")]), &[]),
            rules(&["sh", "python3", "-c"], CommandMode::Lines).program_digest(&[], &[]),
            rules(&["sh"], CommandMode::Lines).program_digest(&files(&[("python", "3-c")]), &[]),
            rules(&["sh"], CommandMode::Lines)
                .program_digest(&files(&[("a", "b"), ("c", "d")]), &[]),
            rules(&["sh"], CommandMode::Lines)
                .program_digest(&files(&[("a", ""), ("b", "cd")]), &[]),
        ];
        let different: std::collections::BTreeSet<&String> = digests.iter().collect();
        assert_eq!(different.len(), digests.len(), "{digests:?}");
    }
}
