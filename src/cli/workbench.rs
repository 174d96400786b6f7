//! `grpo-tui [WORKSPACE]`: the workbench in the terminal.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use super::output::is_captured;
use super::{Failure, Outcome, print};
use crate::format::slip_of;
use crate::run::RunFolders;
use crate::view::appearance::Appearance;
use crate::view::options::AppearanceInput;
use crate::view::terminal_capability::ColourDepth;
use crate::view::{self, Options, ViewExit};

/// The exit code if the terminal has vanished.
const LOST: u8 = 129;

#[derive(Debug, clap::Args)]
#[group(id = "workbench")]
pub(super) struct Arguments {
    /// Workspace or task folder [default: the workspace around the current folder, else the embedded task]
    workspace: Option<PathBuf>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Update runs at most every two seconds, for slow links
    #[arg(long)]
    low_bandwidth: bool,
    /// Theme: auto, dark, light, high-contrast, monochrome, or your own
    #[arg(long, value_name = "NAME")]
    theme: Option<String>,
    /// Colour depth [default: from NO_COLOR, COLORTERM and TERM]
    #[arg(long, visible_alias = "color", value_name = "DEPTH", value_parser = ["truecolor", "256", "16", "none"])]
    colour: Option<String>,
    /// ASCII only
    #[arg(long)]
    ascii: bool,
    /// Print lines instead of drawing, for screen readers, logs, CI and TERM=dumb; without a keyboard, input lines are read as keys
    #[arg(long)]
    linear: bool,
}

impl Arguments {
    /// The first option that is given; `with_runs`: --runs among them.
    pub(super) fn option(&self, with_runs: bool) -> Option<&'static str> {
        let given = [
            ("--runs", with_runs && self.runs.is_some()),
            ("--low-bandwidth", self.low_bandwidth),
            ("--theme", self.theme.is_some()),
            ("--colour", self.colour.is_some()),
            ("--ascii", self.ascii),
            ("--linear", self.linear),
        ];
        given
            .into_iter()
            .find(|(_, is_given)| *is_given)
            .map(|(option, _)| option)
    }

    fn appearance(&self) -> AppearanceInput {
        let detected = AppearanceInput::detect();
        AppearanceInput {
            theme: self.theme.clone(),
            colour: self.colour.as_deref().and_then(ColourDepth::from_name),
            ascii: self.ascii,
            low_bandwidth: self.low_bandwidth,
            linear: self.linear || detected.capability.is_dumb,
            ..detected
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let options = options(arguments)?;
    let has_terminal =
        !is_captured() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !(has_terminal || arguments.linear) {
        return Err(Failure::usage(
            "the workbench needs a terminal: use --linear, or see --help for other commands",
        ));
    }
    if options.appearance.linear && !arguments.linear {
        eprintln!("TERM=dumb cannot draw a screen: printing lines, as --linear does");
    }
    let ending =
        view::run(options).map_err(|error| Failure::failed(format!("the terminal: {error}")))?;
    if ending.code != LOST {
        farewell(&ending);
        if let Some(why) = &ending.unsaved {
            eprintln!("{why}");
        }
    }
    Ok(ExitCode::from(ending.code))
}

/// Prints that runs continue, and how to find them.
fn farewell(ending: &ViewExit) {
    let text = match &ending.live[..] {
        [] => return,
        [one] => {
            format!(
                "{one} continues in the background: attach with `grpo-tui runs attach {one}`, stop with `grpo-tui runs stop {one}`"
            )
        }
        [first, rest @ ..] => {
            format!(
                "{first} and {} more continue in the background: list them with `grpo-tui runs list`",
                rest.len()
            )
        }
    };
    // The terminal may be gone.
    let _ = print(&format!("{text}\n"));
}

/// Reports a first word that is not a folder but almost a subcommand.
pub(super) fn misspelled_subcommand(first: Option<&OsString>) -> Option<Failure> {
    let word = first?
        .to_str()
        .filter(|word| !word.starts_with('-') && !std::path::Path::new(word).exists())?;
    let command = super::Arguments::command();
    let known = command
        .get_subcommands()
        .filter(|known| !known.is_hide_set())
        .map(clap::Command::get_name);
    let nearest = slip_of(word, known)?;
    let text = format!(
        "no subcommand `{word}`, and no folder of that name\nhelp: a similar name exists: `grpo-tui {nearest}`"
    );
    Some(Failure::usage(text))
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let here = match &arguments.workspace {
        None => std::env::current_dir()?,
        Some(folder) if folder.is_dir() => std::path::absolute(folder)?,
        Some(folder) => {
            let text = format!(
                "{} is neither a subcommand (see --help) nor a folder: create a workspace with `grpo-tui init DIR`",
                folder.display()
            );
            return Err(Failure::usage(text));
        }
    };
    // Absolute, since subprocesses run in the workspace's folder.
    let runs = arguments
        .runs
        .as_deref()
        .map(std::path::absolute)
        .transpose()?;
    let run_folders = RunFolders::discover(runs.as_deref(), &here);
    let data = directories::ProjectDirs::from("", "", "grpo-tui").map_or_else(
        || here.join(".grpo-tui"),
        |folders| folders.data_dir().to_owned(),
    );
    let is_task = here.join(crate::task::TASK_FILE).is_file();
    let mut options = Options::at(here, run_folders, data);
    options.shell = std::env::current_dir()?;
    options.task = is_task.then(|| options.here.display().to_string());
    Ok(Appearance::options(options, arguments.appearance()))
}
