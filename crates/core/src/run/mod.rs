//! The run directory: the only interface between a worker and its viewers.

mod storage; // the folder: created, opened, locked, written atomically, measured, cleaned up
mod record; // events and rollouts: written, read, followed, folded into a state
mod evals; // answers of evals, their summaries and comparisons
mod checkpoints; // which there are, which are deleted, copies of them
mod process; // the worker's process: started, its state, whether it lives
mod control; // requests to a worker, and its answers
mod devices; // which run computes on which device; GPUs and their price
mod slurm; // runs as jobs of a Slurm cluster
mod search; // runs by a filter expression, texts in rollouts
mod listing; // runs found by reference, named, tagged, copied, removed
mod error; // why a run directory is refused
mod subprocess; // programs of the system that are asked for a short answer

pub use checkpoints::*;
pub use control::{
    AcceptedRequest, Answer, RequestOutcome, RequestQueue, SETTABLE, Sample, SampledCompletion, Settings, Stop, Verb,
    ask, settings, stop_worker,
};
pub use devices::*;
pub use error::{RunError, is_full_disk};
pub use evals::*;
pub use listing::*;
pub use process::*;
pub use record::*;
pub use search::*;
pub use slurm::{
    JobPhase, JobRequest, Partition, SLURM_FILE, SlurmJob, TO_BE_CONTINUED, ask_slurm, partitions, submit,
};
pub use storage::*;
