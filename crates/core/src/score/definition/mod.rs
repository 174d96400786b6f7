//! Interface of a scorer kind: its keys, how it reads a task, and what the program asks of the
//! result.

pub(super) mod degenerate_answers;
pub(super) mod grammar;
pub(super) mod lazy_answers;

pub use grammar::{Grammar, HttpRules, MessagePart, SchemaFiles, ToolRules};
pub(crate) use lazy_answers::LazyAnswer;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::PromptRow;
use crate::score::answer::stated_value::StatedValue;
use crate::score::error::ScoreError;
use crate::score::needs::Needs;
use crate::score::verdict::{Attempt, QueryResult, Score, Trial, Verdict};
use crate::task::{Home, Read, Section, TASK_FILE, TaskFiles};
use crate::text::CallFormat;

/// A scorer kind (`[score] kind`): a file or folder of [`crate::score`], listed in
/// [`crate::score::kinds::KINDS`].
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Its section of docs/kinds.md: what it judges, why, an example, `<!-- keys -->` for the key
    /// table, pitfalls.
    pub(crate) about: &'static str,
    /// Top-level keys of `task.toml`.
    pub(crate) keys: &'static [KeyInfo],
    /// Keys of `[score]` besides the common ones.
    pub(crate) score_keys: &'static [KeyInfo],
    /// Parses the block that names the kind. `top`: the top level for a task's own kind, else the
    /// block.
    pub(crate) read:
        fn(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KeyInfo {
    pub(crate) name: &'static str,
    /// Empty for a required key.
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
}

impl KeyInfo {
    pub(crate) const fn new(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            default,
            meaning,
        }
    }
}

/// Keys of `[score]` common to all kinds.
pub(crate) const COMMON_KEYS: [KeyInfo; 4] = [
    KeyInfo::new("kind", "json_schema", "what judges an answer"),
    KeyInfo::new(
        "tiers",
        "0, 0.5, 1",
        "reward of unparsable, invalid and valid answers",
    ),
    KeyInfo::new(
        "strip_thinking",
        "true",
        "ignore think blocks: everything up to the end of the last one",
    ),
    KeyInfo::new(
        "continue_after_failure",
        "false",
        "a conversation continues after an answer that is not valid",
    ),
];

// Keys shared by several kinds.
pub(crate) const GRADED: KeyInfo =
    KeyInfo::new("graded", "false", "credit between invalid and valid");
pub(crate) const ASSERT_FORMATS: KeyInfo =
    KeyInfo::new("assert_formats", "false", "check `format` of JSON Schema");
pub(crate) const GROUNDED: KeyInfo = KeyInfo::new(
    "grounded",
    "none",
    "`except`: computed or classified fields, which the part grounded does not count",
);
pub(crate) const NORMALISE: KeyInfo = KeyInfo::new(
    "normalise",
    "none",
    "how values are changed before they are compared",
);
pub(crate) const TOLERANCE: KeyInfo = KeyInfo::new(
    "tolerance",
    "none",
    "by path: how far a number may be from the expected one",
);
pub(crate) const ALIASES: KeyInfo =
    KeyInfo::new("aliases", "none", "by path: texts that mean the same");
pub(crate) const ABSENT: KeyInfo = KeyInfo::new(
    "absent",
    "none",
    "null: where a value is expected, null earns more than a wrong value; or by path",
);
pub(crate) const FIELDS: KeyInfo = KeyInfo::new(
    "fields",
    "none",
    "how values earn credit: credit, ordered, match, similar, empty_is_absent",
);
pub(crate) const REFERENCES: KeyInfo = KeyInfo::new("references", "none", "files of remote `$ref`");
pub(crate) const SCHEMA: KeyInfo = KeyInfo::new("schema", "", "the file that defines answers");

/// A definition, with name and text of its file unless that is `task.toml`.
pub(crate) type FoundDefinition = (Arc<dyn Definition>, Option<(String, String)>);

/// A kind's parsed definition of right answers.
pub(crate) trait Definition: Debug + Send + Sync {
    fn kind(&self) -> &'static Kind;

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError>;

    /// Schema of rows' `expected`: types values that are entered or imported without quotes.
    fn expected_schema(&self) -> Cow<'_, Value>;

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>>;

    /// SHA-256 in hex of what defines right answers.
    fn digest(&self, task: &TaskFiles) -> String;

    fn file_name(&self) -> &'static str {
        TASK_FILE
    }

    fn other_files(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Replaces the text of its file, which is not `task.toml`; `None` if it reads no file.
    fn with_text(
        &self,
        _home: &Home,
        _file: &str,
        _text: &str,
    ) -> Read<Option<Arc<dyn Definition>>> {
        Ok(None)
    }

    /// Names that two tasks must share for one embedded model to serve both: fields, functions,
    /// tables.
    fn answer_names(&self, _task: &TaskFiles) -> Vec<String> {
        Vec::new()
    }

    fn schema(&self) -> Option<AnswerSchema<'_>> {
        None
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        None
    }

    fn needs(&self) -> Needs<'_> {
        Needs::default()
    }

    /// Adapts to how a model's chat template writes calls; `None` if irrelevant.
    fn with_model(
        &self,
        _format: &'static CallFormat,
        _writes_prose: bool,
    ) -> Option<Arc<dyn Definition>> {
        None
    }
}

pub(crate) struct AnswerSchema<'a> {
    pub(crate) value: &'a Value,
}

/// A compiled scorer. Thread-safe.
pub(crate) trait Judge: Debug + Send + Sync {
    /// Whether the text from byte `from` has the form of an answer; always true for forms without
    /// strings that could contain `</think>`.
    fn can_read(&self, _completion: &str, _from: usize) -> bool {
        true
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict;

    /// Values stated by a JSON answer; empty if unparsable.
    fn stated_values(&self, _attempt: Attempt<'_>) -> Vec<StatedValue> {
        Vec::new()
    }

    fn load(&self) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn set_progress(&self, _step: u64, _max_steps: u64) {}

    fn row_problem(&self, _row: &PromptRow) -> Option<String> {
        None
    }

    /// Why a right answer to this row may count as wrong.
    fn row_doubt(&self, _row: &PromptRow) -> Option<String> {
        None
    }

    /// Judges many, in order, as [`Self::judge`]; `None` once `keep_going` returns false.
    fn judge_together(
        &self,
        attempts: &[Attempt<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let judge = |attempt: &Attempt<'_>| keep_going().then(|| self.judge(*attempt));
        attempts.iter().map(judge).collect()
    }

    /// The completion for a row's `expected`; `None` if it is not unique.
    fn completion_of(&self, expected: &Value, row: Option<&PromptRow>) -> Option<String>;

    fn results(&self, _answer: &str, _row: &PromptRow) -> Option<[QueryResult; 2]> {
        None
    }

    /// Names in `format` that the validator does not know and does not check.
    fn unknown_formats(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Runs a scoring program on an answer in a new process. `score`: of its verdict.
    fn try_out(
        &self,
        _answer: &str,
        _row: Option<&PromptRow>,
        _score: &dyn Fn(Verdict) -> Score,
    ) -> Option<Trial> {
        None
    }
}

pub(crate) fn text_digest(text: &str) -> String {
    crate::format::hex(&Sha256::digest(text.as_bytes()))
}
