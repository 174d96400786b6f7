//! A task: what correct means. A folder with `task.toml`, a schema, prompt sets and sample completions.

mod embedded;
mod error;
mod parse;
mod references;
mod resolve;
mod source;
mod toml_section;

pub use error::TaskError;
pub use parse::{NORMALISATIONS, PARTS};
pub use references::encode_path;
use source::Home;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The name of the file that makes a folder a task.
pub const TASK_FILE: &str = "task.toml";

/// A task, read and checked; its prompt sets are read when asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Short name: what the command line and run folders use.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The schema's file inside the task.
    pub schema_file: String,
    /// The schema as written.
    pub schema_text: String,
    pub schema: Value,
    /// Other schema files that `$ref` may name: address to file inside the task.
    pub references: BTreeMap<String, String>,
    /// Address of such a file -> the `$schema` of the file that refers to it, where it has none of its own.
    pub inherited_drafts: BTreeMap<String, String>,
    /// The system turn's text, joined to a row's own system turn by a blank line.
    pub system: Option<String>,
    /// Whether a thinking model may think.
    pub thinking: bool,
    /// How completions are scored.
    pub score: ScoreRules,
    /// Parts added to the tier's value.
    pub rewards: Vec<RewardPart>,
    /// The files of the prompt sets, of the sample completions and of the generator.
    pub prompts: PromptFiles,
    home: Home,
}

/// A named set of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PromptSet {
    Train,
    /// Watched during training; it chooses the checkpoint.
    Eval,
    /// Read at step 0 and once at the end; it carries the claim.
    Test,
}

impl PromptSet {
    /// All sets.
    pub const ALL: [Self; 3] = [Self::Train, Self::Eval, Self::Test];

    /// The set of a name; `proof` is what older programs called the test set.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == current_set_name(name))
    }

    /// Its key in `task.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Test => "test",
        }
    }
}

/// The name of a set as it is written today: `proof`, of older tasks and runs, is `test`.
pub fn current_set_name(name: &str) -> &str {
    if name == "proof" { "test" } else { name }
}

/// File names of `[prompts]`, inside the task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptFiles {
    /// Training prompts.
    pub train: Option<String>,
    /// Prompts of the eval set.
    pub eval: Option<String>,
    /// Prompts of the test set.
    pub test: Option<String>,
    /// Sample completions for the preview.
    pub completions: Option<String>,
    /// Recipe of a prompt generator.
    pub generator: Option<String>,
}

/// `[score]`: from a completion to its tier.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRules {
    /// What each tier is worth.
    pub tiers: TierValues,
    /// Credit between `invalid` and `valid` by the share of constraints met.
    pub graded: bool,
    /// Strip everything up to the last `</think>` before scoring.
    pub strip_thinking: bool,
    /// Check JSON Schema's `format`.
    pub assert_formats: bool,
    /// Field to normalisation (names joined by `+`), only for comparing with `expected`.
    pub normalise: BTreeMap<String, String>,
}

/// The reward of each tier, rising.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierValues {
    /// Not JSON.
    pub unparsable: f64,
    /// JSON that the schema refuses.
    pub invalid: f64,
    /// JSON that the schema accepts.
    pub valid: f64,
}

/// `[[reward]]`: a part added to the tier's value.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardPart {
    /// One of [`PARTS`].
    pub part: String,
    /// The part, in [0, 1], is multiplied by this.
    pub weight: f64,
}

impl Task {
    /// The task that a command line means: a path, a name in the nearest workspace above the current folder, or an
    /// embedded task.
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        let here = std::env::current_dir().map_err(|source| TaskError::Read { label: ".".to_owned(), source })?;
        resolve::resolve_from(text, &here)
    }

    /// [`Task::resolve`] as seen from a folder.
    pub fn resolve_from(text: &str, here: &Path) -> Result<Self, TaskError> {
        resolve::resolve_from(text, here)
    }

    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        parse::read_task(Home::Folder(folder.to_owned()))
    }

    /// A task compiled into the program.
    pub fn embedded(name: &str) -> Result<Self, TaskError> {
        let task = embedded::find(name)
            .ok_or_else(|| resolve::unknown(name, embedded::names().map(str::to_owned).collect(), Path::new(".")))?;
        parse::read_task(Home::Embedded(task))
    }

    /// Every file of an embedded task: name and bytes.
    pub fn embedded_files(name: &str) -> Option<&'static [(&'static str, &'static [u8])]> {
        embedded::find(name).map(|task| task.files)
    }

    /// Names that mean a task as seen from a folder: those of the nearest workspace, then the embedded ones.
    pub fn known_names(here: &Path) -> Vec<String> {
        resolve::known_names(here)
    }

    /// The same task with another text of its schema; the files that it names are followed again.
    ///
    /// # Errors
    /// [`TaskError`] where the text is no JSON, or names a file that the task may not read.
    pub fn with_schema_text(&self, text: &str) -> Result<Self, TaskError> {
        let schema = self.home.parse_json(&self.schema_file, text)?;
        let (references, inherited_drafts) =
            references::follow_references(&self.home, &self.schema_file, &schema, self.references.clone())?;
        Ok(Self { schema_text: text.to_owned(), schema, references, inherited_drafts, ..self.clone() })
    }

    /// The folder, unless the task is embedded.
    pub fn folder(&self) -> Option<&Path> {
        match &self.home {
            Home::Folder(folder) => Some(folder),
            Home::Embedded(_) => None,
        }
    }

    /// The file of a prompt set, if the task has that set.
    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        match set {
            PromptSet::Train => self.prompts.train.as_deref(),
            PromptSet::Eval => self.prompts.eval.as_deref(),
            PromptSet::Test => self.prompts.test.as_deref(),
        }
    }

    /// The bytes of a file inside the task, at most [`crate::files::LARGEST_WHOLE_BYTES`]; see [`Task::path`].
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, TaskError> {
        self.home.read(file, crate::files::LARGEST_WHOLE_BYTES)
    }

    /// A reader over a file inside the task, of any length; see [`Task::path`].
    pub fn open(&self, file: &str) -> Result<Box<dyn BufRead>, TaskError> {
        self.home.open(file)
    }

    /// Where a file of a task in a folder is read and written, links followed: inside the folder, or an error.
    ///
    /// # Errors
    /// [`TaskError::Outside`] for an absolute path, for `..`, and for a link that leads out of the folder.
    pub fn path(&self, file: &str) -> Result<PathBuf, TaskError> {
        self.home.path(file)
    }

    /// A file's path as errors show it.
    pub fn label(&self, file: &str) -> String {
        self.home.label(file)
    }

    /// The names of all files that belong to the task: `task.toml`, the schema and its references, the sets, samples
    /// and generator.
    pub fn file_names(&self) -> Vec<&str> {
        let prompts = &self.prompts;
        let mut names = vec![TASK_FILE, &self.schema_file];
        names.extend(self.references.values().map(String::as_str));
        names.extend(
            [&prompts.train, &prompts.eval, &prompts.test, &prompts.completions, &prompts.generator]
                .into_iter()
                .filter_map(Option::as_deref),
        );
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// Every file that belongs to the task: enough to freeze a copy.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        self.file_names().into_iter().map(|name| Ok((name.to_owned(), self.read(name)?.into_owned()))).collect()
    }

    /// SHA-256 in hexadecimal over names and bytes of all files; a missing file counts as such.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for name in self.file_names() {
            let bytes = self.read(name).ok();
            hash.update(name.as_bytes());
            hash.update(bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hash.update(bytes.as_deref().unwrap_or_default());
        }
        crate::format::hex(&hash.finalize())
    }
}
