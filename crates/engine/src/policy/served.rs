//! Conversations with a model that another process has loaded.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use candle_core::{Error, Result};

use super::sampler::Sampler;
use super::settings::{ConverseSettings, Conversed, Question};
use super::{PolicyVersion, Watcher, converse};
use crate::hub::ModelConfig;
use crate::rollout::{
    Arrivals, Completion, DecodeCounts, GpuFallback, QueuedRequest, Request, Sampling, SizedSource,
    ThreadPool,
};
use crate::text::Tokenizer;

/// Requests at once, each with a thread that waits; the server has a queue of its own for more rows than it decodes.
const MAX_REQUESTS: usize = 256;
/// How long completions are waited for before the source is asked for more.
const LOOK: Duration = Duration::from_millis(20);

/// A model that another process has loaded, which has tokens alone: rows are rendered and scored, and tools and agents run,
/// here.
pub struct ServedModel<'a> {
    pub tokenizer: Arc<Tokenizer>,
    pub config: ModelConfig,
    pub threads: ThreadPool,
    /// Samples the completions of a request; else a sentence.
    pub ask: &'a (dyn Fn(&Request) -> std::result::Result<Vec<Completion>, String> + Sync),
}

impl fmt::Debug for ServedModel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServedModel")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ServedModel<'_> {
    /// As [`super::Policy::converse`].
    ///
    /// # Errors
    /// The same, and those of [`ServedModel::ask`].
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<Conversed> {
        converse::converse(self, questions, settings, watcher)
    }
}

impl Sampler for ServedModel<'_> {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    fn threads(&self) -> &ThreadPool {
        &self.threads
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parts<'r>(&self, _: PolicyVersion, requests: &'r [Request]) -> Vec<&'r [Request]> {
        vec![requests]
    }

    fn is_paced(&self) -> bool {
        false
    }

    fn decode(
        &self,
        _: PolicyVersion,
        sources: &[SizedSource<'_>],
        _: &Sampling,
    ) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
        let [SizedSource { source, .. }] = sources else {
            return Ok(Default::default());
        };
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, answers) = channel();
        let (mut waiting, mut running) = (VecDeque::new(), 0);
        std::thread::scope(|scope| {
            loop {
                self.threads.check()?;
                let is_idle = running == 0 && waiting.is_empty();
                match source.arrivals(usize::MAX, is_idle) {
                    Arrivals::Closed if is_idle => return Ok(Default::default()),
                    Arrivals::Closed => {}
                    Arrivals::Requests(queued) => waiting.extend(queued),
                }
                let free = waiting.len().min(MAX_REQUESTS - running);
                running += free;
                for QueuedRequest { id, request, .. } in waiting.drain(..free) {
                    let sender = sender.clone();
                    // The receiver is gone where the work has failed.
                    scope.spawn(move || _ = sender.send((id, (self.ask)(&request))));
                }
                let Some((id, completions)) = (running > 0)
                    .then(|| answers.recv_timeout(LOOK).ok())
                    .flatten()
                else {
                    continue;
                };
                running -= 1;
                for (sample, completion) in (0..).zip(completions.map_err(Error::msg)?) {
                    let told =
                        completion.replay(|told| source.on_token(id, sample, told, Vec::new()));
                    source.on_end(id, sample, told);
                }
            }
        })
    }
}
