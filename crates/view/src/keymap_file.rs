//! The user's keymap file: keys for actions, each entry checked before it applies.

use toml::Spanned;
use toml::de::DeValue;

use super::app;
use super::key_chord::Chord;
use super::keymap::Keymap;
use super::keymap_check::{Finding, check};
use super::user_file::{UserFile, text};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeymapRead {
    /// The keymap, without entries that would take a key from another action.
    pub keymap: Keymap,
    /// Entries that do not apply.
    pub errors: Vec<String>,
}

pub fn parse(name: &str, text: &str) -> KeymapRead {
    read(&UserFile::new(name, text))
}

pub(super) fn read(file: &UserFile) -> KeymapRead {
    let mut found = KeymapRead::default();
    let table = match file.table() {
        Ok(table) => table,
        Err(error) => {
            found
                .errors
                .push(format!("{error}; using the default keys"));
            return found;
        }
    };
    let mut places = Vec::new();
    for (id, value) in table.iter() {
        let id_text = id.get_ref().as_ref();
        if value.get_ref().is_table() && app::action(id_text).is_none() {
            let what = format!(
                "write action ids in quotes, such as \"help\" = [\"?\"], not as the table [{id_text}]"
            );
            found.errors.push(file.problem(id.span().start, &what));
            continue;
        }
        let Some(action) = app::action(id_text) else {
            let suggestion =
                crate::format::did_you_mean(id_text, app::actions().map(|action| action.id));
            let link = if suggestion.is_empty() { ";" } else { "" };
            let what =
                format!("unknown action `{id_text}`{suggestion}{link} `grpo-tui keys` lists all");
            found.errors.push(file.problem(id.span().start, &what));
            continue;
        };
        match chords(file, value) {
            Ok(chords) => {
                found.keymap.set(action.id, chords);
                places.push((action.id, id.span().start));
            }
            Err(error) => found.errors.push(error),
        }
    }
    drop_conflicts(file, &places, &mut found);
    found
}

/// One chord as a string, or several in a list; an empty list removes all keys of the action.
fn chords(file: &UserFile, value: &Spanned<DeValue<'_>>) -> Result<Vec<Chord>, String> {
    let one = |value: &Spanned<DeValue<'_>>| {
        let name = text(value)
            .ok_or_else(|| file.problem_at(value, "a key is a string, such as \"ctrl-p\""))?;
        let wrong =
            || format!("unknown key `{name}`; write ctrl-p, alt-enter, shift-up, f5, G, space, ?");
        Chord::parse(name).ok_or_else(|| file.problem_at(value, &wrong()))
    };
    match value.get_ref().as_array() {
        Some(list) => list.iter().map(one).collect(),
        None => Ok(vec![one(value)?]),
    }
}

/// Entries that take a key from another action are reset to the default keys, one after the other until none is left.
fn drop_conflicts(file: &UserFile, places: &[(&'static str, usize)], found: &mut KeymapRead) {
    let byte_of = |id: &str| {
        places
            .iter()
            .find(|(other, _)| *other == id)
            .map_or(0, |(_, byte)| *byte)
    };
    loop {
        let findings = check(&found.keymap);
        let changed = |finding: &Finding| {
            finding
                .actions
                .iter()
                .rev()
                .copied()
                .find(|id| found.keymap.is_changed(id))
        };
        let Some((finding, id)) = findings
            .iter()
            .find_map(|finding| Some((finding, changed(finding)?)))
        else {
            return;
        };
        let what = format!("{}; `{id}` keeps its default keys", finding.sentence);
        found.errors.push(file.problem(byte_of(id), &what));
        found.keymap.unset(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_count_unless_they_are_wrong() {
        let check = |text: &str, id: &str, keys: &[&str], errors: &[&str]| {
            let found = read(&UserFile::new("keys.toml", text));
            let shown: Vec<String> = found
                .keymap
                .keys(app::action(id).unwrap())
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(shown, keys, "{text}");
            assert_eq!(
                found.errors.len(),
                errors.len(),
                "{text}: {:?}",
                found.errors
            );
            for (message, expected) in found.errors.iter().zip(errors) {
                assert!(message.contains(expected), "{text}: {message}");
            }
        };
        check(
            "\"help\" = [\"f12\", \"alt-h\"]",
            "help",
            &["f12", "alt-h"],
            &[],
        );
        check("help = \"f12\"", "help", &["f12"], &[]);
        check("help = []", "help", &[], &[]);
        check(
            "\nhepl = \"f12\"",
            "help",
            &["?"],
            &[
                "keys.toml line 2: unknown action `hepl`; did you mean `help`? `grpo-tui keys` lists all",
            ],
        );
        check(
            "help = [\"f13\"]",
            "help",
            &["?"],
            &["keys.toml line 1: unknown key `f13`"],
        );
        check(
            "help = 3",
            "help",
            &["?"],
            &["keys.toml line 1: a key is a string"],
        );
        check("[help\n", "help", &["?"], &["keys.toml line 1: "]);
        check(
            "[runs]\npause = \"p\"",
            "help",
            &["?"],
            &["keys.toml line 1: write action ids in quotes"],
        );
        check(
            "help = \"q\"",
            "help",
            &["?"],
            &["keys.toml line 1: `q` is bound to both `help` and `quit`"],
        );
        check("help = \"q\"\nquit = \"f12\"", "help", &["q"], &[]);
        check(
            "quit = []",
            "quit",
            &["q", "ctrl-c"],
            &["no key left for `quit`"],
        );
    }
}
