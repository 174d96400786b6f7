//! The command line: one file per subcommand, exit codes, and error messages.

#[macro_use] // first: `println!` and `eprintln!` of all that follows are its own
mod output;

#[cfg(feature = "engine")]
mod completions;
mod dataset;
#[cfg(feature = "engine")]
mod device;
mod doctor;
#[cfg(feature = "engine")]
mod endpoints;
#[cfg(feature = "engine")]
mod eval;
#[cfg(feature = "engine")]
mod eval_completions;
#[cfg(feature = "engine")]
mod eval_report;
#[cfg(feature = "engine")]
mod eval_status;
mod init;
#[cfg(feature = "view")]
mod keys;
mod man;
#[cfg(feature = "engine")]
mod mcp;
#[cfg(feature = "engine")]
mod model;
#[cfg(feature = "engine")]
mod plan;
#[cfg(feature = "engine")]
mod preflight;
#[cfg(feature = "engine")]
mod progress;
#[cfg(feature = "engine")]
mod progress_bar;
#[cfg(feature = "engine")]
mod prove;
#[cfg(feature = "engine")]
mod rank;
#[cfg(feature = "engine")]
mod rows;
#[cfg(feature = "engine")]
mod run_input;
mod runs;
#[cfg(feature = "engine")]
mod sample;
mod score;
#[cfg(feature = "engine")]
mod serve;
mod skill;
mod slurm;
mod status_line;
#[cfg(feature = "engine")]
mod sweep;
#[cfg(feature = "engine")]
mod targets;
mod task;
#[cfg(feature = "engine")]
mod train;
#[cfg(feature = "engine")]
mod variants;
#[cfg(feature = "view")]
mod workbench;
mod worker;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use output::{print, print_indented, print_json};

/// Make a language model's structured output reliable: score it, train it with GRPO, measure it on held-out prompts.
#[derive(Debug, Parser)]
#[command(name = "grpo-tui", version, about, max_term_width = 120, after_help = exit_codes())]
struct Arguments {
    #[cfg(feature = "view")]
    #[command(flatten)]
    workbench: workbench::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a workspace with a task to edit
    Init(init::Arguments),
    /// Train a model on a task with GRPO or SFT
    #[cfg(feature = "engine")]
    Train(Box<train::Arguments>),
    /// Train with several values of configuration keys, and compare the results
    #[cfg(feature = "engine")]
    Sweep(Box<sweep::Arguments>),
    /// Compare models on held-out prompts
    #[cfg(feature = "engine")]
    Eval(Box<eval::Arguments>),
    /// Score completions against a task's schema
    Score(score::Arguments),
    /// Sample completions of a task's prompts
    #[cfg(feature = "engine")]
    Sample(sample::Arguments),
    /// Serve a model or a run over an OpenAI-compatible API
    #[cfg(feature = "engine")]
    Serve(serve::Arguments),
    /// Compare a server with a run, and name the cause of what differs
    #[cfg(feature = "engine")]
    Prove(Box<prove::Arguments>),
    /// Create or check a task, or check its reward for degenerate answers
    Task(task::Arguments),
    /// Import or check a task's prompt sets
    Dataset(dataset::Arguments),
    /// Fetch, inspect, import and export models
    #[cfg(feature = "engine")]
    Model(model::Arguments),
    /// List, inspect, compare, control and export runs
    Runs(runs::Arguments),
    /// Check this machine: processes at logout, engine, GPUs, folders, disk and terminal
    Doctor(doctor::Arguments),
    /// Serve tools to coding agents (Model Context Protocol)
    #[cfg(feature = "engine")]
    Mcp(mcp::Arguments),
    /// Install a skill (SKILL.md) for coding agents
    Skill(skill::Arguments),
    /// Show key bindings, or check a keymap file
    #[cfg(feature = "view")]
    Keys(keys::Arguments),
    /// Print a completion script for a shell, such as `source <(grpo-tui completions bash)`
    Completions(completions::Arguments),
    /// Print the manual page
    Man,
    /// Compute one run, started by the program itself
    #[command(hide = true)]
    Worker(worker::Arguments),
    /// Compute one rank of a run, started by its worker
    #[cfg(feature = "engine")]
    #[command(hide = true)]
    Rank(rank::Arguments),
}

/// The exit codes of all commands, with what they mean.
const EXIT_CODES: [(&str, &str); 6] = [
    (
        "0",
        "success; for `train` and `runs attach`: the run is finished",
    ),
    (
        "1",
        "failure: something is missing, invalid (such as a file) or impossible; `prove`: the server differs",
    ),
    (
        "2",
        "wrong usage: an unknown option, an invalid value, or conflicting options; `prove`: nothing could be compared",
    ),
    (
        "3",
        "`eval`, `task audit --mutants`: a rate is below --fail-under",
    ),
    (
        "75",
        "`train` in a Slurm job that ends before the run: resumable",
    ),
    (
        "130",
        "interrupted: continue with the same command, or `train --resume RUN`",
    ),
];

fn exit_codes() -> String {
    let lines = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("\n  {code:>3}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

/// Why a command failed: a message, and the exit code, of [`EXIT_CODES`].
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// What happened, where, and what to do next.
    pub message: String,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::failed(error.to_string())
    }
}

pub type Outcome = Result<ExitCode, Failure>;

/// The names of the templates, for checks, messages and completion.
fn template_parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(crate::task::template_names())
}

/// Finds a task, whose conversations an agent holds where the command line names one.
#[cfg(feature = "engine")]
fn task_with_agent(task: &str, agent: Option<&str>) -> Result<crate::score::Task, Failure> {
    let task = crate::score::Task::resolve(task)?;
    Ok(match agent {
        Some(command) => task.with_agent(command, &std::env::current_dir()?)?,
        None => task,
    })
}

fn preset(name: &str) -> Result<crate::config::Preset, Failure> {
    let known = crate::config::Preset::NAMES.join(", ");
    crate::config::Preset::from_name(name)
        .ok_or_else(|| Failure::usage(format!("--preset {name}: unknown preset, use {known}")))
}

pub fn main() -> ExitCode {
    completions::answer();
    output::install_panic_hook();
    // Otherwise a process started as /proc/self/exe would be listed as `exe`.
    let _ = std::fs::write("/proc/self/comm", "grpo-tui");
    // Ignored, so that a write beyond `ulimit -f` fails with an error instead of ending the process.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    exit_code(std::env::args_os().collect())
}

/// Runs a command, of which the first argument is the program's name, on this thread: it prints to `out` and `error`, and
/// terminals and signals of this process are not its own. For tests: tables of errors need no processes.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut (dyn Write + Send),
    error: &mut (dyn Write + Send),
) -> std::io::Result<ExitCode> {
    let arguments = arguments.into_iter().collect();
    let (code, [printed, said]) = output::capture(|| exit_code(arguments));
    out.write_all(&printed)?;
    error.write_all(&said)?;
    Ok(code)
}

/// Also of arguments that cannot be parsed.
fn has_json(arguments: &[OsString]) -> bool {
    let mut own = arguments.iter().take_while(|word| *word != "--");
    own.any(|word| word == "--json")
}

/// Removed subcommands, and what replaces them.
const REMOVED: [(&str, &str); 7] = [
    (
        "bench",
        "`train TASK --plan` says memory and pace; developers run `grpo-tui-lab bench` of the repository",
    ),
    (
        "dataset hide",
        "allow null in the schema, and expect null in the rows",
    ),
    (
        "task judge-check",
        "compare the judge's grades with your own on Scores",
    ),
    (
        "eval import",
        "convert the log by `python3 -m grpo_tui.eval_logs LOG > FILE`, then `eval TASK --completions NAME=FILE`",
    ),
    (
        "model check",
        "`model inspect` shows what is read of a model",
    ),
    ("pull", "copy runs by rsync: docs/commands.md has the line"),
    (
        "study",
        "train and sweep with each method: docs/sweeps.md has the lines",
    ),
];

/// Names a removed subcommand; one of two words only with an argument, since the second may be a task.
fn removed_subcommand(arguments: &[OsString]) -> Option<Failure> {
    let words = arguments.iter().skip(1).map_while(|word| word.to_str());
    let words: Vec<&str> = words.take_while(|word| !word.starts_with('-')).collect();
    let (name, instead) = REMOVED
        .iter()
        .find(|(name, _)| match name.split_once(' ') {
            Some((group, inner)) => words.len() > 2 && words[..2] == [group, inner],
            None => words.first() == Some(name) && !std::path::Path::new(name).exists(),
        })?;
    Some(Failure::usage(format!("`{name}` was removed: {instead}")))
}

fn exit_code(arguments: Vec<OsString>) -> ExitCode {
    let has_json = has_json(&arguments);
    #[cfg(feature = "view")]
    let misspelled = workbench::misspelled_subcommand(arguments.get(1));
    #[cfg(not(feature = "view"))]
    let misspelled = None;
    removed_subcommand(&arguments)
        .or(misspelled)
        .map_or_else(|| run_arguments(arguments), Err)
        .and_then(output::exit_code)
        .unwrap_or_else(|failure| {
            if has_json {
                output::print_json_error(&failure.message, failure.code);
            }
            output::eprint_error(&failure.message);
            ExitCode::from(failure.code)
        })
}

fn run_arguments(arguments: Vec<OsString>) -> Outcome {
    let arguments = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // The error quotes arguments: their control characters are shown, not sent.
            let shown = arguments
                .iter()
                .map(|argument| crate::secrets::visible(&argument.to_string_lossy()).into_owned());
            let error = Arguments::try_parse_from(shown).err().unwrap_or(error);
            if error.exit_code() != 0 && has_json(&arguments) {
                let text = error.to_string();
                let text = text.trim().trim_start_matches("error: ");
                output::print_json_error(text, u8::try_from(error.exit_code()).unwrap_or(2));
            }
            return Ok(output::print_parsed(&error));
        }
    };
    match arguments.command {
        #[cfg(feature = "view")]
        // `runs` takes it there, too.
        Some(ref command)
            if let Some(option) = arguments
                .workbench
                .option(!matches!(command, Command::Runs(_))) =>
        {
            Err(Failure::usage(format!(
                "{option} before a command is an option of the workbench and has no effect here: put it after the command, if the command supports it (see its --help)"
            )))
        }
        Some(command) => subcommand(command),
        #[cfg(feature = "view")]
        None => workbench::run(&arguments.workbench),
        #[cfg(not(feature = "view"))]
        None => Err(Failure::usage(
            "built without the view: see --help for commands",
        )),
    }
}

fn subcommand(command: Command) -> Outcome {
    // Both are for the whole process.
    if !output::is_captured() {
        #[cfg(feature = "engine")]
        progress_bar::show_loading();
        crate::score::report_loading(output::eprint_line);
    }
    match command {
        Command::Init(arguments) => init::run(arguments),
        #[cfg(feature = "engine")]
        Command::Train(arguments) => train::run(*arguments),
        #[cfg(feature = "engine")]
        Command::Sweep(arguments) => sweep::run(*arguments),
        #[cfg(feature = "engine")]
        Command::Eval(arguments) => eval::run(*arguments),
        Command::Score(arguments) => score::run(arguments),
        #[cfg(feature = "engine")]
        Command::Sample(arguments) => sample::run(arguments),
        #[cfg(feature = "engine")]
        Command::Serve(arguments) => serve::run(arguments),
        #[cfg(feature = "engine")]
        Command::Prove(arguments) => prove::run(*arguments),
        Command::Task(arguments) => task::run(arguments),
        Command::Dataset(arguments) => dataset::run(arguments),
        #[cfg(feature = "engine")]
        Command::Model(arguments) => model::run(arguments),
        Command::Runs(arguments) => runs::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        #[cfg(feature = "engine")]
        Command::Mcp(arguments) => mcp::run(arguments),
        Command::Skill(arguments) => skill::run(&arguments),
        #[cfg(feature = "view")]
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man => man::run(),
        Command::Worker(arguments) => worker::run(arguments),
        #[cfg(feature = "engine")]
        Command::Rank(arguments) => rank::run(arguments),
    }
}
