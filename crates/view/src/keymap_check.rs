//! Problems of a keymap: one key for two actions, keys that text fields need, keys that never arrive.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyModifiers};

use super::action::{ActionInfo, Scope};
use super::app::actions;
use super::key_chord::Chord;
use super::keymap::Keymap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub sentence: String,
    /// Whether it makes an action unreachable.
    pub is_conflict: bool,
    /// The actions concerned.
    pub actions: Vec<&'static str>,
}

/// Actions that need a key: without one there is no way to quit or find help.
const NEEDED: [&str; 1] = ["quit"];

/// Ctrl chords taken by others, or indistinguishable from another key in a terminal.
const TAKEN: [(char, &str); 8] = [
    ('b', "tmux intercepts it"),
    ('a', "screen intercepts it"),
    ('s', "terminal flow control (XOFF)"),
    ('q', "terminal flow control (XON)"),
    ('z', "shell job control (suspend)"),
    ('i', "same code as tab"),
    ('m', "same code as enter"),
    ('h', "same code as backspace"),
];

/// Ctrl chords with which text fields edit.
const EDITING: [char; 6] = ['u', 'k', 'w', 'e', 'x', 'v'];

pub fn check(keymap: &Keymap) -> Vec<Finding> {
    let mut by_chord: BTreeMap<String, Vec<&'static ActionInfo>> = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut found = Vec::new();
    for action in actions() {
        let chords = keymap.keys(action);
        if chords.is_empty() && NEEDED.contains(&action.id) {
            let sentence = format!("no key left for `{}`", action.id);
            found.push(Finding {
                sentence,
                is_conflict: true,
                actions: vec![action.id],
            });
        }
        for chord in chords {
            by_chord.entry(chord.to_string()).or_default().push(action);
            // A default key that may not arrive is only an alternative to another one.
            if let Some(why) = why_not(chord).filter(|_| keymap.is_changed(action.id)) {
                let sentence = format!("`{chord}` of `{}`: {why}", action.id);
                warnings.push(Finding {
                    sentence,
                    is_conflict: false,
                    actions: vec![action.id],
                });
            }
        }
    }
    for (chord, actions) in by_chord {
        for (index, one) in actions.iter().enumerate() {
            for other in actions[index + 1..]
                .iter()
                .filter(|other| overlap(one.scope, other.scope) && !is_meant(keymap, one, other))
            {
                let sentence =
                    format!("`{chord}` is bound to both `{}` and `{}`", one.id, other.id);
                found.push(Finding {
                    sentence,
                    is_conflict: true,
                    actions: vec![one.id, other.id],
                });
            }
        }
    }
    found.extend(warnings);
    found
}

/// Whether both keys can be active at once. A pane's key may shadow its screen's: the focus shows which one applies.
pub(super) fn overlap(one: Scope, other: Scope) -> bool {
    match (one, other) {
        (Scope::Pane(screen, pane), Scope::Pane(other_screen, other_pane)) => {
            screen == other_screen && pane == other_pane
        }
        (Scope::Screen(screen), Scope::Screen(other_screen)) => screen == other_screen,
        (Scope::Pane(..), Scope::Screen(_)) | (Scope::Screen(_), Scope::Pane(..)) => false,
        (Scope::Global | Scope::Movement, _) | (_, Scope::Global | Scope::Movement) => true,
    }
}

/// The default table shadows a key in a pane, or one that moves, only on purpose, such as tab in an editor.
fn is_meant(keymap: &Keymap, one: &ActionInfo, other: &ActionInfo) -> bool {
    let of_program = !keymap.is_changed(one.id) && !keymap.is_changed(other.id);
    of_program
        && match (one.scope, other.scope) {
            (Scope::Pane(..), Scope::Global) | (Scope::Global, Scope::Pane(..)) => true,
            (one, other) => (one == Scope::Movement) != (other == Scope::Movement),
        }
}

fn why_not(chord: Chord) -> Option<String> {
    let KeyCode::Char(letter) = chord.code else {
        let editing = matches!(
            chord.code,
            KeyCode::Enter | KeyCode::Backspace | KeyCode::Delete | KeyCode::Left | KeyCode::Right
        );
        let of_field = editing
            || matches!(
                chord.code,
                KeyCode::Up | KeyCode::Down | KeyCode::Home | KeyCode::End
            );
        return (of_field && chord.modifiers.is_empty()).then(|| "used by text fields".to_owned());
    };
    if chord.modifiers != KeyModifiers::CONTROL {
        return None;
    }
    let taken = TAKEN
        .iter()
        .find(|(known, _)| *known == letter)
        .map(|(_, why)| (*why).to_owned());
    taken.or_else(|| {
        EDITING
            .contains(&letter)
            .then(|| "edits text in fields; this action replaces it there".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_program_are_free_of_conflicts() {
        let conflicts: Vec<String> = check(&Keymap::default())
            .into_iter()
            .map(|finding| finding.sentence)
            .collect();
        assert_eq!(conflicts, [""; 0]);
    }

    #[test]
    fn the_program_binds_nothing_that_does_not_arrive() {
        for action in actions().filter(|action| action.id != "suspend") {
            for chord in Keymap::default().keys(action) {
                let taken = chord.modifiers == KeyModifiers::CONTROL
                    && TAKEN
                        .iter()
                        .any(|(letter, _)| chord.code == KeyCode::Char(*letter));
                assert!(
                    !taken,
                    "`{chord}` of `{}` never arrives everywhere",
                    action.id
                );
            }
        }
    }
}
