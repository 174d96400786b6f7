//! `grpo-tui pull`: copies runs of another host to read them here, by rsync over SSH.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::json;

use super::output::eprint_line;
use super::{Failure, Outcome, print_json};
use crate::files::{self, Access};
use crate::format::counted;
use crate::run::{Pulled, RunFolders};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// SSH host and its runs folder, such as me@gpu1:work/runs
    #[arg(value_name = "HOST:RUNS")]
    from: String,
    /// Folder for the copies [default: pulled/HOST in the user's data directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Copy the weights of checkpoints, too; without it, everything else
    #[arg(long)]
    weights: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (host, folder) = remote(&arguments.from)?;
    let data = || {
        directories::ProjectDirs::from("", "", "grpo-tui")
            .map(|folders| folders.data_dir().to_owned())
    };
    let default =
        || data().map(|data| data.join("pulled").join(host.replace(['/', '@', ':'], "_")));
    let out = arguments.out.clone().or_else(default);
    let out = out.ok_or_else(|| {
        Failure::usage("no folder for the copies: name one with --out DIR, or set HOME")
    })?;
    check_is_free(&out)?;
    files::ensure_folder(&out, Access::Private)?;
    Pulled::mark(&out, &arguments.from)?;
    let mut rsync = Command::new("rsync");
    // Files that change meanwhile are whole: a log grows at its end, all else is replaced atomically.
    rsync.args([
        "--archive",
        "--compress",
        "--partial",
        "--no-owner",
        "--no-group",
        "--no-devices",
        "--no-specials",
    ]);
    rsync.args([
        "--exclude=/*/control/",
        "--exclude=/*/lock",
        "--exclude=.*",
        "--no-links",
        "--chmod=D0700,F0600",
    ]);
    if !arguments.weights {
        rsync.arg("--exclude=*.safetensors");
    }
    rsync.args(["--", &format!("{host}:{folder}/")]).arg(&out);
    eprint_line(&format!("copying {folder} of {host} to {}", out.display()));
    let status = rsync
        .stdout(Stdio::null())
        .status()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::failed("rsync is not installed: `apt install rsync` on both hosts")
            }
            _ => Failure::failed(format!("rsync could not be started: {error}")),
        })?;
    if !status.success() {
        let code = status
            .code()
            .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        return Err(Failure::failed(format!(
            "rsync from {} ended with {code}: check `ssh {host}` and the folder, then pull again; it resumes",
            arguments.from
        )));
    }
    let runs = RunFolders::discover(Some(&out), &out).list().len();
    if arguments.json {
        return print_json(json!({"from": arguments.from, "folder": out, "runs": runs}));
    }
    if runs == 0 {
        eprint_line(&format!(
            "{folder} on {host} has no runs: give a folder of runs, as `runs list` shows it there"
        ));
    }
    eprint_line(&format!(
        "{} in {}: read them with --runs {1}",
        counted(runs, "run"),
        out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Host and folder. Neither may be taken for an option of ssh or rsync.
fn remote(from: &str) -> Result<(&str, &str), Failure> {
    let wrong = || {
        Failure::usage(format!(
            "{from}: write HOST:RUNS, such as me@gpu1:work/runs"
        ))
    };
    let (host, folder) = from.split_once(':').ok_or_else(wrong)?;
    let is_plain =
        |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_control);
    if !is_plain(host) || host.contains(['/', ' ']) || !is_plain(folder) || folder.starts_with(':')
    {
        return Err(wrong());
    }
    Ok((host, folder.trim_end_matches('/')))
}

/// A copy never mixes with runs of this host.
fn check_is_free(out: &Path) -> Result<(), Failure> {
    let is_used = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if is_used && Pulled::for_folder(out).is_none() {
        return Err(Failure::usage(format!(
            "{} holds other files: choose a new folder with --out",
            out.display()
        )));
    }
    Ok(())
}
