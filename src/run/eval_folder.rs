//! The folder of a standalone eval: the answers of each target, the task, prompts that are no set of the task, and the
//! result.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::sha256;
use super::durable::{append_line, ensure_folder, open_append, replace_file, seal};
use super::error::RunError;
use super::eval_record::EvalRecord;
use super::evals::{eval_file, write_evals};
use super::lock::RunLock;
use super::speed_summary::SpeedSummary;

/// Written at the end of an eval.
pub const RESULT_FILE: &str = "eval.json";

/// The folder of an active eval, whose lock is held as a run's is ([`RunLock::is_held`]).
#[derive(Debug)]
pub struct EvalFolder {
    path: PathBuf,
    _lock: RunLock,
}

impl EvalFolder {
    /// Creates or reuses the folder and writes the task's files.
    ///
    /// # Errors
    /// [`RunError::Taken`] if another eval has its result there, [`RunError::InUse`] if one is active there,
    /// [`RunError::Io`].
    pub fn create(path: &Path, task_files: &[(String, Vec<u8>)]) -> Result<Self, RunError> {
        if path.join(RESULT_FILE).exists() || path.join("run.toml").exists() {
            return Err(RunError::Taken { path: path.to_owned() });
        }
        let path = std::path::absolute(path).map_err(RunError::io("find", path))?;
        ensure_folder(&path.join("evals"))?;
        let lock = RunLock::acquire(&path)?;
        for (name, bytes) in task_files {
            let file = path.join("task").join(name);
            ensure_folder(file.parent().unwrap_or(&path))?;
            replace_file(&file, bytes)?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Writes prompts that are no set of the task.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn keep_prompts(&self, lines: &[u8]) -> Result<String, RunError> {
        replace_file(&self.path.join("prompts.jsonl"), lines)?;
        Ok(sha256(lines))
    }

    /// Writes the records of a model.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn write(&self, set: &str, name: &str, records: &[EvalRecord]) -> Result<(), RunError> {
        write_evals(&self.path.join(eval_file(0, &word(set), &word(name))), records)
    }

    /// Opens the answers of an endpoint, and returns the lines that an interrupted eval left there.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn answers(&self, set: &str, name: &str) -> Result<(AnswerLog, Vec<String>), RunError> {
        let path = self.path.join(format!("answers-{}-{}.jsonl", word(set), word(name)));
        let file = open_append(&path)?;
        seal(&file, &path)?;
        let text = crate::files::read_text(&path).map_err(RunError::io("read", &path))?;
        Ok((AnswerLog { path, file }, text.lines().map(str::to_owned).collect()))
    }

    /// Writes the result, last.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn finish(&self, document: &Value) -> Result<(), RunError> {
        replace_file(&self.path.join(RESULT_FILE), format!("{document:#}\n").as_bytes())
    }
}

/// What the result of a standalone eval has of a target beside its records; nothing where there is no result.
#[derive(Debug, Default)]
pub struct StoredTarget {
    /// How its prompts differ from the task's own, in words; empty where they do not.
    pub prompts: String,
    pub speed: Option<Box<SpeedSummary>>,
}

impl StoredTarget {
    /// `target`: its name as in the names of files.
    pub fn read(folder: &Path, target: &str) -> Self {
        let text = crate::files::read_text(&folder.join(RESULT_FILE)).unwrap_or_default();
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let of = |key: &str| {
            let targets = document[key].as_object()?;
            targets.iter().find(|(name, _)| word(name) == target).map(|(_, value)| value.clone())
        };
        Self {
            prompts: of("prompts").unwrap_or_default()["description"].as_str().unwrap_or_default().to_owned(),
            speed: of("targets").and_then(|summary| serde_json::from_value(summary["speed"].clone()).ok()),
        }
    }
}

/// Answers that cost money or time, each in the file as soon as it is known.
#[derive(Debug)]
pub struct AnswerLog {
    path: PathBuf,
    file: File,
}

impl AnswerLog {
    /// Appends a line.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn append(&self, line: &str) -> Result<(), RunError> {
        append_line(&self.file, &self.path, format!("{line}\n").as_bytes(), "answer")
    }
}

/// Makes a name safe for a file name.
fn word(name: &str) -> String {
    let name = Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    name.chars()
        .take(60)
        .map(|letter| if letter.is_alphanumeric() || "._".contains(letter) { letter } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_whole_once_it_has_its_result() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("one");
        let files =
            [("task.toml".to_owned(), b"name = \"x\"".to_vec()), ("sub/schema.json".to_owned(), b"{}".to_vec())];
        let folder = EvalFolder::create(&path, &files).unwrap();
        folder
            .write(
                "my set/rows.jsonl",
                "second-model",
                &[EvalRecord { prompt_id: "a".into(), ..EvalRecord::default() }],
            )
            .unwrap();
        assert!(
            path.join("evals/step-000000-rows-second_model.jsonl").is_file()
                && path.join("task/sub/schema.json").is_file()
        );
        assert!(RunLock::is_held(&path) && matches!(EvalFolder::create(&path, &files), Err(RunError::InUse { .. })));
        folder.keep_prompts(b"{}\n").unwrap();
        folder.finish(&serde_json::json!({"targets": {}})).unwrap();
        assert!(matches!(EvalFolder::create(&path, &files), Err(RunError::Taken { .. })));
    }
}
