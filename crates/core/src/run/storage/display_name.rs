//! A run's display name, in its own file; it replaces the name in `run.toml`, which never changes.

use std::path::{Path, PathBuf};

use super::durable::{read_if_there, remove_if_there, replace_file};
use crate::run::error::RunError;
use crate::secrets::is_control;

/// A longer file is not a name.
const MAX_BYTES: u64 = 4096;
const MAX_NAME_CHARS: usize = 80;

/// `name.json`, a string.
pub fn name_path(run: &Path) -> PathBuf {
    run.join("name.json")
}

/// `None` for a run that was not renamed.
pub fn read_display_name(run: &Path) -> Result<Option<String>, RunError> {
    let path = name_path(run);
    let Some(bytes) = read_if_there(&path, MAX_BYTES)? else {
        return Ok(None);
    };
    let name = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{error}; it should be a name such as \"baseline\", in quotes"))
        .and_then(|name: String| check_name(&name).map_or(Ok(name), Err));
    name.map(Some)
        .map_err(|wrong| RunError::malformed(&path, wrong))
}

pub fn rename_run(run: &Path, name: &str) -> Result<(), RunError> {
    let (path, name) = (name_path(run), name.trim());
    if name.is_empty() {
        return remove_if_there(&path);
    }
    if let Some(message) = check_name(name) {
        return Err(RunError::malformed(&path, message));
    }
    replace_file(
        &path,
        format!("{}\n", serde_json::Value::from(name)).as_bytes(),
    )
}

pub fn check_name(name: &str) -> Option<String> {
    let length = name.chars().count();
    match () {
        () if name.trim().is_empty() => Some("the name is empty".to_owned()),
        () if name.chars().any(is_control) => Some("the name has control characters".to_owned()),
        () if length > MAX_NAME_CHARS => Some(format!(
            "the name has {length} characters (limit {MAX_NAME_CHARS})"
        )),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_comes_goes_and_is_checked() {
        let run = tempfile::tempdir().unwrap();
        let name = || read_display_name(run.path()).unwrap();
        assert_eq!(name(), None);
        rename_run(run.path(), "  baseline, \"seed\" 3 ").unwrap();
        assert_eq!(name().unwrap(), "baseline, \"seed\" 3");
        for wrong in ["a\u{1b}[1mb", &"x".repeat(81)] {
            assert!(rename_run(run.path(), wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            name().unwrap(),
            "baseline, \"seed\" 3",
            "a wrong name changes nothing"
        );
        rename_run(run.path(), "").unwrap();
        rename_run(run.path(), " ").unwrap();
        assert_eq!(name(), None);
        for wrong in [
            "3",
            "\"\"",
            "\"a\\u001bb\"",
            &format!("\"{}\"", "x".repeat(5000)),
        ] {
            std::fs::write(name_path(run.path()), wrong).unwrap();
            let error = read_display_name(run.path()).unwrap_err().to_string();
            assert!(error.contains("name.json"), "{wrong:?}: {error}");
        }
    }
}
