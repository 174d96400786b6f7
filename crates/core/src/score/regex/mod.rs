//! `[score] kind = "regex"`: the answer matches a pattern, whose named groups are the fields of `expected`.

mod shortest_match;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::audit::{BY_EXPECTED, plain_answers, prompt_itself};
use super::definition::{
    Definition, FoundDefinition, Judge, KeyInfo, Kind, LazyAnswer, NORMALISE, text_digest,
};
use super::field_compare::{Rules, equal_text};
use super::grammar::Grammar;
use super::judge::judge_text;
use super::unwrap_answer::ThinkRules;
use super::verdict::Verdict;
use super::{FailureClass, OrderedMap, ScoreError, Tier, outline_entry};
use crate::dataset::PromptRow;
use crate::format::shortened;
use crate::task::{ALL_FIELDS, Home, Read, Section, TaskFiles};

use shortest_match::shortest_match;

pub(crate) static KIND: Kind = Kind {
    name: "regex",
    keys: &[],
    score_keys: &[
        KeyInfo::new(
            "pattern",
            "",
            "the regular expression; its named groups are the fields of `expected`",
        ),
        NORMALISE,
    ],
    read,
};

#[derive(Debug)]
struct Pattern(regex::Regex);

fn read(_top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let example = r"pattern = '^\d{4}-\d{2}$'";
    let pattern = score
        .string("pattern")?
        .ok_or_else(|| home.missing("score.pattern", example))?;
    let compiled = regex::Regex::new(&pattern).map_err(|error| {
        // Its last line says what is wrong, those above show where.
        let text = error.to_string();
        let message = text
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        let offset = score.get("pattern").map_or(0, |(_, offset)| offset);
        score.error(
            "pattern",
            offset,
            format!("is not a valid regular expression: {message}, in {pattern:?}"),
        )
    })?;
    Ok((Arc::new(Pattern(compiled)), None))
}

impl Definition for Pattern {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(Regex {
            pattern: self.0.clone(),
            normalise: Rules::new(&task.score.normalise),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(Value::Bool(true))
    }

    fn summary(&self, task: &TaskFiles) -> String {
        let group = |(group, names): (&String, &String)| {
            format!("; {group}{}", outline_entry::normalised(names))
        };
        format!(
            "a text with a match for {}{}",
            self.0,
            task.score.normalise.iter().map(group).collect::<String>()
        )
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let shortest = shortest_match(self.0.as_str());
        let shortest = shortest.map(|text| LazyAnswer::same("a shortest match", text, BY_EXPECTED));
        plain_answers(task)
            .into_iter()
            .chain(shortest)
            .chain(prompt_itself(rows))
            .collect()
    }

    fn digest(&self, _task: &TaskFiles) -> String {
        text_digest(&format!("regex\n{}", self.0))
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        Some(Grammar::Pattern(self.0.as_str()))
    }
}

#[derive(Debug)]
struct Regex {
    pattern: regex::Regex,
    normalise: Rules,
}

impl Judge for Regex {
    fn judge(
        &self,
        completion: &str,
        from: usize,
        thoughts: ThinkRules,
        row: Option<&PromptRow>,
    ) -> Verdict {
        let expected = row.and_then(|row| row.expected.as_ref());
        judge_text(completion, from, thoughts, expected, |offset, answer| {
            self.judge_answer((completion, offset), answer, expected)
        })
    }

    /// The text that a pattern is to match, it matches alone.
    fn completion_of(&self, expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        expected.as_str().map(str::to_owned)
    }
}

impl Regex {
    /// `answer` begins at byte `offset` of the completion and is not empty.
    fn judge_answer(
        &self,
        (completion, offset): (&str, usize),
        answer: &str,
        expected: Option<&Value>,
    ) -> Verdict {
        let Some(found) = self.pattern.captures(answer) else {
            let message = format!(
                "no match for the pattern {}",
                shortened(self.pattern.as_str(), 80)
            );
            let class = FailureClass::NoMatch;
            let verdict = Verdict::because(Tier::Invalid, class, message, (completion, offset));
            return Verdict {
                exact: expected.map(|_| false),
                ..verdict
            };
        };
        let Some(expected) = expected else {
            return Verdict::new(Tier::Valid, None);
        };
        let (fields, exact) = match expected.as_object() {
            Some(members) => {
                let is_equal = |name: &String, expected: &Value| {
                    let rule = self.normalise.for_field(name);
                    found
                        .name(name)
                        .is_some_and(|group| equal_text(group.as_str(), expected, rule))
                };
                let fields: Vec<_> = members
                    .iter()
                    .map(|(name, expected)| (name.clone(), is_equal(name, expected)))
                    .collect();
                let all = fields.iter().all(|(_, equal)| *equal);
                (Some(OrderedMap(fields)), all)
            }
            None => (
                None,
                equal_text(&found[0], expected, self.normalise.for_field(ALL_FIELDS)),
            ),
        };
        let failure = (!exact).then_some(FailureClass::WrongValue);
        Verdict {
            fields,
            exact: Some(exact),
            ..Verdict::new(Tier::Valid, failure)
        }
    }
}
