//! The set and the target of each file of a standalone eval: recorded, since the name of a file only hints at them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::summary::eval_file;
use crate::run::error::RunError;
use crate::run::storage::durable::replace_json;
use crate::task::SetName;

/// Absent from runs, whose names are the program's own, and from evals of older programs.
const NAMES_FILE: &str = "evals/names.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalName {
    pub set: SetName,
    pub target: String,
}

/// By path, relative to the folder.
pub fn read_eval_names(folder: &Path) -> BTreeMap<String, EvalName> {
    let text = crate::files::read_text(&folder.join(NAMES_FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

pub fn recorded_file(folder: &Path, set: &SetName, target: &str) -> Option<PathBuf> {
    let is_it = |name: &EvalName| name.set == *set && name.target == target;
    read_eval_names(folder)
        .into_iter()
        .find(|(_, name)| is_it(name))
        .map(|(file, _)| folder.join(file))
}

/// Records an eval unless it is, under a name that no other has. Returns the words of its files' names.
pub(super) fn record(
    folder: &Path,
    set: &SetName,
    target: &str,
) -> Result<(String, String), RunError> {
    let mut names = read_eval_names(folder);
    let name = EvalName {
        set: set.clone(),
        target: target.to_owned(),
    };
    for count in 1_usize.. {
        let suffix = if count == 1 {
            String::new()
        } else {
            format!("_{count}")
        };
        let words = (word(set), word(target) + &suffix);
        let file = eval_file(0, &words.0, &words.1);
        match names.get(&file) {
            Some(known) if *known == name => return Ok(words),
            Some(_) => {}
            None => {
                names.insert(file, name);
                replace_json(&folder.join(NAMES_FILE), &names)?;
                return Ok(words);
            }
        }
    }
    Ok((word(set), word(target)))
}

pub(super) fn word(name: impl ToString) -> String {
    let name = name.to_string();
    let name = Path::new(&name)
        .file_stem()
        .map_or_else(|| name.clone(), |stem| stem.to_string_lossy().into_owned());
    name.chars()
        .take(60)
        .map(|letter| {
            if letter.is_alphanumeric() || "._".contains(letter) {
                letter
            } else {
                '_'
            }
        })
        .collect()
}
