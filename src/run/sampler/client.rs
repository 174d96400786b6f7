//! Asking for completions without knowing who has the model: a live run's worker, a sample worker that is there, or one
//! that is started for it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::SampledCompletion;
use super::backend::{SampleBackend, SamplerFile};
use crate::run::control::{RequestOutcome, Sample, Verb, ask};
use crate::run::error::RunError;
use crate::run::launch::{Launch, launch_in};
use crate::run::liveness::Liveness;
use crate::run::lookup::RunFolders;

#[derive(Debug, Clone, PartialEq)]
pub struct SamplingRequest {
    /// M: a model's or an adapter's folder, a Hugging Face name, `tiny`, RUN, RUN@best, RUN@last or RUN@STEP. RUN and
    /// RUN@last of a live run are the weights that it has now.
    pub model: String,
    /// Of which prompt, and how sampled.
    pub sample: Sample,
}

/// What came of it, besides the completions.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub backend: SampleBackend,
    /// Whether all completions came; else the time was up, and `text` says what was promised.
    pub done: bool,
    pub text: String,
}

/// How often a worker that gave its device away, or died, is replaced before the question is given up.
const MOST_WORKERS: usize = 3;

/// How long a worker may take from its end event to its exit.
const LEAVING: Duration = Duration::from_secs(5);

/// Ask for completions; each is given to `on_completion` when it comes. Blocks for up to `longest`, so it belongs on a thread
/// of its own. `on_backend` is told who will answer before they are asked, again where another one must be: how they fare
/// meanwhile (loading, waiting for their device, computing a step) is in the `state.json` of [`SampleBackend::folder`].
/// Where a worker must be started, `how` says on what it computes.
///
/// # Errors
/// [`RunError::Model`] and others where there is no such model, [`RunError::Launch`] with the worker's own reason,
/// [`RunError::Refused`] with the answerer's words, [`RunError::NoAnswer`].
pub fn sample(
    request: &SamplingRequest,
    places: &RunFolders,
    how: &Launch,
    longest: Duration,
    on_backend: &mut dyn FnMut(&SampleBackend),
    on_completion: &mut dyn FnMut(SampledCompletion),
) -> Result<Sampling, RunError> {
    let deadline = Instant::now() + longest;
    let verb = Verb::Sample(request.sample.clone());
    let mut workers = 0;
    loop {
        let backend = SampleBackend::of(&request.model, places)?;
        on_backend(&backend);
        if let SampleBackend::Worker { folder, model } = &backend {
            start(folder, model, how)?;
        }
        workers += 1;
        let mut parts = 0;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answered = ask(backend.folder(), &verb, left, &mut |part| {
            // A part of a newer worker may hold more; one that is no completion is none of ours.
            if let Ok(completion) = serde_json::from_value(part) {
                parts += 1;
                on_completion(completion);
            }
        });
        match answered {
            // It has gone between two looks, or before it came to this: for its device's sake, or because it was idle.
            // The next one hears the same.
            Err(RunError::NoWorker { .. } | RunError::NoAnswer { .. }) if parts == 0 && workers < MOST_WORKERS => {}
            Err(RunError::Refused { .. }) if parts == 0 && workers < MOST_WORKERS && may_run(backend.folder()) => {}
            outcome => return outcome.map(|RequestOutcome { text, done, .. }| Sampling { backend, done, text }),
        }
    }
}

/// See to it that a worker is there. Of two that are started at once, the one that comes second finds the folder taken,
/// which is as good.
fn start(folder: &Path, model: &str, how: &Launch) -> Result<(), RunError> {
    // One that has recorded its end exits in an instant.
    let deadline = Instant::now() + LEAVING;
    while Liveness::of(folder).may_live() {
        if !may_run(folder) || Instant::now() >= deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    SamplerFile::write(folder, model)?;
    match launch_in(folder, "--sampler", how) {
        Err(error @ RunError::Launch { .. }) => {
            if Liveness::of(folder).may_live() {
                Ok(())
            } else {
                Err(error)
            }
        }
        outcome => outcome.map(drop),
    }
}

/// Whether a worker has recorded its end, or is about to fall silent.
fn may_run(folder: &Path) -> bool {
    crate::run::worker_state::State::observe(folder).is_none_or(|state| state.status.is_ended())
}
