//! `grpo-tui init`: a workspace with a task to edit.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::files::{Access, create_file, create_folder_with, ensure_folder};
use crate::task::Task;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Workspace folder; created if missing
    folder: PathBuf,
    /// Initial task: an embedded task, or a task's folder
    #[arg(long, value_name = "TASK", default_value = "invoice")]
    from: String,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let task = Task::resolve(&arguments.from)?;
    let task_files = task.files()?;
    let home = arguments.folder.join("tasks").join(&task.name);
    if std::fs::symlink_metadata(&home).is_ok() {
        return Err(Failure::usage(format!("{} already exists: choose another folder, or remove it", home.display())));
    }
    make_folder(&arguments.folder.join("tasks"))?;
    create_folder_with(&home, Access::Umask, failed, |new| {
        task_files.iter().try_for_each(|(name, bytes)| {
            let path = new.join(name);
            path.parent().map(make_folder).transpose()?;
            create_file(&path, bytes, Access::Umask).map_err(|error| failed(&path, error))
        })
    })?;
    make_folder(&arguments.folder.join("runs"))?;
    println!("Created workspace {} with task {} ({} files).", arguments.folder.display(), task.name, task_files.len());
    println!("  edit it     {}", home.join("task.toml").display());
    println!("  check it    cd {} && grpo-tui task check {}", arguments.folder.display(), task.name);
    println!("  score       grpo-tui score {}", task.name);
    println!("  train       grpo-tui train {}", task.name);
    Ok(ExitCode::SUCCESS)
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    ensure_folder(folder, Access::Umask).map_err(|error| failed(folder, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
