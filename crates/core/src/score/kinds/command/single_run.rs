//! One process per completion: completion on standard input, tier as exit code, reasons on standard
//! output.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::answer::failed;
use super::code;
use super::question::Question;
use super::whole_run::{Output, Run, line_reasons, run};
use crate::sandbox::ProgramFiles;
use crate::score::needs::{CommandMode, CommandRules};
use crate::score::verdict::{FailureClass, Tier, Verdict};

/// Verdicts in order; `None` once `keep_going` returns false.
pub(super) fn run_all(
    width: usize,
    judge: &(dyn Fn(&Question<'_>) -> Verdict + Sync),
    questions: &[&Question<'_>],
    keep_going: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![None; questions.len()]);
    let serve = || {
        while keep_going() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(place) else {
                return;
            };
            let verdict = judge(question);
            verdicts.lock()[place] = Some(verdict);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..questions.len().min(width) {
            scope.spawn(serve);
        }
        serve();
    });
    verdicts.into_inner().into_iter().collect()
}

/// Verdict of a new process, whose output is appended to `output`.
pub(super) fn judge(
    rules: &CommandRules,
    files: &ProgramFiles,
    question: &Question<'_>,
    output: &mut Output,
    keep_going: &dyn Fn() -> bool,
) -> Verdict {
    let verdict = match &rules.mode {
        CommandMode::Code(code) => code::check(rules, code, files, question, output, keep_going),
        _ => by_exit_code(rules, files, question, output, keep_going),
    };
    verdict.unwrap_or_else(|why| failed(&why))
}

fn by_exit_code(
    rules: &CommandRules,
    files: &ProgramFiles,
    question: &Question<'_>,
    written: &mut Output,
    keep_going: &dyn Fn() -> bool,
) -> Result<Verdict, String> {
    let variables = [("ROW", question.row.as_str())];
    let copies = files.copies()?;
    let program = files.program(&rules.command, &copies, &variables);
    let Run {
        exit_code,
        output,
        ended,
        hidden_file,
    } = run(
        rules,
        files,
        &program,
        &question.completion,
        written,
        keep_going,
    )?;
    let (tier, failure) = match exit_code {
        Some(0) => (Tier::Valid, None),
        // Interpreters exit with 1 if a file is missing.
        _ if hidden_file.is_some() => {
            return Err(format!(
                "the scorer {ended}; {}",
                hidden_file.unwrap_or_default()
            ));
        }
        Some(1) => (Tier::Invalid, Some(FailureClass::Other)),
        Some(2) => (Tier::Unparsable, Some(FailureClass::Other)),
        _ => return Err(format!("the scorer {ended}")),
    };
    let errors = if tier == Tier::Valid {
        Vec::new()
    } else {
        line_reasons(&output)
    };
    Ok(Verdict {
        errors,
        ..Verdict::new(tier, failure)
    })
}
