//! Requests completions from whichever worker has the model, starting one if needed.

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
    /// A folder of a model or adapter, a Hugging Face name, `tiny`, RUN, RUN@best, RUN@last or RUN@STEP. RUN and
    /// RUN@last of an active run mean its current weights.
    pub model: String,
    pub sample: Sample,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub backend: SampleBackend,
    /// Whether all completions arrived in time; else `text` says what was accepted.
    pub done: bool,
    pub text: String,
}

/// How many workers are tried if one exits or dies.
const MAX_WORKERS: usize = 3;

/// How long a worker may take from its end event to its exit.
const LEAVING: Duration = Duration::from_secs(5);

/// Requests completions; `on_completion` gets each as it arrives. Blocks for up to `longest`. `on_backend` gets the
/// worker before it is asked, and again if another one must be; its state (loading, waiting for a device, computing) is
/// in [`SampleBackend::folder`]. `how` is for a worker that must be started.
///
/// # Errors
/// [`RunError::Model`] and others if there is no such model, [`RunError::Launch`] and [`RunError::Refused`] with the
/// worker's reason, [`RunError::NoAnswer`].
pub fn sample(
    request: &SamplingRequest,
    run_folders: &RunFolders,
    how: &Launch,
    longest: Duration,
    on_backend: &mut dyn FnMut(&SampleBackend),
    on_completion: &mut dyn FnMut(SampledCompletion),
) -> Result<Sampling, RunError> {
    let deadline = Instant::now() + longest;
    let verb = Verb::Sample(request.sample.clone());
    let mut workers = 0;
    loop {
        let backend = SampleBackend::of(&request.model, run_folders)?;
        on_backend(&backend);
        if let SampleBackend::Worker { folder, model } = &backend {
            start(folder, model, how)?;
        }
        workers += 1;
        let mut parts = 0;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answered = ask(backend.folder(), &verb, left, &mut |part| {
            // A newer worker may send other parts.
            if let Ok(completion) = serde_json::from_value(part) {
                parts += 1;
                on_completion(completion);
            }
        });
        match answered {
            // The worker exited meanwhile, because its device was wanted or it was idle: the next one is asked.
            Err(RunError::NoWorker { .. } | RunError::NoAnswer { .. }) if parts == 0 && workers < MAX_WORKERS => {}
            Err(RunError::Refused { .. }) if parts == 0 && workers < MAX_WORKERS && has_ended(backend.folder()) => {}
            outcome => return outcome.map(|RequestOutcome { text, done, .. }| Sampling { backend, done, text }),
        }
    }
}

/// Starts a worker unless there is one. If two are started at once, the second finds the folder locked, which is fine.
fn start(folder: &Path, model: &str, how: &Launch) -> Result<(), RunError> {
    // A worker that has recorded its end is about to exit.
    let deadline = Instant::now() + LEAVING;
    while Liveness::for_run(folder).may_live() {
        if !has_ended(folder) || Instant::now() >= deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    SamplerFile::write(folder, model)?;
    match launch_in(folder, "--sampler", how) {
        Err(error @ RunError::Launch { .. }) => {
            if Liveness::for_run(folder).may_live() {
                Ok(())
            } else {
                Err(error)
            }
        }
        outcome => outcome.map(drop),
    }
}

/// Whether a worker has recorded its end.
fn has_ended(folder: &Path) -> bool {
    crate::run::worker_state::State::observe(folder).is_none_or(|state| state.status.is_ended())
}
