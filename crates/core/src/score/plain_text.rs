//! Judges answers that are plain text: equal to `expected`, or matched by a pattern.

use serde_json::Value;

use super::field_compare::{Normalisation, Rules, equal_text};
use super::verdict::Verdict;
use super::{FailureClass, OrderedMap, ScoreError, Tier};
use crate::task::{ALL_FIELDS, Task};

/// The answer is `expected`, or one of its list.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) normalise: Normalisation,
}

impl Text {
    /// `answer` begins at byte `offset` of the completion and is not empty.
    pub(super) fn judge(&self, (completion, offset): (&str, usize), answer: &str, expected: Option<&Value>) -> Verdict {
        let Some(expected) = expected else { return Verdict::new(Tier::Valid, None) };
        let allowed = expected.as_array().map_or(std::slice::from_ref(expected), Vec::as_slice);
        if allowed.iter().any(|allowed| equal_text(answer, allowed, self.normalise)) {
            return Verdict { exact: Some(true), ..Verdict::new(Tier::Valid, None) };
        }
        let message = format!("expected {}, found {:?}", shorten(&expected.to_string()), shorten(answer));
        let class = FailureClass::WrongValue;
        Verdict { exact: Some(false), ..Verdict::because(Tier::Invalid, class, message, (completion, offset)) }
    }

    /// The first allowed answer.
    pub(super) fn completion_of(expected: &Value) -> Option<String> {
        let first = expected.as_array().map_or(Some(expected), |allowed| allowed.first())?;
        Some(first.as_str().map_or_else(|| first.to_string(), str::to_owned))
    }
}

/// The answer matches; named groups are fields.
#[derive(Debug)]
pub(super) struct Regex {
    pattern: regex::Regex,
    normalise: Rules,
}

impl Regex {
    pub(super) fn new(task: &Task, pattern: &str) -> Result<Self, ScoreError> {
        let compiled = regex::Regex::new(pattern).map_err(|error| ScoreError::Reference {
            label: task.label(&task.definition_file),
            message: error.to_string(),
        })?;
        Ok(Self { pattern: compiled, normalise: Rules::new(&task.score.normalise) })
    }

    /// `answer` begins at byte `offset` of the completion and is not empty.
    pub(super) fn judge(&self, (completion, offset): (&str, usize), answer: &str, expected: Option<&Value>) -> Verdict {
        let Some(found) = self.pattern.captures(answer) else {
            let message = format!("no match for the pattern {}", shorten(self.pattern.as_str()));
            let class = FailureClass::NoMatch;
            let verdict = Verdict::because(Tier::Invalid, class, message, (completion, offset));
            return Verdict { exact: expected.map(|_| false), ..verdict };
        };
        let Some(expected) = expected else { return Verdict::new(Tier::Valid, None) };
        let (fields, exact) = match expected.as_object() {
            Some(members) => {
                let is_equal = |name: &String, expected: &Value| {
                    let rule = self.normalise.for_field(name);
                    found.name(name).is_some_and(|group| equal_text(group.as_str(), expected, rule))
                };
                let fields: Vec<_> =
                    members.iter().map(|(name, expected)| (name.clone(), is_equal(name, expected))).collect();
                let all = fields.iter().all(|(_, equal)| *equal);
                (Some(OrderedMap(fields)), all)
            }
            None => (None, equal_text(&found[0], expected, self.normalise.for_field(ALL_FIELDS))),
        };
        let failure = (!exact).then_some(FailureClass::WrongValue);
        Verdict { fields, exact: Some(exact), ..Verdict::new(Tier::Valid, failure) }
    }
}

fn shorten(text: &str) -> String {
    crate::format::shortened(text, 80)
}
