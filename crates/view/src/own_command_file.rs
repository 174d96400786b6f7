//! Reads own commands, `[[command]]` in `config.toml`: each is checked before it applies.

use toml::Spanned;
use toml::de::DeValue;

use super::action::{ActionInfo, Scope};
use super::app;
use super::key_chord::Chord;
use super::keymap::Keymap;
use super::keymap_check::overlap;
use super::own_commands::{OwnCommand, PLACEHOLDERS, TABLE, parts};
use super::screens::Screen;
use super::user_file::{UserFile, text};
use crate::score::command_words;

const KEYS: [&str; 5] = ["key", "screen", "title", "run", "output"];
const FORM: &str = "write each command as a table under [[command]]";

/// The commands of `config.toml`, and what is wrong with others. A key that another action has is not bound: the
/// command is in the palette alone.
pub(super) fn read(file: &UserFile, keymap: &Keymap) -> (Vec<OwnCommand>, Vec<String>) {
    let (mut found, mut notes): (Vec<OwnCommand>, _) = (Vec::new(), Vec::new());
    // What is no TOML is said where the settings are read.
    let Ok(table) = file.table() else {
        return (found, notes);
    };
    let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == TABLE) else {
        return (found, notes);
    };
    let Some(list) = value.get_ref().as_array() else {
        notes.push(file.problem_at(value, FORM));
        return (found, notes);
    };
    for (index, value) in list.iter().enumerate() {
        match command(file, value, index + 1) {
            Ok((info, words, shows_output)) => {
                let conflict = conflict(&info, keymap, &found);
                let keys = if conflict.is_some() { &[] } else { info.keys };
                notes.extend(conflict.map(|what| file.problem_at(value, &what)));
                // The tables of actions are static; a user's few live as long as the program.
                let info = Box::leak(Box::new(ActionInfo { keys, ..info }));
                found.push(OwnCommand {
                    info,
                    words,
                    shows_output,
                });
            }
            Err(note) => notes.push(note),
        }
    }
    (found, notes)
}

fn command(
    file: &UserFile,
    at: &Spanned<DeValue<'_>>,
    number: usize,
) -> Result<(ActionInfo, Vec<String>, bool), String> {
    let Some(table) = at.get_ref().as_table() else {
        return Err(file.problem_at(at, FORM));
    };
    if let Some((name, _)) = table
        .iter()
        .find(|(name, _)| !KEYS.contains(&&**name.get_ref()))
    {
        let suggestion = crate::format::did_you_mean(name.get_ref(), KEYS);
        let what = format!(
            "unknown key `{}` of [[command]]{suggestion}",
            name.get_ref()
        );
        return Err(file.problem(name.span().start, &what));
    }
    let string = |name: &str| match table.get(name) {
        None => Ok(None),
        Some(value) => text(value)
            .map(|text| Some((text, value)))
            .ok_or_else(|| file.problem_at(value, &format!("`{name}` of [[command]] is a string"))),
    };
    let Some((run, run_at)) = string("run")? else {
        let what = "[[command]] needs `run`, such as run = \"vllm serve {checkpoint}\"";
        return Err(file.problem_at(at, what));
    };
    let words = command_words(run).map_err(|why| file.problem_at(run_at, &why))?;
    if words.first().is_none_or(String::is_empty) {
        return Err(file.problem_at(run_at, "`run` of [[command]] names no program"));
    }
    let placeholders = words.iter().flat_map(|word| parts(word));
    let unknown =
        { placeholders }.find_map(|(_, name)| name.filter(|name| !PLACEHOLDERS.contains(name)));
    if let Some(unknown) = unknown {
        let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
        let what =
            format!("unknown placeholder {{{unknown}}} of [[command]]: write one of {known}");
        return Err(file.problem_at(run_at, &what));
    }
    let scope = match string("screen")? {
        None => Scope::Global,
        Some((name, value)) => {
            let title = |screen: &Screen| app::about(*screen).title.to_lowercase();
            let screen = { Screen::ALL }
                .into_iter()
                .find(|screen| title(screen) == name.to_lowercase());
            Scope::Screen(screen.ok_or_else(|| {
                let all = Screen::ALL.map(|screen| title(&screen)).join(", ");
                file.problem_at(
                    value,
                    &format!("unknown screen `{name}` of [[command]]: write one of {all}"),
                )
            })?)
        }
    };
    let keys: &'static [&'static str] = match string("key")? {
        None => &[],
        Some((key, value)) => match Chord::parse(key) {
            Some(_) => Vec::leak(vec![&*String::leak(key.to_owned())]),
            None => {
                return Err(file.problem_at(
                    value,
                    &format!("unknown key `{key}` of [[command]]; write ctrl-p, alt-enter, f5, V"),
                ));
            }
        },
    };
    let shows_output = match table.get("output") {
        None => false,
        Some(value) => { value.get_ref().as_bool() }
            .ok_or_else(|| file.problem_at(value, "`output` of [[command]] is true or false"))?,
    };
    let title = string("title")?.map_or(run, |(title, _)| title).to_owned();
    let info = ActionInfo {
        id: String::leak(format!("command.{number}")),
        title: String::leak(title),
        hint: "",
        keys,
        scope,
        aliases: &["own command"],
        asks: false,
    };
    Ok((info, words, shows_output))
}

/// Which action has the key already.
fn conflict(info: &ActionInfo, keymap: &Keymap, own: &[OwnCommand]) -> Option<String> {
    let key = *info.keys.first()?;
    let chord = Chord::parse(key)?;
    // The focus of a pane does not show that a command has its key.
    let whole = |scope| match scope {
        Scope::Pane(screen, _) => Scope::Screen(screen),
        scope => scope,
    };
    let taken = app::actions()
        .chain(own.iter().map(|command| command.info))
        .find(|other| {
            overlap(whole(info.scope), whole(other.scope)) && keymap.keys(other).contains(&chord)
        })?;
    Some(format!(
        "`{key}` is bound to `{}` ({}): \"{}\" has no key; the palette runs it",
        taken.id, taken.title, info.title
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::own_commands::{Selected, line};

    fn of(text: &str) -> (Vec<OwnCommand>, Vec<String>) {
        read(&UserFile::new("config.toml", text), &Keymap::default())
    }

    #[test]
    fn a_placeholder_is_one_argument_whatever_it_says() {
        let (commands, notes) =
            of("[[command]]\nrun = \"say '{id} of' --at={run}/x {task} {not a name} {}\"");
        assert_eq!(notes, [""; 0]);
        let selected = Selected {
            run: Some("/runs/a b; $(rm) 'x'".into()),
            task: Some("/t".into()),
            checkpoint: None,
        };
        let words = commands[0].arguments(&selected).unwrap();
        assert_eq!(
            words,
            [
                "say",
                "a b; $(rm) 'x' of",
                "--at=/runs/a b; $(rm) 'x'/x",
                "/t",
                "{not",
                "a",
                "name}",
                "{}"
            ]
        );
        assert!(
            line(&words).starts_with("say 'a b; $(rm) '\\''x'\\'' of' '--at="),
            "{}",
            line(&words)
        );
        let (commands, _) = of("[[command]]\nrun = \"serve {checkpoint}\"");
        let refused = |selected: &Selected| commands[0].arguments(selected).unwrap_err();
        assert_eq!(
            refused(&selected),
            "{checkpoint}: the run has no checkpoint yet"
        );
        assert_eq!(
            refused(&Selected::default()),
            "{checkpoint}: no run is selected"
        );
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let check = |text: &str, expected: &[&str]| {
            let (commands, notes) = of(&format!("theme = \"dark\"\n[[command]]\n{text}"));
            assert_eq!(notes.len(), expected.len(), "{text}: {notes:?}");
            for (note, expected) in notes.iter().zip(expected) {
                assert!(note.contains(expected), "{text}: {note}");
            }
            commands
        };
        let found = check(
            "run = \"htop\"\nkey = \"V\"\nscreen = \"runs\"\ntitle = \"Top\"\noutput = true",
            &[],
        );
        let info = found[0].info;
        assert_eq!(
            (info.title, info.keys, info.scope, found[0].shows_output),
            ("Top", &["V"][..], Scope::Screen(Screen::Runs), true)
        );
        assert_eq!(
            check(
                "key = \"V\"",
                &["config.toml line 2: [[command]] needs `run`"]
            ),
            []
        );
        check(
            "run = \"a {checkpont}\"",
            &[
                "line 3: unknown placeholder {checkpont} of [[command]]: write one of {run}, {id}, {checkpoint}, {task}",
            ],
        );
        check("run = \"a 'b\"", &["line 3: a ' without its end"]);
        check(
            "run = \"\"",
            &["line 3: `run` of [[command]] names no program"],
        );
        check(
            "run = \"a\"\nscreen = \"rnus\"",
            &["line 4: unknown screen `rnus`"],
        );
        check("run = \"a\"\nkey = \"f99\"", &["line 4: unknown key `f99`"]);
        check(
            "run = \"a\"\nkeys = \"V\"",
            &["line 4: unknown key `keys` of [[command]]; did you mean `key`?"],
        );
        check(
            "run = \"a\"\noutput = 1",
            &["line 4: `output` of [[command]] is true or false"],
        );
        check("run = 1", &["line 3: `run` of [[command]] is a string"]);
        // A key that is taken is named, and the command stays in the palette.
        let found = check(
            "run = \"a\"\nkey = \"q\"",
            &["line 2: `q` is bound to `quit` (Quit): \"a\" has no key"],
        );
        assert_eq!(found[0].info.keys, [""; 0]);
        let twice =
            "run = \"a\"\nkey = \"f9\"\n[[command]]\nrun = \"b\"\nkey = \"f9\"\nscreen = \"runs\"";
        check(
            twice,
            &["line 5: `f9` is bound to `command.1` (a): \"b\" has no key"],
        );
        let (_, notes) = of("command = 1");
        assert!(
            notes[0].contains("line 1: write each command as a table"),
            "{notes:?}"
        );
    }
}
