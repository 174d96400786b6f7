//! The keymap: which chords mean which action, from the table and the user's changes.

use std::collections::BTreeMap;

use super::action::ActionInfo;
use super::key_chord::Chord;

/// Keys by action. Actions without an entry have their default keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keymap {
    changed: BTreeMap<String, Vec<Chord>>,
}

impl Keymap {
    pub fn set(&mut self, id: &str, keys: Vec<Chord>) {
        self.changed.insert(id.to_owned(), keys);
    }

    pub fn unset(&mut self, id: &str) {
        self.changed.remove(id);
    }

    pub fn is_changed(&self, id: &str) -> bool {
        self.changed.contains_key(id)
    }

    pub fn keys(&self, action: &ActionInfo) -> Vec<Chord> {
        match self.changed.get(action.id) {
            Some(keys) => keys.clone(),
            None => action
                .keys
                .iter()
                .filter_map(|key| Chord::parse(key))
                .collect(),
        }
    }

    pub fn shown(&self, action: &ActionInfo) -> String {
        self.keys(action)
            .first()
            .map(Chord::to_string)
            .unwrap_or_default()
    }
}
