//! `[score] kind = "command"`, `"code"` and `"tests"`: keys and degenerate answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::judge::CommandScorer;
use super::keys::{
    COMMAND, ERRORS, FENCE, FILES, ISOLATION, MAX_PROCESSES, MEMORY, OUTPUT, PROCESSES, READ,
    SECONDS, STRONG,
};
use super::program_tests::lazy_answers::lazy_programs;
use super::python::PYTHON;
use super::suppressions::suppressed_answer;
use crate::dataset::PromptRow;
use crate::sandbox::{ProgramKeys, program_files};
use crate::score::definition::lazy_answers::{
    LazyAnswer, answer_text, most_common_expected, other_expected, plain_answers, prompt_itself,
};
use crate::score::definition::{Definition, GRADED, Judge, KeyInfo, Kind};
use crate::score::error::ScoreError;
use crate::score::needs::{CodeRules, CommandMode, CommandRules, Needs, TestRules};
use crate::task::{Home, Read, Section, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "command",
    about: include_str!("about.md"),
    keys: &[],
    score_keys: &[
        COMMAND,
        FILES,
        KeyInfo::new(
            "mode",
            "lines",
            "lines: JSON lines; exit_code: a process for each completion",
        ),
        PROCESSES,
        SECONDS,
        MEMORY,
        MAX_PROCESSES,
        OUTPUT,
        ISOLATION,
        READ,
        ERRORS,
    ],
    read: |_, score, home| Ok((Arc::new(CommandRules::read(score, home)?), None)),
};

pub(crate) static CODE: Kind = Kind {
    name: "code",
    about: include_str!("code.about.md"),
    keys: &[],
    score_keys: &[
        COMMAND,
        KeyInfo::new("file", "", "the name of the file with the answer"),
        KeyInfo::new(
            "parse",
            "none",
            "refuses what does not parse, before `command`",
        ),
        FENCE,
        GRADED,
        FILES,
        PROCESSES,
        SECONDS,
        MEMORY,
        MAX_PROCESSES,
        OUTPUT,
        STRONG,
        READ,
        ERRORS,
    ],
    read: |_, score, home| Ok((Arc::new(CommandRules::read_code(score, home)?), None)),
};

pub(crate) static TESTS: Kind = Kind {
    name: "tests",
    about: include_str!("program_tests/about.md"),
    keys: &[],
    score_keys: &[
        KeyInfo::new("language", "python", "python"),
        FENCE,
        GRADED,
        FILES,
        PROCESSES,
        KeyInfo::new("seconds", "5", "time limit of a case"),
        MEMORY,
        MAX_PROCESSES,
        KeyInfo::new("output_kib", "1024", "output and value of a case, KiB"),
        STRONG,
        READ,
        ERRORS,
    ],
    read: |_, score, home| Ok((Arc::new(CommandRules::read_tests(score, home)?), None)),
};

impl CommandRules {
    fn read(score: &Section<'_>, home: &Home) -> Read<Self> {
        let mode = match (score.string("mode")?.as_deref(), score.get("mode")) {
            (None | Some("lines"), _) => CommandMode::Lines,
            (Some("exit_code"), _) => CommandMode::ExitCode,
            (Some(other), place) => {
                let offset = place.map_or(0, |(_, offset)| offset);
                return Err(score.error(
                    "mode",
                    offset,
                    format!("takes lines, exit_code, not {other:?}"),
                ));
            }
        };
        Self::read_as(mode, "command = [\"python3\", \"scorer.py\"]", score, home)
    }

    fn read_code(score: &Section<'_>, home: &Home) -> Read<Self> {
        let example = "file = \"answer.py\"";
        let file = file_name(score)?.ok_or_else(|| home.missing("score.file", example))?;
        let takes_fence = score.boolean("fence")?.unwrap_or(true);
        let code = CodeRules {
            file,
            parse: score.quoted_strings("parse")?,
            takes_fence,
        };
        Self::read_as(
            CommandMode::Code(code),
            "command = [\"ruff\", \"check\", \"{file}\"]",
            score,
            home,
        )
    }

    fn read_tests(score: &Section<'_>, home: &Home) -> Read<Self> {
        let takes_fence = score.boolean("fence")?.unwrap_or(true);
        if let Some((language, (_, offset))) = score.string("language")?.zip(score.get("language"))
            && language != "python"
        {
            let message = format!(
                "takes python, not {language:?}; score other programs by one of your own, `kind = \"command\"`"
            );
            return Err(score.error("language", offset, message));
        }
        let tests = TestRules { takes_fence };
        let command = vec!["python3".to_owned()];
        Self::with_command(CommandMode::Tests(tests), command, score, home)
    }

    /// What decides beside the program; empty for most.
    fn settings(&self) -> String {
        match &self.mode {
            CommandMode::Python(python) => python.settings(),
            _ => String::new(),
        }
    }

    fn read_as(
        mode: CommandMode,
        example: &'static str,
        score: &Section<'_>,
        home: &Home,
    ) -> Read<Self> {
        let (_, offset) = score
            .get("command")
            .ok_or_else(|| home.missing("score.command", example))?;
        let command = score.quoted_strings("command")?;
        if command.first().is_none_or(String::is_empty) {
            return Err(score.error(
                "command",
                offset,
                format!("is empty; write for example `{example}`"),
            ));
        }
        Self::with_command(mode, command, score, home)
    }

    pub(super) fn with_command(
        mode: CommandMode,
        command: Vec<String>,
        score: &Section<'_>,
        home: &Home,
    ) -> Read<Self> {
        let parse = if let CommandMode::Code(code) = &mode {
            code.parse.as_slice()
        } else {
            &[]
        };
        let files = program_files(command.iter().chain(parse), score, home)?;
        let seconds = if let CommandMode::Tests(_) = mode {
            5.0
        } else {
            10.0
        };
        let ProgramKeys {
            seconds,
            memory_mib,
            max_processes,
            isolation,
            read,
        } = ProgramKeys::read(score, seconds)?;
        let mut rules = Self {
            command,
            files,
            processes: score.whole("processes", 0, 0..=256)? as usize,
            seconds,
            memory_mib,
            max_processes,
            output_kib: score.whole("output_kib", 1_024, 1..=1 << 20)?,
            isolation,
            read,
            mode,
        };
        rules.isolation = rules.isolation.or(rules.default_isolation());
        Ok(rules)
    }
}

impl Definition for CommandRules {
    fn kind(&self) -> &'static Kind {
        match self.mode {
            CommandMode::Lines | CommandMode::ExitCode => &KIND,
            CommandMode::Code(_) => &CODE,
            CommandMode::Tests(_) => &TESTS,
            CommandMode::Python(_) => &PYTHON,
        }
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(CommandScorer::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(if self.takes_code() {
            json!({"type": "string"})
        } else {
            Value::Bool(true)
        })
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        if let Some(code) = self.code() {
            return lazy_code(&code.file);
        }
        if self.tests().is_some() {
            return lazy_programs();
        }
        // Only the program knows which completion matches an `expected`; its text may.
        let copied = most_common_expected(rows).map(|_| {
            let advice = "the program takes another row's answer: let it compare with the row";
            let other = move |row: &PromptRow| {
                other_expected(row, rows)
                    .map(answer_text)
                    .unwrap_or_default()
            };
            LazyAnswer::by_row("the expected answer of another row", advice, other)
        });
        plain_answers(task)
            .into_iter()
            .chain(prompt_itself(rows))
            .chain(copied)
            .collect()
    }

    fn digest(&self, task: &TaskFiles) -> String {
        task.read_files(&self.files)
            // Locations of programs depend on the machine.
            .map(|files| self.program_digest(&files, &[]) + &self.settings())
            .unwrap_or_default()
    }

    fn other_files(&self) -> Vec<&str> {
        self.files.iter().map(String::as_str).collect()
    }

    fn answer_names(&self, task: &TaskFiles) -> Vec<String> {
        self.command.iter().chain(&task.system).cloned().collect()
    }

    fn needs(&self) -> Needs<'_> {
        Needs {
            program: Some(self),
            ..Needs::default()
        }
    }
}

fn lazy_code(file: &str) -> Vec<LazyAnswer<'static>> {
    let narrow = "a checker sees only how code is written: give every row an `expected` and `[[reward]]` part \"exact\" a weight, or score by a program that runs the code";
    let lazy = [
        ("an empty file", "\n"),
        ("a comment, #", "# nothing"),
        ("a comment, //", "// nothing"),
        ("pass", "pass"),
        ("a colon", ":"),
        ("a constant", "1"),
    ];
    let obeyed = "the checker obeys the answer's comments: let it ignore them (ruff: --ignore-noqa, eslint: --no-inline-config)";
    let suppressed =
        suppressed_answer(file).map(|text| LazyAnswer::same("a suppressed finding", text, obeyed));
    lazy.map(|(name, text)| LazyAnswer::same(name, text, narrow))
        .into_iter()
        .chain(suppressed)
        .collect()
}

/// Name of the answer's file.
fn file_name(score: &Section<'_>) -> Read<Option<String>> {
    let Some((file, (_, offset))) = score.string("file")?.zip(score.get("file")) else {
        return Ok(None);
    };
    if file.is_empty() || file.starts_with(['-', '.']) || !file.bytes().all(is_of_name) {
        let message = format!("is the name of a file such as answer.py, not {file:?}");
        return Err(score.error("file", offset, message));
    }
    Ok(Some(file))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}
