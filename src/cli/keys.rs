//! `grpo-tui keys`: the table of actions with their keys.

use serde_json::{Value, json};

use super::{Outcome, print, print_indented};
use crate::report::text_table;
use crate::view::action::{ActionInfo, Scope};
use crate::view::app;
use crate::view::appearance::Appearance;
use crate::view::keymap::Keymap;
use crate::view::options::AppearanceInput;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let keymap = Appearance::load(&AppearanceInput::detect()).keymap;
    match arguments.json {
        true => print_indented(&document(&keymap)),
        false => print(&table(&keymap)),
    }
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
