//! `[score] kind = "regex"`: the answer matches a pattern, whose named groups are the fields of
//! `expected`.

mod shortest_match;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::dataset::PromptRow;
use crate::dataset::expected::{self, Expectation, alternatives};
use crate::format::shortened;
use crate::score::definition::lazy_answers::{
    BY_EXPECTED, LazyAnswer, plain_answers, prompt_itself,
};
use crate::score::definition::{
    ALIASES, Definition, FoundDefinition, Grammar, Judge, KeyInfo, Kind, NORMALISE, TOLERANCE,
    text_digest,
};
use crate::score::error::ScoreError;
use crate::score::verdict::field_compare::equal_text;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::{Attempt, FailureClass, OrderedMap, Tier, Verdict};
use crate::task::{Home, Read, Section, TaskFiles};
use shortest_match::shortest_match;

pub(crate) static KIND: Kind = Kind {
    name: "regex",
    about: include_str!("about.md"),
    keys: &[],
    score_keys: &[
        KeyInfo::new(
            "pattern",
            "",
            "the regular expression; its named groups are the fields of `expected`",
        ),
        NORMALISE,
        TOLERANCE,
        ALIASES,
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
        // The last line is the message, those above show the place.
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
            normalise: Rules::new(&task.score),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(Value::Bool(true))
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
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let expected = attempt.row.and_then(|row| self.compared(row));
        attempt.judge_text(expected, |offset, answer| {
            let place = (attempt.completion, offset);
            let Some(expected) = expected else {
                return self.judge_answer(place, answer, None);
            };
            if let Err(why) = self.check_expected(expected) {
                return Verdict::failed(why, place);
            }
            // The first of the nearest.
            let all = alternatives(expected)
                .into_iter()
                .rev()
                .map(|one| self.judge_answer(place, answer, Some(one)));
            let nearness = |verdict: &Verdict| {
                let fields = verdict.fields.iter().flat_map(|fields| fields.iter());
                (verdict.exact, fields.filter(|(_, same)| **same).count())
            };
            all.max_by_key(nearness)
                .unwrap_or_else(|| self.judge_answer(place, answer, None))
        })
    }

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        self.check_expected(self.compared(row)?).err()
    }

    fn completion_of(&self, expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        expected::target(expected).as_str().map(str::to_owned)
    }
}

impl Regex {
    /// The row's `expected`; `None` for an object, if the pattern has no groups to compare.
    fn compared<'r>(&self, row: &'r PromptRow) -> Option<&'r Value> {
        let expected = row.expected.as_ref()?;
        let has_groups = || self.pattern.capture_names().flatten().next().is_some();
        let is_object = |one: &Value| {
            matches!(
                Expectation::from_value(one),
                Expectation::Plain(Value::Object(_))
            )
        };
        (has_groups() || !alternatives(expected).into_iter().all(is_object)).then_some(expected)
    }

    /// # Errors
    /// No answer can equal it: it names an unknown group, or contains lists.
    fn check_expected(&self, expected: &Value) -> Result<(), String> {
        let refuse = |why: String| Err(format!("the row's `expected`: {why}"));
        if let Some(problem) = expected::problem(expected) {
            return refuse(problem);
        }
        let is_text = |value: &Value| {
            let all = alternatives(value);
            !all.iter().any(|one| one.is_array() || one.is_object())
        };
        for one in alternatives(expected) {
            let Expectation::Plain(Value::Object(members)) = Expectation::from_value(one) else {
                if !is_text(one) {
                    let shown = shortened(&one.to_string(), 60);
                    return refuse(format!(
                        "takes a text, or an object with the pattern's groups, not {shown}"
                    ));
                }
                continue;
            };
            for (name, value) in members {
                let mut groups = self.pattern.capture_names().flatten();
                if !groups.any(|group| group == name) {
                    let groups: Vec<&str> = self.pattern.capture_names().flatten().collect();
                    return refuse(match groups.as_slice() {
                        [] => {
                            format!("no group {name:?}; the pattern has none: write (?P<NAME>..)")
                        }
                        groups => {
                            format!("no group {name:?}; the pattern has {}", groups.join(", "))
                        }
                    });
                }
                let value = match Expectation::from_value(value) {
                    Expectation::Optional(value) => value,
                    _ => value,
                };
                if !is_text(value) {
                    let shown = shortened(&value.to_string(), 60);
                    return refuse(format!("the group {name:?} is a text, not {shown}"));
                }
            }
        }
        Ok(())
    }

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
        let (fields, exact) = match Expectation::from_value(expected) {
            Expectation::Plain(Value::Object(members)) => {
                let is_equal = |name: &String, expected: &Value| {
                    let rule = self.normalise.root().member(name);
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
            _ => (None, equal_text(&found[0], expected, self.normalise.root())),
        };
        let failure = (!exact).then_some(FailureClass::WrongValue);
        Verdict {
            fields,
            exact: Some(exact),
            ..Verdict::new(Tier::Valid, failure)
        }
    }
}
