//! A task: what correct means.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Which of a task's prompt files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptSet {
    Train,
    Eval,
    Proof,
}

/// Why a task cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
}

/// A task's folder.
#[derive(Clone, Debug)]
pub struct Task {
    pub schema: serde_json::Value,
    pub generator: Option<String>,
    folder: PathBuf,
}

impl Task {
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        Self::load(Path::new(text))
    }
    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        Ok(Self { schema: serde_json::Value::Null, generator: Some("generator.toml".into()), folder: folder.into() })
    }
    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        Some(match set {
            PromptSet::Train => "train.jsonl",
            PromptSet::Eval => "eval.jsonl",
            PromptSet::Proof => "eval-large.jsonl",
        })
    }
    pub fn label(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
    pub fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, TaskError> {
        std::fs::read(self.folder.join(file)).map(Cow::Owned).map_err(|e| TaskError::Read(self.label(file), e))
    }
}
