//! The kinds of scorer: one arm and one function each.

use super::field_compare::Normalisation;
use super::json_schema::JsonSchema;
use super::plain_text::{Regex, Text};
use super::tool_calls::ToolCalls;
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
    ToolCalls(Box<ToolCalls>),
}

impl Judge {
    pub(super) fn new(task: &Task) -> Result<Self, ScoreError> {
        Ok(match &task.definition {
            Definition::JsonSchema(files) => Self::JsonSchema(Box::new(JsonSchema::new(task, files)?)),
            Definition::Text { normalise } => Self::Text(Text { normalise: Normalisation::named(normalise) }),
            Definition::Regex { pattern } => Self::Regex(Regex::new(task, pattern)?),
            Definition::ToolCalls(rules) => Self::ToolCalls(Box::new(ToolCalls::new(task, rules)?)),
        })
    }

    /// Judges the answer that begins at byte `from` of the completion: after its reasoning, where that is stripped.
    pub(super) fn judge(&self, completion: &str, from: usize, is_stripped: bool, row: Option<&PromptRow>) -> Verdict {
        let expected = row.and_then(|row| row.expected.as_ref());
        match self {
            // These read the reasoning themselves: the word may stand in a string of the JSON.
            Self::JsonSchema(schema) => schema.judge(completion, from, expected),
            Self::ToolCalls(calls) => calls.judge(completion, from, row),
            Self::Text(text) => judge_text(completion, from, is_stripped, expected, |offset, answer| {
                text.judge((completion, offset), answer, expected)
            }),
            Self::Regex(regex) => judge_text(completion, from, is_stripped, expected, |offset, answer| {
                regex.judge((completion, offset), answer, expected)
            }),
        }
    }

    /// The completion that gives a row's `expected`; `None` where many may.
    pub(super) fn completion_of(&self, expected: &serde_json::Value) -> Option<String> {
        match self {
            Self::JsonSchema(_) => Some(expected.to_string()),
            Self::Text(_) => Text::completion_of(expected),
            Self::Regex(_) => None,
            Self::ToolCalls(_) => Some(ToolCalls::completion_of(expected)),
        }
    }
}

/// Judges what stands between white space, from a byte offset on; unparsable where that is nothing, or an open think
/// block.
fn judge_text(
    completion: &str,
    from: usize,
    is_stripped: bool,
    expected: Option<&serde_json::Value>,
    judge: impl FnOnce(usize, &str) -> Verdict,
) -> Verdict {
    let refuse = |class, message: &str, offset| Verdict {
        exact: expected.map(|_| false),
        ..Verdict::because(Tier::Unparsable, class, message.to_owned(), (completion, offset))
    };
    if let Some(offset) = open_think(completion, from).filter(|_| is_stripped) {
        return refuse(FailureClass::ThinkLeak, "unclosed think block", offset);
    }
    let rest = completion.get(from..).unwrap_or_default();
    let offset = from + (rest.len() - rest.trim_start().len());
    match rest.trim() {
        "" => refuse(FailureClass::Other, "the answer is empty", offset.min(completion.len())),
        answer => judge(offset, answer),
    }
}
