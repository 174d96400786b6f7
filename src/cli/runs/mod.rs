//! `grpo-tui runs`: list, show, follow, compare, control, export and delete runs.

mod attach;
mod check;
mod comment;
mod compare;
mod control;
mod export;
mod list;
mod promote;
#[cfg(feature = "engine")]
mod published_base;
mod remove;
mod rename;
mod show;
mod tag;
mod trash;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

#[cfg(feature = "engine")]
pub(super) use self::promote::{gpu_price, price};
use super::{Failure, Outcome, output};
use crate::format::bytes;
use crate::report::{Page, Report};
use crate::run::{RunDirectory, RunError, RunFolders, ask_slurm, check_export, write_export};
use crate::secrets::{redact, redact_json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    runs: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List runs, oldest first
    List(list::Arguments),
    /// Show one run: state, configuration, progress, evals, checkpoints
    Show {
        /// Run: a path, name, id, or unique id prefix
        run: String,
        /// Print the solve rate of each training prompt instead: completions of its latest group with the full reward
        #[arg(long)]
        prompts: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Follow a run as plain text until it ends; Ctrl-C detaches, the run continues
    Attach(attach::Arguments),
    /// Verify the files of runs by their checksums: what is damaged, and what depends on it
    Check(check::Arguments),
    /// Compare base and result of a run, several runs, or the evals of a standalone eval
    #[command(alias = "versus")]
    Compare(compare::Arguments),
    /// List, write or remove comments on prompts of evals
    Comment(comment::Arguments),
    /// Export metrics as CSV, JSON lines or TensorBoard event files, or runs as HTML or Markdown
    Export(export::Arguments),
    /// Export a checkpoint's weights with provenance.json
    Promote(promote::Arguments),
    /// Add or remove tags of runs
    Tag(tag::Arguments),
    /// Change a run's display name; its id stays
    Rename(rename::Arguments),
    /// Move ended runs, or checkpoints of them, to the trash
    #[command(alias = "rm")]
    Remove(remove::Arguments),
    /// List what is in the trash; restore or delete it
    Trash(trash::Arguments),
    #[command(flatten)]
    Control(control::Command),
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let here = std::env::current_dir()?;
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &here);
    if let Some(folder) = arguments.runs.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Failure::usage(format!(
            "--runs {}: there is no such folder; leave --runs out for the workspace's own",
            folder.display()
        )));
    }
    let seen = |run: &str| run_folders.find(run).and_then(Report::read);
    match arguments.command {
        Command::List(arguments) => list::run(&arguments, &run_folders),
        Command::Show { run, prompts, json } => {
            ask_about([run_folders.find(&run)?.path().to_owned()]);
            let seen = seen(&run)?;
            match (prompts, json) {
                (false, false) => print(&show::page(&seen)),
                (false, true) => print_json(show::document(&seen)),
                (true, false) => print(&show::prompts_page(&show::prompts(&seen)?)),
                (true, true) => print_json(show::prompts_document(&seen, &show::prompts(&seen)?)),
            }
        }
        Command::Attach(arguments) => attach::run(&arguments, &run_folders),
        Command::Check(arguments) => check::run(&arguments, &run_folders),
        Command::Compare(arguments) => compare::run(&arguments, &run_folders),
        Command::Comment(arguments) => comment::run(&arguments, &run_folders),
        Command::Export(arguments) => export::run(&arguments, &run_folders),
        Command::Promote(arguments) => promote::run(&arguments, &run_folders),
        Command::Tag(arguments) => tag::run(&arguments, &run_folders),
        Command::Rename(arguments) => rename::run(&arguments, &run_folders),
        Command::Remove(arguments) => remove::run(&arguments, &run_folders),
        Command::Trash(arguments) => trash::run(&arguments, &run_folders),
        Command::Control(command) => control::run(command, &run_folders),
    }
}

/// Asks Slurm about runs that wait for it; without an answer they show the last one.
fn ask_about(runs: impl IntoIterator<Item = PathBuf>) {
    if let Err(error) = ask_slurm(runs, Duration::ZERO) {
        output::eprint_line(&format!("note: {error}"));
    }
}

/// Reads a run with its answers; says on standard error what of it is damaged.
fn verified(run: RunDirectory) -> Result<Report, RunError> {
    let seen = Report::verified(run)?;
    warn(&seen);
    Ok(seen)
}

/// Says what of a run is damaged on standard error: what is printed lacks it.
fn warn(seen: &Report) {
    for warning in &seen.warnings {
        output::eprint_line(&format!("warning: {}: {warning}", seen.directory.id()));
    }
}

/// Finds several runs; each counts once.
fn find_all<'a>(
    names: impl Iterator<Item = &'a str>,
    run_folders: &RunFolders,
) -> Result<Vec<RunDirectory>, Failure> {
    let mut found: Vec<RunDirectory> = Vec::new();
    for name in names {
        let run = run_folders.find(name)?;
        if !found.iter().any(|other| other.path() == run.path()) {
            found.push(run);
        }
    }
    Ok(found)
}

/// Text from a run's folder is printed only here and by [`print_json`] and [`print_json_lines`], which mask secrets.
fn print(text: &str) -> Outcome {
    let (text, masked) = redact(text);
    report_masked(masked);
    output::print(&text)
}

fn print_json(mut document: Value) -> Outcome {
    report_masked(redact_json(&mut document));
    output::print_indented(&document)
}

fn print_json_lines(mut documents: Vec<Value>) -> Outcome {
    report_masked(documents.iter_mut().map(redact_json).sum());
    documents.iter().try_fold(ExitCode::SUCCESS, |_, document| {
        output::print_json(document)
    })
}

fn report_masked(count: usize) {
    if count > 0 {
        output::eprint_line(&masked(count));
    }
}

/// Refuses an existing file before anything is computed.
pub(super) fn check_page(file: Option<&Path>, force: bool) -> Result<(), Failure> {
    file.map_or(Ok(()), |file| check_export(file, force))
        .map_err(|error| Failure::usage(error.to_string()))
}

pub(super) fn write_page(file: &Path, page: &Page, force: bool) -> Result<(), Failure> {
    write_export(file, page.text.as_bytes(), force)?;
    report_written(file, page.text.len(), page.masked);
    Ok(())
}

fn report_written(file: &Path, size: usize, secrets: usize) {
    output::eprint_line(&format!(
        "wrote {} ({}); {}",
        file.display(),
        bytes(size as u64),
        masked(secrets)
    ));
}

fn masked(count: usize) -> String {
    match count {
        0 => "no secrets found".to_owned(),
        1 => "1 secret is masked".to_owned(),
        count => format!("{count} secrets are masked"),
    }
}
