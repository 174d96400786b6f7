//! `grpo-tui task audit`: what degenerate answers earn, and mutants of expected answers.

use std::process::ExitCode;

use serde_json::json;

use super::super::{Failure, Outcome, print, print_json};
use super::Choice;
use crate::dataset::{self, PromptRow};
use crate::format::percent;
use crate::page::Block;
use crate::page::text::render;
use crate::prompts::audit_task;
use crate::propose::{offered_values, pays_values};
use crate::score::audit::{Finding, page};
use crate::score::mutants::{self, MutationReport, mutation_report};
use crate::score::{Scorer, Task};
use crate::task::PromptSet;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
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

pub(super) fn run(arguments: &Arguments) -> Outcome {
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
    let offered = match pays_values(&task) {
        true => offered_values(&task, &scorer, &rows),
        false => Vec::new(),
    };
    let mutants = match arguments.mutants {
        true => {
            // What was proposed is not the truth.
            let labelled: Vec<PromptRow> = rows
                .iter()
                .filter(|row| !row.is_proposed())
                .cloned()
                .collect();
            let report = mutation_report(&task, &scorer, &labelled, arguments.limit, &|| true);
            report.map_err(|error| Failure::failed(format!("{}: {error}", task.name)))?
        }
        false => None,
    };
    if choice.json {
        let mut document = json!({"task": task.name, "rows": rows.len(), "weak": weak, "findings": findings, "offered": offered});
        if let Some(report) = &mutants {
            document["mutants"] = json!(report);
            document["mutants"]["score"] = json!(report.score());
        }
        print_json(document)?;
    } else {
        let mut page = text(&task, rows.len(), &findings);
        if !offered.is_empty() {
            page.push(Block::heading("what a wrong value of the prompt earns"));
            page.extend(offered.iter().map(|field| Block::detail(field.sentence())));
        }
        if let Some(report) = &mutants {
            page.push(Block::heading("what expected answers with one fault earn"));
            page.extend(mutants::page(report));
        }
        print(&render(&page))?;
    }
    judged(arguments, mutants.as_ref())
}

fn judged(arguments: &Arguments, mutants: Option<&MutationReport>) -> Outcome {
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

fn text(task: &Task, all: usize, findings: &[Finding]) -> Vec<Block> {
    let fewest = findings
        .iter()
        .map(|finding| finding.rows)
        .min()
        .unwrap_or(0);
    let prompts = if fewest < all {
        format!("{fewest} to {all} of {all} prompts, fewer for long answers")
    } else {
        crate::format::counted(all, "prompt")
    };
    let title = format!("what degenerate answers earn in {} ({prompts})", task.name);
    let mut blocks = vec![Block::heading(title)];
    blocks.extend(page(task, findings));
    blocks
}
