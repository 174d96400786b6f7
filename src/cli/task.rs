//! `grpo-tui task`: creates a task, checks one, and its reward for degenerate answers.

mod new;
mod trust;

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, print_json};
use crate::dataset::{self, PromptRow};
use crate::format::counted;
use crate::hub::find_model;
use crate::score::audit::audit;
use crate::score::{Scorer, data_problems};
use crate::secrets::visible;
use crate::task::{Definition, PromptSet, Task};
use crate::text::Tokenizer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a task from a schema, from examples of answers, from a CSV or JSONL file, or from a template
    New(Box<new::Arguments>),
    /// Check a task's files: schema, prompts, expected answers
    Check(Check),
    /// Score degenerate answers: what a model could earn without doing the work
    Audit(Choice),
    /// Allow the command of a task to run (`[score] kind = "command"`), until the command or its files change
    Trust(trust::Arguments),
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`)
    task: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    choice: Choice,
    /// Check tools against this model's chat template
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => run_check(&arguments.choice, arguments.model.as_deref()),
        Command::Audit(choice) => run_audit(&choice),
        Command::Trust(arguments) => trust::run(&arguments),
    }
}

fn run_check(choice: &Choice, model: Option<&str>) -> Outcome {
    let task = Task::resolve(&choice.task)?;
    let scorer = Scorer::new(&task)?;
    let mut problems = unknown_normalised_fields(&task);
    let unchecked = |format: String| {
        let label = task.label(&task.definition_file);
        format!(
            "{label}: format {format:?} is not checked: the validator does not know it in this draft; describe it with `pattern`"
        )
    };
    let mut warnings: Vec<String> =
        scorer.unknown_formats().filter(|_| task.score.assert_formats).map(unchecked).collect();
    warnings.extend(tools_as_text(&task, model)?);
    let mut loaded = Vec::new();
    for set in PromptSet::ALL {
        let missing = |why: &str| format!("{}: no `{}` under [prompts]: {why}", task.label("task.toml"), set.name());
        match (set, task.set_file(set).map(|_| dataset::load(&task, set))) {
            (_, Some(Ok(rows))) => loaded.push((set, rows)),
            (_, Some(Err(error))) => problems.push(error.to_string()),
            (PromptSet::Train, None) => problems.push(missing("training needs it")),
            (PromptSet::Eval, None) => {
                warnings.push(missing("the last checkpoint becomes the result, and stop_when has no set"))
            }
            (PromptSet::Test, None) => warnings.push(missing("no held-out result")),
        }
    }
    problems.extend(data_problems(&task, &scorer, &loaded).into_iter().map(|problem| problem.message));
    let answered = |rows: &[PromptRow]| rows.iter().filter(|row| row.expected.is_some()).count();
    let sets: Vec<_> = loaded.iter().map(|(set, rows)| (*set, rows.len(), answered(rows))).collect();
    let others = [&task.prompts.completions, &task.prompts.generator].into_iter().flatten();
    problems.extend(others.filter_map(|file| task.open(file).err()).map(|error| error.to_string()));
    let guard = dataset::guard_rows(&task).map_err(|error| problems.push(error.to_string())).unwrap_or_default();
    if choice.json {
        let sets: serde_json::Map<_, _> = sets
            .iter()
            .map(|(set, rows, expected)| (set.name().to_owned(), json!({"rows": rows, "expected": expected})))
            .collect();
        let digest = task.digest();
        let ok = problems.is_empty();
        let document = json!({"task": task.name, "ok": ok, "problems": problems, "warnings": warnings, "sets": sets, "guard": guard.len(), "digest": digest});
        print_json(&format!("{document}\n"))?;
    } else {
        println!("{}: {}", task.name, visible(&task.title));
        let kind = if task.schema().is_some() { "schema" } else { task.kind() };
        println!("  {kind} {} ok", visible(&task.definition_file));
        for (set, rows, expected) in sets {
            println!("  {:<6} {}, {expected} with an expected answer", set.name(), counted(rows, "row"));
        }
        if !guard.is_empty() {
            println!("  guard  {} against forgetting", counted(guard.len(), "prompt"));
        }
        for warning in &warnings {
            println!("  warning: {}", visible(warning));
        }
        for problem in &problems {
            println!("  problem: {}", visible(problem));
        }
    }
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::failed("the task has a problem")),
        count => Err(Failure::failed(format!("the task has {count} problems"))),
    }
}

/// Says that the model's template has no place for the tools of the task.
fn tools_as_text(task: &Task, model: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(model) = model.filter(|_| matches!(task.definition, Definition::ToolCalls(_))) else { return Ok(None) };
    let takes_tools = Tokenizer::load(&find_model(model)?)?.takes_tools();
    let message = || {
        format!(
            "the chat template of {model} has no tools: they become text of the system message, calls and results text of their turns"
        )
    };
    Ok((!takes_tools).then(message))
}

fn unknown_normalised_fields(task: &Task) -> Vec<String> {
    let properties = task.schema().and_then(|schema| schema.get("properties"));
    let Some(properties) = properties.and_then(serde_json::Value::as_object) else {
        return Vec::new();
    };
    let unknown = task.score.normalise.keys().filter(|field| !properties.contains_key(*field));
    unknown
        .map(|field| {
            format!(
                "{}: `score.normalise.{field}` is not a property of the schema (it has {})",
                task.label("task.toml"),
                properties.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })
        .collect()
}

fn run_audit(choice: &Choice) -> Outcome {
    let task = Task::resolve(&choice.task)?;
    let scorer = Scorer::new(&task)?;
    let rows =
        if task.set_file(PromptSet::Train).is_some() { dataset::load(&task, PromptSet::Train)? } else { Vec::new() };
    let findings = audit(&task, &scorer, &rows);
    let weak = findings.iter().filter(|finding| finding.weak).count();
    if choice.json {
        return print_json(&format!(
            "{}\n",
            json!({"task": task.name, "rows": rows.len(), "weak": weak, "findings": findings})
        ));
    }
    let (fewest, all) = (findings.iter().map(|finding| finding.rows).min().unwrap_or(0), rows.len());
    let prompts = if fewest < all {
        format!("{fewest} to {all} of {all} prompts, fewer for long answers")
    } else {
        format!("{all} prompts")
    };
    println!("What degenerate answers would earn in {} ({prompts})\n", task.name);
    let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0).clamp(36, 120);
    println!("{:<width$} {:<10} {:>6}", "answer", "tier", "reward");
    for finding in &findings {
        println!(
            "{:<width$} {:<10} {:>6.2}  {}",
            visible(&finding.name),
            finding.tier.name(),
            finding.reward,
            if finding.weak { "too easy" } else { "" }
        );
    }
    println!();
    for finding in findings.iter().filter(|finding| finding.weak) {
        println!("- {}", visible(&finding.sentence));
    }
    if weak == 0 {
        println!("No degenerate answer scores as high as a correct one.");
    }
    Ok(ExitCode::SUCCESS)
}
