//! Writes an export: the question for the file, a free name, the notice.

use std::path::{Path, PathBuf};

use super::command_log::CommandLine;
use super::message::{Command, Work};
use super::popup::{Ask, Popup};
use super::shared::Shared;
use crate::format::{bytes, counted};
use crate::report::{Page, ReportError};
use crate::run::{free_path, write_export};

/// Asks for the file; `name` is proposed, in the folder where the view was started. `line`: the command that writes the
/// same into a file.
pub fn ask(
    shared: &Shared,
    label: &str,
    name: &str,
    key: &'static str,
    line: impl FnOnce(&Path) -> Option<CommandLine> + Send + 'static,
    make: impl FnOnce() -> Result<Page, ReportError> + Send + 'static,
) -> Popup {
    let here = shared.options.here.clone();
    let proposed = here.join(name).display().to_string();
    Popup::Ask(Ask::new(
        "Export",
        label,
        &proposed,
        move |_: &mut (), _, file| {
            let file = typed_path(&file, &here);
            let line = line(&file);
            vec![Work::once(key, move || written(&file, make()), report).like(line)]
        },
    ))
}

pub fn written(file: &Path, page: Result<Page, ReportError>) -> Result<String, String> {
    let (Page { text, masked }, free) = (page.map_err(|error| error.to_string())?, free_path(file));
    write_export(&free, text.as_bytes(), false).map_err(|error| error.to_string())?;
    let taken = if free == file {
        String::new()
    } else {
        format!("; {} exists, not overwritten", file.display())
    };
    Ok(format!(
        "wrote {} ({}){}{taken}",
        free.display(),
        bytes(text.len() as u64),
        masked_secrets(masked)
    ))
}

/// `, 2 secrets masked`; empty without any.
pub fn masked_secrets(masked: usize) -> String {
    if masked == 0 {
        String::new()
    } else {
        format!(", {} masked", counted(masked, "secret"))
    }
}

pub fn report(_: &mut (), shared: &mut Shared, outcome: Result<String, String>) -> Vec<Command> {
    match outcome {
        Ok(text) => shared.say(text),
        Err(error) => shared.complain(error),
    }
}

/// A path as typed: `~` is the home directory, a relative one starts at `here`.
pub fn typed_path(text: &str, here: &Path) -> PathBuf {
    let text = text.trim();
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => here.join(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_export_takes_a_free_name_and_says_what_was_masked() {
        let folder = tempfile::tempdir().unwrap();
        let (file, second) = (
            folder.path().join("run.html"),
            folder.path().join("run-2.html"),
        );
        assert_eq!(
            written(
                &file,
                Ok(Page {
                    text: "one".into(),
                    masked: 2
                })
            )
            .unwrap(),
            format!("wrote {} ({}), 2 secrets masked", file.display(), bytes(3))
        );
        let left = format!("{} exists, not overwritten", file.display());
        let message = format!("wrote {} ({}); {left}", second.display(), bytes(5));
        assert_eq!(
            written(
                &file,
                Ok(Page {
                    text: "other".into(),
                    masked: 0
                })
            )
            .unwrap(),
            message
        );
        assert_eq!(
            (
                std::fs::read(&file).unwrap(),
                std::fs::read(&second).unwrap()
            ),
            (b"one".to_vec(), b"other".to_vec())
        );
    }
}
