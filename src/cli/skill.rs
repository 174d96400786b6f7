//! `grpo-tui skill install`: instructions for agents that read skills, as <https://agentskills.io/specification> defines.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::files::{Access, ensure_folder, read, replace_file};
use crate::secrets::visible;

/// The folder's name is that in the text, as the format asks.
const NAME: &str = "grpo-tui";
const TEXT: &str = include_str!("skill/SKILL.md");

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write grpo-tui/SKILL.md into a folder of skills
    Install {
        /// Folder of skills, such as ~/.claude/skills
        #[arg(long, value_name = "DIR", default_value = ".agents/skills")]
        dir: PathBuf,
        /// Replace a file that differs
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Command::Install { dir, force } = &arguments.command;
    let folder = dir.join(NAME);
    let file = folder.join("SKILL.md");
    let named = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    if read(&file).is_ok_and(|found| found != TEXT.as_bytes()) && !force {
        return Err(Failure::usage(format!(
            "{} differs from this version's: replace it with --force",
            file.display()
        )));
    }
    ensure_folder(&folder, Access::Umask).map_err(named)?;
    replace_file(&file, TEXT.as_bytes(), Access::Umask).map_err(named)?;
    println!("wrote {}", visible(&file.display().to_string()));
    Ok(ExitCode::SUCCESS)
}
