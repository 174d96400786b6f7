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

/// A scorer with the rows that it scores against, by the tokens of their prompts.
#[derive(Debug)]
pub struct ScoredRows<'a> {
    pub scorer: &'a Scorer,
    pub rows: HashMap<&'a [u32], &'a PromptRow>,
}

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
        // Scores that depend on the whole group wait for it.
        if rows.scorer.compares_groups() || (!rows.scorer.runs_programs() && watcher.is_none()) {
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
        ScoredRows { scorer, rows }: &ScoredRows<'_>,
        keep_going: &AtomicBool,
        mut watcher: Option<&mut dyn Watcher>,
    ) {
        while let Ok(first) = finished.recv() {
            let is_watched = |ended: &EndedCompletion| match &watcher {
                Some(watcher) => watcher.wants(&ended.request),
                None => false,
            };
            let ended: Vec<EndedCompletion> = std::iter::once(first)
                .chain(finished.try_iter())
                .filter(|ended| scorer.runs_programs() || is_watched(ended))
                .collect();
            let answer = |ended: &EndedCompletion| {
                let row = *rows.get(ended.request.prompt.as_slice())?;
                Some((self.tokenizer.decode(&ended.completion.token_ids, true).ok()?, row))
            };
            let answers: Vec<Option<(String, &PromptRow)>> = ended.iter().map(answer).collect();
            let texts: Vec<_> = answers.iter().flatten().map(|(text, row)| (text.as_str(), Some(*row))).collect();
            let goes_on = || keep_going.load(Ordering::Relaxed) && self.threads.check().is_ok();
            let scores = scorer.score_while(&texts, goes_on);
            let (Some(scores), Some(watcher)) = (scores, watcher.as_mut()) else { continue };
            let mut scores = scores.into_iter();
            for (ended, answer) in ended.iter().zip(&answers) {
                let mut score = answer.as_ref().and_then(|_| scores.next());
                if let Some(score) = &mut score {
                    scorer.add_length(score, ended.completion.token_ids.len());
                }
                if watcher.wants(&ended.request) {
                    watcher.on_end(ended, score.as_ref());
                }
            }
        }
    }
}
