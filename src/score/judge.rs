//! The kinds of scorer: one arm and one function each.

use super::field_compare::Normalisation;
use super::json_schema::JsonSchema;
use super::plain_text::{Regex, Text};
use super::unwrap_answer::open_think;
use super::verdict::Verdict;
use super::{FailureClass, ScoreError, Tier};
use crate::dataset::PromptRow;
use crate::task::{Definition, Task};

/// What judges completions, compiled from the task's definition. Shared by threads.
#[derive(Debug)]
pub(super) enum Judge {
    JsonSchema(Box<JsonSchema>),
    Text(Text),
    Regex(Regex),
}

impl Judge {
    pub(super) fn new(task: &Task) -> Result<Self, ScoreError> {
        Ok(match &task.definition {
            Definition::JsonSchema(files) => Self::JsonSchema(Box::new(JsonSchema::new(task, files)?)),
            Definition::Text { normalise } => Self::Text(Text { normalise: Normalisation::named(normalise) }),
            Definition::Regex { pattern } => Self::Regex(Regex::new(task, pattern)?),
        })
    }

    /// Judges the answer that begins at byte `from` of the completion: after its reasoning, where that is stripped.
    pub(super) fn judge(&self, completion: &str, from: usize, is_stripped: bool, row: Option<&PromptRow>) -> Verdict {
        let expected = row.and_then(|row| row.expected.as_ref());
        // Reads the reasoning itself: the word may stand in a string of the JSON.
        if let Self::JsonSchema(schema) = self {
            return schema.judge(completion, from, expected);
        }
        let refuse = |class, message: &str, offset| Verdict {
            exact: expected.map(|_| false),
            ..Verdict::because(Tier::Unparsable, class, message.to_owned(), (completion, offset))
        };
        if let Some(offset) = open_think(completion, from).filter(|_| is_stripped) {
            return refuse(FailureClass::ThinkLeak, "unclosed think block", offset);
        }
        let rest = completion.get(from..).unwrap_or_default();
        let answer = rest.trim();
        let offset = from + (rest.len() - rest.trim_start().len());
        if answer.is_empty() {
            return refuse(FailureClass::Other, "the answer is empty", offset.min(completion.len()));
        }
        match self {
            Self::Text(text) => text.judge((completion, offset), answer, expected),
            Self::Regex(regex) => regex.judge((completion, offset), answer, expected),
            Self::JsonSchema(schema) => schema.judge(completion, from, expected),
        }
    }

    /// The completion that gives a row's `expected`; `None` where many may.
    pub(super) fn completion_of(&self, expected: &serde_json::Value) -> Option<String> {
        match self {
            Self::JsonSchema(_) => Some(expected.to_string()),
            Self::Text(_) => Text::completion_of(expected),
            Self::Regex(_) => None,
        }
    }
}
