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

impl PromptSet {
    pub const ALL: [Self; 3] = [Self::Train, Self::Eval, Self::Proof];
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Proof => "proof",
        }
    }
}

/// Why a task cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
}

#[derive(Clone, Debug, Default)]
pub struct PromptFiles {
    pub train: Option<String>,
    pub eval: Option<String>,
    pub proof: Option<String>,
    pub generator: Option<String>,
}

/// A task's folder.
#[derive(Clone, Debug)]
pub struct Task {
    pub schema: serde_json::Value,
    pub prompts: PromptFiles,
    pub train: toml::Table,
    folder: PathBuf,
}

impl Task {
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        Self::load(Path::new(text))
    }
    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        let text = std::fs::read_to_string(folder.join("task.toml")).unwrap_or_default();
        let table: toml::Table = text.parse().unwrap_or_default();
        let key = |key: &str| Some(table.get("prompts")?.get(key)?.as_str()?.to_owned());
        let prompts = PromptFiles { train: key("train"), eval: key("eval"), proof: key("proof"), generator: key("generator") };
        Ok(Self { schema: serde_json::Value::Null, prompts, train: toml::Table::new(), folder: folder.into() })
    }
    pub fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }
    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        match set {
            PromptSet::Train => self.prompts.train.as_deref(),
            PromptSet::Eval => self.prompts.eval.as_deref(),
            PromptSet::Proof => self.prompts.proof.as_deref(),
        }
    }
    pub fn label(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
    pub fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, TaskError> {
        std::fs::read(self.folder.join(file)).map(Cow::Owned).map_err(|e| TaskError::Read(self.label(file), e))
    }
}
