//! `grpo-tui dataset import|split|check|propose|demonstrate`: adds rows to a task's prompt files, distributes them anew,
//! says what is wrong with them, proposes labels, or searches the calls that they ask for.

mod import;
mod label;
mod propose;
mod split;

pub(super) use import::{MappingArguments, print_problems};

use std::process::ExitCode;

use serde_json::Value;

use super::{Failure, Outcome, preset, print_json};
use crate::config::{Assignments, Layers};
use crate::dataset::health::{Health, Level};
use crate::dataset::{self, PromptRow};
use crate::format::counted;
use crate::hub::find_model;
use crate::prompts::{NoCalls, check_prompts, demonstration_messages, find_calls_of};
use crate::score::{Scorer, Task, for_model};
use crate::secrets::visible;
use crate::task::{PromptSet, TASK_FILE};
use crate::text::Tokenizer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add rows of a CSV, JSON, JSONL or Parquet file to a set
    Import(import::Arguments),
    /// Distribute the rows of a task anew over train, eval and test, so that no schema, or no prompt, is in two sets
    Split(split::Arguments),
    /// Check prompt sets: bad lines, duplicates, leaks, invalid expected answers, long prompts, secrets
    Check(Check),
    /// Propose `expected` for train rows without one, learned from the labelled rows of train and eval
    Propose(propose::Arguments),
    /// Search the calls that lead to the final state that each row expects; print the rows with them as demonstrations
    Demonstrate(Demonstrate),
}

#[derive(Debug, clap::Args)]
struct Demonstrate {
    /// Task with live tools, scored by their final state (`kind = "state"`)
    task: String,
    /// Prompt set: train, eval or test
    #[arg(long, value_name = "SET", default_value = "train")]
    on: String,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Count prompt lengths with this model's tokenizer and chat template
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// Maximum tokens of prompt and completion together [default: as `train` with this model and preset]
    #[arg(long, value_name = "N", requires = "model")]
    max_seq_len: Option<usize>,
    /// Preset that sets max_seq_len: quick, seed or recommended
    #[arg(long, requires = "model")]
    preset: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Import(arguments) => import::run(&arguments),
        Command::Split(arguments) => split::run(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Propose(arguments) => match arguments.labelling() {
            Some((task, set, count)) => label::label_rows(&Task::resolve(task)?, set, count),
            None => propose::run(&arguments),
        },
        Command::Demonstrate(arguments) => demonstrate(&arguments),
    }
}

fn demonstrate(arguments: &Demonstrate) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let Some(set) = PromptSet::from_name(&arguments.on) else {
        let message = format!("--on {:?}: write train, eval or test", arguments.on);
        return Err(Failure::usage(message));
    };
    if !task.has_state() {
        let message = format!(
            "{}: only the calls of tasks with `[[tool]]` and `[score] kind = \"state\"` can be searched",
            task.label(TASK_FILE)
        );
        return Err(Failure::failed(message));
    }
    let scorer = Scorer::new(&task)?;
    let rows = dataset::load(&task, set)?;
    let (shown, searched): (Vec<&PromptRow>, Vec<&PromptRow>) =
        rows.iter().partition(|row| row.has_demonstration());
    let mut found = find_calls_of(&task, &scorer, &searched).into_iter();
    let (mut count, mut reason) = (0, String::new());
    for row in &rows {
        let mut fields = row.fields.whole();
        match (!row.has_demonstration()).then(|| found.next()).flatten() {
            Some(Ok(turns)) => {
                fields.insert("demonstration".to_owned(), demonstration_messages(&turns));
                count += 1;
            }
            Some(Err(NoCalls::Tools(error))) => return Err(error.into()),
            Some(Err(why)) if reason.is_empty() => {
                reason = format!(" First without: {}: {why}.", row.id);
            }
            _ => {}
        }
        print_json(Value::Object(fields))?;
    }
    eprintln!(
        "Calls found for {count} of {}; {} had a demonstration.{}",
        counted(searched.len(), "row"),
        shown.len(),
        visible(&reason),
    );
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &Check) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    Scorer::new(&task)?;
    let tokenizer = match &arguments.model {
        Some(model) => Some(Tokenizer::load(&find_model(model)?)?),
        None => None,
    };
    let task = tokenizer
        .as_ref()
        .map_or_else(|| task.clone(), |tokenizer| for_model(&task, tokenizer));
    let scorer = Scorer::new(&task)?;
    let max_seq_len = match arguments.max_seq_len {
        Some(tokens) => tokens,
        None => own_max_seq_len(&task, arguments)?,
    };
    let health = check_prompts(&task, &scorer, tokenizer.as_ref(), max_seq_len)?;
    if arguments.json {
        print_json(serde_json::to_string(&health)?)?;
    } else {
        print_health(&health);
    }
    Ok(if health.count(Level::Error) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The limit that `train` would use: the key table, the preset, the task's own.
fn own_max_seq_len(task: &Task, arguments: &Check) -> Result<usize, Failure> {
    let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let layers = Layers {
        preset: arguments.preset.as_deref().map(preset).transpose()?,
        task: Some(Assignments::from_task(&task.label(TASK_FILE), &text)?),
        set: arguments
            .model
            .iter()
            .map(|model| format!("base_model={model}"))
            .collect(),
        ..Layers::default()
    };
    Ok(layers.resolve()?.config.max_seq_len)
}

fn print_health(health: &Health) {
    for set in &health.sets {
        let tags = set
            .tags
            .iter()
            .map(|(tag, count)| format!("{tag} {count}"))
            .collect::<Vec<_>>()
            .join(", ");
        println!(
            "{}: {}{}{}",
            visible(&set.file),
            counted(set.rows, "row"),
            if tags.is_empty() { "" } else { " · " },
            visible(&tags)
        );
        if let Some((least, mean, greatest)) = set.prompt_tokens {
            println!("  prompt tokens: {least} to {greatest}, mean {mean:.0}");
        }
    }
    for finding in &health.findings {
        let level = if finding.level == Level::Error {
            "error"
        } else {
            "warning"
        };
        let line = finding
            .line
            .map_or_else(String::new, |line| format!(" line {line}"));
        println!(
            "{level}: {}{line}: {}",
            visible(&finding.file),
            visible(&finding.message)
        );
    }
    let total: usize = health.counts.values().sum();
    if total > health.findings.len() {
        println!("... {} more", total - health.findings.len());
    }
    for group in &health.groups {
        let class = if group.class.is_empty() {
            String::new()
        } else {
            format!(", {}", group.class)
        };
        println!("{}{class}: {}", group.kind.title(), group.count);
    }
    let (errors, warnings) = (health.count(Level::Error), health.count(Level::Warning));
    println!(
        "{}, {}",
        counted(errors, "error"),
        counted(warnings, "warning")
    );
}
