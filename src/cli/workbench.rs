//! `grpo-tui [WORKSPACE]`: the workbench in the terminal.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::run::RunPlaces;
use crate::view::{self, Options};

#[derive(Debug, clap::Args)]
#[group(id = "workbench")]
pub(super) struct Arguments {
    /// A workspace's or a task's folder [default: the workspace around the current folder, else the embedded sample]
    workspace: Option<PathBuf>,
    /// Look for runs in this folder only
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// For slow links: at most one picture in two seconds
    #[arg(long)]
    low_bandwidth: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::usage("the workbench needs a terminal; see --help for commands that do without"));
    }
    view::run(options(arguments)?).map_err(|error| Failure::failed(format!("the terminal: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let here = match &arguments.workspace {
        None => std::env::current_dir()?,
        Some(folder) if folder.is_dir() => std::path::absolute(folder)?,
        Some(folder) => {
            let text =
                format!("{} is neither a subcommand (see --help) nor a folder; `grpo-tui init DIR` makes a workspace", folder.display());
            return Err(Failure::usage(text));
        }
    };
    let places = RunPlaces::discover(arguments.runs.as_deref(), &here);
    let data =
        directories::ProjectDirs::from("", "", "grpo-tui").map_or_else(|| here.join(".grpo-tui"), |folders| folders.data_dir().to_owned());
    let is_task = here.join(crate::task::TASK_FILE).is_file();
    let mut options = Options::at(here, places, data);
    options.task = is_task.then(|| options.here.display().to_string());
    options.low_bandwidth = arguments.low_bandwidth;
    options.remote = std::env::var_os("SSH_CONNECTION").is_some();
    Ok(options)
}
