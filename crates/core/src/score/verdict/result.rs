//! A score as written to files and shown, and related display data.

use serde::{Deserialize, Deserializer, Serialize};

use super::failure_class::FailureClass;
use super::leaf_counts::Leaves;
use super::ordered_map::OrderedMap;
use crate::facts::{PartName, Tier, TierOutcome};
use crate::score::answer::json::Place;
use crate::task::ScoreRules;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Used in training: tier's value, graded credit, weighted parts. NaN (`null` in files) if the
    /// scorer failed.
    #[serde(deserialize_with = "null_is_nan")]
    pub reward: f64,
    pub tier: Tier,
    /// Valid, or would be without a surrounding fence or prose.
    pub tolerant: bool,
    /// Oddities that are not errors: duplicate keys.
    pub warnings: Vec<String>,
    /// Why it is not valid; for valid calls and queries, differences from `expected`.
    pub errors: Vec<Reason>,
    /// Each top-level field of the row's `expected`: equal or not. `None` if unparsable or without
    /// `expected`.
    pub fields: Option<OrderedMap<bool>>,
    /// Valid and equal to `expected` in every field, without others; `None` without `expected`.
    pub exact: Option<bool>,
    pub failure: Option<FailureClass>,
    /// Parts of the reward by name, unweighted: `tier`, `graded`, and those of `[[reward]]`.
    pub parts: OrderedMap<f64>,
    #[serde(default, skip_serializing_if = "OrderedMap::is_empty")]
    pub metrics: OrderedMap<f64>,
    /// The leaves of the answer, where they earn credit one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Leaves>,
    /// Values of the answer that the prompt states (part `grounded`), with places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grounded: Vec<GroundedValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<CriterionGrade>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriterionGrade {
    /// Prefixed with the part's name, if a part is judged.
    pub name: String,
    /// From 0 to `max_points`.
    pub points: u8,
    /// 1 (yes or no) or 4.
    pub max_points: u8,
    pub reason: String,
}

/// A value of an answer, and its place in the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroundedValue {
    pub instance_path: String,
    /// 1-based line in the raw completion.
    pub line: usize,
    /// 1-based column in Unicode scalars of the raw completion.
    pub column: usize,
    pub prompt: PromptPlace,
}

/// A place in a message of the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptPlace {
    /// Index among the row's messages, from 0.
    pub message: usize,
    /// 1-based line in the message.
    pub line: usize,
    /// 1-based column in Unicode scalars.
    pub column: usize,
    pub excerpt: String,
    /// Start of the value in the excerpt, in Unicode scalars.
    pub start: usize,
    /// Length of the value in Unicode scalars.
    pub length: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    pub columns: Vec<String>,
    /// The first ones.
    pub rows: Vec<Vec<String>>,
    pub count: usize,
}

#[derive(Debug, Clone)]
pub struct Trial {
    /// The `[[reward]]` that it scores; `None` for `[score]`.
    pub part: Option<String>,
    pub asked: String,
    /// Its standard output; of a code checker also standard error.
    pub output: String,
    /// Tail of its standard error.
    pub complaint: String,
    pub seconds: f64,
    pub score: Score,
}

/// Mean of known rewards; NaN if there are none.
pub fn mean_reward(rewards: impl Iterator<Item = f64>) -> f64 {
    let scored = rewards.filter(|reward| reward.is_finite());
    let (sum, count) = scored.fold((0.0, 0.0), |(sum, count), reward| {
        (sum + reward, count + 1.0)
    });
    sum / count
}

/// A missing number is NaN, not zero.
pub(crate) fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Score {
    pub fn is_error(&self) -> bool {
        self.failure.is_some_and(FailureClass::is_unscored)
    }

    /// Appends it as JSON, on one line. Compiled here, where it is optimised.
    pub fn write_json(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(to, self)
    }

    /// Whether a conversation continues after this answer.
    pub fn goes_on(&self, rules: &ScoreRules) -> bool {
        !self.is_error() && (self.tier == Tier::Valid || rules.continue_after_failure)
    }

    /// Explains an invalid completion that its constraint cut off after `tokens`.
    pub fn name_failed_constraint(&mut self, tokens: usize) {
        if self.tier == Tier::Valid || self.is_error() {
            return;
        }
        self.failure = Some(FailureClass::Constraint);
        let message =
            format!("the constraint failed after {tokens} tokens: simplify the schema or pattern");
        self.errors
            .insert(0, Reason::at(message, Place { line: 1, column: 1 }));
    }

    pub fn outcome(&self) -> TierOutcome {
        TierOutcome::new(self.tier, self.is_error())
    }

    pub fn reward_text(&self) -> String {
        if self.reward.is_nan() {
            "n/a".to_owned()
        } else {
            format!("{:.3}", self.reward)
        }
    }

    pub(crate) fn part(&self, name: PartName) -> Option<f64> {
        self.parts.get(name.name()).copied()
    }

    pub(crate) fn add_part(&mut self, name: PartName, value: f64) {
        self.parts.0.push((name.name().to_owned(), value));
    }

    /// Whether no completion of the row can earn more: top tier, and every weighted part in full.
    /// Without `expected`, parts that compare with it do not count. Unscored completions are left
    /// out of their group.
    pub fn is_max(&self) -> bool {
        if self.is_error() {
            return true;
        }
        let has_fields = self
            .fields
            .as_ref()
            .is_some_and(|fields| !fields.is_empty());
        self.tier == Tier::Valid
            && self
                .parts
                .iter()
                .all(|(name, value)| match PartName::from_name(name) {
                    Some(PartName::Fields) => !has_fields || *value >= 1.0,
                    Some(PartName::Exact) => self.exact != Some(false),
                    Some(PartName::Tier | PartName::Graded | PartName::Tolerant) => true,
                    _ => *value >= 1.0,
                })
    }

    /// Whether no completion can earn less: lowest tier, and nothing from weighted parts except
    /// length.
    pub fn is_min(&self) -> bool {
        self.is_error()
            || (self.tier == Tier::Unparsable || self.part(PartName::Score) == Some(0.0))
                && self.parts.iter().all(|(name, value)| {
                    let own = PartName::from_name(name);
                    matches!(own, Some(PartName::Tier | PartName::Length)) || *value == 0.0
                })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub message: String,
    /// JSON pointer to the faulty value; empty for the whole.
    pub instance_path: String,
    /// JSON pointer to the schema's keyword; empty if the text is not JSON, and for other scorers.
    pub schema_path: String,
    /// 1-based line in the raw completion.
    pub line: usize,
    /// 1-based column in Unicode scalars of the raw completion.
    pub column: usize,
    /// Says why a judge gave a criterion less than all points: its [`CriterionGrade`] has the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_criterion: bool,
}

impl Reason {
    /// Shifts a position in a text that begins at `start`.
    pub(crate) fn move_to(&mut self, start: Place) {
        if self.line == 1 {
            self.column += start.column - 1;
        }
        self.line += start.line - 1;
    }

    /// A sentence about a place of the completion.
    pub(crate) fn at(message: String, Place { line, column }: Place) -> Self {
        Self {
            message,
            instance_path: String::new(),
            schema_path: String::new(),
            line,
            column,
            is_of_criterion: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_the_top_tier_with_every_part_that_can_be_earned() {
        let check = |tier, exact, fields: Option<&[bool]>, parts: &[(&str, f64)], expected| {
            let named = |equal: &[bool]| {
                OrderedMap(equal.iter().map(|equal| ("f".to_owned(), *equal)).collect())
            };
            let score = Score {
                reward: 0.9,
                tier,
                tolerant: true,
                warnings: Vec::new(),
                errors: Vec::new(),
                fields: fields.map(named),
                leaves: None,
                exact,
                failure: None,
                parts: OrderedMap(
                    parts
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), *value))
                        .collect(),
                ),
                metrics: OrderedMap::default(),
                grounded: Vec::new(),
                criteria: Vec::new(),
            };
            assert_eq!(score.is_max(), expected, "{score:?}");
            assert_eq!(
                score.is_min(),
                tier == Tier::Unparsable && parts.iter().all(|(_, value)| *value == 0.0),
                "{score:?}"
            );
        };
        check(Tier::Valid, None, None, &[], true);
        check(Tier::Invalid, None, None, &[], false);
        // Without a part for values, wrong ones cost nothing.
        check(Tier::Valid, Some(false), Some(&[true, false]), &[], true);
        check(
            Tier::Valid,
            Some(false),
            Some(&[true, false]),
            &[("tier", 1.0), ("fields", 0.5)],
            false,
        );
        check(
            Tier::Valid,
            Some(true),
            Some(&[true, true]),
            &[("tier", 1.0), ("fields", 1.0), ("exact", 1.0)],
            true,
        );
        check(
            Tier::Valid,
            Some(false),
            Some(&[true, true]),
            &[("tier", 1.0), ("exact", 0.0)],
            false,
        );
        // A row without `expected` cannot earn them.
        check(
            Tier::Valid,
            None,
            None,
            &[("tier", 1.0), ("fields", 0.0), ("exact", 0.0)],
            true,
        );
        check(
            Tier::Invalid,
            Some(false),
            Some(&[true]),
            &[("tier", 0.5), ("fields", 1.0)],
            false,
        );
        check(Tier::Unparsable, None, None, &[("tolerant", 0.0)], false);
        check(Tier::Unparsable, None, None, &[("tolerant", 1.0)], false);
    }
}
