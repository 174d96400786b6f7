//! `grpo-tui init`: a workspace with a task to edit.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::dataset::new_task::write_files;
use crate::files::{Access, ensure_folder};
use crate::format::{counted, quoted};
use crate::score::Task;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Workspace folder; created if missing
    folder: PathBuf,
    /// Initial task: an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`), or a task's folder
    #[arg(
        long,
        value_name = "TASK",
        default_value = "invoice",
        conflicts_with = "template"
    )]
    from: String,
    /// Template of the initial task: invoice (runs on the embedded model), agent (a program that holds the conversation),
    /// classify, extract (nested lists), python-scorer (a program that scores), support-judge (a model that grades), tool-call, unlabeled (few expected answers) or yaml-config
    #[arg(long, value_name = "NAME", value_parser = super::template_parser())]
    template: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let task = match &arguments.template {
        Some(template) => Task::template(template)?,
        None => Task::resolve(&arguments.from)?,
    };
    let task_files = task.files()?;
    let home = arguments.folder.join("tasks").join(&task.name);
    if std::fs::symlink_metadata(&home).is_ok() {
        return Err(Failure::usage(format!(
            "{} exists: choose another folder, or remove it",
            home.display()
        )));
    }
    write_files(&home, &task_files)?;
    let runs = arguments.folder.join("runs");
    ensure_folder(&runs, Access::Umask)
        .map_err(|error| Failure::failed(format!("{}: {error}", runs.display())))?;
    println!(
        "Created workspace {} with task {} ({}).",
        arguments.folder.display(),
        task.name,
        counted(task_files.len(), "file")
    );
    println!("  edit it     {}", home.join("task.toml").display());
    if task.needs_trust() {
        println!("  trust it    grpo-tui task trust {}", home.display());
    }
    let there = arguments.folder.display().to_string();
    let cd = if there == "." {
        String::new()
    } else {
        format!("cd {} && ", quoted(&there))
    };
    println!("  check it    {cd}grpo-tui task check {}", task.name);
    println!("  score       grpo-tui score {}", task.name);
    println!("  train       grpo-tui train {}", task.name);
    println!("  own task    grpo-tui task new NAME --data FILE.csv");
    if let Some(note) = task.embedded_model_note(&task.base_model()) {
        println!("note: {note}");
    }
    Ok(ExitCode::SUCCESS)
}
