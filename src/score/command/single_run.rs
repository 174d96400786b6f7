//! One process a completion: the completion on standard input, the tier as exit code, reasons on standard output.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer::shorten;
use super::process::{Moved, Process};
use super::{Question, failed};
use crate::score::json::Place;
use crate::score::verdict::Verdict;
use crate::score::{FailureClass, Reason, Tier};
use crate::task::CommandRules;

/// Lines of output that become reasons.
const MOST_REASONS: usize = 20;
/// What an environment variable may hold.
const LONGEST_ROW: usize = 100_000;

/// The verdicts, in order; `None` once `is_wanted` returns false.
pub(super) fn run_all(
    rules: &CommandRules,
    folder: &Path,
    questions: &[&Question],
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![None; questions.len()]);
    let serve = || {
        while is_wanted() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(place) else { return };
            let verdict = run(rules, folder, question).unwrap_or_else(|why| failed(&why));
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

fn run(rules: &CommandRules, folder: &Path, question: &Question) -> Result<Verdict, String> {
    if question.row.len() > LONGEST_ROW {
        return Err(format!("the row has {} bytes: a process a completion takes {LONGEST_ROW}", question.row.len()));
    }
    let mut process = Process::start(rules, folder, &[("ROW", &question.row)])?;
    process.send(question.completion.as_bytes());
    process.close_input();
    let until = Instant::now() + Duration::from_secs_f64(rules.seconds);
    loop {
        match process.transfer(until).map_err(|error| format!("the scorer's pipes: {error}"))? {
            Moved::Late => return Err(format!("the scorer gave no answer within {} s", rules.seconds)),
            Moved::Some if process.unread().len() > rules.output_bytes() => {
                return Err(format!("the scorer wrote more than {} KiB", rules.output_kib));
            }
            Moved::Some => {}
            Moved::Ended => break,
        }
    }
    let (tier, failure) = match process.exit_code() {
        Some(0) => (Tier::Valid, None),
        Some(1) => (Tier::Invalid, Some(FailureClass::Other)),
        Some(2) => (Tier::Unparsable, Some(FailureClass::Other)),
        _ => return Err(format!("the scorer {}", process.last_words())),
    };
    let output = String::from_utf8_lossy(process.unread()).into_owned();
    let lines = output.lines().filter(|line| !line.trim().is_empty()).take(MOST_REASONS);
    let reason = |line: &str| Reason::at(shorten(line.trim()), Place { line: 1, column: 1 });
    let errors = if tier == Tier::Valid { Vec::new() } else { lines.map(reason).collect() };
    Ok(Verdict { errors, ..Verdict::new(tier, failure) })
}
