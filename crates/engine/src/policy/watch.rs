//! Observes conversations during sampling: counts those of an eval as they end.

use std::fmt;
use std::time::Instant;

use super::Conversation;
use crate::files::failpoint;
use crate::run::{EvalProgress, EvalRecord};
use crate::score::{Score, Tier};

/// Called on its own thread while others are decoded.
pub trait Watcher: Send {
    /// Number of conversations.
    fn begin(&mut self, _total: usize) {}

    /// A conversation has ended, scored. A watcher that takes it leaves the rollout an empty one.
    fn on_end(&mut self, question: usize, sample: usize, conversation: &mut Conversation);
}

/// Called at the start, and after each answer from another thread.
type OnProgress<'w> = Box<dyn FnMut(&EvalProgress) + Send + 'w>;
/// Record of a question's answer, by question index.
type RecordOf<'w> = Box<dyn Fn(usize, &Conversation) -> Option<EvalRecord> + Send + 'w>;

pub struct EvalWatch<'w> {
    progress: EvalProgress,
    begun: Instant,
    /// Whether an answer's score is its prompt's outcome.
    is_scored: bool,
    on_progress: OnProgress<'w>,
    /// `None`: answers are not shown.
    record_of: Option<RecordOf<'w>>,
}

impl<'w> EvalWatch<'w> {
    /// `progress` names the eval; `is_scored`: all rows have one turn.
    pub fn new(
        progress: EvalProgress,
        is_scored: bool,
        on_progress: impl FnMut(&EvalProgress) + Send + 'w,
    ) -> Self {
        Self {
            progress,
            begun: Instant::now(),
            is_scored,
            on_progress: Box::new(on_progress),
            record_of: None,
        }
    }

    /// Shows the latest answers in the progress.
    #[must_use]
    pub fn showing(
        self,
        record_of: impl Fn(usize, &Conversation) -> Option<EvalRecord> + Send + 'w,
    ) -> Self {
        Self {
            record_of: Some(Box::new(record_of)),
            ..self
        }
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
    fn begin(&mut self, total: usize) {
        self.begun = Instant::now();
        self.progress.total = total;
        (self.on_progress)(&self.progress);
    }

    fn on_end(&mut self, question: usize, _: usize, conversation: &mut Conversation) {
        let record_of = self.record_of.as_ref();
        let record = record_of.and_then(|record_of| record_of(question, conversation));
        record.into_iter().for_each(|one| self.progress.show(one));
        failpoint("eval.answer", "");
        if let [turn] = &conversation.turns[..] {
            self.count(&turn.score);
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
