//! Scores many completions in order, batch by batch, on all cores or `RAYON_NUM_THREADS`.

use std::ops::Range;

use rayon::prelude::*;

use crate::dataset::{NumberedLine, PromptRow};
use crate::score::scorer::Scorer;
use crate::score::threads::on_every_core;
use crate::score::verdict::{Sampled, Score};

/// Completions per batch: enough for all cores, few enough for memory.
const BATCH: usize = 4_096;
const BATCH_BYTES: usize = 256 << 20;
/// Completions scored one after the other on one thread, whose output is one text: a score takes some microseconds, but few slow ones are to occupy all cores.
const CHUNK: usize = 8;

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
            let unknown = completions.iter().map(|(text, row)| (*text, *row, &[][..]));
            return self.score_together(&unknown.collect::<Vec<_>>(), &keep_going);
        }
        let score = |(completion, row): &(&str, Option<&PromptRow>)| {
            keep_going().then(|| self.score(completion, *row))
        };
        on_every_core(|| {
            completions
                .par_iter()
                .with_min_len(CHUNK)
                .map(score)
                .collect()
        })
    }

    /// As [`Self::score_while`], with the sampled tokens.
    pub fn score_sampled(
        &self,
        completions: &[Sampled<'_>],
        keep_going: impl Fn() -> bool + Sync,
    ) -> Option<Vec<Score>> {
        if self.runs_programs() {
            return self.score_together(completions, &keep_going);
        }
        let texts = completions.iter().map(|(text, row, _)| (*text, *row));
        self.score_while(&texts.collect::<Vec<_>>(), keep_going)
    }

    /// As [`Self::score_all`], on this thread unless a program is asked.
    fn score_chunk(&self, completions: &[(&str, Option<&PromptRow>)]) -> Vec<Score> {
        match self.runs_programs() {
            true => self.score_all(completions),
            false => {
                let score = |(completion, row): &(&str, _)| self.score(completion, *row);
                completions.iter().map(score).collect()
            }
        }
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
                .with_min_len(CHUNK)
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
    /// Adds a scored line to the output of its chunk.
    pub write: W,
}

/// Lines in one text.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: Vec<NumberedLine<Range<usize>>>,
}

impl Batch {
    /// Replaces the lines by the next ones.
    fn read(&mut self, append: &mut AppendLine<'_>) {
        self.text.clear();
        self.lines.clear();
        while self.lines.len() < BATCH && self.text.len() <= BATCH_BYTES {
            let start = self.text.len();
            let Some(line) = append(&mut self.text) else {
                break;
            };
            let line = line.map(|number| (number, start..self.text.len()));
            self.lines.push(line);
        }
    }
}

/// Appends a line to a text and returns its number, as [`crate::dataset::append_lines`] does.
pub type AppendLine<'l> = dyn FnMut(&mut Vec<u8>) -> Option<Result<usize, (usize, String)>> + 'l;

/// Scores lines in order, batch by batch; `done` gets the outputs of chunks in order.
pub fn score_stream<T, R: Default + Send, E: Send>(
    scorer: &Scorer,
    append: &mut AppendLine<'_>,
    work: &LineWork<
        T,
        impl Fn(NumberedLine<&[u8]>) -> Result<T, E> + Sync,
        impl Fn(&mut R, T, Score) -> Result<(), E> + Sync,
    >,
    mut done: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    // Programs are started for many completions together.
    let chunk_lines = match scorer.runs_programs() {
        true => BATCH,
        false => CHUNK,
    };
    let score_chunk = |text: &[u8], lines: &[NumberedLine<Range<usize>>]| {
        let (mut items, mut output, mut result) = (Vec::new(), R::default(), Ok(()));
        for line in lines {
            let line = line.clone().map(|(number, place)| (number, &text[place]));
            match (work.read)(line) {
                Ok(item) => items.push(item),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let scores = scorer.score_chunk(&items.iter().map(work.asked).collect::<Vec<_>>());
        let mut scored = items.into_iter().zip(scores);
        let written = scored.try_for_each(|(item, score)| (work.write)(&mut output, item, score));
        (output, written.and(result))
    };
    let mut batch = Batch::default();
    loop {
        batch.read(append);
        if batch.lines.is_empty() {
            return Ok(());
        }
        let score = || -> Vec<_> {
            let chunks = batch.lines.par_chunks(chunk_lines);
            chunks
                .map(|lines| score_chunk(&batch.text, lines))
                .collect()
        };
        for (output, result) in on_every_core(score) {
            done(output)?;
            result?;
        }
    }
}
