//! Files in the fields of a form: as they are written there, and completed by Tab as a shell does.

use std::path::{Path, PathBuf};

use crate::dataset::import::Format;

/// Names that are listed where several fit.
const MAX_LISTED: usize = 8;

/// A file as the user wrote it: relative to the folder where the program was started, `~` for the home.
pub(super) fn path_of(text: &str, here: &Path) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => here.join(text),
    }
}

/// What Tab makes of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Completed {
    /// A file, or the beginning of none.
    Nothing,
    /// A longer text.
    Text(String),
    Several(Vec<String>),
}

pub(super) fn completed(text: &str, here: &Path) -> Completed {
    let (folder, beginning) = text.split_at(text.rfind('/').map_or(0, |slash| slash + 1));
    let entries = std::fs::read_dir(path_of(folder, here));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let (name, path) = (entry.file_name().into_string().ok()?, entry.path());
            let is_hidden = name.starts_with('.') && !beginning.starts_with('.');
            if !name.starts_with(beginning) || is_hidden {
                return None;
            }
            match path.is_dir() {
                true => Some(format!("{name}/")),
                false => Format::from_path(&path).map(|_| name),
            }
        })
        .collect();
    names.sort();
    let Some(first) = names.first() else {
        return Completed::Nothing;
    };
    let common = names.iter().fold(first.as_str(), |common, name| {
        let same = common.char_indices().zip(name.chars());
        let end = same.take_while(|((_, a), b)| a == b).last();
        &common[..end.map_or(0, |((at, letter), _)| at + letter.len_utf8())]
    });
    match (common.len() > beginning.len(), names.len()) {
        (true, _) => Completed::Text(format!("{folder}{common}")),
        (_, 1) => Completed::Nothing,
        _ if path_of(text, here).is_file() => Completed::Nothing,
        (_, count) => {
            names.truncate(MAX_LISTED);
            if count > MAX_LISTED {
                names.push(format!("{} more", count - MAX_LISTED));
            }
            Completed::Several(names)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_as_far_as_they_are_common() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "data/tickets.csv",
            "data/tickets-2.jsonl",
            "data/notes.txt",
            ".x.csv",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "a,b\n").unwrap();
        }
        let text = |text: &str| Completed::Text(text.to_owned());
        for (given, expected) in [
            ("d", text("data/")),
            ("data/t", text("data/tickets")),
            ("data/tickets-", text("data/tickets-2.jsonl")),
            ("data/tickets.csv", Completed::Nothing),
            ("data/n", Completed::Nothing),
            ("nowhere/", Completed::Nothing),
            (".", text(".x.csv")),
            (
                "data/tickets",
                Completed::Several(vec!["tickets-2.jsonl".to_owned(), "tickets.csv".to_owned()]),
            ),
        ] {
            assert_eq!(completed(given, folder.path()), expected, "{given}");
        }
    }
}
