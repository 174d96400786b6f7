//! Scoring many completions: in order, with memory for one batch, on a pool of threads with every core, or with as many
//! as `RAYON_NUM_THREADS` allows.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Score, Scorer};
use crate::dataset::{NumberedLine, PromptRow};

/// Completions scored at once; enough to keep every core busy, few enough to hold.
const BATCH: usize = 4_096;
/// So many bytes of completions are a batch as well.
const BATCH_BYTES: usize = 256 << 20;

/// So few are scored by one thread before another one is woken: a score takes some ten microseconds.
const MAX_SERIAL_LINES: usize = 8;

/// The variable that programs with rayon obey.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// As deep a stack as the main thread's: schemas recurse.
const STACK_BYTES: usize = 8 << 20;

static USER_THREADS: OnceLock<OsString> = OnceLock::new();

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

/// Takes the variable out of this process, where candle would read it at every matmul; [`given_threads`] still has it.
///
/// # Safety
/// No other thread of the process may read or write the environment meanwhile.
pub unsafe fn take_threads_from_environment() {
    if let Some(threads) = std::env::var_os(VARIABLE) {
        let _ = USER_THREADS.set(threads);
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(VARIABLE) };
    }
}

/// The environment variable that gives a child the user's thread limit.
pub fn given_threads() -> Option<(&'static str, &'static OsStr)> {
    USER_THREADS
        .get()
        .map(|threads| (VARIABLE, threads.as_os_str()))
}

/// Runs `work` such that its parallel iterators use every core.
pub fn on_every_core<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let allowed = || {
        USER_THREADS
            .get()
            .and_then(|threads| threads.to_str()?.parse().ok())
            .unwrap_or(0)
    };
    let build = || {
        let pool = ThreadPoolBuilder::new()
            .num_threads(allowed())
            .stack_size(STACK_BYTES);
        pool.thread_name(|number| format!("score-{number}"))
            .build()
            .ok()
    };
    match POOL.get_or_init(build) {
        Some(pool) => pool.install(work),
        // No threads to be had: the caller's does it.
        None => work(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// In a process of its own, since the environment is one for all tests of this one.
    #[test]
    fn the_threads_of_the_user_are_taken_out_and_kept() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "--ignored",
            "--test-threads=1",
            "score::batch::tests::in_a_process_of_its_own",
        ]);
        let output = child.env(VARIABLE, "7").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }

    #[test]
    #[ignore = "run by the test above"]
    fn in_a_process_of_its_own() {
        // SAFETY: one test alone, on one thread.
        unsafe { take_threads_from_environment() };
        assert_eq!(std::env::var_os(VARIABLE), None);
        assert_eq!(given_threads(), Some((VARIABLE, "7".as_ref())));
    }
}
