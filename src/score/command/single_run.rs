//! One process a completion: the completion on standard input, the tier as exit code, reasons on standard output.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer::shorten;
use super::process::{Moved, Process, Program};
use super::{Question, code, failed};
use crate::score::json::Place;
use crate::score::verdict::Verdict;
use crate::score::{FailureClass, Reason, Tier};
use crate::task::{CommandMode, CommandRules};

/// Lines of output that become reasons.
const MOST_REASONS: usize = 20;
/// Bytes of an output that are shown.
pub(super) const MOST_SHOWN_BYTES: usize = 16 << 10;
/// What an environment variable may hold.
const LONGEST_VARIABLE: usize = 100_000;

/// The verdicts, in order; `None` once `is_wanted` returns false.
pub(super) fn run_all(
    rules: &CommandRules,
    folder: &Path,
    questions: &[&Question<'_>],
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![None; questions.len()]);
    let serve = || {
        while is_wanted() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(place) else { return };
            let verdict = judge(rules, folder, question, &mut Output::default());
            verdicts.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(verdict);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..questions.len().min(rules.width()) {
            scope.spawn(serve);
        }
        serve();
    });
    verdicts.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// The verdict of a process of its own; what it wrote is added to `output`.
pub(super) fn judge(rules: &CommandRules, folder: &Path, question: &Question<'_>, output: &mut Output) -> Verdict {
    let verdict = match &rules.mode {
        CommandMode::Code(code) => code::check(rules, code, folder, question, output),
        _ => by_exit_code(rules, folder, question, output),
    };
    verdict.unwrap_or_else(|why| failed(&why))
}

fn by_exit_code(
    rules: &CommandRules,
    folder: &Path,
    question: &Question<'_>,
    written: &mut Output,
) -> Result<Verdict, String> {
    let variables = [("ROW", question.row.as_str())];
    let program = Program::scorer(rules, folder, &variables);
    let Run { exit_code, output, ended } = run(rules, &program, &question.completion, written)?;
    let (tier, failure) = match exit_code {
        Some(0) => (Tier::Valid, None),
        Some(1) => (Tier::Invalid, Some(FailureClass::Other)),
        Some(2) => (Tier::Unparsable, Some(FailureClass::Other)),
        _ => return Err(format!("the scorer {ended}")),
    };
    let errors = if tier == Tier::Valid { Vec::new() } else { line_reasons(&output) };
    Ok(Verdict { errors, ..Verdict::new(tier, failure) })
}

/// Lines of output as reasons without a place.
pub(super) fn line_reasons(output: &str) -> Vec<Reason> {
    let lines = output.lines().map(str::trim).filter(|line| !line.is_empty()).take(MOST_REASONS);
    lines.map(|line| Reason::at(shorten(line), Place { line: 1, column: 1 })).collect()
}

/// What processes wrote, as far as it is shown.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) standard: String,
    pub(super) complaint: String,
}

impl Output {
    /// Adds what a process has written so far, and was not taken as lines.
    pub(super) fn add(&mut self, process: &mut Process) {
        let unread = process.unread();
        self.standard.push_str(&String::from_utf8_lossy(&unread[..unread.len().min(MOST_SHOWN_BYTES)]));
        self.complaint.push_str(&process.complaint());
    }
}

/// A process that has ended.
pub(super) struct Run {
    pub(super) exit_code: Option<i32>,
    pub(super) output: String,
    /// How it ended, and its last line on standard error.
    pub(super) ended: String,
}

/// Runs a program to its end within the limits of the rules.
///
/// # Errors
/// A sentence.
pub(super) fn run(
    rules: &CommandRules,
    program: &Program<'_>,
    input: &str,
    written: &mut Output,
) -> Result<Run, String> {
    if let Some((name, value)) = program.variables.iter().find(|(_, value)| value.len() > LONGEST_VARIABLE) {
        return Err(format!("{name} has {} bytes: a variable of a process takes {LONGEST_VARIABLE}", value.len()));
    }
    let mut process = Process::start(rules.memory_mib, program)?;
    process.send(input.as_bytes());
    process.close_input();
    let until = Instant::now() + Duration::from_secs_f64(rules.seconds);
    let ended = wait(rules, &mut process, until);
    let exit_code = if ended.is_ok() { process.exit_code() } else { None };
    written.add(&mut process);
    ended?;
    let output = String::from_utf8_lossy(process.unread()).into_owned();
    Ok(Run { exit_code, output, ended: process.last_words() })
}

/// Reads until the output ends.
fn wait(rules: &CommandRules, process: &mut Process, until: Instant) -> Result<(), String> {
    loop {
        match process.transfer(until).map_err(|error| format!("the scorer's pipes: {error}"))? {
            Moved::Late => return Err(format!("the scorer gave no answer within {} s", rules.seconds)),
            Moved::Some if process.unread().len() > rules.output_bytes() => {
                return Err(format!("the scorer wrote more than {} KiB", rules.output_kib));
            }
            Moved::Some => {}
            Moved::Ended => return Ok(()),
        }
    }
}
