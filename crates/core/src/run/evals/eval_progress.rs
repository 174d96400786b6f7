//! How far the eval under way is: what a worker says of it in `state.json`.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::task::SetName;

/// The answers by which the time left is estimated, at least: prompts are answered side by side, so the first one takes
/// nearly as long as many.
const MIN_ANSWERS: usize = 8;

/// The most answers that are shown while an eval is sampled, and the most characters of each.
const MAX_SHOWN: usize = 16;
const MAX_SHOWN_CHARS: usize = 2000;

/// The eval that a worker is sampling. An answer is the completion of a prompt; a conversation counts once it has ended,
/// at an endpoint each turn by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalProgress {
    /// The step of a run's eval; `None` in a standalone eval.
    pub step: Option<u64>,
    pub set: SetName,
    /// `base` or `trained`; of a standalone eval the name of the model.
    pub target: String,
    /// From 1, at an endpoint; 0 where the rows have one turn, and for models on this machine.
    pub turn: usize,
    /// So far, those of an interrupted worker included.
    pub answers: usize,
    /// All that are asked for; of several ranks those of rank 0.
    pub total: usize,
    /// Ranks that answer as many besides.
    pub other_ranks: usize,
    /// How many of `answers` come from an interrupted worker.
    pub kept: usize,
    /// Since the first prompt was asked, until the last answer.
    pub seconds: f64,
    /// Answers with a score; 0 for rows of several turns, whose outcome is known at their end.
    pub scored: usize,
    /// How many of `scored` are valid.
    pub valid: usize,
    /// How many of `scored` have an expected value.
    pub with_expected: usize,
    /// How many of `with_expected` are exact.
    pub exact: usize,
    /// The latest answers of the base, newest first and shortened, for those who wait for step 1; empty in other evals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latest: Vec<EvalRecord>,
}

impl EvalProgress {
    /// Answers per second; `None` before the first.
    pub fn rate(&self) -> Option<f64> {
        let answers = self.answers.saturating_sub(self.kept);
        (answers > 0 && self.seconds > 0.0).then(|| answers as f64 / self.seconds)
    }

    /// Adds to the latest answers; a long text is truncated, and what came before an answer is left out.
    pub fn show(&mut self, mut record: EvalRecord) {
        if let Some((end, _)) = record.completion.char_indices().nth(MAX_SHOWN_CHARS) {
            record.completion.truncate(end);
            record.completion.push('…');
        }
        (record.chain, record.turns) = Default::default();
        self.latest.insert(0, record);
        self.latest.truncate(MAX_SHOWN);
    }

    /// By the rate so far; `None` before there is one to speak of.
    pub fn seconds_left(&self) -> Option<f64> {
        let is_early = self.answers.saturating_sub(self.kept) < MIN_ANSWERS.min(self.total);
        self.rate()
            .filter(|_| !is_early)
            .map(|rate| self.total.saturating_sub(self.answers) as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answers_are_few_and_short() {
        let mut progress = EvalProgress::default();
        for number in 0..MAX_SHOWN + 3 {
            progress.show(EvalRecord {
                prompt_id: format!("p{number}"),
                completion: "é".repeat(MAX_SHOWN_CHARS + number % 2),
                ..EvalRecord::default()
            });
        }
        let ids: Vec<&str> = progress
            .latest
            .iter()
            .map(|answer| answer.prompt_id.as_str())
            .collect();
        assert_eq!((ids.len(), ids[0], ids[15]), (MAX_SHOWN, "p18", "p3"));
        let lengths = |answer: &EvalRecord| answer.completion.chars().count();
        assert_eq!(lengths(&progress.latest[0]), MAX_SHOWN_CHARS);
        assert!(progress.latest[1].completion.ends_with("é…"));
        assert_eq!(lengths(&progress.latest[1]), MAX_SHOWN_CHARS + 1);
    }
}
