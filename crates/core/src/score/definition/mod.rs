//! What a kind of scorer is: its keys, how it reads a task, and what the rest of the program asks of what it read.

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
use crate::score::verdict::unwrap_answer::ThinkRules;
use crate::score::verdict::{QueryResult, Score, Trial, Verdict};
use crate::task::{Home, Read, Section, TASK_FILE, TaskFiles};
use crate::text::CallFormat;

/// A kind of scorer (`[score] kind`). A kind is one file or folder of [`crate::score`], listed in [`crate::score::kinds::KINDS`].
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Its section of docs/kinds.md: what it judges, why, an example, `<!-- keys -->` for its table of keys, pitfalls.
    pub(crate) about: &'static str,
    /// Keys that it reads outside of all tables of `task.toml`.
    pub(crate) keys: &'static [KeyInfo],
    /// Keys of `[score]` that it reads besides those of all kinds.
    pub(crate) score_keys: &'static [KeyInfo],
    /// Reads a block that names the kind. `top`: of a task's own kind what is outside of all tables, else the block.
    pub(crate) read:
        fn(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KeyInfo {
    pub(crate) name: &'static str,
    /// Empty for a key that is required.
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

/// Keys of `[score]` that all kinds read.
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

// Keys that several kinds read.
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
pub(crate) const REFERENCES: KeyInfo = KeyInfo::new("references", "none", "files of remote `$ref`");
pub(crate) const SCHEMA: KeyInfo = KeyInfo::new("schema", "", "the file that defines answers");

/// A definition, with the name and the text of its file where that is not `task.toml`.
pub(crate) type FoundDefinition = (Arc<dyn Definition>, Option<(String, String)>);

/// What a task says of right answers, as one kind of scorer reads it.
pub(crate) trait Definition: Debug + Send + Sync {
    fn kind(&self) -> &'static Kind;

    /// Checks and compiles what judges.
    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError>;

    /// A schema of rows' `expected`: types what is typed or imported without quotes.
    fn expected_schema(&self) -> Cow<'_, Value>;

    /// Describes an answer in a sentence.
    fn summary(&self, task: &TaskFiles) -> String;

    /// Answers of a model that does not read its prompt, each with what to do if they earn much.
    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>>;

    /// SHA-256 in hex of what defines right answers.
    fn digest(&self, task: &TaskFiles) -> String;

    /// What the definition's file is called in messages.
    fn file_name(&self) -> &'static str {
        TASK_FILE
    }

    /// Files of the task that it reads besides its own.
    fn other_files(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The same with another text of its file, which is not `task.toml`; `None` where nothing is read from it.
    fn with_text(
        &self,
        _home: &Home,
        _file: &str,
        _text: &str,
    ) -> Read<Option<Arc<dyn Definition>>> {
        Ok(None)
    }

    /// What the answers of two tasks must share for one embedded model to serve both: fields, functions, tables.
    fn answer_names(&self, _task: &TaskFiles) -> Vec<String> {
        Vec::new()
    }

    /// The schema of answers, where that defines them.
    fn schema(&self) -> Option<AnswerSchema<'_>> {
        None
    }

    /// The grammar of answers; `None` where decoding cannot be constrained to right ones.
    fn grammar(&self) -> Option<Grammar<'_>> {
        None
    }

    /// What scoring needs besides an answer and its row.
    fn needs(&self) -> Needs<'_> {
        Needs::default()
    }

    /// The same for the answers of a model, by how its chat template writes calls; `None` where that makes no difference.
    fn with_model(
        &self,
        _format: &'static CallFormat,
        _writes_prose: bool,
    ) -> Option<Arc<dyn Definition>> {
        None
    }
}

/// A JSON Schema of answers, and where it is not JSON alone, the notation that they are written in.
pub(crate) struct AnswerSchema<'a> {
    pub(crate) value: &'a Value,
    pub(crate) notation: Option<String>,
}

/// A scorer of one kind, compiled from the task's definition. Shared by threads.
pub(crate) trait Judge: Debug + Send + Sync {
    /// Whether what begins at byte `from` is of the form of an answer; of forms without strings that may hold `</think>`,
    /// always.
    fn can_read(&self, _completion: &str, _from: usize) -> bool {
        true
    }

    /// Judges the answer that begins at byte `from` of the completion: after its reasoning, where that is stripped.
    fn judge(
        &self,
        completion: &str,
        from: usize,
        thoughts: ThinkRules,
        row: Option<&PromptRow>,
    ) -> Verdict;

    /// The values that the answer from byte `from` on states, where answers are JSON; none of one that cannot be read.
    fn stated_values(
        &self,
        _completion: &str,
        _from: usize,
        _row: Option<&PromptRow>,
    ) -> Vec<StatedValue> {
        Vec::new()
    }

    /// Loads the model that judges, where that is one of this machine, and returns its digest.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    fn load(&self) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// What keeps the judge from judging any answer to a row.
    fn row_problem(&self, _row: &PromptRow) -> Option<String> {
        None
    }

    /// Judges many, in order. Answers as those of [`Self::judge`]; `None` once `keep_going` returns false.
    fn judge_together(
        &self,
        completions: &[(&str, usize, Option<&PromptRow>)],
        thoughts: ThinkRules,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let judge = |(completion, from, row): &(&str, usize, Option<&PromptRow>)| {
            keep_going().then(|| self.judge(completion, *from, thoughts, *row))
        };
        completions.iter().map(judge).collect()
    }

    /// The completion that gives an `expected` of a row; `None` where many may.
    fn completion_of(&self, expected: &Value, row: Option<&PromptRow>) -> Option<String>;

    /// The results of a query and of the expected one, where results are compared.
    fn results(&self, _answer: &str, _row: &PromptRow) -> Option<[QueryResult; 2]> {
        None
    }

    /// Names under a schema's `format` that are not checked, because the validator does not know them.
    fn unknown_formats(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Puts an answer to the program that judges, where one does, in a process of its own. `score`: of its verdict.
    fn try_out(
        &self,
        _answer: &str,
        _row: Option<&PromptRow>,
        _score: &dyn Fn(Verdict) -> Score,
    ) -> Option<Trial> {
        None
    }
}

/// SHA-256 in hex of a text that defines right answers.
pub(crate) fn text_digest(text: &str) -> String {
    crate::format::hex(&Sha256::digest(text.as_bytes()))
}
