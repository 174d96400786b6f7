//! The summary that a finished training prints: the comparison with the base, and notes on it.

use crate::cli::output::eprint_lines;
use crate::cli::{Failure, print, print_json};
use crate::format::{counted, quoted};
use crate::prompts::repeated_prompts;
use crate::report::{Metric, MetricComparison};
use crate::run::{RunDirectory, task_folder};
use crate::score::Task;
use crate::secrets::redact;
use crate::task::{PromptSet, SetName};
use crate::train::{Report, TaskResult};

/// Notes on what is not measured, since the task lacks a set.
fn unmeasured_notes(
    run: &RunDirectory,
    TaskResult {
        task: name, base, ..
    }: &TaskResult,
) -> Result<String, Failure> {
    let task = Task::load(&task_folder(run.path(), name))?;
    let has = |set| task.set_file(set).is_some();
    let is_read = run.file().config.test_eval;
    let missing = match (has(PromptSet::Eval), has(PromptSet::Test)) {
        (true, true) if !is_read => {
            "note: the test set was not read (test_eval = false), and these prompts also chose the checkpoint: measure with grpo-tui eval\n"
        }
        (true, true) => "",
        _ if base.n == 0 => {
            "no held-out prompts: nothing was measured, and the last checkpoint is the result; set [prompts] eval and test\n"
        }
        (true, false) => {
            "note: no test set: these prompts also chose the checkpoint, so the rates are optimistic; set [prompts] test\n"
        }
        _ => "note: no eval set to choose a checkpoint: this is the last one; set [prompts] eval\n",
    };
    let problems = repeated_prompts(&task)?;
    let known = problems
        .iter()
        .filter(|problem| problem.set == PromptSet::Test)
        .map(|problem| format!("note: {}\n", problem.message));
    let notes = missing.to_owned() + &known.collect::<String>();
    Ok(if name.is_empty() {
        notes
    } else {
        notes
            .lines()
            .map(|line| format!("{name}: {line}\n"))
            .collect()
    })
}

/// The rates of base and result; empty without held-out prompts.
fn rates(
    TaskResult {
        task,
        set,
        base,
        trained,
        comparison,
        exact_comparison,
        look,
    }: &TaskResult,
    best_step: u64,
) -> String {
    let set = &SetName::new(*set, task);
    if base.n == 0 {
        return String::new();
    }
    if best_step == 0 {
        // The base is not compared with itself.
        return crate::report::columns(set, &[("base", base)]);
    }
    let number = look.as_ref().map(|look| look.number);
    let judged = |metric, found| MetricComparison::from_comparison(metric, found, number);
    let valid = judged(Metric::Valid, *comparison);
    let exact = exact_comparison.map(|comparison| judged(Metric::Exact, comparison));
    let warnings = look.iter().flat_map(|look| &look.warnings);
    let warnings: String = warnings.map(|text| format!("note: {text}\n")).collect();
    let table = crate::report::table(
        set,
        [("base", base), (&format!("step {best_step}"), trained)],
        &valid,
        exact.as_ref(),
    );
    table + &warnings
}

/// The result goes to standard output, also as JSON; `argument`: the run as commands take it.
pub(super) fn show(
    run: &RunDirectory,
    report: &Report,
    argument: &str,
    json: bool,
) -> Result<(), Failure> {
    let tables: Vec<String> = report
        .results
        .iter()
        .map(|result| rates(result, report.best_step))
        .collect();
    let table = tables.join(if tables.len() > 1 { "\n" } else { "" });
    let outcome = crate::report::Report::read(run.clone())?.outcome();
    // The table has the verdict on the result; what the run ended with may be worse.
    let outcome = if outcome.base_is_best || outcome.fallen_eval().is_some() {
        format!("note: {}\n", outcome.sentence())
    } else {
        String::new()
    };
    let steps = counted(report.steps as usize, "step");
    let folder = format!(
        "{steps} in {:.0} s; run folder {}\n",
        report.seconds,
        run.path().display()
    );
    let notes = report
        .results
        .iter()
        .map(|result| unmeasured_notes(run, result))
        .collect::<Result<String, _>>()?;
    if json {
        let mut value = report.document()?;
        value["run"] = run.id().into();
        value["path"] = run.path().display().to_string().into();
        eprint_lines(format!("{outcome}{notes}").trim_end());
        print_json(value)?;
    } else {
        print(&redact(&format!("{table}{outcome}{notes}\n{folder}")).0)?;
        eprint_lines(&next_commands(argument, report.best_step));
    }
    Ok(())
}

/// Suggests commands for a result; step 0 is the base. `run`: as commands take it.
fn next_commands(run: &str, best_step: u64) -> String {
    let run = quoted(run);
    let compare = format!("\nnext:\n  compare  grpo-tui runs compare {run}");
    if best_step == 0 {
        return compare;
    }
    format!(
        "{compare}\n  serve    grpo-tui serve {run}\n  export   grpo-tui model export --model {run} --merged --out DIR"
    )
}
