//! Scores many completions in order, batch by batch, on all cores or `RAYON_NUM_THREADS`.

use rayon::prelude::*;

use crate::dataset::{NumberedLine, PromptRow};
use crate::score::scorer::Scorer;
use crate::score::threads::on_every_core;
use crate::score::verdict::Score;

/// Completions per batch: enough for all cores, few enough for memory.
const BATCH: usize = 4_096;
const BATCH_BYTES: usize = 256 << 20;

/// Up to this many are scored on one thread: a score takes some ten microseconds.
const MAX_SERIAL_LINES: usize = 8;

impl Scorer {
    pub fn score_all(&self, completions: &[(&str, Option<&PromptRow>)]) -> Vec<Score> {
        self.score_while(completions, || true).unwrap_or_default()
    }

    /// As [`Self::score_all`]; `None` once `keep_going` returns false.
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

    /// As [`Self::score_while`], for tiers only: judges of reward parts are not asked.
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

/// Per-line work around scoring, spread over all cores.
#[derive(Debug)]
pub struct LineWork<T, P, W> {
    pub read: P,
    pub asked: fn(&T) -> (&str, Option<&PromptRow>),
    pub write: W,
}

/// Scores lines in order, batch by batch; `done` gets the outputs in order.
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
