//! A rank other than 0: it loads the run as rank 0 does, then carries out commands until rank 0 has ended. It
//! writes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::job::Job;
use super::ranked::{
    Command, Share, own_gradient, own_log_probs, own_sample, own_supervised, own_update, weights_norm,
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
    pub(super) sharing: usize,
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
    let run = RunDirectory::open(&begin.run)?;
    run.check_private()?;
    let places = RunFolders::discover(None, run.path());
    let mut setup = Setup::read(&run, &places, engine, Some(begin.ranks))?;
    if setup.resumed_from != begin.resumed_from {
        let (own, expected) = (setup.resumed_from, begin.resumed_from);
        return Err(TrainError::OtherCheckpoint { own, expected });
    }
    setup.divide(begin.sharing)?;
    setup.threads = setup.threads.until(follower.loss());
    let model_digest = setup.start.digest.clone();
    let mut job = Job::load(&run, setup, engine, &RunState::read(run.path())?, follower.rank())?;
    follower.reply(&Loaded::of(&job, model_digest)?)?;
    follower.join(&engine.device, begin.ranks)?;
    let mut gradients = None;
    while let Some(command) = follower.receive::<Command<'_>>()? {
        match command {
            Command::Sample { adapters, requests, sampling } => {
                follower.reply(&own_sample(&job, adapters, &requests, &sampling)?)?
            }
            Command::Gradient { mut groups, totals, settings } => {
                let found = store(&mut gradients, || own_gradient(&job, &mut groups, totals, &settings));
                follower.reply(&share(&job, found)?)?
            }
            Command::Supervised { examples, settings } => {
                let found = store(&mut gradients, || own_supervised(&job, &examples, settings));
                follower.reply(&share(&job, found)?)?
            }
            Command::LogProbs { groups, settings } => {
                follower.reply(&share(&job, own_log_probs(&job, &groups, &settings))?)?
            }
            Command::Update { learning_rate } => {
                let Some(own) = gradients.take() else { return Err(TrainError::NoGradient) };
                job.optimizer.set_learning_rate(learning_rate);
                follower.reply(&own_update(&job.model, &mut job.optimizer, follower, &own)?.1)?
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

fn share<T>(job: &Job, found: candle_core::Result<T>) -> candle_core::Result<Share<T>> {
    match found {
        Ok(found) => Ok(Share::Done(found)),
        Err(error) if is_out_of_memory(&error) => {
            // For the next attempt; if it fails, that one does.
            let _ = job.engine.trim_memory();
            Ok(Share::OutOfMemory)
        }
        Err(error) => Err(error),
    }
}
