//! `grpo-tui keys`: the table of actions with their keys, and a check of a keymap file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Failure, Outcome, print, print_indented};
use crate::report::text_table;
use crate::view::action::{ActionInfo, Scope};
use crate::view::app;
use crate::view::appearance::Appearance;
use crate::view::keymap::Keymap;
use crate::view::keymap_file::{self, KeymapRead};
use crate::view::options::AppearanceInput;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Check a keymap file; exit code 1 if an entry is invalid
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.check {
        Some(file) => check(file, arguments.json),
        None => {
            let keymap = Appearance::load(&AppearanceInput::detect()).keymap;
            if arguments.json {
                print_indented(&document(&keymap))
            } else {
                print(&table(&keymap))
            }
        }
    }
}

fn check(file: &Path, json: bool) -> Outcome {
    let text = crate::files::read_text(file)
        .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?;
    let KeymapRead {
        keymap,
        errors,
        warnings,
    } = keymap_file::parse(&file.display().to_string(), &text);
    if json {
        print_indented(
            &json!({"errors": errors, "warnings": warnings, "actions": document(&keymap)["actions"]}),
        )?;
    } else {
        let changed: Vec<&ActionInfo> = app::actions()
            .filter(|action| keymap.is_changed(action.id))
            .collect();
        let lines = changed
            .iter()
            .map(|action| format!("{:<24} {}\n", action.id, keys(&keymap, action).join(" ")));
        let problems = errors
            .iter()
            .map(|text| format!("error: {text}\n"))
            .chain(warnings.iter().map(|text| format!("warning: {text}\n")));
        print(&lines.chain(problems).collect::<String>())?;
    }
    Ok(if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn keys(keymap: &Keymap, action: &ActionInfo) -> Vec<String> {
    keymap
        .keys(action)
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub(super) fn scope_text(scope: Scope) -> String {
    match scope {
        Scope::Global | Scope::Movement => "everywhere".to_owned(),
        Scope::Screen(screen) => app::about(screen).title.to_owned(),
        Scope::Pane(screen, pane) => format!("{}, {pane}", app::about(screen).title),
    }
}

fn document(keymap: &Keymap) -> Value {
    let actions = app::actions().map(|action| {
        let changed = keymap.is_changed(action.id);
        json!({"id": action.id, "title": action.title, "keys": keys(keymap, action), "default_keys": action.keys, "where": scope_text(action.scope), "changed": changed})
    });
    json!({"actions": actions.collect::<Vec<_>>()})
}

fn table(keymap: &Keymap) -> String {
    let row = |action: &ActionInfo| {
        let mark = if keymap.is_changed(action.id) {
            "*"
        } else {
            ""
        };
        vec![
            format!("{}{mark}", keys(keymap, action).join(" ")),
            action.id.to_owned(),
            scope_text(action.scope),
            action.title.to_owned(),
        ]
    };
    text_table(&app::actions().map(row).collect::<Vec<_>>(), "l")
}
