//! A rank other than 0: it loads the run as rank 0 does, then carries out commands until rank 0 has ended. It
//! writes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::device_monitor::{self, DeviceMonitor};
use super::job::Job;
use super::memory_probe::own_probe;
use super::oom_retry::memory_point;
use super::rank_work::{LatestReading, timed};
use super::ranked::{
    Command, Share, own_gradient, own_log_probs, own_sample, own_supervised, timed_update, weights_norm,
};
use super::setup::Setup;
use super::sharded::own_bytes;
use crate::checkpoint::load_parameters;
use crate::files::failpoint;
use crate::kernels::adamw::norm;
use crate::kernels::cuda_errors::is_out_of_memory;
use crate::kernels::device::Engine;
use crate::ranks::{Follower, RankError};
use crate::run::{RunDirectory, RunFolders, RunState};

/// What rank 0 says first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) run: PathBuf,
    pub(super) ranks: usize,
    /// Those that share this one's processors.
    pub(super) ranks_per_host: usize,
    /// The step of the checkpoint that the run resumes from.
    pub(super) resumed_from: Option<u64>,
}

/// What a rank answers once it has loaded the model.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub(super) config_digest: String,
    pub(super) model_digest: String,
    pub(super) step: u64,
    on_gpu: bool,
    /// The bits of the norms of weights and moments.
    norms: [u64; 2],
}

impl Loaded {
    pub(super) fn of(job: &Job, model_digest: String) -> Result<Self, TrainError> {
        let parameters = job.model.parameters();
        // Of moments that are divided, each rank has others.
        let moments = if parameters.shard().is_whole() { norm(job.optimizer.moments())?.to_bits() } else { 0 };
        let norms = [weights_norm(parameters)?, moments];
        let on_gpu = !job.engine.device.is_cpu();
        Ok(Self { config_digest: job.config.digest(), model_digest, step: job.state.step, on_gpu, norms })
    }
}

impl Loaded {
    /// What a rank has that rank 0, `own`, has not, with the remedy.
    pub(super) fn difference(&self, own: &Self) -> Option<String> {
        let device = |on_gpu| if on_gpu { "a GPU" } else { "the CPU" };
        Some(match () {
            () if self.config_digest != own.config_digest => {
                "has another configuration than rank 0: check that all hosts see the same folder of the run".to_owned()
            }
            () if self.step != own.step => format!(
                "has loaded the checkpoint of step {}, rank 0 that of step {}: check that all hosts see the same folder of the run",
                self.step, own.step
            ),
            () if self.model_digest != own.model_digest => {
                "has other files of the model than rank 0: give all hosts the same ones, at the same path".to_owned()
            }
            () if self.on_gpu != own.on_gpu => format!(
                "computes on {}, rank 0 on {}: see `grpo-tui doctor` on its host, or compute with --cpu",
                device(self.on_gpu),
                device(own.on_gpu)
            ),
            () if self.norms != own.norms => {
                "has loaded other weights than rank 0: compare the model's files on the hosts".to_owned()
            }
            () => return None,
        })
    }
}

/// Carries out what rank 0 commands. Returns when rank 0 has ended.
///
/// # Errors
/// [`TrainError`]; rank 0 has been told.
pub fn follow(follower: &mut Follower, engine: &Engine) -> Result<(), TrainError> {
    let followed = answer_all(follower, engine);
    match followed {
        // Rank 0 is gone, or has cancelled the work.
        Err(TrainError::Rank(RankError::Lost { .. })) => Ok(()),
        Err(error) if error.interruption().is_some() => Ok(()),
        Err(error) => {
            follower.fail(&error.to_string());
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn answer_all(follower: &mut Follower, engine: &Engine) -> Result<(), TrainError> {
    let Some(begin) = follower.receive::<Begin>()? else { return Ok(()) };
    let unshared = |error: TrainError| TrainError::Unshared { error: error.to_string() };
    let run = RunDirectory::open(&begin.run).map_err(|error| unshared(error.into()))?;
    run.check_private()?;
    let run_folders = RunFolders::discover(None, run.path());
    let mut setup = Setup::read(&run, &run_folders, engine, Some(begin.ranks)).map_err(|error| match error {
        TrainError::OtherModel { .. } => unshared(error),
        error => error,
    })?;
    if setup.resumed_from != begin.resumed_from {
        let (own, expected) = (setup.resumed_from, begin.resumed_from);
        return Err(TrainError::OtherCheckpoint { own, expected });
    }
    setup.divide(begin.ranks_per_host)?;
    setup.threads = setup.threads.until(follower.loss());
    let reading = LatestReading::unknown(engine);
    let _monitor = setup.gpu.take().map(|gpu| {
        let reading = reading.clone();
        DeviceMonitor::start(device_monitor::EVERY, move || gpu.condition(), move |now| reading.set(now))
    });
    let model_digest = setup.start.digest.clone();
    let mut job = Job::load(&run, setup, engine, &RunState::read(run.path())?, follower.rank())?;
    follower.reply(&Loaded::of(&job, model_digest)?)?;
    follower.join(&engine.device, begin.ranks)?;
    let mut gradients = None;
    while let Some(command) = follower.receive::<Command<'_>>()? {
        match command {
            Command::Sample { adapters, requests, sampling } => {
                let (found, seconds) = timed(|| own_sample(&job, adapters, &requests, &sampling));
                follower.reply(&(seconds, found?))?
            }
            Command::Gradient { mut groups, totals, settings } => {
                let compute = || {
                    memory_point(follower.rank())?;
                    own_gradient(&job, &mut groups, totals, &settings)
                };
                follower.reply(&share(&job, || store(&mut gradients, compute))?)?
            }
            Command::Supervised { examples, settings } => {
                let compute = || own_supervised(&job, &examples, settings);
                follower.reply(&share(&job, || store(&mut gradients, compute))?)?
            }
            Command::LogProbs { groups, settings } => {
                follower.reply(&share(&job, || own_log_probs(&job, &groups, &settings))?)?
            }
            Command::Probe { settings } => follower.reply(&share(&job, || own_probe(&job, settings))?)?,
            Command::Update { learning_rate, total_steps } => {
                let Some(own) = gradients.take() else { return Err(TrainError::NoGradient) };
                (job.config.learning_rate, job.total_steps) = (learning_rate, total_steps);
                job.optimizer.set(job.optimizer_settings());
                let updated = timed_update(&job.model, &mut job.optimizer, follower, &own, &reading)?.1;
                follower.reply(&updated)?
            }
            Command::Numbers { which, range } => {
                failpoint("checkpoint.numbers", &follower.rank().to_string());
                follower.reply_bytes(&own_bytes(&job, which, range)?)?
            }
            Command::Remember { step, completions } => {
                let kept = job.config.keep_rollouts;
                job.rollouts.history.add(step, completions.iter().map(|completion| &**completion), kept);
            }
            Command::Load { folder } => load_parameters(&folder, job.model.parameters())?,
        }
    }
    Ok(())
}

/// Stores the gradient of `compute` in place of one that was not used, and returns what was found with it.
fn store<G, T>(
    gradients: &mut Option<G>,
    compute: impl FnOnce() -> candle_core::Result<(G, T)>,
) -> candle_core::Result<T> {
    *gradients = None;
    let (own, found) = compute()?;
    *gradients = Some(own);
    Ok(found)
}

/// What `compute` finds, with its seconds.
fn share<T>(job: &Job, compute: impl FnOnce() -> candle_core::Result<T>) -> candle_core::Result<(f64, Share<T>)> {
    let (found, seconds) = timed(compute);
    let found = match found {
        Ok(found) => Share::Done(found),
        Err(error) if is_out_of_memory(&error) => {
            // For the next attempt; if it fails, that one does.
            let _ = job.engine.trim_memory();
            Share::OutOfMemory
        }
        Err(error) => return Err(error),
    };
    Ok((seconds, found))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rank_has_loaded_differently_is_named() {
        let own = || Loaded {
            config_digest: "c".to_owned(),
            model_digest: "m".to_owned(),
            step: 4,
            on_gpu: true,
            norms: [1, 2],
        };
        let check = |other: Loaded, expected: &str| {
            let found = other.difference(&own()).unwrap();
            assert!(found.contains(expected) && found.contains(": "), "{found}");
        };
        assert_eq!(own().difference(&own()), None);
        check(Loaded { config_digest: "d".to_owned(), ..own() }, "another configuration than rank 0");
        check(Loaded { step: 2, norms: [3, 4], ..own() }, "the checkpoint of step 2, rank 0 that of step 4");
        check(Loaded { model_digest: "n".to_owned(), ..own() }, "other files of the model");
        check(Loaded { on_gpu: false, ..own() }, "computes on the CPU, rank 0 on a GPU");
        check(Loaded { norms: [1, 3], ..own() }, "other weights than rank 0");
    }
}
