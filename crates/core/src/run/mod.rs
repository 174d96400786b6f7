//! The run directory: the only interface between a worker and its viewers.

mod clock; // the time of what is recorded
mod error; // why a run directory is refused
mod storage; // the folder: created, opened, locked, written atomically, named
mod evals; // answers of evals, their summaries and comparisons
mod prove_record; // a server compared with the run
mod checkpoints; // which there are, which are deleted
mod record; // events and rollouts: written, read, followed, folded into a state
mod devices; // which run computes on which device; GPUs and their price
mod process; // the worker's process: started, its state, its disk, whether it lives
mod control; // requests to a worker, and its answers
mod slurm; // runs as jobs of a Slurm cluster
mod query; // runs by a filter expression
mod check; // what is damaged in a run's folder
mod listing; // runs found by reference, tagged, copied, removed

pub use check::{
    Damage, RunCheck, check_run, eval_damage, missing_groups, recorded_groups, rollout_steps,
};
pub use checkpoints::*;
pub use clock::now_ms;
pub use control::{
    AcceptedRequest, Answer, RequestOutcome, RequestQueue, SETTABLE, Sample, SampledCompletion,
    Settings, Stop, Verb, ask, settings, stop_worker,
};
pub use devices::*;
pub use error::{RunError, is_full_disk};
pub use evals::*;
pub use listing::*;
pub use process::*;
pub use prove_record::*;
pub use query::{Comparison as QueryComparison, Field, Query};
pub use record::*;
pub use slurm::{
    JobPhase, JobRequest, Partition, SLURM_FILE, SlurmJob, TO_BE_CONTINUED, ask_slurm, partitions,
    submit,
};
pub use storage::*;
