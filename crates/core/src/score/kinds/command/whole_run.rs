//! A process from start to end: exit code and output.

use std::time::{Duration, Instant};

use super::answer::shorten;
use crate::sandbox::{Process, Program, ProgramFiles, WaitOutcome};
use crate::score::answer::json::Place;
use crate::score::needs::CommandRules;
use crate::score::verdict::Reason;

/// Output lines used as reasons.
const MAX_REASONS: usize = 20;
/// Limit of a shown output.
pub(super) const MAX_SHOWN_BYTES: usize = 16 << 10;
/// Limit of an environment variable.
const MAX_VARIABLE_BYTES: usize = 100_000;

/// Output lines as reasons without position.
pub(super) fn line_reasons(output: &str) -> Vec<Reason> {
    let lines = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(MAX_REASONS);
    lines
        .map(|line| Reason::at(shorten(line), Place { line: 1, column: 1 }))
        .collect()
}

#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) standard: String,
    pub(super) complaint: String,
}

impl Output {
    pub(super) fn add(&mut self, process: &mut Process) {
        let unread = process.unread();
        self.standard.push_str(&String::from_utf8_lossy(
            &unread[..unread.len().min(MAX_SHOWN_BYTES)],
        ));
        self.complaint.push_str(&process.complaint());
    }
}

pub(super) struct Run {
    pub(super) exit_code: Option<i32>,
    pub(super) output: String,
    /// How it ended, with its last line on standard error.
    pub(super) ended: String,
    /// Remedy if its last line names a file that the sandbox hides.
    pub(super) hidden_file: Option<String>,
}

pub(super) fn run(
    rules: &CommandRules,
    files: &ProgramFiles,
    program: &Program<'_>,
    input: &str,
    written: &mut Output,
    keep_going: &dyn Fn() -> bool,
) -> Result<Run, String> {
    if let Some((name, value)) = program
        .variables
        .iter()
        .find(|(_, value)| value.len() > MAX_VARIABLE_BYTES)
    {
        return Err(format!(
            "{name} has {} bytes: a variable of a process takes {MAX_VARIABLE_BYTES}",
            value.len()
        ));
    }
    let mut process = Process::start(&files.sandbox, program)?;
    process.send(input.as_bytes());
    process.close_input();
    let until = Instant::now() + Duration::from_secs_f64(rules.seconds);
    let ended = wait(rules, &mut process, until, keep_going);
    let exit_code = if ended.is_ok() {
        process.exit_code()
    } else {
        None
    };
    written.add(&mut process);
    ended?;
    let ended = process.last_words();
    let output = String::from_utf8_lossy(process.unread()).into_owned();
    // Its standard output about the answer may be the model's.
    let text = if program.joins_output {
        output.clone()
    } else {
        process.complaint()
    };
    let hidden_file = last_line(&text).and_then(|line| process.hidden_file(line));
    Ok(Run {
        exit_code,
        output,
        ended,
        hidden_file,
    })
}

pub(super) fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

fn wait(
    rules: &CommandRules,
    process: &mut Process,
    until: Instant,
    keep_going: &dyn Fn() -> bool,
) -> Result<(), String> {
    loop {
        match process
            .transfer(until, keep_going)
            .map_err(|error| format!("the scorer's pipes: {error}"))?
        {
            WaitOutcome::Late => {
                return Err(format!(
                    "the scorer gave no answer within {} s",
                    rules.seconds
                ));
            }
            WaitOutcome::Some if process.unread().len() > rules.output_bytes() => {
                return Err(format!(
                    "the scorer wrote more than {} KiB",
                    rules.output_kib
                ));
            }
            WaitOutcome::Some => {}
            WaitOutcome::Ended => return Ok(()),
        }
    }
}
