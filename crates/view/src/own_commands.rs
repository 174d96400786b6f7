//! The user's own commands: what they run, with what is selected in the place of placeholders.
//!
//! A command is split into words before placeholders are replaced, and no shell reads it: a name with blanks, quotes or
//! `$(...)` stays one argument.

use std::path::{Path, PathBuf};

use super::action::ActionInfo;
use crate::format::quoted;

/// The name of the tables in `config.toml`.
pub const TABLE: &str = "command";

pub(super) const PLACEHOLDERS: [&str; 4] = ["run", "id", "checkpoint", "task"];

#[derive(Debug, Clone)]
pub struct OwnCommand {
    pub info: &'static ActionInfo,
    pub(super) words: Vec<String>,
    /// Whether it runs in the background and its output is shown, instead of having the terminal.
    pub shows_output: bool,
}

/// Two are the same if they do the same under the same name.
impl PartialEq for OwnCommand {
    fn eq(&self, other: &Self) -> bool {
        let of = |command: &Self| (command.info.id, command.info.title, command.info.keys);
        of(self) == of(other)
            && (&self.words, self.shows_output) == (&other.words, other.shows_output)
    }
}

/// What placeholders mean now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// The folder of the run under the cursor, else of the open one.
    pub run: Option<PathBuf>,
    /// Its best checkpoint, else its last.
    pub checkpoint: Option<PathBuf>,
    /// The folder of the open task; the name of an embedded one.
    pub task: Option<PathBuf>,
}

impl Selected {
    fn value(&self, placeholder: &str) -> Result<String, &'static str> {
        let text =
            |path: &Option<PathBuf>| path.as_deref().and_then(Path::to_str).map(str::to_owned);
        let name = |path: &Option<PathBuf>| path.as_ref()?.file_name()?.to_str().map(str::to_owned);
        match placeholder {
            "run" => text(&self.run).ok_or("no run is selected"),
            "id" => name(&self.run).ok_or("no run is selected"),
            "checkpoint" => text(&self.checkpoint).ok_or(match self.run {
                Some(_) => "the run has no checkpoint yet",
                None => "no run is selected",
            }),
            _ => text(&self.task).ok_or("no task is open"),
        }
    }
}

impl OwnCommand {
    /// The program and its arguments.
    ///
    /// # Errors
    /// Which placeholder has no value.
    pub fn arguments(&self, selected: &Selected) -> Result<Vec<String>, String> {
        let word = |word: &String| {
            let mut found = String::new();
            for (text, placeholder) in parts(word) {
                found += text;
                if let Some(name) = placeholder {
                    found +=
                        &{ selected.value(name) }.map_err(|why| format!("{{{name}}}: {why}"))?;
                }
            }
            Ok(found)
        };
        self.words.iter().map(word).collect()
    }
}

/// The command line of these words, as a user would type it.
pub fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    crate::secrets::redact(&words.join(" ")).0.into_owned()
}

/// The texts of a word, each with the placeholder that follows it: `{name}` in lower-case letters; other braces are text.
pub(super) fn parts(word: &str) -> Vec<(&str, Option<&str>)> {
    let (mut found, mut rest, mut from) = (Vec::new(), word, 0);
    while let Some(open) = rest[from..].find('{').map(|open| from + open) {
        let name = rest[open + 1..].split('}').next().unwrap_or_default();
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
        if is_name && rest.len() > open + 1 + name.len() {
            found.push((&rest[..open], Some(name)));
            (rest, from) = (&rest[open + name.len() + 2..], 0);
        } else {
            from = open + 1;
        }
    }
    found.push((rest, None));
    found
}
