//! Judges an answer in YAML as the JSON that it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::yaml;
use crate::dataset::{PromptRow, expected, has_own_schema};
use crate::score::answer::json;
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::{Judge, SchemaFiles};
use crate::score::kinds::json_schema::judge::SchemaJudge;
use crate::score::verdict::unwrap_answer::{Read, Unreadable, Wrapping, is_fenced};
use crate::score::verdict::{Attempt, Verdict};

#[derive(Debug)]
pub(super) struct YamlJudge {
    pub(super) values: SchemaJudge,
    pub(super) files: Arc<SchemaFiles>,
}

impl YamlJudge {
    fn read<'t>(&self, text: &'t str, from: usize) -> Read<AnswerText<'t>> {
        let transcript = yaml::read(text, from, &self.files.schema)?;
        Ok(AnswerText::transcribed(text, transcript))
    }

    /// A valid answer in a fence; any prose may be YAML. `open`: start of an open think block,
    /// which hides what follows.
    fn wrapping(&self, completion: &str, from: usize, open: usize) -> Option<Wrapping> {
        let mut budget = self.values.budget(completion);
        let mut is_answer = |text: &str, start: usize| {
            let read = (start < open)
                .then(|| self.read(text, start).ok())
                .flatten();
            read.is_some_and(|answer| {
                json::parse(answer.json(), 0)
                    .is_ok_and(|document| self.values.accepts(&document.root, &mut budget))
            })
        };
        is_fenced(completion, from, &mut is_answer).then_some(Wrapping::Fence)
    }
}

/// Why the row's answers cannot be read as YAML, if so.
fn row_problem(row: &PromptRow) -> Option<String> {
    if has_own_schema(row) {
        return Some("`schema` of the row: it counts for answers in JSON, not in yaml".to_owned());
    }
    let own = row.fields.get("format").filter(|own| !own.is_null())?;
    let name = own.as_str().map_or_else(|| own.to_string(), str::to_owned);
    yaml::format_problem(&name).map(|problem| format!("the row's `format` {problem}"))
}

impl Judge for YamlJudge {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        self.read(completion, from).is_ok()
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let (completion, from) = (attempt.completion, attempt.from);
        if let Some(problem) = attempt.row.and_then(row_problem) {
            return attempt.failed(problem);
        }
        let expected = attempt.expected();
        let early = attempt.unreadable_expected();
        if let Some(verdict) = early.or_else(|| attempt.think_leak(expected)) {
            return verdict;
        }
        let unparsable = |why: Unreadable| Verdict {
            exact: expected.is_some().then_some(false),
            leaves: self.values.leaves(None, expected),
            ..attempt.unparsable(why, |open| self.wrapping(completion, from, open))
        };
        let answer = match self.read(completion, from) {
            Ok(answer) => answer,
            Err(why) => return unparsable(why),
        };
        match json::parse(answer.json(), 0) {
            Ok(document) => self.values.judge_value(&answer, &document, expected),
            Err(error) => {
                let why = Unreadable::json(answer.json(), &error);
                let offset = answer.locate(why.offset);
                unparsable(Unreadable { offset, ..why })
            }
        }
    }

    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        if let Ok(answer) = self.read(attempt.completion, attempt.from)
            && let Ok(document) = json::parse(answer.json(), 0)
        {
            let mut locate = |offset| answer.locate(offset);
            state(&document.root, (&[], ""), &mut locate, &mut found);
        }
        found
    }

    fn completion_of(&self, expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        Some(yaml::write(&expected::target(expected)))
    }

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        row_problem(row)
    }

    fn unknown_formats(&self) -> BTreeSet<String> {
        self.values.unknown_formats()
    }
}
