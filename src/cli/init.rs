//! `grpo-tui init`: a workspace with a task to edit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome};
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
    let files = task.files()?;
    let home = arguments.folder.join("tasks").join(&task.name);
    if fs::symlink_metadata(&home).is_ok() {
        return Err(Failure::usage(format!("{} already exists: choose another folder, or remove it", home.display())));
    }
    make_folder(&home)?;
    for (name, bytes) in &files {
        let path = home.join(name);
        path.parent().map(make_folder).transpose()?;
        fs::write(&path, bytes).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    make_folder(&arguments.folder.join("runs"))?;
    println!("Created workspace {} with task {} ({} files).", arguments.folder.display(), task.name, files.len());
    println!("  edit it     {}", home.join("task.toml").display());
    println!("  check it    cd {} && grpo-tui task check {}", arguments.folder.display(), task.name);
    println!("  score       grpo-tui score {}", task.name);
    println!("  train       grpo-tui train {}", task.name);
    Ok(ExitCode::SUCCESS)
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::failed(format!("{}: {error}", folder.display())))
}
