//! `grpo-tui task audit`: what degenerate answers earn, fields that must be made up, and mutants of
//! expected answers.

use std::process::ExitCode;

use serde_json::json;

use super::super::{Failure, Outcome, print, print_json, replace_keeping};
use super::Choice;
use crate::dataset;
use crate::format::percent;
use crate::page::text::render;
use crate::page::{Block, Level};
use crate::prompts::audit_task;
use crate::score::audit::{Finding, page, to_allow_null};
use crate::score::mutants::{self, MutationReport, mutation_report};
use crate::score::{Scorer, Task, with_null};
use crate::task::PromptSet;

/// Lines of the schema that are shown.
const MAX_LINES: usize = 40;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Allow null in this field of the schema, such as `lines.amount`; repeatable [default: required fields whose value some prompts do not state, else all required fields]
    #[arg(long, value_name = "FIELD")]
    nullable: Vec<String>,
    /// Write the schema that allows null; the old file stays beside it, with `.bak` added to its name
    #[arg(long)]
    write: bool,
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
    let nullable = nullable_schema(&task, arguments, &findings)?;
    let mutants = match arguments.mutants {
        true => {
            let report = mutation_report(&task, &scorer, &rows, arguments.limit, &|| true);
            report.map_err(|error| Failure::failed(format!("{}: {error}", task.name)))?
        }
        false => None,
    };
    if choice.json {
        let fields = nullable.as_ref().map(|(fields, _)| fields);
        let mut document = json!({"task": task.name, "rows": rows.len(), "weak": weak, "findings": findings, "nullable": fields});
        if let Some(report) = &mutants {
            document["mutants"] = json!(report);
            document["mutants"]["score"] = json!(report.score());
        }
        print_json(document)?;
    } else {
        let mut page = text(&task, rows.len(), &findings, nullable.as_ref());
        if let Some(report) = &mutants {
            page.push(Block::heading("what expected answers with one fault earn"));
            page.extend(mutants::page(report));
        }
        print(&render(&page))?;
    }
    if arguments.write {
        match nullable {
            Some((fields, schema)) => write(&task, &fields, &schema)?,
            None => {
                let message = format!(
                    "{}: no field has to be made up, so there is nothing to write; name one with --nullable FIELD",
                    task.label(&task.definition_file)
                );
                return Err(Failure::failed(message));
            }
        }
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

/// The fields that allow null then, and the text of the schema; `None` if it stays as it is.
fn nullable_schema(
    task: &Task,
    arguments: &Arguments,
    findings: &[Finding],
) -> Result<Option<(Vec<String>, String)>, Failure> {
    let label = task.label(&task.definition_file);
    let asked = !arguments.nullable.is_empty();
    if asked && task.schema().is_none() {
        let message = format!("--nullable: {} has no JSON Schema", task.name);
        return Err(Failure::usage(message));
    }
    let fields = match asked {
        true => arguments.nullable.clone(),
        false => to_allow_null(findings),
    };
    if fields.is_empty() {
        return Ok(None);
    }
    match with_null(&task.definition_text, &fields) {
        Ok(text) if text != task.definition_text => Ok(Some((fields, text))),
        Ok(_) if asked => Err(Failure::failed(format!(
            "{label}: {} may be null already",
            fields.join(", ")
        ))),
        Err(why) if asked => Err(Failure::failed(format!("{label}: {why}"))),
        // Described in another file, or by keywords that no property has.
        Ok(_) | Err(_) => Ok(None),
    }
}

fn text(
    task: &Task,
    all: usize,
    findings: &[Finding],
    nullable: Option<&(Vec<String>, String)>,
) -> Vec<Block> {
    let lazy = findings.iter().filter(|finding| finding.forced.is_none());
    let fewest = lazy.map(|finding| finding.rows).min().unwrap_or(0);
    let prompts = if fewest < all {
        format!("{fewest} to {all} of {all} prompts, fewer for long answers")
    } else {
        crate::format::counted(all, "prompt")
    };
    let title = format!("what degenerate answers earn in {} ({prompts})", task.name);
    let mut blocks = vec![Block::heading(title)];
    blocks.extend(page(task, findings));
    if let Some((fields, schema)) = nullable {
        blocks.push(Block::heading(format!(
            "{} with null allowed in {}",
            task.definition_file,
            fields.join(", ")
        )));
        blocks.extend(changed_lines(&task.definition_text, schema));
        blocks.push(Block::detail(format!(
            "written by: grpo-tui task audit {} --write (--nullable FIELD: in that field alone)",
            task.name
        )));
    }
    blocks
}

/// The lines that differ, old and new; the texts have as many lines.
fn changed_lines(old: &str, new: &str) -> Vec<Block> {
    let lines = old.lines().zip(new.lines()).zip(1_usize..);
    let differing: Vec<_> = lines.filter(|((old, new), _)| old != new).collect();
    let line = |level, mark: &str, number: usize, text: &str| {
        Block::Text(level, format!("{mark} {number:>4}  {text}"))
    };
    let shown = differing
        .iter()
        .take(MAX_LINES)
        .flat_map(|((old, new), number)| {
            [
                line(Level::Error, "-", *number, old),
                line(Level::Good, "+", *number, new),
            ]
        });
    let mut blocks: Vec<Block> = shown.collect();
    if differing.len() > MAX_LINES {
        let more = differing.len() - MAX_LINES;
        blocks.push(Block::detail(format!("... {more} more")));
    }
    blocks
}

fn write(task: &Task, fields: &[String], schema: &str) -> Result<(), Failure> {
    let file = &task.definition_file;
    if task.folder().is_none() {
        return Err(Failure::usage(format!(
            "{} is embedded in the program; copy it with `grpo-tui init DIR --from {}`",
            task.name, task.name
        )));
    }
    // What cannot be loaded is not written.
    let changed = task.with_definition_text(schema)?;
    Scorer::new(&changed)?;
    let path = task.path(file)?;
    let old = replace_keeping(&path, task.definition_text.as_bytes(), schema.as_bytes())?;
    eprintln!(
        "{}: null is allowed in {}; the old schema is {}",
        path.display(),
        fields.join(", "),
        old.display()
    );
    Ok(())
}
