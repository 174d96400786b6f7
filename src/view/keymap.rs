//! The keymap: which chords mean which action, from the table and the user's changes.

use std::collections::BTreeMap;

use crossterm::event::KeyCode;

use super::action::{self, Action};
use super::key_chord::Chord;
use super::model::Model;
use super::screens;

/// Keys by action. Actions that are not named keep those of the table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keymap {
    changed: BTreeMap<String, Vec<Chord>>,
}

impl Keymap {
    /// Give an action other keys.
    pub fn set(&mut self, id: &str, keys: Vec<Chord>) {
        self.changed.insert(id.to_owned(), keys);
    }

    /// Give an action the keys of the table again.
    pub fn unset(&mut self, id: &str) {
        self.changed.remove(id);
    }

    /// Whether the user has given an action other keys.
    pub fn is_changed(&self, id: &str) -> bool {
        self.changed.contains_key(id)
    }

    pub fn keys(&self, action: &Action) -> Vec<Chord> {
        match self.changed.get(action.id) {
            Some(keys) => keys.clone(),
            None => action.keys.iter().filter_map(|key| Chord::parse(key)).collect(),
        }
    }

    /// The first key of an action as hints show it; empty where it has none.
    pub fn shown(&self, action: &Action) -> String {
        self.keys(action).first().map(Chord::to_string).unwrap_or_default()
    }

    /// The action that a chord means where the focus is.
    pub fn action(&self, model: &Model, chord: Chord) -> Option<&'static Action> {
        if is_for_text(model, chord) {
            return None;
        }
        action::here(model).into_iter().find(|action| self.keys(action).contains(&chord))
    }
}

/// Whether a chord belongs to the text field that has the focus: there the field has the plain keys, and actions what no text can be.
pub fn is_for_text(model: &Model, chord: Chord) -> bool {
    let is_typing = (screens::of(model.shared.screen).is_typing)(model);
    let is_tab = chord.code == KeyCode::Tab && chord.modifiers.is_empty();
    is_typing && (!chord.is_command() || (is_tab && screens::takes_tab(model)))
}
