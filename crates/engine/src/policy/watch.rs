//! What is seen of an eval while it is sampled: answers are counted, their scores too, and stored as they end.

use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

use super::kept_answers::KeptAnswers;
use super::{EVAL_STEP, Watcher};
use crate::rollout::{EndedCompletion, Request};
use crate::run::EvalProgress;
use crate::score::{Score, Tier};

/// Called with the progress at the begin, and after each answer from another thread.
type OnProgress<'w> = Box<dyn FnMut(&EvalProgress) + Send + 'w>;

/// Watches one eval. Answers may end again where memory ran out: each counts once.
pub struct EvalWatch<'w> {
    progress: EvalProgress,
    begun: Instant,
    /// Of this turn, by prompt number and sample number.
    ended: HashSet<(u32, u32)>,
    /// Whether the score of an answer is the outcome of its prompt.
    is_scored: bool,
    /// `None` where nothing is stored.
    kept: Option<KeptAnswers>,
    on_progress: OnProgress<'w>,
}

impl<'w> EvalWatch<'w> {
    /// `progress` names the eval; `is_scored`: all rows have one turn.
    pub fn new(
        progress: EvalProgress,
        is_scored: bool,
        kept: Option<KeptAnswers>,
        on_progress: impl FnMut(&EvalProgress) + Send + 'w,
    ) -> Self {
        let (begun, ended) = (Instant::now(), HashSet::new());
        Self { progress, begun, ended, is_scored, kept, on_progress: Box::new(on_progress) }
    }

    /// Begins a turn, in which `requests` are asked, and `kept` answers with these `scores` are there already.
    pub(super) fn begin<'s>(&mut self, requests: &[Request], kept: usize, scores: impl Iterator<Item = &'s Score>) {
        self.begun = Instant::now();
        self.ended.clear();
        let asked: usize = requests.iter().map(|request| request.samples).sum();
        let EvalProgress { step, set, target, other_ranks, turn, .. } = std::mem::take(&mut self.progress);
        self.progress = EvalProgress {
            step,
            set,
            target,
            other_ranks,
            turn: if self.is_scored { 0 } else { turn + 1 },
            answers: kept,
            total: asked + kept,
            kept,
            ..EvalProgress::default()
        };
        scores.for_each(|score| self.count(score));
        (self.on_progress)(&self.progress);
    }

    /// Where answers are stored.
    pub(super) fn kept(&self) -> Option<&KeptAnswers> {
        self.kept.as_ref()
    }

    /// Ends it; returns the stored answers.
    pub fn into_kept(self) -> Option<KeptAnswers> {
        self.kept
    }

    fn count(&mut self, score: &Score) {
        if !self.is_scored || score.reward.is_nan() {
            return;
        }
        let progress = &mut self.progress;
        progress.scored += 1;
        progress.valid += usize::from(score.tier == Tier::Valid);
        progress.with_expected += usize::from(score.exact.is_some());
        progress.exact += usize::from(score.exact == Some(true));
    }
}

impl Watcher for EvalWatch<'_> {
    fn wants(&self, request: &Request) -> bool {
        request.step == EVAL_STEP
    }

    fn on_end(&mut self, ended: &EndedCompletion, score: Option<&Score>) {
        if !self.ended.insert((ended.request.prompt_number, ended.request.first_sample + ended.sample)) {
            return;
        }
        if let Some(kept) = &self.kept {
            // An answer that is not stored is asked for again, should this be interrupted.
            let _ = kept.append(ended);
        }
        if let Some(score) = score {
            self.count(score);
        }
        self.progress.answers += 1;
        self.progress.seconds = self.begun.elapsed().as_secs_f64();
        (self.on_progress)(&self.progress);
    }
}

impl fmt::Debug for EvalWatch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EvalWatch({:?})", self.progress)
    }
}
