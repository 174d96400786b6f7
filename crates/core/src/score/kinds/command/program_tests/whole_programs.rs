//! Languages without a warm interpreter: parsed or compiled once, then one process per case.

use std::time::{Duration, Instant};

use super::cases::CaseKind;
use super::server::Reply;
use crate::sandbox::{PrivateFolder, Process, Program, ProgramFiles, WaitOutcome};
use crate::score::kinds::command::code::findings;
use crate::score::kinds::command::whole_run::last_line;
use crate::score::needs::{BINARY, CommandRules, FILE_ARGUMENT, Language, TestRules};

/// Time limit of a compiler.
const COMPILE_SECONDS: f64 = 60.0;
const MAX_BINARY_BYTES: usize = 64 << 20;
/// Calls a function with arguments from standard input; its value is the last line of standard
/// output.
const NODE_CALL: &str = r#"
const fs = require("fs"), [file, entry] = process.argv.slice(1);
const source = fs.readFileSync(file, "utf8"), given = JSON.parse(fs.readFileSync(0, "utf8"));
globalThis.require = require;
process.stdout.write = process.stderr.write.bind(process.stderr);
const stringify = JSON.stringify, write = fs.writeSync, fail = error => { console.error(String(error)); process.exitCode = 1; };
try {
  Promise.resolve((0, eval)(source + "\n;" + entry)(...given)).then(value => write(1, "\n" + stringify(value ?? null) + "\n"), fail);
} catch (error) { fail(error); }
"#;

/// The rules by which programs are tested.
#[derive(Clone, Copy)]
pub(crate) struct TestedWith<'a> {
    pub(crate) rules: &'a CommandRules,
    pub(crate) files: &'a ProgramFiles,
    pub(crate) tests: &'a TestRules,
}

/// An answer ready to run.
pub(super) struct Prepared<'a> {
    with: TestedWith<'a>,
    folder: PrivateFolder,
}

/// A process after its end.
struct Finished {
    stdout: Vec<u8>,
    stderr: String,
    /// `None`: timeout.
    code: Option<i32>,
    ended: String,
    is_late: bool,
    is_long: bool,
}

impl<'a> Prepared<'a> {
    /// Writes and parses or compiles an answer; returns a reply if rejected.
    pub(super) fn new(
        with: TestedWith<'a>,
        source: &str,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Result<Self, Reply>, String> {
        let tests = with.tests;
        let prepared = Self {
            with,
            folder: with.files.copies()?,
        };
        prepared.write(&tests.file, source.as_bytes())?;
        let Some(language) = tests.language else {
            return Ok(Ok(prepared));
        };
        match prepared.refusal(language, keep_going)? {
            None => Ok(Ok(prepared)),
            Some((reply, true)) => Ok(Err(reply)),
            Some((reply, false)) => {
                // Without a position in the answer, the compiler itself may be broken.
                prepared.write(&tests.file, language.probe.as_bytes())?;
                match prepared.refusal(language, keep_going)? {
                    None => Ok(Err(reply)),
                    Some((probe, _)) => Err(format!(
                        "`{}` refuses {:?}: {}",
                        language.command.join(" "),
                        language.probe,
                        probe.syntax.unwrap_or_default()
                    )),
                }
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Why the answer does not parse or compile, and whether the message has a position in it.
    fn refusal(
        &self,
        language: &Language,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Option<(Reply, bool)>, String> {
        let (command, most): (Vec<&str>, _) = match language.is_compiled {
            true => (
                self.with.rules.command.iter().map(String::as_str).collect(),
                MAX_BINARY_BYTES,
            ),
            false if language.parse.is_empty() => return Ok(None),
            false => (language.parse.to_vec(), self.with.rules.output_bytes()),
        };
        let compiler = language
            .toolchain()
            .map(|folder| folder.join("bin/rustc").display().to_string());
        let words = command
            .iter()
            .map(|word| word.replace(FILE_ARGUMENT, &self.with.tests.file));
        let mut words: Vec<String> = words.collect();
        if let (Some(first), Some(compiler)) = (words.first_mut(), compiler) {
            *first = compiler;
        }
        if language.is_compiled {
            // Output is returned via stdout since the sandbox is deleted; messages come first, so
            // cannot be part of the program.
            let script = "\"$@\" -o \"$HOME/made\" > \"$HOME/said\" 2>&1 || { cat \"$HOME/said\"; exit 1; }; cat \"$HOME/made\"";
            words = ["sh", "-c", script, "sh"]
                .map(str::to_owned)
                .into_iter()
                .chain(words)
                .collect();
        }
        let done = self.run(
            &words,
            "",
            COMPILE_SECONDS.max(self.with.rules.seconds),
            most,
            keep_going,
        )?;
        if done.code == Some(0) && !done.is_long {
            if language.is_compiled {
                self.write(BINARY, &done.stdout)?;
                let path = self.folder.path().join(BINARY);
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(&path, mode)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
            return Ok(None);
        }
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), done.stderr);
        let found = findings(&said, &self.with.tests.file).into_iter().next();
        let refused = |syntax: String, line, column| Reply {
            syntax: Some(syntax),
            line,
            column,
            ..Reply::default()
        };
        if let Some(finding) = found.filter(|_| !done.is_late && !done.is_long) {
            // Interpreters show the line first.
            let error = said
                .lines()
                .find(|line| !language.is_compiled && line.contains("Error: "));
            let message = error.map_or(finding.message, str::to_owned);
            return Ok(Some((
                refused(message, finding.place.line, finding.place.column),
                true,
            )));
        }
        let why = match (done.is_late, done.is_long, last_line(&said)) {
            (true, ..) => format!("it takes more than {COMPILE_SECONDS} s to compile"),
            (_, true, _) => format!(
                "it makes a program or messages of more than {} MiB",
                most >> 20
            ),
            (.., Some(line)) => line.to_owned(),
            (.., None) => done.ended,
        };
        Ok(Some((refused(why, 1, 1), done.is_late || done.is_long)))
    }

    pub(super) fn ask(
        &self,
        case: &CaseKind<'_>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Reply, String> {
        let command = match self.with.tests.language {
            Some(language) if language.is_compiled => vec![format!("./{BINARY}")],
            _ => self
                .with
                .rules
                .command
                .iter()
                .map(|word| word.replace(FILE_ARGUMENT, &self.with.tests.file))
                .collect(),
        };
        let (words, input): (Vec<String>, String) = match case {
            CaseKind::Run {
                arguments, stdin, ..
            } => {
                let arguments = arguments.iter().map(|argument| (*argument).to_owned());
                (
                    command.into_iter().chain(arguments).collect(),
                    (*stdin).to_owned(),
                )
            }
            CaseKind::Call {
                entry, arguments, ..
            } => {
                let words =
                    ["node", "-e", NODE_CALL, &self.with.tests.file, entry].map(str::to_owned);
                (
                    words.to_vec(),
                    serde_json::to_string(arguments).unwrap_or_default(),
                )
            }
            CaseKind::Code { .. } => return Err("tests in code are for python".to_owned()),
        };
        let done = self.run(
            &words,
            &input,
            self.with.rules.seconds,
            self.with.rules.output_bytes(),
            keep_going,
        )?;
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        let reply = Reply {
            late: done.is_late,
            long: done.is_long,
            stderr: done.stderr,
            ..Reply::default()
        };
        if matches!(case, CaseKind::Run { .. }) {
            // By a signal, or for a limit.
            let is_killed = done.code.is_none() && !done.is_late && !done.is_long;
            let raised = is_killed.then(|| format!("it {}", done.ended));
            return Ok(Reply {
                stdout: Some(stdout),
                code: done.code,
                raised,
                ..reply
            });
        }
        let value = last_line(&stdout).and_then(|line| crate::exact_json::parse(line).ok());
        let last = || last_line(&reply.stderr).map_or(done.ended, str::to_owned);
        let raised = value.is_none().then(last);
        Ok(Reply {
            value,
            raised,
            ..reply
        })
    }

    fn run(
        &self,
        words: &[String],
        input: &str,
        seconds: f64,
        most: usize,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Finished, String> {
        let (program, arguments) = words
            .split_first()
            .map_or(("", &[][..]), |(first, rest)| (first, rest));
        let is_made = program.strip_prefix("./") == Some(BINARY);
        let path = if is_made {
            self.folder.path().join(BINARY).into()
        } else {
            self.with.files.path_of(program, self.folder.path())
        };
        let program = Program {
            program: path,
            arguments: arguments.to_vec(),
            folder: self.folder.path(),
            variables: &[],
            joins_output: false,
        };
        let mut process = Process::start(&self.with.files.sandbox, &program)?;
        process.send(input.as_bytes());
        process.close_input();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let (mut is_late, mut is_long) = (false, false);
        loop {
            match process.transfer(until, keep_going) {
                Ok(WaitOutcome::Late) => is_late = true,
                Ok(WaitOutcome::Some) if process.unread().len() <= most => continue,
                Ok(WaitOutcome::Some) => is_long = true,
                Err(error) => return Err(format!("its pipes: {error}")),
                Ok(WaitOutcome::Ended) => {}
            }
            break;
        }
        let stderr = process.complaint();
        let stdout = process.unread()[..process.unread().len().min(most)].to_vec();
        if is_late || is_long {
            return Ok(Finished {
                stdout,
                stderr,
                code: None,
                ended: String::new(),
                is_late,
                is_long,
            });
        }
        let (code, ended) = (process.exit_code(), process.last_words());
        Ok(Finished {
            stdout,
            stderr,
            code,
            ended,
            is_late,
            is_long,
        })
    }
}
