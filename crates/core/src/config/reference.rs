//! The key table as Markdown for the documentation and as text for help.

use std::fmt::Write;

use super::choices::Preset;
use super::keys::{KEYS, Key};
use super::value::Kind;

pub fn markdown() -> String {
    let mut text = String::new();
    for key in KEYS {
        let item = format!("`{}`: {}", key.name, described(key));
        text.push_str(&list_item(&item));
    }
    text.push_str(
        "\n## Presets\n\n| `--preset` | sets |\n|---|---|\n| `recommended` | nothing |\n",
    );
    for (name, preset) in [("quick", Preset::Quick), ("seed", Preset::Seed)] {
        let values: Vec<String> = KEYS
            .iter()
            .filter_map(|key| Some((key, key.preset(preset)?)))
            .filter(|(key, value)| *value != key.default)
            .map(|(key, value)| format!("`{}={value}`", key.name))
            .collect();
        let _ = writeln!(text, "| `{name}` | {} |", values.join(", "));
    }
    text
}

pub fn help() -> String {
    let mut text = String::from("Configuration keys (--set key=value):\n");
    for key in KEYS {
        let _ = writeln!(text, "  {:<24} {}", key.name, described(key));
    }
    text
}

/// At most 100 columns wide.
pub(crate) fn list_item(text: &str) -> String {
    let (mut item, mut width) = ("-".to_owned(), 1);
    for word in text.split(' ') {
        let word_width = word.chars().count();
        if width + 1 + word_width > 100 {
            item.push_str("\n ");
            width = 1;
        }
        item.push(' ');
        item.push_str(word);
        width += 1 + word_width;
    }
    item + "\n"
}

fn described(key: &Key) -> String {
    let values = values(key);
    let gap = if values.is_empty() { "" } else { "; " };
    format!("{} [{values}{gap}default {}]", key.meaning, default(key))
}

/// Shorter than in messages; the default shows that a key is true or false.
fn values(key: &Key) -> String {
    let values = match key.kind {
        Kind::Flag => String::new(),
        Kind::Choice(names) => names.join(", "),
        Kind::Integer {
            least,
            most: i64::MAX,
        } => format!("integer, {least} or more"),
        Kind::Integer { least, most } => format!("integer, {least} to {most}"),
        Kind::Number { least, most } if most.is_infinite() => format!("{least} or more"),
        Kind::Number { least, most } => format!("{least} to {most}"),
        Kind::Condition => "parse, valid, exact or tolerant; >=, >, <= or <".to_owned(),
        Kind::Text => key.kind.to_string(),
    };
    match key.unit {
        "" => values,
        unit => format!("{values} {unit}"),
    }
}

fn default(key: &Key) -> String {
    match &key.derived {
        Some(derived) => format!("{} ({})", default_text(key.default), derived.rule),
        None => default_text(key.default),
    }
}

fn default_text(text: &str) -> String {
    if text.is_empty() {
        "empty".to_owned()
    } else {
        text.to_owned()
    }
}
