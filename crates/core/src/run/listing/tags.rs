//! A run's tags, in a file of their own.

use std::path::{Path, PathBuf};

use crate::run::error::RunError;
use crate::run::storage::durable::replace_file;

/// A longer file is not a list of tags.
const MAX_BYTES: u64 = 64 * 1024;
const MAX_TAG_CHARS: usize = 32;
const MAX_TAGS: usize = 32;

/// `tags.json`, a list of strings.
pub fn tags_path(run: &Path) -> PathBuf {
    run.join("tags.json")
}

pub fn read_tags(run: &Path) -> Result<Vec<String>, RunError> {
    let path = tags_path(run);
    let malformed = |line, message: String| RunError::Malformed {
        path: path.clone(),
        line,
        message,
    };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunError::io("read", &path)(error)),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(malformed(
                None,
                format!(
                    "{} bytes are not a list of tags: delete the file",
                    metadata.len()
                ),
            ));
        }
        Ok(_) => {}
    }
    let text = crate::files::read_text(&path).map_err(RunError::io("read", &path))?;
    let found: Vec<String> = serde_json::from_str(&text).map_err(|error| {
        malformed(
            Some(error.line()),
            format!("{error}; it should be a list such as [\"baseline\"]"),
        )
    })?;
    match found.iter().find_map(|tag| check_tag(tag)) {
        Some(wrong) => Err(malformed(None, wrong)),
        None => Ok(sorted(found)),
    }
}

pub fn change_tags(run: &Path, add: &[String], remove: &[String]) -> Result<Vec<String>, RunError> {
    let mut tags = read_tags(run)?;
    tags.retain(|tag| !remove.contains(tag));
    tags.extend(add.iter().cloned());
    let tags = sorted(tags);
    let wrong = add.iter().find_map(|tag| check_tag(tag));
    let wrong = wrong
        .or_else(|| (tags.len() > MAX_TAGS).then(|| format!("a run has at most {MAX_TAGS} tags")));
    if let Some(message) = wrong {
        return Err(RunError::malformed(&tags_path(run), message));
    }
    replace_file(
        &tags_path(run),
        format!("{}\n", serde_json::json!(tags)).as_bytes(),
    )?;
    Ok(tags)
}

pub fn check_tag(tag: &str) -> Option<String> {
    let fits = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let begins = tag.chars().next().is_some_and(char::is_alphanumeric);
    let short = tag.chars().count() <= MAX_TAG_CHARS;
    let shown: String = tag.chars().take(MAX_TAG_CHARS).collect();
    (!begins || !short || !tag.chars().all(fits)).then(|| {
        format!(
            "`{shown}` is not a tag: letters and digits, then also - _ . (at most {MAX_TAG_CHARS})"
        )
    })
}

fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn tags_come_and_go() {
        let run = tempfile::tempdir().unwrap();
        let check = |add: &[&str], remove: &[&str], expected: &[&str]| {
            assert_eq!(
                change_tags(run.path(), &list(add), &list(remove)).unwrap(),
                list(expected)
            );
            assert_eq!(read_tags(run.path()).unwrap(), list(expected));
        };
        assert_eq!(read_tags(run.path()).unwrap(), list(&[]));
        check(&["kept", "b-1"], &[], &["b-1", "kept"]);
        check(&["kept", "ä"], &["b-1", "absent"], &["kept", "ä"]);
        check(&["kept"], &["kept"], &["kept", "ä"]);
        check(&[], &["kept", "ä"], &[]);
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_is_written() {
        let run = tempfile::tempdir().unwrap();
        for wrong in ["", " ", "a b", "-a", "a,b", "\u{1b}[1m", &"x".repeat(33)] {
            let error = change_tags(run.path(), &list(&["good", wrong]), &[])
                .unwrap_err()
                .to_string();
            assert!(error.contains("is not a tag"), "{wrong:?}: {error}");
        }
        assert!(!tags_path(run.path()).exists());
        let check = |text: &str, expected: &str| {
            std::fs::write(tags_path(run.path()), text).unwrap();
            let error = read_tags(run.path()).unwrap_err().to_string();
            assert!(
                error.contains("tags.json") && error.contains(expected),
                "{text}: {error}"
            );
            assert!(change_tags(run.path(), &list(&["a"]), &[]).is_err());
        };
        check("{}", "line 1");
        check("[\"a\",\n3]", "line 2");
        check("[\"a b\"]", "is not a tag");
        check(&format!("[{}]", " ".repeat(70_000)), "not a list of tags");
    }
}
