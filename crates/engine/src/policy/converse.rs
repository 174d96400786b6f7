//! Prompts are answered, turn by turn where a row has several: each conversation goes on as soon as its answer is there,
//! while others are decoded.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Instant;

use candle_core::Result;

use super::conversing::{ConverseSettings, Conversed, Conversing, Question};
use super::sampler::Sampler;
use super::tool_loop::MAX_TOOL_THREADS;
use super::turn_source::TurnSource;
use super::{Policy, Watcher};
use crate::rollout::{Request, SizedSource};

impl Policy {
    /// Answers each question, and scores what it answers. `watcher` learns of conversations as they end.
    ///
    /// # Errors
    /// A failed tensor operation, cancelled work, and texts that the template or the tokenizer does not take.
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<Conversed> {
        converse(self, questions, settings, watcher)
    }
}

/// As [`Policy::converse`], with what `sampler` samples.
pub(super) fn converse(
    sampler: &dyn Sampler,
    questions: &[Question<'_>],
    settings: &ConverseSettings<'_>,
    mut watcher: Option<&mut dyn Watcher>,
) -> Result<Conversed> {
    let start = Instant::now();
    let requests: Vec<Request> = questions
        .iter()
        .map(|question| question.request.clone())
        .collect();
    let parts = sampler.parts(settings.version, &requests);
    let shared = &Conversing::new(
        sampler,
        questions,
        settings,
        parts.iter().map(|part| part.len()),
    )?;
    let ((sender, ended), (caller, calling), (starter, starting)) =
        (channel(), channel(), channel());
    let kept = watcher.as_ref().and_then(|watcher| watcher.kept());
    let (mut sources, mut first, mut known) = (Vec::with_capacity(parts.len()), 0, 0);
    for (part, mailbox) in parts.into_iter().zip(&shared.mailboxes) {
        let own = first..first + part.len();
        first = own.end;
        let are_followed = own.clone().any(|question| shared.is_followed(question));
        let kept = kept
            .clone()
            .filter(|kept| kept.serves(part.iter(), are_followed));
        let of_request =
            |request: &Request| kept.as_ref()?.completions(request).map(|found| found.len());
        known += part.iter().filter_map(of_request).sum::<usize>();
        let sizes = own
            .clone()
            .flat_map(|question| shared.sizes(question))
            .collect();
        let source = TurnSource::new(
            shared,
            (own, &**mailbox),
            kept,
            ([&sender, &caller], &starter),
            sampler.is_paced(),
        );
        sources.push((source, sizes));
    }
    drop((caller, starter));
    let tool_threads = shared.conversations_with_tools().min(MAX_TOOL_THREADS);
    let senders = vec![sender.clone(); tool_threads];
    let agent_senders = vec![sender; shared.agent_threads()];
    if let Some(watcher) = &mut watcher {
        watcher.begin(requests.iter().map(|request| request.samples).sum(), known);
    }
    let is_attended = watcher.is_some() || shared.needs_scores();
    let decode = move || {
        let before = Instant::now();
        let sized: Vec<_> = sources
            .iter_mut()
            .map(|(source, sizes)| SizedSource::new(source, std::mem::take(sizes)))
            .collect();
        let decoded = sampler.decode(settings.version, &sized, settings.sampling);
        shared
            .has_failed
            .fetch_or(decoded.is_err(), Ordering::Relaxed);
        // No more answers come.
        drop(sized);
        drop(sources);
        decoded.map(|decoded| (decoded, before.elapsed().as_secs_f64()))
    };
    let (calling, starting) = (Mutex::new(calling), Mutex::new(starting));
    let decoded = match is_attended {
        true => std::thread::scope(|scope| {
            let (calling, starting) = (&calling, &starting);
            for sender in senders {
                let kept = kept.as_deref();
                scope.spawn(move || shared.call_tools(calling, &sender, kept));
            }
            for sender in agent_senders {
                scope.spawn(move || shared.run_agents(starting, &sender));
            }
            let attended = scope.spawn(|| shared.attend(ended, kept.as_deref(), watcher));
            let decoded = decode();
            // A panic of a thread continues in this one.
            attended
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            decoded
        }),
        false => {
            let decoded = decode();
            ended
                .try_iter()
                .try_for_each(|ended| shared.record(ended))?;
            decoded
        }
    };
    if let Some(error) = shared.failure() {
        return Err(error);
    }
    let ((counts, gpu_fallbacks), rollout_seconds) = decoded?;
    let conversations = shared.conversations()?;
    let score_seconds = start.elapsed().as_secs_f64() - rollout_seconds;
    Ok(Conversed {
        conversations,
        counts,
        gpu_fallbacks,
        rollout_seconds,
        score_seconds,
    })
}
