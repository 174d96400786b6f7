//! The kinds of scorer: one arm and one function each.

use super::command::{CommandScorer, unanswered};
use super::field_compare::Normalisation;
use super::http_request::HttpRequest;
use super::json::{self, Places};
use super::json_schema::JsonSchema;
use super::plain_text::{Regex, Text};
use super::sql::{QueryResult, Sql};
use super::tool_calls::ToolCalls;
use super::unwrap_answer::open_think;
use super::verdict::Verdict;
use super::{FailureClass, ScoreError, Tier};
use crate::dataset::{PromptRow, expected};
use crate::task::{Definition, Task};

/// A scorer of one kind, compiled from the task's definition. Shared by threads.
#[derive(Debug)]
pub(super) enum Judge {
    JsonSchema(Box<JsonSchema>),
    Text(Text),
    Regex(Regex),
    ToolCalls(Box<ToolCalls>),
    Command(Box<CommandScorer>),
    Sql(Sql),
    HttpRequest(Box<HttpRequest>),
}

impl Judge {
    pub(super) fn new(task: &Task) -> Result<Self, ScoreError> {
        Ok(match &task.definition {
            Definition::JsonSchema(files) => Self::JsonSchema(Box::new(JsonSchema::new(task, files)?)),
            Definition::Text { normalise } => Self::Text(Text { normalise: Normalisation::named(normalise) }),
            Definition::Regex { pattern } => Self::Regex(Regex::new(task, pattern)?),
            Definition::ToolCalls(rules) => Self::ToolCalls(Box::new(ToolCalls::new(task, rules)?)),
            Definition::Command(rules) => Self::Command(Box::new(CommandScorer::new(task, rules)?)),
            Definition::Sql(rules) => Self::Sql(Sql::new(task, rules)?),
            Definition::HttpRequest(rules) => Self::HttpRequest(Box::new(HttpRequest::new(task, rules)?)),
        })
    }

    /// Whether what begins at byte `from` is of the form of an answer; of forms without strings that may hold `</think>`,
    /// always.
    pub(super) fn can_read(&self, completion: &str, from: usize) -> bool {
        match self {
            Self::JsonSchema(_) | Self::HttpRequest(_) => json::parse(completion, from).is_ok(),
            Self::ToolCalls(_) => ToolCalls::can_read(completion, from),
            Self::Text(_) | Self::Regex(_) | Self::Command(_) | Self::Sql(_) => true,
        }
    }

    /// Judges the answer that begins at byte `from` of the completion: after its reasoning, where that is stripped.
    pub(super) fn judge(&self, completion: &str, from: usize, is_stripped: bool, row: Option<&PromptRow>) -> Verdict {
        let expected = row.and_then(|row| row.expected.as_ref());
        let has_alternatives = matches!(self, Self::JsonSchema(_) | Self::HttpRequest(_));
        if let Some(problem) = expected.filter(|_| has_alternatives).and_then(expected::problem) {
            return Verdict::failed(format!("the row's `expected`: {problem}"), (completion, from));
        }
        match self {
            // These read the reasoning themselves: the word may stand in a string of the JSON.
            Self::JsonSchema(schema) => schema.judge(completion, from, is_stripped, expected),
            Self::ToolCalls(calls) => calls.judge(completion, from, is_stripped, row),
            Self::HttpRequest(http) => http.judge(completion, from, is_stripped, row),
            Self::Text(text) => judge_text(completion, from, is_stripped, expected, |offset, answer| {
                text.judge((completion, offset), answer, expected)
            }),
            Self::Regex(regex) => judge_text(completion, from, is_stripped, expected, |offset, answer| {
                regex.judge((completion, offset), answer, expected)
            }),
            Self::Command(_) => {
                let alone = self.judge_together(&[(completion, from, row)], is_stripped, &|| true);
                let found = alone.and_then(|verdicts| verdicts.into_iter().next());
                found.unwrap_or_else(unanswered)
            }
            Self::Sql(sql) => judge_text(completion, from, is_stripped, expected, |offset, answer| {
                sql.judge((completion, offset), answer, row)
            }),
        }
    }

    /// Whether many completions together are judged faster: a program has many of them under way.
    pub(super) fn asks_together(&self) -> bool {
        matches!(self, Self::Command(_))
    }

    /// Judges many, in order. Answers as those of [`Self::judge`]; `None` once `keep_going` returns false.
    pub(super) fn judge_together(
        &self,
        completions: &[(&str, usize, Option<&PromptRow>)],
        is_stripped: bool,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let Self::Command(command) = self else {
            let judge = |(completion, from, row): &(&str, usize, Option<&PromptRow>)| {
                keep_going().then(|| self.judge(completion, *from, is_stripped, *row))
            };
            return completions.iter().map(judge).collect();
        };
        let leak = |(completion, from, row): &(&str, usize, Option<&PromptRow>)| {
            think_leak(completion, *from, is_stripped, row.and_then(|row| row.expected.as_ref()))
        };
        let leaks: Vec<Option<Verdict>> = completions.iter().map(leak).collect();
        let asked = completions.iter().zip(&leaks).filter(|(_, leak)| leak.is_none());
        let starts: Vec<_> = asked.clone().map(|((text, from, _), _)| Places::new(text).locate(*from)).collect();
        let asked: Vec<_> = asked.map(|((text, from, row), _)| (text.get(*from..).unwrap_or_default(), *row)).collect();
        let verdicts = command.judge_all(&asked, keep_going)?;
        let mut verdicts = verdicts.into_iter().zip(starts).map(|(mut verdict, start)| {
            verdict.errors.iter_mut().for_each(|reason| reason.move_to(start));
            verdict
        });
        Some(leaks.into_iter().map(|leak| leak.or_else(|| verdicts.next()).unwrap_or_else(unanswered)).collect())
    }

    /// The results of a query and of the expected one, from judges that compare results.
    pub(super) fn results(&self, answer: &str, row: &PromptRow) -> Option<[QueryResult; 2]> {
        if let Self::Sql(sql) = self { sql.results(answer, row) } else { None }
    }

    /// The completion that gives a row's `expected`; `None` where many may.
    pub(super) fn completion_of(&self, expected: &serde_json::Value) -> Option<String> {
        match self {
            Self::JsonSchema(_) | Self::HttpRequest(_) => Some(expected::target(expected).to_string()),
            Self::Text(_) => Text::completion_of(expected),
            // The text that a pattern is to match, it matches alone.
            Self::Regex(_) => expected.as_str().map(str::to_owned),
            Self::Command(command) => command.completion_of(expected),
            Self::Sql(_) => expected.as_str().map(str::to_owned),
            Self::ToolCalls(_) => Some(ToolCalls::completion_of(expected)),
        }
    }
}

/// Judges what is between white space, from a byte offset on; unparsable where that is nothing, or an open think
/// block.
fn judge_text(
    completion: &str,
    from: usize,
    is_stripped: bool,
    expected: Option<&serde_json::Value>,
    judge: impl FnOnce(usize, &str) -> Verdict,
) -> Verdict {
    if let Some(verdict) = think_leak(completion, from, is_stripped, expected) {
        return verdict;
    }
    let rest = completion.get(from..).unwrap_or_default();
    let offset = from + (rest.len() - rest.trim_start().len());
    match rest.trim() {
        "" => unparsable(FailureClass::Other, "the answer is empty", (completion, offset), expected),
        answer => judge(offset, answer),
    }
}

/// The verdict on a completion whose reasoning does not end, so that there is no answer.
fn think_leak(
    completion: &str,
    from: usize,
    is_stripped: bool,
    expected: Option<&serde_json::Value>,
) -> Option<Verdict> {
    let offset = open_think(completion, from).filter(|_| is_stripped)?;
    Some(unparsable(FailureClass::ThinkLeak, "unclosed think block", (completion, offset), expected))
}

fn unparsable(
    class: FailureClass,
    message: &str,
    (completion, offset): (&str, usize),
    expected: Option<&serde_json::Value>,
) -> Verdict {
    let place = (completion, offset.min(completion.len()));
    Verdict { exact: expected.map(|_| false), ..Verdict::because(Tier::Unparsable, class, message.to_owned(), place) }
}
