//! Answers are scored while others are decoded, where a scorer runs programs or somebody watches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use candle_core::Result;

use super::{Policy, PolicyVersion};
use crate::dataset::PromptRow;
use crate::rollout::{EndedCompletion, Request, RolloutOutput, Sampling};
use crate::score::{Score, Scorer};

/// Learns of completions while others are decoded, on a thread of its own.
pub trait Watcher: Send {
    /// Whether it learns of the completions of `request`.
    fn wants(&self, request: &Request) -> bool;

    /// Learns of one, and of its score where its prompt is that of a row.
    fn on_end(&mut self, ended: &EndedCompletion, score: Option<&Score>);
}

/// A row, and the scorer that scores answers against it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRow<'a> {
    pub scorer: &'a Scorer,
    pub row: &'a PromptRow,
}

/// The rows that completions are scored against, by the tokens of their prompts.
pub type ScoredRows<'a> = HashMap<&'a [u32], ScoredRow<'a>>;

impl Policy {
    /// As [`Self::rollout`]; a scorer that runs programs begins with the completions that end first, so that it has few
    /// to answer afterwards, and so does one whose scores a `watcher` wants.
    pub fn rollout_while_scoring(
        &self,
        version: PolicyVersion,
        requests: &[Request],
        sampling: &Sampling,
        rows: &ScoredRows<'_>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<RolloutOutput> {
        let any = |of: fn(&Scorer) -> bool| rows.values().any(|row| of(row.scorer));
        // Scores that depend on the whole group wait for it.
        if any(Scorer::compares_groups) || (watcher.is_none() && !any(Scorer::runs_programs)) {
            return self.rollout(version, requests, sampling);
        }
        let (sender, finished) = channel();
        let keep_going = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let keep_going = &keep_going;
            scope.spawn(move || self.score_early(&finished, rows, keep_going, watcher));
            let _listening = self.memory.listen(sender);
            let generated = self.rollout(version, requests, sampling);
            keep_going.store(generated.is_ok(), Ordering::Relaxed);
            generated
        })
    }

    /// Asks the scorer; one that runs programs remembers its answers.
    fn score_early(
        &self,
        finished: &Receiver<EndedCompletion>,
        rows: &ScoredRows<'_>,
        keep_going: &AtomicBool,
        mut watcher: Option<&mut dyn Watcher>,
    ) {
        while let Ok(first) = finished.recv() {
            let is_watched = |ended: &EndedCompletion| match &watcher {
                Some(watcher) => watcher.wants(&ended.request),
                None => false,
            };
            let row_of = |ended: &EndedCompletion| rows.get(ended.request.prompt.as_slice()).copied();
            let runs_programs = |ended: &EndedCompletion| row_of(ended).is_some_and(|row| row.scorer.runs_programs());
            let ended: Vec<EndedCompletion> = std::iter::once(first)
                .chain(finished.try_iter())
                .filter(|ended| runs_programs(ended) || is_watched(ended))
                .collect();
            let answer = |ended: &EndedCompletion| {
                Some((self.tokenizer.decode(&ended.completion.token_ids, true).ok()?, row_of(ended)?))
            };
            let answers: Vec<Option<(String, ScoredRow<'_>)>> = ended.iter().map(answer).collect();
            let texts: Vec<_> = answers.iter().flatten().map(|(text, row)| (text.as_str(), *row)).collect();
            let goes_on = || keep_going.load(Ordering::Relaxed) && self.threads.check().is_ok();
            let scores = score_rows(&texts, goes_on);
            let (Some(scores), Some(watcher)) = (scores, watcher.as_mut()) else { continue };
            let mut scores = scores.into_iter();
            for (ended, answer) in ended.iter().zip(&answers) {
                let mut score = answer.as_ref().and_then(|_| scores.next());
                if let (Some(score), Some((_, row))) = (&mut score, answer) {
                    row.scorer.add_length(score, ended.completion.token_ids.len());
                }
                if watcher.wants(&ended.request) {
                    watcher.on_end(ended, score.as_ref());
                }
            }
        }
    }
}

/// The scores of texts, each by the scorer of its row; `None` once `goes_on` says no.
pub(super) fn score_rows(answers: &[(&str, ScoredRow<'_>)], goes_on: impl Fn() -> bool + Sync) -> Option<Vec<Score>> {
    let mut scores: Vec<Option<Score>> = vec![None; answers.len()];
    while let Some(first) = scores.iter().position(Option::is_none) {
        let scorer = answers[first].1.scorer;
        let is_its = |index: &usize| std::ptr::eq(answers[*index].1.scorer, scorer);
        let its: Vec<usize> = (first..answers.len()).filter(is_its).collect();
        let texts: Vec<_> = its.iter().map(|index| (answers[*index].0, Some(answers[*index].1.row))).collect();
        for (index, score) in its.into_iter().zip(scorer.score_while(&texts, &goes_on)?) {
            scores[index] = Some(score);
        }
    }
    scores.into_iter().collect()
}
