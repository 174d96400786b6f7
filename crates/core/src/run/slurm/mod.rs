//! Runs that compute in a job of a Slurm cluster: the job's script, its submission, what Slurm says of it, its end.

mod ask;
mod commands;
pub(in crate::run) mod job;
mod partitions;
mod request;
mod submit;

pub use ask::ask_slurm;
pub(super) use ask::{cancel_job, check_no_job, enter_job};
pub use job::{JobPhase, SLURM_FILE, SlurmJob};
pub use partitions::{Partition, partitions};
pub use request::{JobRequest, TO_BE_CONTINUED};
pub use submit::submit;
