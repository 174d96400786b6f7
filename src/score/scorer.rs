//! The scorer of a task: compiled once, then asked for every completion.

use std::collections::BTreeSet;

use super::judge::Judge;
use super::unwrap_answer::answer_start;
use super::{OrderedMap, Score, ScoreError, Tier};
use crate::dataset::PromptRow;
use crate::task::{RewardPart, Task, TierValues};

/// Scores completions of one task. Shared by threads; a score is a function of completion and row.
#[derive(Debug)]
pub struct Scorer {
    judge: Judge,
    tiers: TierValues,
    strip_thinking: bool,
    rewards: Vec<RewardPart>,
    /// Whether invalid completions get credit for what they meet.
    graded: bool,
}

impl Scorer {
    /// Checks and compiles what defines the task's right answers.
    pub fn new(task: &Task) -> Result<Self, ScoreError> {
        let rules = &task.score;
        Ok(Self {
            judge: Judge::new(task)?,
            tiers: rules.tiers,
            strip_thinking: rules.strip_thinking,
            rewards: task.rewards.iter().filter(|part| part.weight != 0.0).cloned().collect(),
            graded: rules.graded,
        })
    }

    /// Names under a schema's `format` that `assert_formats` does not check, because the validator does not know them.
    pub fn unknown_formats(&self) -> impl Iterator<Item = String> {
        let found = match &self.judge {
            Judge::JsonSchema(schema) => schema.unknown_formats(),
            _ => BTreeSet::new(),
        };
        found.into_iter()
    }

    /// The completion that gives an `expected`, for checking it and for learning from it; `None` where many may.
    pub fn expected_completion(&self, expected: &serde_json::Value) -> Option<String> {
        self.judge.completion_of(expected)
    }

    /// Scores a completion as the model wrote it. The row supplies `expected`, and what else the kind of scorer reads.
    pub fn score(&self, completion: &str, row: Option<&PromptRow>) -> Score {
        let from = answer_start(completion, self.strip_thinking);
        let found = self.judge.judge(completion, from, self.strip_thinking, row);
        let value = match found.tier {
            Tier::Unparsable => self.tiers.unparsable,
            Tier::Invalid => self.tiers.invalid,
            Tier::Valid => self.tiers.valid,
        };
        let mut score = Score {
            reward: found.reward.unwrap_or(value),
            tier: found.tier,
            tolerant: found.tolerant,
            warnings: found.warnings,
            errors: found.errors,
            fields: found.fields,
            exact: found.exact,
            failure: found.failure,
            parts: OrderedMap::default(),
            metrics: found.metrics,
        };
        if score.is_error() {
            score.reward = f64::NAN;
        } else {
            self.add_parts(&mut score, found.credit);
        }
        score
    }

    /// Graded credit stays below the next tier; weighted parts come on top.
    fn add_parts(&self, score: &mut Score, credit: Option<f64>) {
        if self.rewards.is_empty() && !self.graded {
            return;
        }
        score.parts.0.push(("tier".to_owned(), score.reward));
        if let Some(credit) = credit {
            score.reward += (self.tiers.valid - self.tiers.invalid) * credit;
            score.parts.0.push(("graded".to_owned(), credit));
        }
        for RewardPart { part, weight } in &self.rewards {
            let value = match part.as_str() {
                "fields" => score.fields.as_ref().map_or(0.0, share_equal),
                "exact" => f64::from(u8::from(score.exact == Some(true))),
                _ => f64::from(u8::from(score.tolerant)),
            };
            score.reward += weight * value;
            score.parts.0.push((part.clone(), value));
        }
    }
}

/// Of the expected fields, the share that is equal; in [0, 1].
fn share_equal(fields: &OrderedMap<bool>) -> f64 {
    let equal = fields.iter().filter(|(_, equal)| **equal).count();
    if fields.is_empty() { 0.0 } else { equal as f64 / fields.len() as f64 }
}
