//! What a finished training prints: the comparison with the base, and notes on it.

use crate::cli::{Failure, print_json};
use crate::format::counted;
use crate::report::MetricComparison;
use crate::run::RunDirectory;
use crate::score::{load_sets, repeated_prompts};
use crate::task::{PromptSet, Task};
use crate::train::Report;

/// Notes on what is not measured, since the task lacks a set.
fn unmeasured_notes(run: &RunDirectory, report: &Report) -> Result<String, Failure> {
    let task = Task::load(&run.task_path())?;
    let has = |set| task.set_file(set).is_some();
    let missing = match (has(PromptSet::Eval), has(PromptSet::Test)) {
        (true, true) => "",
        _ if report.base.n == 0 => {
            "no held-out prompts: nothing was measured, and the last checkpoint is the result; set [prompts] eval and test\n"
        }
        (true, false) => {
            "note: no test set: these prompts also chose the checkpoint, so the rates are optimistic; set [prompts] test\n"
        }
        _ => "note: no eval set to choose a checkpoint: this is the last one; set [prompts] eval\n",
    };
    let problems = repeated_prompts(&task, &load_sets(&task)?);
    let known = problems
        .iter()
        .filter(|problem| problem.set == PromptSet::Test)
        .map(|problem| format!("note: {}\n", problem.message));
    Ok(missing.to_owned() + &known.collect::<String>())
}

pub(super) fn show(run: &RunDirectory, report: &Report, json: bool) -> Result<(), Failure> {
    let table = if report.base.n == 0 {
        String::new()
    } else if report.best_step == 0 {
        // The base is not compared with itself.
        crate::report::columns(&report.set, &[("base", &report.base)])
    } else {
        let valid = MetricComparison::of("valid", report.comparison);
        let exact = report.exact_comparison.map(|comparison| MetricComparison::of("exact", comparison));
        let trained = format!("step {}", report.best_step);
        let rates = [("base", &report.base), (trained.as_str(), &report.trained)];
        crate::report::table(&report.set, rates, &valid, exact.as_ref())
    };
    let outcome = crate::report::Report::read(run.clone())?.outcome();
    // The table has the verdict on the result; what the run ended with may be worse.
    let outcome = if outcome.base_is_best || outcome.fallen_eval().is_some() {
        format!("note: {}\n", outcome.sentence())
    } else {
        String::new()
    };
    eprintln!(
        "\n{table}{outcome}{}\n{} in {:.0} s; run folder {}",
        unmeasured_notes(run, report)?,
        counted(report.steps as usize, "step"),
        report.seconds,
        run.path().display()
    );
    if json {
        let mut value = serde_json::to_value(report)?;
        value["run"] = run.id().into();
        value["path"] = run.path().display().to_string().into();
        print_json(&format!("{value}\n"))?;
    }
    Ok(())
}
