//! Scoring many completions: in order, with memory for one batch, on a pool of threads with every core, or with as many
//! as `RAYON_NUM_THREADS` allows.

use rayon::prelude::*;

use crate::dataset::{NumberedLine, PromptRow};
use crate::score::scorer::Scorer;
use crate::score::threads::on_every_core;
use crate::score::verdict::Score;

/// Completions scored at once; enough to keep every core busy, few enough to hold.
const BATCH: usize = 4_096;
/// So many bytes of completions are a batch as well.
const BATCH_BYTES: usize = 256 << 20;

/// So few are scored by one thread before another one is woken: a score takes some ten microseconds.
const MAX_SERIAL_LINES: usize = 8;

impl Scorer {
    /// Scores of a batch, in order.
    pub fn score_all(&self, completions: &[(&str, Option<&PromptRow>)]) -> Vec<Score> {
        self.score_while(completions, || true).unwrap_or_default()
    }

    /// Scores as [`Self::score_all`]; returns `None` once `keep_going` returns false.
    pub fn score_while(
        &self,
        completions: &[(&str, Option<&PromptRow>)],
        keep_going: impl Fn() -> bool + Sync,
    ) -> Option<Vec<Score>> {
        if self.runs_programs() {
            return self.score_together(completions, &keep_going);
        }
        let score = |(completion, row): &(&str, Option<&PromptRow>)| {
            keep_going().then(|| self.score(completion, *row))
        };
        on_every_core(|| {
            completions
                .par_iter()
                .with_min_len(MAX_SERIAL_LINES)
                .map(score)
                .collect()
        })
    }

    /// Scores as [`Self::score_while`], of tiers alone where a judge scores a part of the reward: it is not asked.
    pub fn tiers_while(
        &self,
        completions: &[(&str, Option<&PromptRow>)],
        keep_going: impl Fn() -> bool + Sync,
    ) -> Option<Vec<Score>> {
        if !self.asks_judge() {
            return self.score_while(completions, keep_going);
        }
        let score = |completion: &(&str, Option<&PromptRow>)| {
            keep_going().then(|| self.score_alone(*completion))
        };
        on_every_core(|| {
            completions
                .par_iter()
                .with_min_len(MAX_SERIAL_LINES)
                .map(score)
                .collect()
        })
    }
}

/// Work on each line of a stream besides scoring it, spread over all cores.
#[derive(Debug)]
pub struct LineWork<T, P, W> {
    /// Reads a line. After an error nothing more is scored.
    pub read: P,
    /// Finds an item's completion and row.
    pub asked: fn(&T) -> (&str, Option<&PromptRow>),
    /// Makes of item and score what is written.
    pub write: W,
}

/// Scores lines in order, a batch at a time: `done` takes what was made of each, in their order.
pub fn score_stream<T: Send + Sync, R: Send, E: Send>(
    scorer: &Scorer,
    mut lines: impl Iterator<Item = NumberedLine>,
    work: &LineWork<T, impl Fn(NumberedLine) -> Result<T, E> + Sync, impl Fn(T, Score) -> R + Sync>,
    mut done: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes <= BATCH_BYTES {
            let Some(line) = lines.next() else { break };
            bytes += line.as_ref().map_or(0, |(_, text)| text.len());
            batch.push(line);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let read = || -> Vec<_> {
            batch
                .into_par_iter()
                .with_min_len(MAX_SERIAL_LINES)
                .map(&work.read)
                .collect()
        };
        let (mut items, mut failed) = (Vec::new(), None);
        for item in on_every_core(read) {
            match item {
                Ok(item) => items.push(item),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let scores = scorer.score_all(&items.iter().map(work.asked).collect::<Vec<_>>());
        let write = || -> Vec<R> {
            let scored = items
                .into_par_iter()
                .zip(scores)
                .with_min_len(MAX_SERIAL_LINES);
            scored
                .map(|(item, score)| (work.write)(item, score))
                .collect()
        };
        on_every_core(write).into_iter().try_for_each(&mut done)?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
}
