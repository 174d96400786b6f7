//! The scorer kinds and their documentation page. To add one: a file or folder in `kinds/`, and two
//! lines here.

pub(super) mod agent;
pub(super) mod command;
pub(super) mod http_request;
pub(super) mod json_schema;
mod regex;
pub(super) mod rubric;
mod sql;
pub(super) mod state;
mod structured;
mod text;
pub(super) mod tool_calls;

use std::fmt::Write;

use super::definition::{COMMON_KEYS, KeyInfo, Kind};
use crate::config::reference::list_item;

/// The first is the default.
pub(crate) const KINDS: &[&Kind] = &[
    &json_schema::KIND,
    &structured::KIND,
    &text::KIND,
    &regex::KIND,
    &tool_calls::KIND,
    &command::KIND,
    &command::PYTHON,
    &command::CODE,
    &command::TESTS,
    &sql::KIND,
    &http_request::KIND,
    &state::KIND,
    &agent::KIND,
    &rubric::KIND,
];

pub(crate) fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

const INTRODUCTION: &str = "# Kinds of scorer\n\n\
    `[score] kind` names what judges an answer, `[[reward]] kind` what judges a part of the reward;\n\
    [tasks](tasks.md) say what all kinds share.\n\
    Generated from the `about.md` of each kind in `crates/core/src/score/kinds/`.\n\
    Each kind accepts its own keys and these:\n\n";

/// Placeholder of the key table in [`Kind::about`].
const KEYS_HERE: &str = "<!-- keys -->";

pub fn kinds_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.extend(COMMON_KEYS.iter().map(|key| key_item(key, "")));
    let mut shared: Vec<&KeyInfo> = Vec::new();
    for key in KINDS.iter().flat_map(|kind| kind.score_keys) {
        if is_shared(key) && !shared.contains(&key) {
            shared.push(key);
        }
    }
    page.push_str("\n## Keys of several kinds\n\n");
    page.extend(shared.into_iter().map(|key| key_item(key, "")));
    for kind in KINDS {
        let about = kind.about.replacen(KEYS_HERE, &keys_of(kind), 1);
        let _ = write!(page, "\n## {}\n\n{about}", kind.name);
    }
    page
}

fn is_shared(key: &KeyInfo) -> bool {
    let kinds = KINDS.iter().filter(|kind| kind.score_keys.contains(key));
    kinds.count() > 1
}

fn key_item(key: &KeyInfo, place: &str) -> String {
    let default = match key.default {
        "" => "; required".to_owned(),
        "none" => String::new(),
        default => format!("; default: {default}"),
    };
    list_item(&format!("`{}`{place}: {}{default}", key.name, key.meaning))
}

/// The keys specific to this kind, and names of the others.
fn keys_of(kind: &Kind) -> String {
    let (shared, own): (Vec<&KeyInfo>, Vec<&KeyInfo>) =
        kind.score_keys.iter().partition(|key| is_shared(key));
    let top = kind
        .keys
        .iter()
        .map(|key| key_item(key, ", outside of tables"));
    let mut text: String = top
        .chain(own.into_iter().map(|key| key_item(key, "")))
        .collect();
    if !shared.is_empty() {
        let names: Vec<String> = shared.iter().map(|key| format!("`{}`", key.name)).collect();
        let _ = writeln!(
            text,
            "\n[Shared keys](#keys-of-several-kinds): {}.",
            names.join(", ")
        );
    }
    text.trim().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// UPDATE_DOCS=1 cargo test -p grpo-tui-core --lib page_of_kinds
    #[test]
    fn the_page_of_kinds_agrees_with_the_kinds() {
        for kind in KINDS {
            assert_eq!(kind.about.matches(KEYS_HERE).count(), 1, "{}", kind.name);
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kinds.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, kinds_page()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == kinds_page(),
            "docs/kinds.md is out of date; write it with: UPDATE_DOCS=1 cargo test -p grpo-tui-core --lib page_of_kinds"
        );
    }
}
