//! Problems of a keymap: one key for two actions, no key for what needs one.

use std::collections::BTreeMap;

use super::action::{ActionInfo, Scope};
use super::app::actions;
use super::keymap::Keymap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub sentence: String,
    /// The actions concerned.
    pub actions: Vec<&'static str>,
}

/// Actions that need a key: without one there is no way to quit or find help.
const NEEDED: [&str; 1] = ["quit"];

pub fn check(keymap: &Keymap) -> Vec<Finding> {
    let mut by_chord: BTreeMap<String, Vec<&'static ActionInfo>> = BTreeMap::new();
    let mut found = Vec::new();
    for action in actions() {
        let chords = keymap.keys(action);
        if chords.is_empty() && NEEDED.contains(&action.id) {
            let sentence = format!("no key left for `{}`", action.id);
            found.push(Finding {
                sentence,
                actions: vec![action.id],
            });
        }
        for chord in chords {
            by_chord.entry(chord.to_string()).or_default().push(action);
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
                    actions: vec![one.id, other.id],
                });
            }
        }
    }
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
}
