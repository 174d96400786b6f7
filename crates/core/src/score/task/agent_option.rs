//! `--agent`: a task with a command line as its `[agent]`.

use std::path::Path;
use std::sync::Arc;

use crate::files::{self, Access};
use crate::sandbox::PrivateFolder;
use crate::score::needs::trust::{Trust, TrustError};
use crate::score::task::Task;
use crate::task::{TASK_FILE, TaskError};

#[derive(Debug, thiserror::Error)]
pub enum AgentOptionError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("--agent: {0}")]
    Command(String),
}

impl Task {
    /// A copy of the task with this command as agent, trusted since the user typed it. Words that
    /// name files in `here` belong to it. The copy is deleted with the last clone of the task.
    ///
    /// # Errors
    /// An empty command, a task with an agent, unreadable files.
    pub fn with_agent(&self, command: &str, here: &Path) -> Result<Self, AgentOptionError> {
        let refuse = |why: String| Err(AgentOptionError::Command(why));
        let mut words = command_words(command).map_err(AgentOptionError::Command)?;
        if words.first().is_none_or(String::is_empty) {
            return refuse("write for example --agent \"python3 agent.py\"".to_owned());
        }
        if self.agent().is_some() {
            return refuse(format!(
                "{} has an [agent]: leave the option out, or remove the block",
                self.label(TASK_FILE)
            ));
        }
        // A program's path is kept.
        if words[0].contains('/') {
            let path = std::path::absolute(here.join(&words[0])).unwrap_or_default();
            words[0] = path.display().to_string();
        }
        let folder = PrivateFolder::new().map_err(AgentOptionError::Command)?;
        let mut all = self.files()?;
        for word in words.iter_mut().skip(1) {
            let path = here.join(&*word);
            if word.starts_with('-') || !path.is_file() {
                continue;
            }
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let failed = |error: std::io::Error| {
                AgentOptionError::Command(format!("{}: {error}", path.display()))
            };
            let bytes = files::read_at_most(&path, files::MAX_WHOLE_FILE_BYTES).map_err(failed)?;
            match all.iter().find(|(known, _)| *known == name) {
                Some((_, known)) if *known != bytes => {
                    return refuse(format!(
                        "{} has another file {name}: rename one of them",
                        self.name
                    ));
                }
                Some(_) => {}
                None => all.push((name.clone(), bytes)),
            }
            *word = name;
        }
        let toml = all
            .iter_mut()
            .find(|(name, _)| name == TASK_FILE)
            .map(|(_, bytes)| bytes);
        let run = serde_json::json!(words).to_string();
        toml.into_iter()
            .for_each(|bytes| bytes.extend(format!("\n[agent]\nrun = {run}\n").as_bytes()));
        for (name, bytes) in &all {
            let path = folder.path().join(name);
            let written =
                files::ensure_folder(path.parent().unwrap_or(folder.path()), Access::Private)
                    .and_then(|()| std::fs::write(&path, bytes));
            written.map_err(|error| {
                AgentOptionError::Command(format!("{}: {error}", path.display()))
            })?;
        }
        let task = Self::load(folder.path())?;
        Trust::for_task(&task)?
            .iter()
            .filter(|trust| trust.is_agent())
            .try_for_each(|trust| trust.set(true))?;
        Ok(Self {
            _copy: Some(Arc::new(folder)),
            ..task
        })
    }
}

/// Splits a command into words; quotes keep white space.
pub fn command_words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a {open} without its end: {command}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_into_words() {
        let check = |command, expected: &[&str]| {
            assert_eq!(command_words(command).unwrap(), expected, "{command}")
        };
        check("python3 agent.py", &["python3", "agent.py"]);
        check(
            "  python3  'my agent.py' --say \"it's\"",
            &["python3", "my agent.py", "--say", "it's"],
        );
        check("sh -c ''", &["sh", "-c", ""]);
        check("", &[]);
        assert!(command_words("sh -c 'x").is_err());
    }
}
