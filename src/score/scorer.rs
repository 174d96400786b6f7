//! The scorer of a task: compiled once, then asked for every completion.

use std::collections::BTreeSet;

use super::judge::Judge;
use super::unwrap_answer::answer_start;
use super::verdict::Verdict;
use super::{OrderedMap, Score, ScoreError, Tier};
use crate::dataset::PromptRow;
use crate::task::{RewardPart, Task, TierValues};

/// The scorer failed more often than `max_scorer_errors` allows.
#[derive(Debug, thiserror::Error)]
#[error(
    "the scorer failed on {failed} of {all} completions, more than max_scorer_errors allows: {reason}; mend it, try it with `grpo-tui score`, then start again"
)]
pub struct ScorerErrors {
    pub failed: usize,
    pub all: u32,
    /// Of the first.
    pub reason: String,
}

/// Scores completions of one task. Shared by threads; a score is a function of completion and row.
#[derive(Debug)]
pub struct Scorer {
    judge: Judge,
    tiers: TierValues,
    strip_thinking: bool,
    rewards: Vec<RewardPart>,
    /// Whether invalid completions get credit for what they meet.
    graded: bool,
    most_errors: f64,
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
            most_errors: rules.max_scorer_errors,
        })
    }

    /// Refuses scores of which too many are errors of the scorer: what remains says little about the model.
    pub fn check_errors<'s>(&self, scores: impl Iterator<Item = &'s Score>) -> Result<(), ScorerErrors> {
        let (mut all, mut failed) = (0, Vec::new());
        for score in scores {
            all += 1;
            failed.extend(score.is_error().then_some(score));
        }
        match failed.first() {
            Some(first) if failed.len() as f64 > self.most_errors * f64::from(all) => {
                let reason = first.errors.first().map_or_else(String::new, |reason| reason.message.clone());
                Err(ScorerErrors { failed: failed.len(), all, reason })
            }
            _ => Ok(()),
        }
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
        self.score_of(self.judge.judge(completion, from, self.strip_thinking, row))
    }

    /// Scores of completions that the judge wants together; `None` for one that does not, the inner `None` once
    /// `is_wanted` returns false.
    pub(super) fn score_together(
        &self,
        completions: &[(&str, Option<&PromptRow>)],
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Option<Option<Vec<Score>>> {
        let start = |text: &str| answer_start(text, self.strip_thinking);
        let placed: Vec<_> = completions.iter().map(|(text, row)| (*text, start(text), *row)).collect();
        let verdicts = self.judge.judge_together(&placed, self.strip_thinking, is_wanted)?;
        Some(verdicts.map(|verdicts| verdicts.into_iter().map(|verdict| self.score_of(verdict)).collect()))
    }

    fn score_of(&self, found: Verdict) -> Score {
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
            score.parts.0.extend(found.reward.map(|reward| ("score".to_owned(), reward)));
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
        if let Some(credit) = credit.filter(|_| self.graded) {
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
