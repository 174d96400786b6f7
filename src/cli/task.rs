//! `grpo-tui task`: creates a task, checks one, and its reward for degenerate answers.

mod check;
mod judge_check;
mod new;
mod render;
mod trust;

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, print, print_json};
use crate::dataset;
use crate::format::percent;
use crate::page::Block;
use crate::page::text::render;
use crate::prompts::audit_task;
use crate::score::audit::page;
use crate::score::mutants::{self, MutationReport, mutation_report};
use crate::score::{Scorer, Task};
use crate::task::PromptSet;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a task from a schema, from examples of answers, from a CSV, JSON, JSONL or Parquet file, or from a template
    New(Box<new::Arguments>),
    /// Check a task's files: schema, prompts, expected answers
    Check(check::Arguments),
    /// Score degenerate answers, to find rewards that a model could earn without doing the work
    Audit(Audit),
    /// Print the prompt of a row as a model reads it: the chat template applied
    Render(render::Arguments),
    /// Compare a task's judge (`kind = "judge"`) with human labels: agreement, kappa, repeatability, biases, cost
    JudgeCheck(judge_check::Arguments),
    /// Allow the command of a task to run (`[score] kind = "command"`), until the command or its files change, and its
    /// judge to be asked (`kind = "judge"`), until the server changes
    Trust(trust::Arguments),
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Audit {
    #[command(flatten)]
    choice: Choice,
    /// Also break the train rows' expected answers, each in one way (a field dropped, a digit off, another row's value),
    /// and list by field which of these mutants earn as much as the truth
    #[arg(long)]
    mutants: bool,
    /// Mutants to score [default: 10000; 500 with a program, 40 with a judge]
    #[arg(long, value_name = "N", requires = "mutants")]
    limit: Option<usize>,
    /// Exit with 3 if the mutation score is lower, such as 0.95
    #[arg(long, value_name = "SHARE", requires = "mutants", value_parser = share)]
    fail_under: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a share from 0 to 1".to_owned())
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Audit(arguments) => run_audit(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::JudgeCheck(arguments) => judge_check::run(&arguments),
        Command::Trust(arguments) => trust::run(&arguments),
    }
}

fn run_audit(arguments: &Audit) -> Outcome {
    let choice = &arguments.choice;
    let task = Task::resolve(&choice.task)?;
    let scorer = Scorer::new(&task)?;
    let rows = if task.set_file(PromptSet::Train).is_some() {
        dataset::load(&task, PromptSet::Train)?
    } else {
        Vec::new()
    };
    let findings = audit_task(&task, &scorer, &rows)?;
    let weak = findings.iter().filter(|finding| finding.weak).count();
    let mutants = match arguments.mutants {
        true => {
            let report = mutation_report(&task, &scorer, &rows, arguments.limit, &|| true);
            report.map_err(|error| Failure::failed(format!("{}: {error}", task.name)))?
        }
        false => None,
    };
    if choice.json {
        let mut document =
            json!({"task": task.name, "rows": rows.len(), "weak": weak, "findings": findings});
        if let Some(report) = &mutants {
            document["mutants"] = json!(report);
            document["mutants"]["score"] = json!(report.score());
        }
        print_json(document)?;
        return judged(arguments, mutants.as_ref());
    }
    let fewest = findings
        .iter()
        .map(|finding| finding.rows)
        .min()
        .unwrap_or(0);
    let all = rows.len();
    let prompts = if fewest < all {
        format!("{fewest} to {all} of {all} prompts, fewer for long answers")
    } else {
        crate::format::counted(all, "prompt")
    };
    let title = format!("what degenerate answers earn in {} ({prompts})", task.name);
    let mut page = [vec![Block::heading(title)], page(&task, &findings)].concat();
    if let Some(report) = &mutants {
        page.push(Block::heading("what expected answers with one fault earn"));
        page.extend(mutants::page(report));
    }
    print(&render(&page))?;
    judged(arguments, mutants.as_ref())
}

fn judged(arguments: &Audit, mutants: Option<&MutationReport>) -> Outcome {
    let score = mutants.and_then(MutationReport::score);
    match arguments.fail_under.zip(score) {
        Some((least, score)) if score < least => Err(Failure {
            code: 3,
            message: format!(
                "the mutation score is {}, below {}",
                percent(score),
                percent(least)
            ),
        }),
        _ => Ok(ExitCode::SUCCESS),
    }
}
