//! Ranks before the loop: each loads the run itself, then all compare. Only rank 0 writes.

use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::recorder::Record;
use super::run_loop::{Ended, run_loop};
use super::setup::Setup;
use super::trainer::{Trainer, weights_norm};
use crate::kernels::adamw::norm;
use crate::kernels::device::Engine;
use crate::ranks::{RankError, Ranks};
use crate::run::{RunDirectory, RunFolders};

/// Rank 0's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) run: PathBuf,
    /// Step of the checkpoint to resume from.
    pub(super) resumed_from: Option<u64>,
    /// Whether the run recovered from a collapse.
    pub(super) has_recovered: bool,
}

/// A rank's reply after loading the model.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Loaded {
    config_digest: String,
    model_digest: String,
    step: u64,
    on_gpu: bool,
    /// Bits of the norms of weights and moments.
    norms: [u64; 2],
}

impl Loaded {
    fn new(trainer: &Trainer, model_digest: String) -> Result<Self, TrainError> {
        let parameters = trainer.policy.model.parameters();
        // Sharded moments differ between ranks.
        let moments = if parameters.shard().is_whole() {
            norm(trainer.optimizer.moments())?.to_bits()
        } else {
            0
        };
        Ok(Self {
            config_digest: trainer.config.digest(),
            model_digest,
            step: trainer.state.step,
            on_gpu: !trainer.policy.engine.device.is_cpu(),
            norms: [weights_norm(parameters)?, moments],
        })
    }
}

impl Loaded {
    /// The first difference from `rank_0`, with the remedy.
    fn difference(&self, rank_0: &Self) -> Option<String> {
        let device = |on_gpu| if on_gpu { "a GPU" } else { "the CPU" };
        Some(match () {
            () if self.config_digest != rank_0.config_digest => {
                "has another configuration than rank 0: check that all hosts see the same folder of the run".to_owned()
            }
            () if self.step != rank_0.step => format!(
                "has loaded the checkpoint of step {}, rank 0 that of step {}: check that all hosts see the same folder of the run",
                self.step, rank_0.step
            ),
            () if self.model_digest != rank_0.model_digest => {
                "has other files of the model than rank 0: give all hosts the same ones, at the same path".to_owned()
            }
            () if self.on_gpu != rank_0.on_gpu => format!(
                "computes on {}, rank 0 on {}: see `grpo-tui doctor` on its host, or compute with --cpu",
                device(self.on_gpu),
                device(rank_0.on_gpu)
            ),
            () if self.norms != rank_0.norms => {
                "has loaded other weights than rank 0: compare the model's files on the hosts".to_owned()
            }
            () => return None,
        })
    }
}

/// Loads the weights, compares ranks, joins them for sums, and trains.
///
/// # Errors
/// [`TrainError::RankLoaded`] on rank 0, naming a rank's difference; errors of loading and
/// training.
pub(super) fn load_and_train(
    run: &RunDirectory,
    setup: Setup,
    ranks: &Rc<Ranks>,
    has_recovered: bool,
    record: &mut Record<'_>,
) -> Result<Ended, TrainError> {
    let (model_digest, resumed_from) = (setup.start.digest.clone(), setup.resumed_from);
    let mut trainer = Trainer::load(run, setup, Rc::clone(ranks), has_recovered)?;
    if ranks.size() > 1 {
        let all = ranks.gather(Loaded::new(&trainer, model_digest)?)?;
        for (rank, other) in all.iter().enumerate() {
            if let Some(what) = other.difference(&all[0]) {
                return Err(TrainError::RankLoaded { rank, what });
            }
        }
    }
    ranks.join(&trainer.policy.engine.device)?;
    record.on_rank_0(|recorder| recorder.resume_alerts(resumed_from, &trainer))?;
    run_loop(&mut trainer, record, resumed_from)
}

/// Computes rank 0's run as another rank, until rank 0 ends.
///
/// # Errors
/// [`TrainError`]; already reported to rank 0.
pub fn follow(mut ranks: Ranks, engine: &Engine) -> Result<(), TrainError> {
    let ranks_per_host = ranks.rendezvous();
    let ranks = Rc::new(ranks);
    match ranks_per_host
        .map_err(TrainError::from)
        .and_then(|count| follow_run(&ranks, count, engine))
    {
        // Rank 0 is gone, or has cancelled the work.
        Err(TrainError::Rank(RankError::Lost { .. })) => Ok(()),
        Err(error) if error.interruption().is_some() => Ok(()),
        Err(error) => {
            ranks.fail(&error.to_string());
            Err(error)
        }
        Ok(()) => {
            ranks.wait_for_rank_0();
            Ok(())
        }
    }
}

fn follow_run(ranks: &Rc<Ranks>, ranks_per_host: usize, engine: &Engine) -> Result<(), TrainError> {
    let begin: Begin = ranks.receive()?;
    let unshared = |error: TrainError| TrainError::Unshared {
        error: error.to_string(),
    };
    let run = RunDirectory::open(&begin.run).map_err(|error| unshared(error.into()))?;
    run.check_private()?;
    let run_folders = RunFolders::discover(None, run.path());
    let mut setup = Setup::read(&run, &run_folders, engine, Some(ranks.size())).map_err(
        |error| match error {
            TrainError::OtherModel { .. } => unshared(error),
            error => error,
        },
    )?;
    if setup.resumed_from != begin.resumed_from {
        let (own, expected) = (setup.resumed_from, begin.resumed_from);
        return Err(TrainError::OtherCheckpoint { own, expected });
    }
    setup.share_processors(ranks_per_host)?;
    setup.threads = setup.threads.until(ranks.loss());
    let mut record = Record::new(None, engine);
    record.watch(setup.gpu.take());
    load_and_train(&run, setup, ranks, begin.has_recovered, &mut record).map(drop)
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
        check(
            Loaded {
                config_digest: "d".to_owned(),
                ..own()
            },
            "another configuration than rank 0",
        );
        check(
            Loaded {
                step: 2,
                norms: [3, 4],
                ..own()
            },
            "the checkpoint of step 2, rank 0 that of step 4",
        );
        check(
            Loaded {
                model_digest: "n".to_owned(),
                ..own()
            },
            "other files of the model",
        );
        check(
            Loaded {
                on_gpu: false,
                ..own()
            },
            "computes on the CPU, rank 0 on a GPU",
        );
        check(
            Loaded {
                norms: [1, 3],
                ..own()
            },
            "other weights than rank 0",
        );
    }
}
