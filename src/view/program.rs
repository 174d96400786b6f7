//! Asking this very program for what the view may not do itself: it is started as a subprocess, and its JSON or its complaint is the answer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::model::Model;

/// The program and the folder in which its arguments are understood.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    here: PathBuf,
}

impl Program {
    /// As the view was started.
    pub fn of(model: &Model) -> Self {
        Self { path: model.options.program.clone(), here: model.options.here.clone() }
    }

    /// Run it to its end and read the JSON document that it prints. To be called beside the view only.
    ///
    /// # Errors
    /// Its own last words, or why it could not be started.
    pub fn call<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<serde_json::Value, String> {
        let output = Command::new(&self.path)
            .args(arguments)
            .current_dir(&self.here)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start {}: {error}", self.path.display()))?;
        if !output.status.success() {
            return Err(complaint(&String::from_utf8_lossy(&output.stderr), &output.status.to_string()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{} printed what is no JSON: {error}", self.path.display()))
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where names are resolved.
    pub fn here(&self) -> &Path {
        &self.here
    }
}

/// What it said last, without the word `error`.
fn complaint(said: &str, status: &str) -> String {
    let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let begins = last.iter().rposition(|line| line.starts_with("error:")).unwrap_or(last.len().saturating_sub(1));
    let text = last[begins..].join(" ");
    let text = text.strip_prefix("error:").unwrap_or(&text).trim();
    if text.is_empty() { format!("it ended with {status} and said nothing") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_json_or_a_complaint() {
        let program = Program { path: PathBuf::from("/bin/sh"), here: PathBuf::from("/") };
        let check = |script: &str, expected: Result<serde_json::Value, &str>| {
            let found = program.call(&["-c", script]);
            match expected {
                Ok(expected) => assert_eq!(found, Ok(expected), "{script}"),
                Err(expected) => assert!(found.as_ref().is_err_and(|error| error.contains(expected)), "{script}: {found:?}"),
            }
        };
        check("echo '{\"run\": \"a\"}'", Ok(serde_json::json!({"run": "a"})));
        check("echo progress >&2; echo 'error: no such run' >&2; exit 1", Err("no such run"));
        check("exit 3", Err("said nothing"));
        check("echo nothing", Err("no JSON"));
        let absent = Program { path: PathBuf::from("/nowhere/program"), here: PathBuf::from("/") };
        assert!(absent.call(&["x"]).is_err_and(|error| error.contains("/nowhere/program")));
    }
}
