//! The program that scores or checks, and its limits.

use std::path::{Path, PathBuf};

use super::language::Language;
use crate::sandbox::{
    FoundProgram, Level, ProgramDigest, Sandbox, isolation_text, machine, path_of, visible_paths,
};

/// In `command` and `parse`: the name of the file with the answer.
pub const FILE_ARGUMENT: &str = "{file}";

/// More processes than this are not started by themselves.
const MAX_PROCESSES: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub struct CommandRules {
    /// The program and its arguments; it runs among copies of `files`.
    pub command: Vec<String>,
    /// Files of the task's folder that belong to the program.
    pub files: Vec<String>,
    pub mode: CommandMode,
    /// 0: one a core, at most eight.
    pub processes: usize,
    /// For one answer.
    pub seconds: f64,
    /// Address space; 0 for no limit.
    pub memory_mib: u64,
    /// Processes and threads of all together; `None`: the usual limit.
    pub max_processes: Option<u64>,
    /// Output of one answer.
    pub output_kib: u64,
    /// The least isolation that the task asks for; `None`: the most that the machine gives, whatever that is.
    pub isolation: Option<Level>,
    /// Files and folders outside the task that it may read.
    pub read: Vec<PathBuf>,
}

/// How questions reach the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandMode {
    /// A line of JSON for each completion.
    Lines,
    /// A process for each completion; its exit code is the tier.
    ExitCode,
    /// A linter or compiler checks the answer as a file; what it finds are the reasons.
    Code(CodeRules),
    /// The answer is a program; the row's tests decide.
    Tests(TestRules),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRules {
    /// `None`: `command` runs the answer as a file.
    pub language: Option<&'static Language>,
    /// The name of the file with the answer.
    pub file: String,
    /// Whether the code may be in a Markdown fence.
    pub takes_fence: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRules {
    /// The name of the file with the answer; its ending tells the checker the language.
    pub file: String,
    /// The program and its arguments that refuse what does not parse; empty for none.
    pub parse: Vec<String>,
    /// Whether the code may be in a Markdown fence.
    pub takes_fence: bool,
}

impl CommandRules {
    /// Where a linter or compiler checks code: how.
    pub fn code(&self) -> Option<&CodeRules> {
        if let CommandMode::Code(code) = &self.mode {
            Some(code)
        } else {
            None
        }
    }

    /// Where tests decide about programs: how.
    pub fn tests(&self) -> Option<&TestRules> {
        if let CommandMode::Tests(tests) = &self.mode {
            Some(tests)
        } else {
            None
        }
    }

    /// Whether answers are code.
    pub fn takes_code(&self) -> bool {
        matches!(self.mode, CommandMode::Code(_) | CommandMode::Tests(_))
    }

    /// Processes at once.
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

    /// Strong for code, which a model wrote; where a program scores, only it knows whether it runs what it is given.
    pub fn default_isolation(&self) -> Option<Level> {
        self.takes_code().then_some(Level::Strong)
    }

    /// That it starts: for code the parser, if there is one, then the checker.
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

    /// The level at which it runs on this machine; `None`: the task asks for more.
    pub fn level(&self, given: Level) -> Option<Level> {
        given.for_asked(self.isolation)
    }

    /// The isolation that it runs in on this machine, or why it does not.
    pub fn isolation_text(&self) -> String {
        isolation_text(self.isolation, "[score]")
    }

    /// What it is held to at a level. `folder`: the task's.
    pub(crate) fn sandbox(&self, folder: &Path, level: Level) -> Sandbox {
        let visible = if level == Level::None {
            Vec::new()
        } else {
            self.visible_paths(folder)
        };
        Sandbox {
            level,
            visible,
            memory_mib: self.memory_mib,
            max_processes: self.max_processes,
            has_port: false,
            block: "[score]",
        }
    }

    /// Whether it runs with less isolation than is wanted of programs that may run what a model wrote, and its task does
    /// not say that this is enough.
    pub fn lacks_isolation(&self) -> bool {
        self.isolation.is_none() && machine().level < Level::Strong
    }

    /// What it may read besides the system's programs and its own files. `folder`: the task's.
    pub fn visible_paths(&self, folder: &Path) -> Vec<PathBuf> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let programs: Vec<PathBuf> = self
            .commands()
            .filter_map(<[_]>::first)
            .map(|name| path_of(name, &folder))
            .collect();
        let toolchain = self.tests().and_then(|tests| tests.language?.toolchain());
        let read: Vec<PathBuf> = self.read.iter().cloned().chain(toolchain).collect();
        visible_paths(programs.iter().map(PathBuf::as_path), &read)
    }

    pub fn output_bytes(&self) -> usize {
        usize::try_from(self.output_kib << 10).unwrap_or(usize::MAX)
    }

    /// What its commands name. `folder`: the task's.
    pub(crate) fn programs(&self, folder: &Path, files: &[(String, Vec<u8>)]) -> Vec<FoundProgram> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        self.commands()
            .filter_map(<[_]>::first)
            .map(|name| FoundProgram::find(name, &folder, files))
            .collect()
    }

    /// SHA-256 in hex of what runs: the command, how it is asked, the names and the bytes of its files, and the
    /// programs.
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
            CommandMode::Code(CodeRules {
                file,
                parse,
                takes_fence,
            }) => {
                list(vec![b"code", &[u8::from(*takes_fence)], file.as_bytes()]);
                list(parse.iter().map(String::as_bytes).collect());
            }
            CommandMode::Tests(TestRules {
                language,
                file,
                takes_fence,
            }) => {
                let language = language.map_or("", |language| language.name);
                list(vec![
                    b"tests",
                    &[u8::from(*takes_fence)],
                    language.as_bytes(),
                    file.as_bytes(),
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
