//! Comments on prompts of an eval, in a file beside the evals.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::durable::{read_if_there, replace_json};
use crate::secrets::is_control;
use crate::task::SetName;

/// A longer file is not one of comments.
const MAX_BYTES: u64 = 8 << 20;
/// In characters.
const MAX_COMMENT_CHARS: usize = 2000;

/// A user's comment on a prompt of a set, at most one each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    pub set: SetName,
    pub prompt_id: String,
    pub text: String,
    /// Time of the last change, milliseconds since 1970.
    #[serde(default)]
    pub time_ms: u64,
}

/// `evals/comments.json`, a list.
pub fn comments_path(folder: &Path) -> PathBuf {
    folder.join("evals/comments.json")
}

pub fn read_comments(folder: &Path) -> Result<Vec<Comment>, RunError> {
    let path = comments_path(folder);
    let Some(bytes) = read_if_there(&path, MAX_BYTES)? else {
        return Ok(Vec::new());
    };
    serde_json::from_slice(&bytes).map_err(|error| RunError::Malformed {
        path,
        line: Some(error.line()),
        message: format!("{error}; it should be a list of comments"),
    })
}

/// Replaces the comment on a prompt; an empty text removes it.
pub fn write_comment(folder: &Path, comment: Comment) -> Result<(), RunError> {
    let path = comments_path(folder);
    let comment = Comment {
        text: comment.text.trim().to_owned(),
        ..comment
    };
    if let Some(message) = check_comment(&comment.text) {
        return Err(RunError::malformed(&path, message));
    }
    if folder.join("run.toml").exists() {
        RunDirectory::open(folder)?.check_private()?;
    }
    let key = |comment: &Comment| (comment.set.clone(), comment.prompt_id.clone());
    let mut comments = read_comments(folder)?;
    comments.retain(|other| key(other) != key(&comment));
    comments.extend((!comment.text.is_empty()).then_some(comment));
    comments.sort_by_key(key);
    replace_json(&path, &comments)
}

/// What is wrong with a comment, if anything.
pub fn check_comment(text: &str) -> Option<String> {
    let length = text.chars().count();
    match () {
        () if text.chars().any(is_control) => Some("the comment has control characters".to_owned()),
        () if length > MAX_COMMENT_CHARS => Some(format!(
            "the comment has {length} characters (limit {MAX_COMMENT_CHARS})"
        )),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn comments_are_replaced_removed_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("evals")).unwrap();
        let comment = |set: &str, id: &str, text: &str| Comment {
            set: set.into(),
            prompt_id: id.to_owned(),
            text: text.to_owned(),
            time_ms: 7,
        };
        let write =
            |set: &str, id: &str, text: &str| write_comment(folder.path(), comment(set, id, text));
        assert_eq!(read_comments(folder.path()).unwrap(), []);
        for (set, id, text) in [
            ("test", "b", " label is wrong "),
            ("test", "a", "x"),
            ("eval", "b", "y"),
            ("test", "a", "ambiguous"),
        ] {
            write(set, id, text).unwrap();
        }
        let all = [
            comment("eval", "b", "y"),
            comment("test", "a", "ambiguous"),
            comment("test", "b", "label is wrong"),
        ];
        assert_eq!(read_comments(folder.path()).unwrap(), all);
        let mode = std::fs::metadata(comments_path(folder.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        for wrong in ["a\u{1b}[1mb", "a\nb", &"x".repeat(2001)] {
            assert!(write("test", "a", wrong).is_err(), "{wrong:?}");
        }
        write("eval", "b", " ").unwrap();
        assert_eq!(read_comments(folder.path()).unwrap(), all[1..]);
        std::fs::write(comments_path(folder.path()), "[\n3]").unwrap();
        let error = write("test", "a", "x").unwrap_err().to_string();
        assert!(
            error.contains("comments.json") && error.contains("line 2"),
            "{error}"
        );
    }
}
