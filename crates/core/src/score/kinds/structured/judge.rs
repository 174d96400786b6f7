//! Judges an answer in its notation as JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::notation::{Notation, StructuredRules};
use crate::dataset::{PromptRow, expected, has_own_schema};
use crate::score::answer::json;
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::Judge;
use crate::score::kinds::json_schema::judge::SchemaJudge;
use crate::score::verdict::unwrap_answer::{Read, Unreadable, Wrapping, is_fenced};
use crate::score::verdict::{Attempt, Verdict};

#[derive(Debug)]
pub(super) struct Structured {
    pub(super) values: SchemaJudge,
    pub(super) rules: StructuredRules,
}

impl Structured {
    fn read<'t>(&self, notation: Notation, text: &'t str, from: usize) -> Read<AnswerText<'t>> {
        notation.read(
            text,
            from,
            &self.rules.files.schema,
            self.rules.root.as_deref(),
        )
    }

    /// Finds a valid answer in a fence or between prose. `open`: start of an open think block,
    /// which hides what follows.
    fn wrapping(
        &self,
        completion: &str,
        from: usize,
        open: usize,
        notation: Notation,
    ) -> Option<Wrapping> {
        let mut budget = self.values.budget(completion);
        let mut is_answer = |text: &str, start: usize| {
            let read = if start < open {
                self.read(notation, text, start).ok()
            } else {
                None
            };
            read.is_some_and(|answer| {
                json::parse(answer.json(), 0)
                    .is_ok_and(|document| self.values.accepts(&document.root, &mut budget))
            })
        };
        if is_fenced(completion, from, &mut is_answer) {
            return Some(Wrapping::Fence);
        }
        let (start, end) = notation.span(completion, from)?;
        is_answer(completion.get(..end)?, start).then_some(Wrapping::Prose)
    }
}

impl Judge for Structured {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        match self.rules.notation {
            Some(Notation::Json) => self.values.can_read(completion, from),
            Some(notation) => self.read(notation, completion, from).is_ok(),
            None => true,
        }
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let (completion, from) = (attempt.completion, attempt.from);
        let notation = match self.rules.notation_of(attempt.row) {
            Ok(Notation::Json) => return self.values.judge(attempt),
            Ok(notation) => notation,
            Err(problem) => return attempt.failed(problem),
        };
        let expected = attempt.expected();
        let early = attempt.unreadable_expected();
        if let Some(verdict) = early.or_else(|| attempt.think_leak(expected)) {
            return verdict;
        }
        let unparsable = |why: Unreadable| Verdict {
            exact: expected.is_some().then_some(false),
            leaves: self.values.leaves(None, expected),
            ..attempt.unparsable(why, |open| self.wrapping(completion, from, open, notation))
        };
        let answer = match self.read(notation, completion, from) {
            Ok(answer) => answer,
            Err(why) => return unparsable(why),
        };
        match json::parse(answer.json(), 0) {
            Ok(document) => self.values.judge_value(&answer, &document, expected),
            Err(error) => {
                let why = Unreadable::json(answer.json(), &error);
                unparsable(Unreadable {
                    offset: answer.locate(why.offset),
                    ..why
                })
            }
        }
    }

    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        let answer = match self.rules.notation_of(attempt.row) {
            Ok(Notation::Json) => return self.values.stated_values(attempt),
            Ok(notation) => self.read(notation, attempt.completion, attempt.from).ok(),
            Err(_) => None,
        };
        let document = answer
            .as_ref()
            .and_then(|answer| Some((answer, json::parse(answer.json(), 0).ok()?)));
        if let Some((answer, document)) = document {
            state(
                &document.root,
                (&[], ""),
                &mut |offset| answer.locate(offset),
                &mut found,
            );
        }
        found
    }

    fn completion_of(&self, expected: &Value, row: Option<&PromptRow>) -> Option<String> {
        self.rules
            .notation_of(row)
            .ok()?
            .write(&expected::target(expected), self.rules.root_name())
    }

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        match self.rules.notation_of(Some(row)) {
            Ok(Notation::Json) => self.values.row_problem(row),
            Ok(notation) => has_own_schema(row).then(|| {
                let name = notation.name();
                format!("`schema` of the row: it counts for answers in JSON, not in {name}")
            }),
            Err(_) => None,
        }
    }

    fn unknown_formats(&self) -> BTreeSet<String> {
        self.values.unknown_formats()
    }
}
