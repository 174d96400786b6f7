//! `runs rename`: gives a run a display name; its id and folder stay.

use serde_json::json;

use super::{Failure, Outcome, print, print_json};
use crate::run::{RunFolders, check_name, rename_run};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// The display name; empty: the name that the run was created with
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let run = run_folders.find(&arguments.run)?;
    if let Some(wrong) = Some(arguments.name.trim())
        .filter(|name| !name.is_empty())
        .and_then(check_name)
    {
        return Err(Failure::usage(wrong));
    }
    run.check_private()?;
    rename_run(run.path(), &arguments.name)?;
    let run = crate::run::RunDirectory::open(run.path())?;
    if arguments.json {
        return print_json(json!({"run": run.id(), "path": run.path(), "name": run.name()}));
    }
    let named = if run.name().is_empty() {
        "no name".to_owned()
    } else {
        format!("named {}", run.name())
    };
    print(&format!("{}: {}\n", visible(run.id()), visible(&named)))
}
