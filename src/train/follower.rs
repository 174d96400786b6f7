//! A rank other than 0: it loads the run as rank 0 does, then computes what it is asked until nobody asks any more. It
//! writes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::job::Job;
use super::ranked::{Question, Share, own_gradient, own_log_probs, own_sample, own_supervised};
use super::setup::Setup;
use crate::checkpoint::load_parameters;
use crate::kernels::cuda_errors::is_out_of_memory;
use crate::kernels::device::Engine;
use crate::model::Gradients;
use crate::ranks::{Follower, RankCount, RankError};
use crate::run::{RunDirectory, RunFolders, RunState};

/// What rank 0 says first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) run: PathBuf,
    pub(super) ranks: RankCount,
    /// Of the checkpoint that the run goes on from.
    pub(super) resumed_from: Option<u64>,
}

/// What a rank answers once it has loaded the model.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub(super) config_digest: String,
    pub(super) model_digest: String,
    pub(super) step: Option<u64>,
}

impl Loaded {
    pub(super) fn of(setup: &Setup) -> Self {
        let (config_digest, model_digest) = (setup.config.digest(), setup.start.digest.clone());
        Self { config_digest, model_digest, step: setup.resumed_from }
    }
}

/// Computes what rank 0 asks. Returns when rank 0 has ended.
///
/// # Errors
/// [`TrainError`]; rank 0 has been told.
pub fn follow(follower: &Follower, engine: &Engine) -> Result<(), TrainError> {
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

fn answer_all(follower: &Follower, engine: &Engine) -> Result<(), TrainError> {
    let Some(begin) = follower.question::<Begin>()? else { return Ok(()) };
    let run = RunDirectory::open(&begin.run)?;
    let places = RunFolders::discover(None, run.path());
    let mut setup = Setup::read(&run, &places, engine, Some(begin.ranks))?;
    setup.resumed_from = begin.resumed_from;
    setup.threads = setup.threads.until(follower.loss());
    let loaded = Loaded::of(&setup);
    let mut job = Job::load(&run, setup, engine, &RunState::read(run.path())?)?;
    follower.answer(&loaded)?;
    let mut gradients = None;
    while let Some(question) = follower.question::<Question<'_>>()? {
        match question {
            Question::Sample { adapters, requests, sampling } => {
                follower.answer(&own_sample(&job, adapters, &requests, &sampling)?)?
            }
            Question::Gradient { mut groups, totals, settings } => {
                let found = kept(&mut gradients, own_gradient(&job, &mut groups, totals, &settings));
                follower.answer(&share(found)?)?
            }
            Question::Supervised { examples, settings } => {
                let found = kept(&mut gradients, own_supervised(&job, &examples, settings));
                follower.answer(&share(found)?)?
            }
            Question::LogProbs { groups, settings } => {
                follower.answer(&share(own_log_probs(&job, &groups, &settings))?)?
            }
            Question::Update { learning_rate } => {
                let own = match gradients.take() {
                    Some(own) => own,
                    None => Gradients::zeros(job.model.parameters())?,
                };
                let summed = Gradients::of(follower.sum(own.flat())?);
                job.optimizer.set_learning_rate(learning_rate);
                follower.answer(&job.optimizer.apply(job.model.parameters(), &summed)?)?
            }
            Question::Remember { step, completions } => {
                let kept = job.config.keep_rollouts;
                job.rollouts.history.add(step, completions.iter().map(|completion| &**completion), kept);
            }
            Question::Load { folder } => load_parameters(&folder, job.model.parameters())?,
        }
    }
    Ok(())
}

/// Keeps a gradient, and passes on what was found with it.
fn kept<G, T>(gradients: &mut Option<G>, found: candle_core::Result<(G, T)>) -> candle_core::Result<T> {
    let (own, found) = found?;
    *gradients = Some(own);
    Ok(found)
}

fn share<T>(found: candle_core::Result<T>) -> candle_core::Result<Share<T>> {
    match found {
        Ok(found) => Ok(Share::Done(found)),
        Err(error) if is_out_of_memory(&error) => Ok(Share::OutOfMemory),
        Err(error) => Err(error),
    }
}
