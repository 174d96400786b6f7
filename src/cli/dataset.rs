//! `grpo-tui dataset import|build|check`: make a task's prompt files, or say what is wrong with them.

mod import;

pub(super) use import::{MappingArguments, print_problems};

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome, preset, print_json};
use crate::config::{Assignments, Layers};
use crate::dataset::Builder;
use crate::dataset::health::{Health, Level};
use crate::files;
use crate::format::counted;
use crate::hub::find_model;
use crate::prompts::check_prompts;
use crate::score::{Scorer, Task, for_model};
use crate::secrets::visible;
use crate::task::TASK_FILE;
use crate::text::Tokenizer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add rows of a CSV, JSON or JSONL file to a set
    Import(import::Arguments),
    /// Generate the task's prompt files (deterministic)
    Build(Build),
    /// Check prompt sets: bad lines, duplicates, leaks, invalid expected answers, long prompts, secrets
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Write into this folder instead of the task's own
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing; fail if a file differs from the generator's output
    #[arg(long)]
    check: bool,
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
        Command::Build(arguments) => build(&arguments),
        Command::Check(arguments) => check(&arguments),
    }
}

fn build(arguments: &Build) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let builder = Builder::new(&task, &task.definition_files())?;
    let folder = match (&arguments.out, task.folder()) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.to_path_buf(),
        (None, None) => {
            return Err(Failure::usage(format!(
                "{} is embedded in the program; add --out DIR",
                arguments.task
            )));
        }
    };
    if arguments.check {
        return check_built(&folder, &builder, &arguments.task);
    }
    for set in &builder.sets {
        let path = builder.write(set, &folder)?;
        println!("{}: {}", path.display(), counted(set.rows as usize, "row"));
    }
    Ok(ExitCode::SUCCESS)
}

fn check_built(folder: &Path, builder: &Builder, task: &str) -> Outcome {
    for set in &builder.sets {
        let path = folder.join(&set.file);
        let stored = files::open(&set.path(folder)?).map_err(|error| {
            Failure::failed(format!(
                "{}: {error}; write it with `grpo-tui dataset build {task}`",
                path.display()
            ))
        })?;
        if let Some(line) = builder.first_difference(set, BufReader::new(stored))? {
            let message = format!(
                "{} line {line} differs from the generator's output; run `grpo-tui dataset build {task}` to rewrite it",
                path.display()
            );
            return Err(Failure::failed(message));
        }
        println!(
            "{}: {}, up to date",
            path.display(),
            counted(set.rows as usize, "row")
        );
    }
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
