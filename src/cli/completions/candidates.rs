//! The values that a shell offers for an argument: tasks, runs, models, keys and their values. An argument is recognized
//! by its name in the help.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Arg, Command};
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};

use crate::config::{KEYS, Key, Kind, Method, Preset};
use crate::hub::local_models;
use crate::report::FIELDS;
use crate::run::{RunFolders, SETTABLE, list_checkpoints};
use crate::secrets::{is_control, redact, visible};
use crate::task::{PromptSet, known_names};

/// Candidates for what was typed so far: value, and help or nothing.
type Candidates = fn(&str) -> Vec<(String, String)>;

pub(super) fn with_candidates(command: Command) -> Command {
    let command = command.mut_args(|argument| match candidates_of(&argument) {
        Some(candidates) => argument.add(ArgValueCompleter::new(move |typed: &OsStr| {
            complete(candidates, typed)
        })),
        None => argument,
    });
    command.mut_subcommands(with_candidates)
}

fn candidates_of(argument: &Arg) -> Option<Candidates> {
    let value = argument
        .get_value_names()
        .and_then(|names| names.first())
        .map_or("", |name| name.as_str());
    Some(match (argument.get_id().as_str(), value) {
        ("task", _) | (_, "TASK") => tasks,
        ("run" | "first" | "others", _) | (_, "RUN" | "RUN[,RUN...]" | "RUN[@STEP]") => runs,
        (_, "NAME=M") => named_models,
        (_, "M") | ("model", _) => models,
        ("set", _) => assignments,
        ("assignments", _) => requested_assignments,
        ("method", _) => |_| named(Method::NAMES),
        ("preset", _) => |_| named(Preset::NAMES),
        (_, "SET") => |typed| [named(&PromptSet::ALL.map(PromptSet::name)), paths(typed)].concat(),
        ("sort" | "columns" | "group_by", _) => fields,
        _ => return None,
    })
}

/// Candidates of more than one line are left out.
fn complete(candidates: Candidates, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    let found = candidates(typed)
        .into_iter()
        .filter(|(value, _)| value.starts_with(typed) && !value.chars().any(is_control));
    let candidate = |(value, help): (String, String)| {
        let help = visible(&redact(&help).0).into_owned();
        CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()))
    };
    found.map(candidate).collect()
}

fn named(names: &[&str]) -> Vec<(String, String)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), String::new()))
        .collect()
}

fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}

fn paths(typed: &str) -> Vec<(String, String)> {
    let found = PathCompleter::any().complete(OsStr::new(typed));
    let found = found.iter().filter(|path| !path.is_hide_set());
    found
        .map(|path| {
            (
                path.get_value().to_string_lossy().into_owned(),
                String::new(),
            )
        })
        .collect()
}

fn folders(typed: &str) -> Vec<(String, String)> {
    paths(typed)
        .into_iter()
        .filter(|(path, _)| path.ends_with('/'))
        .collect()
}

fn tasks(typed: &str) -> Vec<(String, String)> {
    let names = known_names(&here())
        .into_iter()
        .map(|name| (name, String::new()));
    names.chain(folders(typed)).collect()
}

/// Completes the last item of a list, and checkpoints after `@`.
fn runs(typed: &str) -> Vec<(String, String)> {
    let (before, typed) = typed
        .rfind(',')
        .map_or(("", typed), |comma| typed.split_at(comma + 1));
    let run_folders = RunFolders::discover(runs_folder().as_deref(), &here());
    let found = match typed.rsplit_once('@') {
        Some((run, _)) => {
            let steps = run_folders
                .find(run)
                .ok()
                .and_then(|run| list_checkpoints(run.path()).ok())
                .unwrap_or_default();
            let all = ["best", "last"]
                .map(str::to_owned)
                .into_iter()
                .chain(steps.iter().map(u64::to_string));
            all.map(|place| (format!("{run}@{place}"), String::new()))
                .collect()
        }
        None => run_folders.labels(typed),
    };
    found
        .into_iter()
        .map(|(run, name)| (format!("{before}{run}"), name))
        .collect()
}

/// `--runs` among the words that were typed before.
fn runs_folder() -> Option<PathBuf> {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let after = words
        .iter()
        .position(|word| word == "--runs")
        .and_then(|place| words.get(place + 1));
    after
        .map(String::as_str)
        .or_else(|| words.iter().find_map(|word| word.strip_prefix("--runs=")))
        .map(PathBuf::from)
}

fn models(typed: &str) -> Vec<(String, String)> {
    let local = local_models(&[])
        .into_iter()
        .map(|model| (model.name, String::new()));
    local.chain(runs(typed)).chain(folders(typed)).collect()
}

fn named_models(typed: &str) -> Vec<(String, String)> {
    match typed.split_once('=') {
        Some((name, model)) => after_name(name, [named(&["endpoint:"]), models(model)].concat()),
        None => [named(&["base=", "trained=", "endpoint:"]), models(typed)].concat(),
    }
}

fn after_name(name: &str, values: Vec<(String, String)>) -> Vec<(String, String)> {
    values
        .into_iter()
        .map(|(value, help)| (format!("{name}={value}"), help))
        .collect()
}

fn assignments(typed: &str) -> Vec<(String, String)> {
    assignments_of(typed, &|_| true)
}

/// Assignments that a worker accepts while it computes.
fn requested_assignments(typed: &str) -> Vec<(String, String)> {
    assignments_of(typed, &|key| SETTABLE.contains(&key.name))
}

fn assignments_of(typed: &str, takes: &dyn Fn(&Key) -> bool) -> Vec<(String, String)> {
    match typed.split_once('=') {
        Some((name, value)) => {
            let key = Key::find(name).filter(|key| takes(key));
            after_name(name, key.map(|key| values(key, value)).unwrap_or_default())
        }
        None => KEYS
            .iter()
            .filter(|key| takes(key))
            .map(|key| (format!("{}=", key.name), key.meaning.to_owned()))
            .collect(),
    }
}

/// The possible values, or the default and those of the presets.
fn values(key: &Key, typed: &str) -> Vec<(String, String)> {
    let mut found = match key.kind {
        Kind::Flag => named(&["true", "false"]),
        Kind::Choice(names) => named(names),
        _ if key.name == "base_model" => return models(typed),
        _ => Vec::new(),
    };
    let presets = Preset::ALL
        .iter()
        .filter_map(|preset| Some((key.preset(*preset)?, format!("preset {}", preset.name()))));
    for (value, help) in std::iter::once((key.default, "default".to_owned())).chain(presets) {
        match found.iter_mut().find(|(known, _)| known == value) {
            Some((_, known)) if known.is_empty() => *known = help,
            Some((_, known)) => *known = format!("{known}, {help}"),
            None if value.is_empty() => {}
            None => found.push((value.to_owned(), help)),
        }
    }
    found
}

fn fields(_: &str) -> Vec<(String, String)> {
    let keys = KEYS
        .iter()
        .map(|key| (format!("config.{}", key.name), key.meaning.to_owned()));
    named(&FIELDS).into_iter().chain(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// An argument that takes a run, a task or a model says so in its help.
    #[test]
    fn no_argument_is_forgotten() {
        fn check(command: &Command, path: &str, found: &mut usize) {
            for argument in command.get_arguments() {
                let help = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let takes = [
                    "unique id prefix",
                    "or RUN, RUN@STEP",
                    "Task: a folder",
                    "embedded model (`tiny`",
                    "Preset: quick",
                ];
                if takes.iter().any(|takes| help.contains(takes)) && !help.contains("Initial task")
                {
                    assert!(
                        candidates_of(argument).is_some(),
                        "{path} {}: {help}",
                        argument.get_id()
                    );
                    *found += 1;
                }
            }
            for inner in command.get_subcommands() {
                check(inner, &format!("{path} {}", inner.get_name()), found);
            }
        }
        let mut found = 0;
        check(&crate::cli::Arguments::command(), "grpo-tui", &mut found);
        assert!(found > 15, "{found}");
    }
}
